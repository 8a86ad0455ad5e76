//! `retake explain`, `retake bubble-up` and `retake what-if`.

use retake_analyzer::{DiffOptions, what_if};

use super::{analyzer, diff};
use crate::cli::{BubbleUp, Explain, Format, WhatIf};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn explain(context: &Context, args: &Explain) -> Result<Code, Failure> {
    let store = context.store()?;
    let (base, candidate) = diff::sides(&store, &args.base, &args.candidate)?;
    let analyzer = analyzer(context, &store, &[&base, &candidate])?;
    let options = DiffOptions::default();
    let found = retake_analyzer::explain(&analyzer, &base, &candidate, &options).await?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&found)?,
        format @ (Format::Table | Format::Markdown) => {
            print(&render::explanation(&found, format, context.look(format)))?
        }
        other => return Err(unsupported(other, "an explanation")),
    }
    Ok(Code::Ok)
}

pub(crate) async fn bubble_up(context: &Context, args: &BubbleUp) -> Result<Code, Failure> {
    let store = context.store()?;
    let runs = store.select_set(&args.runs)?;
    let analyzer = analyzer(context, &store, &[&runs])?;
    let condition = match &args.condition {
        Some(condition) => condition.clone(),
        None => retake_analyzer::slowest_tenth(&analyzer, &runs).await?,
    };
    let mut found = retake_analyzer::bubble_up(&analyzer, &runs, &condition).await?;
    if found.selected == 0 || found.others == 0 {
        let which = if found.selected == 0 { "no trace" } else { "every trace" };
        let message = format!("compare traces of {}: {which} satisfies {condition}", args.runs);
        return Err(Failure::new(Code::NotFound, message).help(
            "some must, and some must not; `retake sql \"select * from trace_summary\"` shows them",
        ));
    }
    found.lifts.retain(|lift| lift.group < args.limit);
    match context.format_or(Format::Table) {
        Format::Json => print_json(&render::contrast_json(&found, &condition))?,
        format @ (Format::Table | Format::Markdown) => {
            print(&render::contrast(&found, &condition, format))?;
        }
        other => return Err(unsupported(other, "what distinguishes traces")),
    }
    Ok(Code::Ok)
}

pub(crate) async fn what_if(context: &Context, args: &WhatIf) -> Result<Code, Failure> {
    // `retake what-if 'llm*0.5'` means the last run.
    let (run, change) = match (args.run.contains('*'), &args.change) {
        (true, None) => ("last", Some(&args.run)),
        (_, change) => (args.run.as_str(), change.as_ref()),
    };
    // Before the store is opened: a change that makes no sense is wrong whatever was recorded.
    let usage = |reason: String| Failure::new(Code::Usage, format!("read the change {reason}"));
    let factors = change.map(|text| what_if::parse_factors(text).map_err(usage)).transpose()?;
    let store = context.store()?;
    let run_id = store.select(run)?;
    let analyzer = analyzer(context, &store, &[std::slice::from_ref(&run_id)])?;
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        let message = unsupported(format, "a prediction");
        return Err(message
            .help("`retake sql` writes the rows of what_if() and speedup_curve() in any format"));
    }
    let is_json = format == Format::Json;
    match factors {
        Some(factors) => {
            let rows = what_if::what_if(&analyzer, &run_id, &factors).await?;
            match is_json {
                true => print_json(&render::prediction_json(&run_id, &factors, &rows))?,
                false => print(&render::prediction(&run_id, &factors, &rows, format))?,
            }
        }
        None => {
            let curves = what_if::speedup_curves(&analyzer, &run_id).await?;
            match is_json {
                true => print_json(&render::speedups_json(&run_id, &curves))?,
                false => print(&render::speedups(&run_id, &curves, format))?,
            }
        }
    }
    if format == Format::Table {
        context.say("queues and shared processors stay as recorded here; `retake replay` measures");
    }
    Ok(Code::Ok)
}
