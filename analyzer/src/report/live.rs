//! The pages of a running `retake serve`: the history, a run, a trace, and a box for SQL.
//!
//! They are the report's own sections under another head: links lead to further pages, and a second
//! script asks for the page again while something is being recorded. Everything works without it.

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use maud::{Markup, PreEscaped, html};
use retake_schemas::tables::RunRow;
use sha2::{Digest as _, Sha256};

use super::details::{self, Extent, Known};
use super::facts::Facts;
use super::page::{self, SCRIPT};
use super::palette::Palette;
use super::units::{self, count, duration, plural};
use super::{header, text, waterfall};
use crate::model::{BreakdownRow, ReportData, TraceDetail};
use crate::session::QueryResult;

/// The history: every run, the youngest first.
#[must_use]
pub fn runs(rows: &[RunRow]) -> String {
    let recording = rows.iter().filter(|run| run.status == "recording").count() as u64;
    let shown = rows.iter().rev().take(RUNS_MAX);
    document(
        "Runs",
        &[],
        html! {
            header class="masthead" { h1 { "Runs" } }
            p class="hint" {
                (plural(rows.len() as u64, "run"))
                @if recording > 0 { ", " (count(recording)) " being recorded now" }
                ". Choose two to compare."
            }
            @if rows.is_empty() {
                p class="lede" {
                    "Nothing is recorded yet. Send OpenTelemetry to this address, or start a program with "
                    span class="mono" { "retake record -- \u{2026}" } "."
                }
            } @else {
                form action="/compare" method="get" {
                    div class="scroll" role="region" aria-label="Runs" tabindex="0" {
                        table class="history" {
                            thead { tr {
                                th scope="col" { "Run" }
                                th scope="col" { "Status" }
                                th scope="col" { "Started, UTC" }
                                th scope="col" { "Service" }
                                th scope="col" class="num" { "Duration" }
                                th scope="col" class="num" { "Traces" }
                                th scope="col" class="num" { "Spans" }
                                th scope="col" { "Commit" }
                                th scope="col" { "Replay of" }
                                th scope="col" class="num" title="The run compared with" { "Base" }
                                th scope="col" class="num" title="The run under question" { "Candidate" }
                            } }
                            tbody { @for run in shown { (run_row(run)) } }
                        }
                    }
                    p { button type="submit" { "Compare" } }
                }
                @if rows.len() > RUNS_MAX {
                    p class="hint" {
                        "The youngest " (count(RUNS_MAX as u64)) "; all of them in "
                        span class="mono" { "retake runs" } " and in SQL."
                    }
                }
            }
        },
    )
}

fn run_row(run: &RunRow) -> Markup {
    let name = if run.name.trim().is_empty() { &run.run_id } else { &run.name };
    html! {
        tr {
            th scope="row" {
                @match run_path(&run.run_id) {
                    Some(path) => a href=(path) { bdi { (text::label_or_unnamed(name)) } },
                    None => bdi { (text::label_or_unnamed(name)) },
                }
                span class="note mono" { (text::label(&run.run_id)) }
            }
            td { (header::status(&run.status)) }
            td class="nowrap" { (units::utc(run.started_unix_ns)) }
            td { bdi { (text::label(&run.service)) } }
            td class="num" { (duration(run.duration_ns)) }
            td class="num" { (units::count_or_absent(run.traces)) }
            td class="num" { (units::signed_count(run.spans)) }
            td class="mono" { (text::id_start(run.git_sha.as_deref().unwrap_or_default(), SHA_CHARS)) }
            td class="mono dim" {
                @if let Some(source) = &run.replay_of {
                    @match run_path(source) {
                        Some(path) => a href=(path) { (text::id_start(source, RUN_CHARS)) },
                        None => (text::id_start(source, RUN_CHARS)),
                    }
                }
            }
            @for name in ["base", "candidate"] {
                td class="num" {
                    @if is_id(&run.run_id) {
                        input type="radio" name=(name) value=(run.run_id)
                            aria-label={ "Use as " (name) };
                    }
                }
            }
        }
    }
}

/// The report on a run, with links to its traces.
#[must_use]
pub fn run(data: &ReportData) -> String {
    let name = if data.run.name.trim().is_empty() { &data.run.run_id } else { &data.run.name };
    let mut facts = Facts::new(data);
    facts.is_live = true;
    let trail = [Step { title: text::label_or_unnamed(name), path: run_path(&data.run.run_id) }];
    document(&text::label_or_unnamed(name), &trail, page::content(&facts))
}

