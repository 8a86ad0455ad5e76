//! `retake replay run --clock virtual`: models in place of stages, no waiting.

use std::time::Instant;

use retake_replay::plan::StageSource;
use retake_replay::simulate::model::{Model, Service};
use retake_replay::simulate::{Detail, SimulatedReport, simulate};
use retake_replay::workload::{Operations, Workload};

use super::arranged;
use crate::cli::{Format, ReplayArgs};
use crate::commands::workload;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;
use crate::units::duration;

pub(super) fn run(context: &Context, args: &ReplayArgs, is_plan: bool) -> Result<Code, Failure> {
    let Some(path) = &args.model else {
        let message = "replay in virtual time: it needs to know how long stages take";
        return Err(Failure::new(Code::Usage, message)
            .help("give a model with --model FILE; docs/replay.md shows one"));
    };
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
    let shown = render::simulated::Shown { workload: &workload, arrival, report: &report, took };
    match context.format_or(Format::Table) {
        Format::Json => print_json(&shown.json())?,
        Format::Table => print(&shown.text(Format::Table))?,
        Format::Markdown => print(&shown.text(Format::Markdown))?,
        other => return Err(unsupported(other, "a replay in virtual time")),
    }
    Ok(Code::Ok)
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
        .map(|stage| {
            let source = match stage.service {
                Service::Recorded if has_content => StageSource::Recorded,
                Service::Linear { .. } if has_content => StageSource::RecordedModel,
                _ => StageSource::Model,
            };
            (stage.stage.as_str(), source)
        })
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
