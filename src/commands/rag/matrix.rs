//! `retake rag eval --vary`: the same questions under every combination of some settings, side by
//! side: quality, latency, tokens, and cost.
//!
//! Each combination is a cell: a run of its own, so that every other verb works on it, and a file
//! of results of its own, so that a comparison that was cut short goes on where it stopped. A cell
//! that cannot be measured says why in its row and costs no other anything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retake_pipeline::eval::judge::Judges;
use retake_pipeline::eval::{EvalReport, EvalRequest, evaluate, read_questions};
use retake_recorder::Store;
use retake_replay::sweep::{Axis, Point, grid};
use retake_schemas::settings::{PricedTokens, Prices, RagSettings};
use retake_schemas::{Digest, RunId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{builder, engine, settings, status, store_with_documents};
use crate::cli::{Format, RagArgs};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json, row, table, unsupported};
use crate::progress::Progress;
use crate::recording::{Recording, cancel_on_signal};

/// A combination of settings, and what came of it.
#[derive(Debug, Serialize)]
struct Cell {
    /// The settings that are varied, with their values here.
    settings: BTreeMap<String, String>,
    /// Its run.
    run_id: Option<RunId>,
    /// Its results.
    output: Option<PathBuf>,
    /// What was measured.
    report: Option<EvalReport>,
    /// What its answers cost by `[prices]`; nothing when the model has no price.
    cost_usd: Option<f64>,
    /// Why there is nothing, if there is nothing.
    error: Option<String>,
}

/// Evaluates all combinations.
pub(super) async fn run(
    context: &Context,
    questions: PathBuf,
    output: Option<PathBuf>,
    vary: &[String],
    args: &RagArgs,
) -> Result<Code, Failure> {
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "a comparison"));
    }
    let axes: Vec<Axis> = vary.iter().map(|text| Axis::parse(text)).collect::<Result<_, _>>()?;
    let points = grid(&axes)?;
    let all = cells(context, &axes, &points, args)?;
    // What is wrong for all is told before the first is measured.
    read_questions(&questions)?;
    let base = settings(&context.config.settings.rag, &args.set)?;
    let store = store_with_documents(context, &base)?;
    if let Some(folder) = &output {
        std::fs::create_dir_all(folder).map_err(|error| {
            let message = format!("make folder {}: {error}", folder.display());
            Failure::new(Code::Usage, message).help("with --vary, --output names a folder")
        })?;
    }
    let cancel = cancel_on_signal()?;
    let under = Under { context, store, questions, output, args, cancel };
    let mut done = Vec::with_capacity(all.len());
    let mut is_over_budget = None;
    for (number, (point, settings)) in points.iter().zip(&all).enumerate() {
        if under.cancel.is_cancelled() {
            break;
        }
        context.say(&format!("{} of {}: {}", number + 1, all.len(), point.label));
        let (cell, code) = under.measure(point, settings).await;
        done.push(cell);
        if code == Code::OverBudget {
            is_over_budget = Some(code);
            break;
        }
    }
    match format {
        Format::Json => print_json(&serde_json::json!({ "schema_version": 1, "cells": done }))?,
        format => print(&shown(&axes, &done, format))?,
    }
    for cell in &done {
        if let Some(error) = &cell.error {
            let settings: Vec<String> =
                cell.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
            context.warn(&format!("{}: {error}", settings.join(", ")));
        }
    }
    if let Some([one, .., other]) =
        done.iter().map(|c| c.run_id.as_ref()).collect::<Option<Vec<_>>>().as_deref()
    {
        context.say(&format!("each is a run; next: retake diff {one} {other}"));
    }
    let is_whole = done.len() == points.len() && !under.cancel.is_cancelled();
    Ok(match is_over_budget {
        Some(code) => code,
        None if !is_whole => Code::Interrupted,
        None if done.iter().all(|cell| cell.report.is_none()) => Code::Environment,
        None => Code::Ok,
    })
}

/// The settings of every cell; one that cannot be is refused before any is measured.
fn cells(
    context: &Context,
    axes: &[Axis],
    points: &[Point],
    args: &RagArgs,
) -> Result<Vec<RagSettings>, Failure> {
    let fixed = |axis: &&Axis| INGESTED.iter().any(|prefix| axis.setting.starts_with(prefix));
    if let Some(axis) = axes.iter().find(fixed) {
        let name = &axis.setting;
        let message = format!("vary {name}: it decides what is ingested, not how it is asked");
        return Err(Failure::new(Code::Usage, message).help(format!(
            "ingest into a collection for each value (retake rag ingest PATH --set {name}=... \
             --set vectors.collection=NAME), then --vary vectors.collection=NAME1,NAME2"
        )));
    }
    points
        .iter()
        .map(|point| {
            let changes: Vec<String> = args.set.iter().chain(&point.assignments).cloned().collect();
            settings(&context.config.settings.rag, &changes)
        })
        .collect()
}

