//! `retake trace`.

use retake_analyzer::model::TraceSummary;
use retake_analyzer::{trace_summaries, trace_tree};

use super::analyzer;
use crate::cli::{Format, Trace};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn run(context: &Context, args: &Trace) -> Result<Code, Failure> {
    let store = context.store()?;
    let run_id = context.select(&store, &args.run)?;
    let analyzer = analyzer(context, &store, &[std::slice::from_ref(&run_id)])?;
    let format = context.format_or(Format::Table);
    let mut traces = match args.trace.as_str() {
        "list" | "slowest" | "failed" => trace_summaries(&analyzer, &run_id).await?,
        _ => Vec::new(),
    };
    traces.sort_by_key(|trace| std::cmp::Reverse(trace.duration_ns));
    let wanted = match args.trace.as_str() {
        "list" => return list(context, &traces, args.most, format),
        "slowest" => slowest(&traces, |_| true),
        "failed" => slowest(&traces, |trace| trace.error.is_some()),
        prefix => Some(prefix.to_owned()),
    };
    let Some(prefix) = wanted else {
        let message = format!("find a {} trace in run {run_id}: there is none", args.trace);
        return Err(Failure::new(Code::NotFound, message).help("retake trace list"));
    };
    let tree = trace_tree(&analyzer, &run_id, &prefix).await?;
    match format {
        Format::Json => print_json(&render::tree_json(&tree))?,
        Format::Table | Format::Markdown => {
            print(&render::waterfall(&tree, args.most, context.look(format)))?;
        }
        other => return Err(unsupported(other, "a trace")),
    }
    Ok(Code::Ok)
}

fn slowest(traces: &[TraceSummary], is_wanted: impl Fn(&TraceSummary) -> bool) -> Option<String> {
    traces.iter().find(|trace| is_wanted(trace)).map(|trace| trace.trace_id.clone())
}

fn list(
    context: &Context,
    traces: &[TraceSummary],
    most: usize,
    format: Format,
) -> Result<Code, Failure> {
    match format {
        Format::Json => print_json(&serde_json::json!({"schema_version": 1, "traces": traces}))?,
        Format::Table | Format::Markdown => {
            let shown = traces.get(..most.min(traces.len())).unwrap_or(traces);
            print(&render::traces(shown, format, context.look(format)))?;
            if shown.len() < traces.len() {
                let left = traces.len() - shown.len();
                context.say(&format!("{left} more; --most {} shows them", traces.len()));
            }
            context.say("next: retake trace slowest · retake trace <id>");
        }
        other => return Err(unsupported(other, "a list of traces")),
    }
    Ok(Code::Ok)
}
