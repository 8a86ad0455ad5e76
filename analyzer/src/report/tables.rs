//! The tables at the end of the page: slowest traces, failures, tokens and cost, and the SQL.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::facts::{Facts, Failures};
use super::scale::percent_of;
use super::text;
use super::units::{self, count, duration, duration_or_absent, ns_float, signed_count};
use crate::model::{BreakdownRow, TokenTotals, TraceSummary};

/// The slowest traces; those with a waterfall link to it.
pub(super) fn slowest(facts: &Facts<'_>, drawn: &BTreeMap<&str, usize>) -> Markup {
    let mut traces: Vec<&TraceSummary> = facts.data.traces.iter().collect();
    traces.sort_by_key(|trace| std::cmp::Reverse(trace.duration_ns));
    let longest = traces.first().map_or(1, |trace| trace.duration_ns.max(1));
    html! {
        @if !traces.is_empty() {
            section id="slowest" aria-labelledby="slowest-h" {
                h2 id="slowest-h" { "Slowest traces" (sql_link(facts, "slowest")) }
                div class="scroll" role="region" aria-label="Slowest traces" tabindex="0" {
                    table {
                        thead { tr {
                            th scope="col" { "Trace" }
                            th scope="col" { "Request" }
                            th scope="col" class="num" { "Started, UTC" }
                            th scope="col" class="num" colspan="2" { "Duration" }
                            th scope="col" class="num" { "First token" }
                            th scope="col" class="num" { "Tokens in \u{2192} out" }
                            th scope="col" class="num" { "Spans" }
                            th scope="col" { "Outcome" }
                        } }
                        tbody {
                            @for trace in traces.iter().take(SLOWEST_MAX) {
                                (slow_row(facts, trace, longest, drawn))
                            }
                        }
                    }
                }
                @if traces.len() > SLOWEST_MAX {
                    p class="hint" {
                        "The slowest " (count(SLOWEST_MAX as u64)) " of "
                        (units::plural(traces.len() as u64, "trace")) "."
                    }
                }
            }
        }
    }
}

fn slow_row(
    facts: &Facts<'_>,
    trace: &TraceSummary,
    longest: i64,
    drawn: &BTreeMap<&str, usize>,
) -> Markup {
    let share = ns_float(trace.duration_ns) / ns_float(longest);
    let request = trace.request_id.as_deref().unwrap_or(&trace.trace_id);
    let name = html! { bdi { (text::label_or_unnamed(&trace.name)) } };
    html! {
        tr {
            th scope="row" {
                @match facts.trace_href(&trace.trace_id, drawn) {
                    Some(href) => a href=(href) { (name) },
                    None => (name),
                }
            }
            td class="mono dim" {
                bdi { (text::one_line(request, ID_CHARS)) }
            }
            td class="num" { (units::utc_time(trace.start_unix_ns)) }
            td class="wide" {
                svg class="share" width="100%" height="14" aria-hidden="true" {
                    rect class="ink-bar" y="3" width=(percent_of(share.clamp(0.0, 1.0)))
                        height="8" {}
                }
            }
            td class="num strong" { (duration(trace.duration_ns)) }
            td class="num" { (duration_or_absent(trace.ttft_ns)) }
            td class="num" {
                (signed_count(trace.input_tokens)) " \u{2192} " (signed_count(trace.output_tokens))
            }
            td class="num" { (count(trace.spans)) }
            td {
                @if let Some(error) = &trace.error {
                    span class="bad" { "\u{2715} " bdi { (text::label(error)) } }
                }
                @else { span class="dim" { "\u{2713} ok" } }
            }
        }
    }
}

/// Failures where they began, equal ones together.
pub(super) fn errors(facts: &Facts<'_>, drawn: &BTreeMap<&str, usize>) -> Markup {
    let groups = facts.failures();
    html! {
        @if !groups.is_empty() {
            section id="errors" aria-labelledby="errors-h" {
                h2 id="errors-h" { "Failures, where they began" (sql_link(facts, "errors")) }
                div class="scroll" role="region" aria-label="Failures" tabindex="0" {
                    table class="plain" {
                        thead { tr {
                            th scope="col" { "Stage" }
                            th scope="col" { "Error" }
                            th scope="col" class="num" { "Times" }
                            th scope="col" { "First message" }
                            th scope="col" { "Traces" }
                        } }
                        tbody {
                            @for group in groups.iter().take(ERRORS_MAX) {
                                (error_row(facts, group, drawn))
                            }
                        }
                    }
                }
                @if groups.len() > ERRORS_MAX {
                    p class="hint" {
                        (units::plural((groups.len() - ERRORS_MAX) as u64, "more kind"))
                        " of failure not shown."
                    }
                }
            }
        }
    }
}

fn error_row(facts: &Facts<'_>, group: &Failures<'_>, drawn: &BTreeMap<&str, usize>) -> Markup {
    let first = group.first;
    let origins = &group.origins;
    html! {
        tr {
            th scope="row" { (facts.palette.name(&first.stage)) }
            td {
                span class="bad" { "\u{2715} " bdi { (text::label_or_unnamed(&first.error_type)) } }
            }
            td class="num" { (count(origins.len() as u64)) }
            td class="message" { bdi { (text::message(&first.message)) } }
            td class="mono dim" {
                @for origin in origins.iter().take(ORIGINS_MAX) {
                    @let id = text::id_start(&origin.trace_id, ID_CHARS);
                    @match facts.trace_href(&origin.trace_id, drawn) {
                        Some(href) => a href=(href) { (id) },
                        None => span { (id) },
                    }
                    " "
                }
                @if origins.len() > ORIGINS_MAX {
                    "and " (count((origins.len() - ORIGINS_MAX) as u64)) " more"
                }
            }
        }
    }
}

