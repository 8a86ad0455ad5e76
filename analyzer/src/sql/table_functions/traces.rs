//! Traces as rows.

use arrow::datatypes::DataType::{Boolean, Int64, Utf8};
use datafusion::prelude::{col, lit};
use retake_schemas::RunId;

use super::arguments::Arguments;
use super::columns::{flags, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::assemble::{text, value};
use crate::error::AnalyzeError;
use crate::model::{TraceNode, TraceSummary};
use crate::session::Analyzer;
use crate::traces::{trace_summaries, trace_tree};

pub(super) const SLOWEST_TRACES: Definition = Definition {
    doc: FunctionDoc {
        call: "slowest_traces(run[, n])",
        doc: "The `n` (10) traces of a run that took longest, longest first.",
        example: "SELECT * FROM slowest_traces('last', 5)",
    },
    prepare: slowest,
};

pub(super) const TRACE_SPANS: Definition = Definition {
    doc: FunctionDoc {
        call: "trace_spans(trace_id[, run])",
        doc: "The spans of one trace as a tree in display order: depth, self time, whether on the \
              critical path. A prefix of the id is enough; without a run all runs in scope are searched.",
        example: "SELECT t.* FROM trace_spans('4bf92f3577b34da6') t",
    },
    prepare: spans,
};

fn slowest(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let (run, most) = (arguments.text(0, "the run")?, arguments.count_or(1, 10)?);
    Ok(Answer::of(
        &[
            ("run_id", Utf8),
            ("trace_id", Utf8),
            ("name", Utf8),
            ("request_id", Utf8),
            ("start_unix_ns", Int64),
            ("duration_ns", Int64),
            ("spans", Int64),
            ("ttft_ns", Int64),
            ("input_tokens", Int64),
            ("output_tokens", Int64),
            ("error", Utf8),
        ],
        run,
        move |analyzer, run| async move {
            let run_id = analyzer.select(&run)?;
            let mut rows: Vec<TraceSummary> = trace_summaries(&analyzer, &run_id).await?;
            rows.sort_by(|a, b| (b.duration_ns, &a.trace_id).cmp(&(a.duration_ns, &b.trace_id)));
            rows.truncate(most);
            Ok(vec![
                texts(rows.iter().map(|_| run_id.to_string())),
                texts(rows.iter().map(|row| row.trace_id.clone())),
                texts(rows.iter().map(|row| row.name.clone())),
                texts(rows.iter().map(|row| row.request_id.clone())),
                ints(rows.iter().map(|row| row.start_unix_ns)),
                ints(rows.iter().map(|row| row.duration_ns)),
                ints(rows.iter().map(|row| row.spans as i64)),
                ints(rows.iter().map(|row| row.ttft_ns)),
                ints(rows.iter().map(|row| row.input_tokens)),
                ints(rows.iter().map(|row| row.output_tokens)),
                texts(rows.iter().map(|row| row.error.clone())),
            ])
        },
    ))
}

fn spans(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let (trace, run) = (arguments.text(0, "the trace")?, arguments.optional_text(1)?);
    Ok(Answer::of(
        &[
            ("run_id", Utf8),
            ("depth", Int64),
            ("stage", Utf8),
            ("name", Utf8),
            ("kind", Utf8),
            ("start_unix_ns", Int64),
            ("duration_ns", Int64),
            ("self_ns", Int64),
            ("is_critical", Boolean),
            ("status", Utf8),
            ("span_id", Utf8),
            ("parent_span_id", Utf8),
        ],
        (trace, run),
        move |analyzer, (trace, run)| async move {
            let run_id = match run {
                Some(run) => analyzer.select(&run)?,
                None => run_of(&analyzer, &trace).await?,
            };
            let nodes: Vec<TraceNode> = trace_tree(&analyzer, &run_id, &trace).await?.nodes;
            Ok(vec![
                texts(nodes.iter().map(|_| run_id.to_string())),
                ints(nodes.iter().map(|node| node.depth as i64)),
                texts(nodes.iter().map(|node| node.span.stage.clone())),
                texts(nodes.iter().map(|node| node.span.name.clone())),
                texts(nodes.iter().map(|node| node.span.kind.clone())),
                ints(nodes.iter().map(|node| node.span.start_unix_ns)),
                ints(nodes.iter().map(|node| node.span.duration_ns)),
                ints(nodes.iter().map(|node| node.self_ns)),
                flags(nodes.iter().map(|node| node.is_critical)),
                texts(nodes.iter().map(|node| node.span.status.clone())),
                texts(nodes.iter().map(|node| node.span.span_id.clone())),
                texts(nodes.iter().map(|node| node.span.parent_span_id.clone())),
            ])
        },
    ))
}

/// The only run with a trace of this prefix.
async fn run_of(analyzer: &Analyzer, prefix: &str) -> Result<RunId, AnalyzeError> {
    let prefix = prefix.trim().to_ascii_lowercase();
    let wrong = |reason: String| AnalyzeError::Sql { message: format!("trace_spans: {reason}") };
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong(format!("{prefix:?} is no trace id: up to 32 hex digits")));
    }
    let from = col("trace_id").gt_eq(lit(&prefix));
    // `g` follows every hex digit.
    let to = col("trace_id").lt(lit(format!("{prefix}g")));
    let found = analyzer
        .context()
        .table("spans")
        .await?
        .filter(from.and(to))?
        .select_columns(&["run_id"])?
        .distinct()?
        .collect()
        .await?;
    let mut runs = Vec::new();
    for batch in &found {
        let column = text(batch, "run_id")?;
        runs.extend((0..batch.num_rows()).filter_map(|row| value(&column, row).map(str::to_owned)));
    }
    match runs.as_slice() {
        [one] => one.parse().map_err(|_| AnalyzeError::Internal(format!("run id {one}"))),
        [] => Err(wrong(format!("no trace begins with {prefix}"))),
        several => Err(wrong(format!(
            "traces of {} runs begin with {prefix}; name the run",
            several.len()
        ))),
    }
}