/// What all cells have in common.
struct Under<'a> {
    context: &'a Context,
    store: Store,
    questions: PathBuf,
    output: Option<PathBuf>,
    args: &'a RagArgs,
    cancel: CancellationToken,
}

impl Under<'_> {
    /// Measures one cell. What goes wrong is in it.
    async fn measure(&self, point: &Point, settings: &RagSettings) -> (Cell, Code) {
        let mut cell = Cell {
            settings: point
                .assignments
                .iter()
                .filter_map(|text| text.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            run_id: None,
            output: None,
            report: None,
            cost_usd: None,
            error: None,
        };
        match self.evaluate(point, settings, &mut cell).await {
            Ok(code) => (cell, code),
            Err(failure) => {
                let code = failure.code();
                (Cell { error: Some(failure.message().to_owned()), ..cell }, code)
            }
        }
    }

    async fn evaluate(
        &self,
        point: &Point,
        settings: &RagSettings,
        cell: &mut Cell,
    ) -> Result<Code, Failure> {
        let Self { context, store, args, cancel, .. } = self;
        let engine = engine(context, settings).await?;
        let judges = Judges::from_settings(settings, &engine.embedder())?;
        let mut args = (*args).clone();
        args.label.push(format!("{CELL_LABEL}={}", point.label));
        let recording =
            Recording::start(context, builder(context, "eval", &args, settings)?, store, cancel)?;
        let run_id = recording.run_id().clone();
        let output = match &self.output {
            Some(folder) => folder.join(file_name(&point.label)),
            None => store.run_dir(&run_id).join("results.jsonl"),
        };
        let progress =
            Progress::new(context.quiet, "eval", "questions").with_live(recording.live());
        let request = EvalRequest {
            questions: self.questions.clone(),
            output: output.clone(),
            workers: settings.workers,
            judges,
        };
        cell.run_id = Some(run_id);
        cell.output = Some(output);
        let outcome = evaluate(&request, &engine, &progress, cancel.clone()).await;
        progress.finish();
        let is_cut_short = outcome.is_err() || cancel.is_cancelled();
        let recorded = recording.finish(context, status(is_cut_short)).await;
        let report = recorded.outcome(outcome)?;
        let prices = &context.config.settings.prices;
        cell.cost_usd = cost_usd(prices, engine.llm_model(), &report);
        cell.report = Some(report);
        Ok(recorded.code(Code::Ok))
    }
}

fn cost_usd(prices: &Prices, model: &str, report: &EvalReport) -> Option<f64> {
    let tokens = report.tokens;
    let priced = PricedTokens {
        input: tokens.input,
        output: tokens.output,
        cache_read: tokens.cache_read,
        cache_write: 0,
        reasoning: tokens.reasoning,
    };
    prices.of(model).map(|price| price.cost_usd(priced))
}

/// A file name that says what is in it, the same for the same combination.
fn file_name(label: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=');
    let readable: String = label
        .replace(", ", "+")
        .chars()
        .map(|c| if plain(c) || c == '+' { c } else { '-' })
        .take(FILE_NAME_CHARS_MAX)
        .collect();
    // Two combinations may read alike once what a file name cannot hold is replaced.
    let digest: String = Digest::of(label.as_bytes()).to_string().chars().take(8).collect();
    format!("{readable}-{digest}.jsonl")
}

/// The table: a row for each cell, and a column only for what was measured somewhere.
fn shown(axes: &[Axis], cells: &[Cell], format: Format) -> String {
    let varied: Vec<&str> = axes
        .iter()
        .filter(|axis| axis.values.len() > 1)
        .map(|axis| axis.setting.as_str())
        .collect();
    let reports = || cells.iter().filter_map(|cell| cell.report.as_ref());
    let judges: Vec<String> = reports()
        .flat_map(|report| report.judgements.keys().cloned())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut columns: Vec<(String, Measure)> = MEASURES
        .iter()
        .map(|(name, measure)| ((*name).to_owned(), Measure::Plain(*measure)))
        .chain(judges.into_iter().map(|judge| (judge.clone(), Measure::Judge(judge))))
        .chain(COSTS.iter().map(|(name, measure)| ((*name).to_owned(), Measure::Plain(*measure))))
        .collect();
    columns.retain(|(_, measure)| cells.iter().any(|cell| measure.of(cell).is_some()));
    let names: Vec<&str> =
        varied.iter().copied().chain(columns.iter().map(|(name, _)| name.as_str())).collect();
    let mut shown = table(format, &names, varied.len());
    for cell in cells {
        let settings = varied
            .iter()
            .map(|name| cell.settings.get(*name).map_or_else(String::new, |value| inert(value)));
        let values =
            columns.iter().map(|(_, measure)| measure.of(cell).unwrap_or_else(|| "-".to_owned()));
        row(&mut shown, settings.chain(values));
    }
    shown.to_string()
}

