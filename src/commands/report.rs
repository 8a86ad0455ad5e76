//! `retake report`.

use super::{analyzer, with_repeats};
use crate::cli::Report;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::print;

pub(crate) async fn run(context: &Context, args: &Report) -> Result<Code, Failure> {
    let store = context.store()?;
    let run_id = context.select(&store, &args.run)?;
    let base = args.base.as_deref().map(|base| context.select(&store, base)).transpose()?;
    if base.as_ref() == Some(&run_id) {
        return Err(Failure::new(Code::Usage, format!("compare run {run_id} with itself")));
    }
    let runs = with_repeats(&store, &run_id)?;
    let bases = match &base {
        Some(base) => with_repeats(&store, base)?,
        None => Vec::new(),
    };
    let analyzer = analyzer(context, &store, &[&runs, &bases])?;
    let data = retake_analyzer::report_data(&analyzer, &runs, &bases).await?;
    let html = retake_analyzer::report::render(&data);
    std::fs::write(&args.output, html).map_err(|error| {
        let message = format!("write report {}: {error}", args.output.display());
        Failure::new(Code::Environment, message)
    })?;
    print(&args.output.display().to_string())?;
    context.say("open it in a browser; it needs no network");
    Ok(Code::Ok)
}
