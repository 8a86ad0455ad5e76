//! Everything a report draws, put together.

use std::collections::HashMap;

use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::RunId;

use crate::assemble::{int, number, text, value};
use crate::breakdown::{GroupKey, breakdown, breakdown_with_durations};
use crate::diff::{DiffOptions, diff_repeated};
use crate::error::AnalyzeError;
use crate::model::{BaselineData, Diff, ReportData, TraceNode, TraceSummary};
use crate::session::Analyzer;
use crate::trace::span_key;
use crate::traces::{data_quality, trace_summaries, trace_tree};

/// Everything a report draws on the first of `runs`, compared with the first of `baselines` if
/// there is one. Further runs of each are repeats of the first, and count in the comparison.
///
/// # Errors
/// `runs` is empty, a run is not in scope, or a file is damaged.
pub async fn report_data(
    analyzer: &Analyzer,
    runs: &[RunId],
    baselines: &[RunId],
) -> Result<ReportData, AnalyzeError> {
    let run_id = runs
        .first()
        .ok_or_else(|| AnalyzeError::Internal("a report was asked for on no run".to_owned()))?;
    let by = [GroupKey::Stage];
    let (breakdown, durations) = breakdown_with_durations(analyzer, run_id, &by).await?;
    let mut traces = trace_summaries(analyzer, run_id).await?;
    traces.sort_by_cached_key(|trace| {
        (std::cmp::Reverse(trace.duration_ns), trace.start_unix_ns, trace.trace_id.clone())
    });
    let mut trees = Vec::new();
    for trace_id in shown(&traces) {
        let mut tree = trace_tree(analyzer, run_id, trace_id).await?;
        tree.nodes = longest(tree.nodes);
        trees.push(tree);
    }
    let baseline = match baselines.first() {
        Some(base) => Some(baseline_data(analyzer, base, baselines, runs).await?),
        None => None,
    };
    Ok(ReportData {
        run: analyzer.run(run_id)?,
        breakdown,
        traces,
        trees,
        durations,
        token_gaps_ns: token_gaps(analyzer, run_id).await?,
        quality: data_quality(analyzer, run_id).await?,
        baseline,
        queries: queries(run_id),
    })
}

async fn baseline_data(
    analyzer: &Analyzer,
    base: &RunId,
    bases: &[RunId],
    candidates: &[RunId],
) -> Result<BaselineData, AnalyzeError> {
    let summaries = trace_summaries(analyzer, base).await?;
    Ok(BaselineData {
        run: analyzer.run(base)?,
        breakdown: breakdown(analyzer, base, &[GroupKey::Stage]).await?,
        trace_durations_ns: summaries.iter().map(|trace| trace.duration_ns).collect(),
        diff: drawn(diff_repeated(analyzer, bases, candidates, &DiffOptions::default()).await?),
    })
}

/// A report draws times on one axis, a row for each stage; what else sets of runs are compared by
/// (cost, tokens, failures, other percentiles) is for `retake diff`.
fn drawn(mut diff: Diff) -> Diff {
    diff.rows.retain(|row| matches!(row.metric.as_str(), "latency" | "wall"));
    diff
}

/// The slowest traces, then the slowest failed ones that are not among them.
fn shown(slowest_first: &[TraceSummary]) -> Vec<&str> {
    let (slowest, rest) = slowest_first.split_at(slowest_first.len().min(TREES_SLOWEST));
    let failed = rest.iter().filter(|trace| trace.error.is_some()).take(TREES_FAILED);
    slowest.iter().chain(failed).map(|trace| trace.trace_id.as_str()).collect()
}

