//! Everything a report draws, put together.

use std::collections::{BTreeSet, HashMap};

use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::RunId;

use crate::assemble::{int, number, text, value};
use crate::breakdown::{GroupKey, breakdown, breakdown_with_durations};
use crate::check::{Budgets, Check, check};
use crate::diff::{DiffOptions, diff_repeated};
use crate::error::AnalyzeError;
use crate::flames::flames;
use crate::model::{
    BaselineData, BudgetVerdict, Diff, ReportData, ReportQuery, TraceNode, TraceSummary, Trend,
};
use crate::retrieval::retrieval;
use crate::session::Analyzer;
use crate::texts::{digests, texts};
use crate::trace::span_key;
use crate::traces::{data_quality, trace_summaries, trace_tree};
use crate::trend::{TrendQuery, trend_of};

/// What a report is on.
#[derive(Debug, Clone, Copy)]
pub struct ReportRequest<'a> {
    /// The run, and repeats of it, which count in the comparison.
    pub runs: &'a [RunId],
    /// The run it is compared with, and repeats of that; none leaves the comparison out.
    pub baselines: &'a [RunId],
    /// Runs like it, of all ages, for the trend; the run itself belongs to them.
    pub history: &'a [RunId],
    /// The budgets it should keep, if there are any.
    pub budgets: Option<&'a Budgets>,
    /// The runs that each baseline of the budgets names.
    pub named: &'a HashMap<String, Vec<RunId>>,
    /// Whether texts that were kept are shown.
    pub with_text: bool,
}

/// Everything a report draws.
///
/// # Errors
/// `runs` is empty, a run is not in scope, a file is damaged, or a budget's SQL is wrong.
pub async fn report_data(
    analyzer: &Analyzer,
    request: ReportRequest<'_>,
) -> Result<ReportData, AnalyzeError> {
    let ReportRequest { runs, baselines, history, budgets, named, with_text } = request;
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
    let shown: BTreeSet<&str> = match with_text {
        true => trees.iter().flat_map(digests).collect(),
        false => BTreeSet::new(),
    };
    let texts = texts(analyzer, run_id, &shown).await?;
    let baseline = match baselines.first() {
        Some(base) => Some(baseline_data(analyzer, base, baselines, runs).await?),
        None => None,
    };
    let mut data = ReportData {
        run: analyzer.run(run_id)?,
        breakdown,
        traces,
        trees,
        texts,
        durations,
        token_gaps_ns: token_gaps(analyzer, run_id).await?,
        flames: flames(analyzer, run_id).await?,
        retrieval: retrieval(analyzer, run_id).await?,
        budgets: match budgets {
            Some(budgets) => verdicts(analyzer, runs, budgets, named).await?,
            None => Vec::new(),
        },
        trend: trend_of_stages(analyzer, history).await?,
        // Who knows how settings are judged puts it in.
        sweep: None,
        quality: data_quality(analyzer, run_id).await?,
        baseline,
        queries: Vec::new(),
    };
    data.queries = queries(&data, run_id);
    Ok(data)
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
        flames: flames(analyzer, base).await?,
        diff: drawn(diff_repeated(analyzer, bases, candidates, &DiffOptions::default()).await?),
    })
}

/// The budgets as the gate decides them.
async fn verdicts(
    analyzer: &Analyzer,
    runs: &[RunId],
    budgets: &Budgets,
    named: &HashMap<String, Vec<RunId>>,
) -> Result<Vec<BudgetVerdict>, AnalyzeError> {
    let asked = Check {
        runs,
        baseline: &[],
        budgets: Some(budgets),
        named,
        options: DiffOptions::default(),
        inconclusive_fails: false,
    };
    Ok(check(analyzer, &asked).await?.budgets)
}

