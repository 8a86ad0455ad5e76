//! `retake replay run --clock virtual`: models in place of stages, no waiting.

use std::time::Instant;

use retake_recorder::RecorderBuilder;
use retake_replay::plan::StageSource;
use retake_replay::simulate::model::Model;
use retake_replay::simulate::{Detail, Simulated, SimulatedReport, simulate};
use retake_replay::workload::{Operations, Workload};
use retake_schemas::RunId;
use retake_schemas::convention::{CLOCK_LABEL, CLOCK_VIRTUAL};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::WhenFull;

use super::{arranged, unix_ns};
use crate::cli::{Format, ReplayArgs};
use crate::commands::{rag, workload};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::progress::Progress;
use crate::units::duration;
use crate::{recording, render};

pub(super) fn run(context: &Context, args: &ReplayArgs, is_plan: bool) -> Result<Code, Failure> {
    let Some(path) = &args.model else {
        let message = "replay in virtual time: it needs to know how long stages take";
        return Err(Failure::new(Code::Usage, message)
            .help("give a model with --model FILE; `retake model fit RUN -o FILE` makes one of a recording"));
    };
    if let Some(setting) = args.rag.set.first() {
        let message = format!("replay with {setting}: no stage runs in virtual time");
        return Err(Failure::new(Code::Usage, message)
            .help("change the model; `retake sweep` predicts what settings of an ingest do"));
    }
    let model = Model::read(path)?;
    let operations = args.operations.map(Operations::from).unwrap_or_default();
    let whole = workload::of(context, &args.source, operations, &args.kind)?;
    let (workload, arrival) = arranged(whole, args);
    let detail = if args.tokens { Detail::Tokens } else { Detail::Requests };
    let began = Instant::now();
    let simulation = simulate(&workload, &model, arrival, detail)?;
    let took = began.elapsed();
    let report = simulation.report();
    if is_plan {
        return show_plan(context, &workload, &model, &report);
    }
    let recorded = if args.no_record {
        None
    } else {
        let (simulation, workload, model) = (&simulation, &workload, &model);
        record(context, args, Simulated { simulation, workload, model, detail }, report.span_ns)
    };
    let run_id = recorded.as_ref();
    let shown =
        render::simulated::Shown { workload: &workload, arrival, report: &report, took, run_id };
    match context.format_or(Format::Table) {
        Format::Json => print_json(&shown.json())?,
        Format::Table => print(&shown.text(Format::Table))?,
        Format::Markdown => print(&shown.text(Format::Markdown))?,
        other => return Err(unsupported(other, "a replay in virtual time")),
    }
    if let Some(run_id) = &recorded {
        context.say(&format!("recorded as run {run_id}"));
        if let Some(source) = &workload.source_run {
            context.say(&format!("next: retake diff {source} {run_id}"));
        }
    }
    Ok(Code::Ok)
}

/// Writes the replay down as a run like any other. What cannot be written is still an answer: it is
/// said, and no failure.
fn record(
    context: &Context,
    args: &ReplayArgs,
    simulated: Simulated<'_>,
    span_ns: i64,
) -> Option<RunId> {
    match try_record(context, args, simulated, span_ns) {
        Ok(run_id) => Some(run_id),
        Err(failure) => {
            context.warn(&format!("the replay is not recorded: {}", failure.message()));
            None
        }
    }
}

fn try_record(
    context: &Context,
    args: &ReplayArgs,
    simulated: Simulated<'_>,
    span_ns: i64,
) -> Result<RunId, Failure> {
    let Simulated { workload, model, .. } = simulated;
    let store = context.store_for_writing()?;
    let mut record = context.config.settings.record.clone();
    // It is written as fast as it goes, and no program runs whose resources there were to sample.
    record.when_full = WhenFull::Block;
    record.sample_ms = 0;
    record.seal_idle = false;
    let name = args.rag.run.clone();
    let name = name.unwrap_or_else(|| format!("virtual replay of {}", args.source));
    let mut labels = rag::labels(&args.rag.label)?;
    labels.insert(CLOCK_LABEL.to_owned(), CLOCK_VIRTUAL.to_owned());
    let builder = RecorderBuilder::new(name, "retake-replay")
        .service_version(env!("CARGO_PKG_VERSION"))
        .record_settings(record)
        .settings(model.settings())
        .seed(args.seed)
        .labels(labels);
    let builder = match &workload.source_run {
        Some(source) => builder.replay_of(source.clone(), workload.digest()),
        None => builder,
    };
    let recorder = builder.start(&store)?;
    let progress = Progress::new(context.quiet, "record", "operations");
    progress.length(workload.operations.len() as u64);
    // It ends now: nothing of it lies in the future.
    let origin_unix_ns = unix_ns().saturating_sub(span_ns);
    simulated.record(recorder.dispatcher(), origin_unix_ns, &|n| progress.position(n));
    progress.finish();
    let summary = recorder.finish(RunStatus::Finished);
    recording::warn_of_losses(context, &summary);
    Ok(summary.run_id)
}

/// A plan of virtual time: models in place of stages, so nothing is called and nothing costs.
fn show_plan(
    context: &Context,
    workload: &Workload,
    model: &Model,
    report: &SimulatedReport,
) -> Result<Code, Failure> {
    let stats = workload.stats();
    let has_content = stats.with_input == stats.operations;
    let stages: Vec<(&str, StageSource)> = model
        .stages
        .iter()
        .map(|stage| (stage.stage.as_str(), stage.service.source(has_content)))
        .collect();
    match context.format_or(Format::Table) {
        Format::Json => print_json(&serde_json::json!({
            "schema_version": 1,
            "replay_of": workload.source_run,
            "clock": "virtual",
            "operations": stats.kinds,
            "stages": stages.iter().map(|(stage, source)| {
                serde_json::json!({"stage": stage, "source": source, "expected": {"calls": 0}})
            }).collect::<Vec<_>>(),
            "expected_calls": 0,
            "expected_wall_ns": report.span_ns,
            "refusal": null,
        }))?,
        _ => {
            let mut text = format!("{} operations in virtual time\n", stats.operations);
            for (stage, source) in stages {
                text.push_str(&format!("  {stage}: {}\n", source.as_str()));
            }
            text.push_str(&format!(
                "nothing is called; {} of virtual time\n",
                duration(report.span_ns)
            ));
            print(&text)?;
        }
    }
    Ok(Code::Ok)
}