/// Keeps the longest spans of a tree with all their ancestors, in its order; readers see from the
/// trace's number of spans that there are more.
fn longest(nodes: Vec<TraceNode>) -> Vec<TraceNode> {
    if nodes.len() <= TREE_SPANS_MAX {
        return nodes;
    }
    let mut by_duration: Vec<(i64, usize, usize)> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| (-node.span.duration_ns, node.depth, index))
        .collect();
    by_duration.sort_unstable();
    let parents = parents(&nodes);
    let mut kept = vec![false; nodes.len()];
    for (_, _, index) in by_duration.into_iter().take(TREE_SPANS_MAX) {
        // Upwards until an ancestor that is kept already: linear over all spans.
        let mut above = Some(index);
        while let Some(slot) = above.and_then(|i| kept.get_mut(i)).filter(|kept| !**kept) {
            *slot = true;
            above = above.and_then(|i| parents.get(i).copied().flatten());
        }
    }
    nodes.into_iter().zip(kept).filter_map(|(node, is_kept)| is_kept.then_some(node)).collect()
}

/// Where each span's parent stands: the nearest span before it that is less deep.
fn parents(nodes: &[TraceNode]) -> Vec<Option<usize>> {
    let mut path: Vec<usize> = Vec::new();
    let mut parents = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        path.truncate(node.depth);
        parents.push(path.last().copied());
        path.push(index);
    }
    parents
}

/// Gaps between neighbouring arrivals of output tokens of the same call, ns.
async fn token_gaps(analyzer: &Analyzer, run_id: &RunId) -> Result<Vec<i64>, AnalyzeError> {
    let mut rows = analyzer
        .context()
        .table("tokens")
        .await?
        .filter(col("run_id").eq(lit(run_id.as_str())))?
        .select_columns(&["trace_id", "span_id", "token_index", "time_unix_ns"])?
        .limit(0, Some(TOKEN_ARRIVALS_MAX))?
        .execute_stream()
        .await?;
    let mut calls: HashMap<(u64, u64), Vec<(i64, i64)>> = HashMap::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (traces, spans) = (text(&batch, "trace_id")?, text(&batch, "span_id")?);
        let (indices, times) = (int(&batch, "token_index")?, int(&batch, "time_unix_ns")?);
        for row in 0..batch.num_rows() {
            let key = |column| span_key(value(column, row).unwrap_or(""));
            let arrival = (number(&indices, row), number(&times, row));
            if let (Some(index), Some(time)) = arrival {
                calls.entry((key(&traces), key(&spans))).or_default().push((index, time));
            }
        }
    }
    let mut gaps: Vec<i64> = Vec::new();
    for arrivals in calls.values_mut() {
        arrivals.sort_unstable();
        let times = arrivals.iter().map(|(_, time)| *time);
        gaps.extend(times.clone().zip(times.skip(1)).map(|(a, b)| b.saturating_sub(a).max(0)));
    }
    gaps.sort_unstable();
    Ok(gaps)
}

fn queries(run_id: &RunId) -> Vec<(String, String)> {
    // A run id has no character that would need quoting.
    let of_run = |title: &str, view: &str, order: &str| {
        let sql = format!("SELECT * FROM {view} WHERE run_id = '{run_id}' ORDER BY {order}");
        (title.to_owned(), sql)
    };
    vec![
        of_run("Summary", "run_summary", "run_id"),
        of_run("Latency by stage", "stage_latency", "sum_ns DESC"),
        of_run("Self time by stage", "stage_self_time", "self_ns DESC"),
        of_run("Slowest traces", "trace_summary", "duration_ns DESC LIMIT 20"),
        of_run("Calls of language models", "llm_calls", "duration_ns DESC LIMIT 20"),
        of_run("Batches", "batch_efficiency", "stage, batch_size"),
        of_run("Tokens and cost", "cost_by_model", "cost_usd DESC"),
    ]
}

/// Trees drawn: more do not fit a page anyone reads.
const TREES_SLOWEST: usize = 5;
/// Failed traces drawn beyond the slowest.
const TREES_FAILED: usize = 5;
/// Spans drawn of one trace; an ingest may have a hundred thousand.
const TREE_SPANS_MAX: usize = 1500;
/// Arrivals read for the histogram of gaps.
const TOKEN_ARRIVALS_MAX: usize = 2_000_000;