/// Tokens, each counted once, and what they cost.
pub(super) fn tokens(facts: &Facts<'_>) -> Markup {
    let rows: Vec<&BreakdownRow> =
        facts.stages_by_wall().into_iter().filter(|row| has_tokens_or_cost(row)).collect();
    if rows.is_empty() {
        return html! {};
    }
    let traces = units::length(facts.data.traces.len().max(1));
    let cost = facts.cost_usd();
    let input = units::total(rows.iter().filter_map(|row| row.input_tokens));
    let output = units::total(rows.iter().filter_map(|row| row.output_tokens));
    let per_trace = |row: &BreakdownRow| units::usd_or_absent(row.cost_usd.map(|usd| usd / traces));
    html! {
        section id="tokens" aria-labelledby="tokens-h" {
            h2 id="tokens-h" { "Tokens and cost" (sql_link(facts, "tokens")) }
            div class="scroll" role="region" aria-label="Tokens and cost" tabindex="0" {
                table {
                    thead { tr {
                        th scope="col" { "Stage" }
                        th scope="col" class="num" { "Input" }
                        th scope="col" class="num" { "Output" }
                        th scope="col" { "Counted by" }
                        th scope="col" class="num" { "First token, median" }
                        @if cost.is_some() {
                            th scope="col" class="num" { "Cost" }
                            th scope="col" class="num" { "Cost per trace" }
                        }
                    } }
                    tbody {
                        @for row in rows.iter().take(ROWS_MAX) {
                            tr {
                                th scope="row" { (facts.palette.name(&row.stage)) }
                                td class="num" { (units::count_or_absent(row.input_tokens)) }
                                td class="num" { (units::count_or_absent(row.output_tokens)) }
                                td { bdi { (text::label(&row.tokens_source)) } }
                                td class="num" { (duration_or_absent(row.ttft_p50_ns)) }
                                @if cost.is_some() {
                                    td class="num" { (units::usd_or_absent(row.cost_usd)) }
                                    td class="num" { (per_trace(row)) }
                                }
                            }
                        }
                    }
                    tfoot { tr {
                        th scope="row" { "Sum" }
                        td class="num" {
                            (signed_count(input))
                        }
                        td class="num" {
                            (signed_count(output))
                        }
                        td {} td {}
                        @if let Some(cost) = cost {
                            td class="num strong" { (units::usd(cost)) }
                            td class="num" { (units::usd(cost / traces)) }
                        }
                    } }
                }
            }
            p class="hint" { (totals(&facts.data.breakdown.tokens)) }
        }
    }
}

/// Whether a stage has a row among tokens and cost.
pub(super) fn has_tokens_or_cost(row: &BreakdownRow) -> bool {
    row.input_tokens.is_some() || row.output_tokens.is_some() || row.cost_usd.is_some()
}

fn totals(tokens: &TokenTotals) -> Markup {
    html! {
        "Counted once each: " (signed_count(tokens.llm_input)) " into and "
        (signed_count(tokens.llm_output))
        " out of language models, " (signed_count(tokens.embedding)) " into embedding models."
        @if tokens.estimated_input != 0 || tokens.estimated_output != 0 {
            " Not among them, since only estimated: " (signed_count(tokens.estimated_input))
            " in and "
            (signed_count(tokens.estimated_output)) " out."
        }
    }
}

/// A link from a section to the query behind it, where there is one.
pub(super) fn sql_link(facts: &Facts<'_>, section: &str) -> Markup {
    let position = facts.data.queries.iter().take(QUERIES_MAX).position(|q| q.section == section);
    html! {
        @if let Some(number) = position {
            a class="sql" href={ "#q" (number) } aria-label="The SQL behind this section" { "SQL" }
        }
    }
}

/// The SQL behind the numbers, to run again.
pub(super) fn queries(facts: &Facts<'_>) -> Markup {
    let queries = &facts.data.queries;
    html! {
        @if !queries.is_empty() {
            section id="sql" aria-labelledby="sql-h" {
                h2 id="sql-h" { "The SQL behind the numbers" }
                p class="hint" {
                    "Each runs as it stands: " span class="mono" { "retake sql \"\u{2026}\"" } "."
                }
                @for (number, query) in queries.iter().take(QUERIES_MAX).enumerate() {
                    details class="fold" {
                        summary { bdi { (text::label_or_unnamed(&query.title)) } }
                        pre id={ "q" (number) } tabindex="0" { code { (text::block(&query.sql)) } }
                    }
                }
                @if queries.len() > QUERIES_MAX {
                    p class="hint" {
                        (count((queries.len() - QUERIES_MAX) as u64)) " more not shown."
                    }
                }
            }
        }
    }
}

/// Traces in the table of the slowest.
const SLOWEST_MAX: usize = 20;
/// Kinds of failures.
const ERRORS_MAX: usize = 30;
/// Traces named per kind of failure.
const ORIGINS_MAX: usize = 6;
/// Stages in the table of tokens.
const ROWS_MAX: usize = 40;
/// Characters of an id: enough to tell two apart and to search for.
const ID_CHARS: usize = 12;
/// Queries shown.
const QUERIES_MAX: usize = 24;
