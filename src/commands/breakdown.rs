//! `retake breakdown`.

use retake_analyzer::GroupKey;

use super::analyzer;
use crate::cli::{Breakdown, Format};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn run(context: &Context, args: &Breakdown) -> Result<Code, Failure> {
    let by = args
        .by
        .split(',')
        .map(|word| word.trim().parse::<GroupKey>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let store = context.store()?;
    let run_id = context.select(&store, &args.run)?;
    let analyzer = analyzer(context, &store, &[std::slice::from_ref(&run_id)])?;
    let mut breakdown = retake_analyzer::breakdown(&analyzer, &run_id, &by).await?;
    if let Some(slo) = &args.slo {
        breakdown.goodput = Some(retake_analyzer::goodput(&analyzer, &run_id, slo).await?);
    }
    match context.format_or(Format::Table) {
        Format::Json => print_json(&breakdown)?,
        format @ (Format::Table | Format::Markdown) => {
            let run = analyzer.run(&run_id)?;
            let look = context.look(format);
            print(&render::breakdown(&breakdown, &run.name, &args.by, format, look))?;
            context.say("next: retake trace slowest · retake report · retake sql");
        }
        other => return Err(unsupported(other, "a breakdown")),
    }
    Ok(Code::Ok)
}