/// One trace, span by span.
#[must_use]
pub fn trace(detail: &TraceDetail, stages: &[BreakdownRow]) -> String {
    let palette = Palette::new(stages);
    let root = detail.tree.nodes.first().map_or("", |node| node.span.name.as_str());
    let run = &detail.run;
    let run_name = if run.name.trim().is_empty() { &run.run_id } else { &run.name };
    let title = text::label_or_unnamed(root);
    let trail = [
        Step { title: text::label_or_unnamed(run_name), path: run_path(&run.run_id) },
        Step { title: title.clone(), path: None },
    ];
    let known = Known { texts: &detail.texts, documents: &detail.documents };
    let mut bytes_left = DETAILS_BYTES_MAX;
    document(
        &title,
        &trail,
        html! {
            header class="masthead" {
                h1 { bdi { (title) } }
                dl class="facts" {
                    (header::fact("Duration", html! { (duration(detail.tree.duration_ns)) }))
                    (header::fact("Spans", html! { (count(detail.tree.nodes.len() as u64)) }))
                    (header::fact("Started", html! { (units::utc(detail.tree.start_unix_ns)) " UTC" }))
                    (header::fact("Trace", html! { span class="mono" { (text::label(&detail.tree.trace_id)) } }))
                }
            }
            section aria-label="Waterfall" {
                (waterfall::legend(&palette, stages))
                (waterfall::single(&palette, &detail.tree))
            }
            section aria-labelledby="spans-h" {
                h2 id="spans-h" { "Spans" }
                @if detail.texts.is_empty() {
                    p class="hint" {
                        "Texts were not kept; " span class="mono" { "--capture full" } " keeps them."
                    }
                }
                (details::spans(&palette, &detail.tree, known, Extent::Everything, &mut bytes_left))
            }
        },
    )
}

/// The box for SQL, with what came out of it.
#[must_use]
pub fn sql(
    query: &str,
    answer: Option<Result<(QueryResult, std::time::Duration), String>>,
) -> String {
    let trail = [Step { title: "SQL".to_owned(), path: None }];
    document(
        "SQL",
        &trail,
        html! {
            header class="masthead" { h1 { "SQL over all runs" } }
            form class="ask" action="/sql" method="get" {
                textarea name="q" rows="6" aria-label="Query" spellcheck="false" { (text::block(query)) }
                p { button type="submit" { "Run" } }
            }
            @if let Some(answer) = answer {
                @match answer {
                    Ok((result, took)) => { (rows(&result, took)) }
                    Err(message) => {
                        div class="notice loud" role="alert" { pre { code { (text::block(&message)) } } }
                    }
                }
            }
            section aria-labelledby="examples-h" {
                h2 id="examples-h" { "To begin with" }
                ul {
                    @for (title, example) in EXAMPLES {
                        li { a href={ "/sql?q=" (encoded(example)) } { (title) } " " code class="mono dim" { (example) } }
                    }
                }
            }
        },
    )
}

fn rows(result: &QueryResult, took: std::time::Duration) -> Markup {
    let total = result.num_rows();
    let took = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
    let is_number = |at: usize| result.schema.field(at).data_type().is_numeric().then_some("num");
    html! {
        p class="hint" { (plural(total as u64, "row")) " in " (duration(took)) "." }
        div class="scroll" role="region" aria-label="Result" tabindex="0" {
            table class="plain answer" {
                thead { tr {
                    @for (at, field) in result.schema.fields().iter().enumerate() {
                        th scope="col" class=[is_number(at)] { bdi { (text::label(field.name())) } }
                    }
                } }
                tbody {
                    @for cells in result.batches.iter().flat_map(cells_of).take(ROWS_MAX) {
                        tr {
                            @for (at, cell) in cells.iter().enumerate() {
                                td class=[is_number(at)] { bdi { (text::message(cell)) } }
                            }
                        }
                    }
                }
            }
        }
        @if total > ROWS_MAX {
            p class="hint" {
                "The first " (count(ROWS_MAX as u64)) " are shown; " span class="mono" { "retake sql" } " gives all."
            }
        }
    }
}

/// The rows of a batch as text; a value that cannot be shown is empty.
fn cells_of(batch: &RecordBatch) -> impl Iterator<Item = Vec<String>> + '_ {
    let options = FormatOptions::default().with_null(units::ABSENT);
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).ok())
        .collect();
    (0..batch.num_rows()).map(move |row| {
        let cell = |column: &Option<ArrayFormatter<'_>>| {
            column.as_ref().map_or_else(String::new, |column| column.value(row).to_string())
        };
        columns.iter().map(cell).collect()
    })
}