/// A figure of a cell, as it is shown; nothing where it was not measured.
type Figure = fn(&Cell, &EvalReport) -> Option<String>;

enum Measure {
    Plain(Figure),
    Judge(String),
}

impl Measure {
    fn of(&self, cell: &Cell) -> Option<String> {
        let report = cell.report.as_ref()?;
        match self {
            Self::Plain(figure) => figure(cell, report),
            Self::Judge(name) => share(report.judgements.get(name)?.score_mean),
        }
    }
}

fn share(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.3}"))
}

fn ms(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.1}"))
}

const MEASURES: [(&str, Figure); 8] = [
    ("answered", |_, report| Some(report.ok.to_string())),
    ("failed", |_, report| Some(report.failed.to_string())),
    ("recall", |_, report| share(report.recall_mean)),
    ("precision", |_, report| share(report.retrieval.map(|r| r.by_span.precision))),
    ("nDCG", |_, report| share(report.retrieval.map(|r| r.by_span.ndcg))),
    ("MRR", |_, report| share(report.mrr_mean)),
    ("match", |_, report| share(report.answer_match_rate)),
    ("objections", |_, report| {
        let count: u64 = report.objections.values().sum();
        (count > 0).then(|| count.to_string())
    }),
];
const COSTS: [(&str, Figure); 7] = [
    ("p50 ms", |_, report| ms(report.latency_ms_p50)),
    ("p95 ms", |_, report| ms(report.latency_ms_p95)),
    ("first ms", |_, report| ms(report.ttft_ms_mean)),
    ("calls", |_, report| Some(report.tokens.calls.to_string())),
    ("tokens in", |_, report| Some(report.tokens.input.to_string())),
    ("tokens out", |_, report| Some(report.tokens.output.to_string())),
    ("USD", |cell, _| cell.cost_usd.map(|usd| format!("{usd:.4}"))),
];
/// Settings that an ingest has decided already; to vary them when asking changes nothing.
const INGESTED: &[&str] = &["chunk.", "load.", "ingest.", "cache."];
/// Label of a cell's run.
const CELL_LABEL: &str = "cell";
/// Longest readable part of a file name; file systems allow 255 bytes in all.
const FILE_NAME_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn file_names_are_plain_and_tell_combinations_apart() {
        let one = file_name("rerank.provider=bm25, retrieve.top_k=5");
        assert!(one.starts_with("rerank.provider=bm25+retrieve.top_k=5-"), "{one}");
        assert_ne!(file_name("a=x/y"), file_name("a=x y"));
        let long = file_name(&"../".repeat(200));
        assert!(long.len() < 200 && !long.contains('/') && Path::new(&long).file_name().is_some());
    }

    fn cell(top_k: &str, recall: Option<f64>, error: Option<&str>) -> Cell {
        let report = recall.map(|recall| EvalReport {
            ok: 3,
            recall_mean: Some(recall),
            latency_ms_p95: Some(12.34),
            ..EvalReport::default()
        });
        Cell {
            settings: [
                ("retrieve.top_k".to_owned(), top_k.to_owned()),
                ("seed".to_owned(), "7".to_owned()),
            ]
            .into(),
            run_id: None,
            output: None,
            report,
            cost_usd: None,
            error: error.map(ToOwned::to_owned),
        }
    }

    /// Guarantees: a row for each cell, also for one that failed; a column for what is varied and
    /// for what was measured, and for nothing else.
    #[test]
    fn the_table_has_a_row_for_each_cell_and_columns_for_what_was_measured() {
        let axes = ["retrieve.top_k=2,5", "seed=7"].map(|text| Axis::parse(text).unwrap());
        let cells = [cell("2", Some(0.5), None), cell("5", None, Some("no model"))];
        let text = shown(&axes, &cells, Format::Markdown);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows[0][..4], ["retrieve.top_k", "answered", "failed", "recall"]);
        assert!(!text.contains("seed") && !text.contains("USD") && !text.contains("MRR"), "{text}");
        assert_eq!(rows[2][..4], ["2", "3", "0", "0.500"]);
        assert!(text.contains("12.3"), "{text}");
        assert_eq!(rows[3][..4], ["5", "-", "-", "-"]);
    }

    #[test]
    fn cached_tokens_are_not_paid_twice() {
        let prices: Prices =
            toml::from_str("[m]\ninput = 10.0\noutput = 20.0\ncache_read = 1.0").unwrap();
        let mut report = EvalReport::default();
        report.tokens.input = 1_000_000;
        report.tokens.cache_read = 400_000;
        report.tokens.output = 100_000;
        assert_eq!(cost_usd(&prices, "m", &report), Some(6.0 + 0.4 + 2.0));
        assert_eq!(cost_usd(&prices, "n", &report), None);
    }
}