/// How long stages took in runs like this one; `None` with too few of them for a line.
async fn trend_of_stages(
    analyzer: &Analyzer,
    history: &[RunId],
) -> Result<Option<Trend>, AnalyzeError> {
    if history.len() < TREND_RUNS_MIN {
        return Ok(None);
    }
    let runs = history.iter().map(|run_id| analyzer.run(run_id)).collect::<Result<Vec<_>, _>>()?;
    let query = TrendQuery::parse(TREND_METRIC, None, &["stage".to_owned()]);
    let query = query.map_err(|error| AnalyzeError::Internal(error.to_string()))?;
    trend_of(analyzer, &query, runs).await.map(Some)
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

/// The queries behind the sections, in the order of the page.
fn queries(data: &ReportData, run_id: &RunId) -> Vec<ReportQuery> {
    // Neither run ids nor these trace ids have a character that would need quoting.
    let slowest = data.traces.first().map(|trace| trace.trace_id.as_str());
    let slowest = slowest.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let base = data.baseline.as_ref().map(|base| base.run.run_id.as_str());
    let always = |section, title: &str, sql: String| {
        Some(ReportQuery { section, title: title.to_owned(), sql })
    };
    let of_run =
        |view: &str, rest: &str| format!("SELECT * FROM {view} WHERE run_id = '{run_id}' {rest}");
    let found = [
        always("run", "The run", of_run("run_summary", "ORDER BY run_id")),
        (!data.budgets.is_empty())
            .then(|| format!("SELECT * FROM budget_violations('{run_id}')"))
            .and_then(|sql| always("budgets", "Budgets that are crossed", sql)),
        always(
            "stages",
            "Times by stage",
            format!("SELECT * FROM self_time('{run_id}') ORDER BY wall_ns DESC"),
        ),
        always("stages", "Latency by stage", of_run("stage_latency", "ORDER BY sum_ns DESC")),
        always(
            "paths",
            "Times by path of stages",
            format!("SELECT * FROM flamegraph('{run_id}') ORDER BY wall_ns DESC"),
        ),
        base.map(|base| format!("SELECT * FROM compare_runs('{base}', '{run_id}')"))
            .and_then(|sql| always("comparison", "Comparison with the baseline", sql)),
        always(
            "latency",
            "Percentiles of traces",
            format!(
                "SELECT quantiles(duration_ns, [0.5, 0.95, 0.99]) AS duration_ns,\n       \
                 quantiles(ttft_ns, [0.5, 0.95, 0.99]) AS ttft_ns\n\
                 FROM trace_summary WHERE run_id = '{run_id}'"
            ),
        ),
        data.retrieval
            .as_ref()
            .map(|_| {
                format!(
                    "SELECT role, rank, count(*) AS documents, approx_percentile_cont(score, 0.5) AS score\n\
                     FROM documents WHERE run_id = '{run_id}' GROUP BY role, rank ORDER BY role, rank"
                )
            })
            .and_then(|sql| always("retrieval", "Scores by rank", sql)),
        slowest
            .map(|trace| format!("SELECT * FROM trace_spans('{trace}', '{run_id}')"))
            .and_then(|sql| always("waterfalls", "Spans of the slowest trace", sql)),
        always(
            "slowest",
            "Slowest traces",
            format!("SELECT * FROM slowest_traces('{run_id}', 20)"),
        ),
        always(
            "errors",
            "Failures, where they began",
            of_run("spans", "AND is_error_origin ORDER BY start_unix_ns LIMIT 100"),
        ),
        always("tokens", "Tokens and cost by model", of_run("cost_by_model", "ORDER BY cost_usd DESC")),
        always("llm", "Calls of language models", of_run("llm_calls", "ORDER BY duration_ns DESC LIMIT 20")),
        always("batches", "Batches", of_run("batch_efficiency", "ORDER BY stage, batch_size")),
        data.trend
            .as_ref()
            .map(|_| format!("SELECT * FROM change_points('{TREND_METRIC}', 'stage')"))
            .and_then(|sql| always("trend", "Changes of level", sql)),
    ];
    found.into_iter().flatten().collect()
}

/// What the trend of a report shows.
const TREND_METRIC: &str = "p95(duration)";
/// Fewest runs that make a line worth looking at.
const TREND_RUNS_MIN: usize = 3;
/// Trees drawn: more do not fit a page anyone reads.
const TREES_SLOWEST: usize = 5;
/// Failed traces drawn beyond the slowest.
const TREES_FAILED: usize = 5;
/// Spans drawn of one trace; an ingest may have a hundred thousand.
const TREE_SPANS_MAX: usize = 1500;
/// Arrivals read for the histogram of gaps.
const TOKEN_ARRIVALS_MAX: usize = 2_000_000;