/// A page that says what is wrong.
#[must_use]
pub fn problem(title: &str, message: &str) -> String {
    document(
        title,
        &[],
        html! {
            header class="masthead" { h1 { (text::label(title)) } }
            p class="lede" { (text::message(message)) }
        },
    )
}

/// Asks for the token of a listener that has one. `problem` says why somebody is asked again.
#[must_use]
pub fn entry(problem: Option<&str>) -> String {
    page::document_with(
        "Token",
        &policy(),
        "same-origin",
        html! {
            div class="page" {
                p class="brand" { "retake" }
                header class="masthead" { h1 { "This listener asks for a token" } }
                @if let Some(problem) = problem {
                    div class="notice loud" role="alert" { p { (text::message(problem)) } }
                }
                form action="/in" method="post" class="entry" {
                    label {
                        "Token "
                        input type="password" name="token" required autofocus
                            autocomplete="current-password";
                    }
                    " "
                    button type="submit" { "Show the runs" }
                }
                p class="hint" {
                    "It is what was given to " span class="mono" { "retake serve" }
                    " with " span class="mono" { "--token-file" } " or "
                    span class="mono" { "RETAKE_TOKEN" }
                    ". The link that it printed at its start lets one browser in without."
                }
            }
        },
    )
}

/// A place on the way to a page.
#[derive(Debug)]
struct Step {
    title: String,
    path: Option<String>,
}

fn document(title: &str, trail: &[Step], content: Markup) -> String {
    page::document(
        title,
        &policy(),
        html! {
            div class="page" {
                header class="trail" {
                    a class="brand" href="/" { "retake" }
                    span class="steps" {
                        a href="/" { "Runs" }
                        @for step in trail {
                            " / "
                            @match &step.path {
                                Some(path) => a href=(path) { bdi { (step.title) } },
                                None => bdi { (step.title) },
                            }
                        }
                    }
                    a href="/sql" { "SQL" }
                    span id="live" class="dim" role="status" {}
                }
                div id="content" { (content) }
            }
            script { (PreEscaped(LIVE_SCRIPT)) }
        },
    )
}

/// As for a file, and the page may be asked for again, and forms sent to whom it came from.
fn policy() -> String {
    let digest =
        |script: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(script));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}' 'sha256-{}'; \
         connect-src 'self'; base-uri 'none'; form-action 'self'",
        digest(SCRIPT),
        digest(LIVE_SCRIPT)
    )
}

/// Where a run's page is; `None` for what is no run id.
pub(super) fn run_path(run_id: &str) -> Option<String> {
    is_id(run_id).then(|| format!("/runs/{run_id}"))
}

/// Where a trace's page is.
pub(super) fn trace_path(run_id: &str, trace_id: &str) -> Option<String> {
    (is_id(run_id) && is_id(trace_id)).then(|| format!("/runs/{run_id}/traces/{trace_id}"))
}

/// Whether a text may stand in a path as it is.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What asks for the page again.
const LIVE_SCRIPT: &str = include_str!("live.js");
/// Queries to begin with.
const EXAMPLES: [(&str, &str); 5] = [
    (
        "Runs",
        "SELECT run_id, name, status, traces, spans FROM runs ORDER BY started_unix_ns DESC LIMIT 20",
    ),
    (
        "Latency by stage of the last run",
        "SELECT stage, count(*) AS calls, approx_percentile_cont(duration_ns, 0.95) / 1e6 AS p95_ms FROM spans \
         WHERE run_id = (SELECT max(run_id) FROM runs) GROUP BY stage ORDER BY p95_ms DESC",
    ),
    ("Where its time went", "SELECT * FROM self_time('last') ORDER BY wall_ns DESC"),
    ("Its slowest traces", "SELECT * FROM slowest_traces('last', 10)"),
    ("Tokens and cost by model", "SELECT * FROM cost_by_model ORDER BY cost_usd DESC"),
];
/// Runs on the page.
const RUNS_MAX: usize = 500;
/// Rows of an answer on the page.
const ROWS_MAX: usize = 500;
/// Bytes of the spans of a trace.
const DETAILS_BYTES_MAX: usize = 3_000_000;
/// Characters of a commit.
const SHA_CHARS: usize = 10;
/// Characters of a run's id.
const RUN_CHARS: usize = 20;
