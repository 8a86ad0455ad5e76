//! `retake replay run --clock virtual`: models in place of stages, no waiting.

use std::time::Instant;

use retake_replay::simulate::model::Model;
use retake_replay::simulate::{Detail, simulate};

use super::arranged;
use crate::cli::{Format, ReplayArgs};
use crate::commands::workload;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(super) fn run(context: &Context, args: &ReplayArgs, is_plan: bool) -> Result<Code, Failure> {
    if is_plan {
        let message = "plan a replay in virtual time: it touches nothing and needs no plan";
        return Err(Failure::new(Code::Usage, message).help("use `retake replay run`"));
    }
    let Some(path) = &args.model else {
        let message = "replay in virtual time: it needs to know how long stages take";
        return Err(Failure::new(Code::Usage, message)
            .help("give a model with --model FILE; docs/replay.md shows one"));
    };
    let model = Model::read(path)?;
    let (workload, arrival) = arranged(workload::of(context, &args.source)?, args);
    let detail = if args.tokens { Detail::Tokens } else { Detail::Requests };
    let began = Instant::now();
    let simulation = simulate(&workload, &model, arrival, detail)?;
    let took = began.elapsed();
    let report = simulation.report();
    let shown = render::simulated::Shown { workload: &workload, arrival, report: &report, took };
    match context.format_or(Format::Table) {
        Format::Json => print_json(&shown.json())?,
        Format::Table => print(&shown.text(Format::Table))?,
        Format::Markdown => print(&shown.text(Format::Markdown))?,
        other => return Err(unsupported(other, "a replay in virtual time")),
    }
    Ok(Code::Ok)
}
