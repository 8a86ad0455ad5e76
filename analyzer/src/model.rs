//! What the analyses answer, as plain data: the command line prints it, JSON carries it (fields
//! may be added, never renamed), the report draws it.
//!
//! Three times, and which of them add up (`docs/breakdown.md`):
//!
//! * `total_ns` sums durations. Nested and parallel work counts more than once; never a share.
//! * `self_ns` is a span's time not covered by the union of its children. Sums to busy time.
//! * `wall_ns` divides every instant of a trace among the spans that are active then and have no
//!   active child. Sums exactly to the traces' wall time, so shares of it are honest.
//! * `critical_ns` is time on the critical path. Sums to the wall time too, and says where a
//!   speed-up would help.

use std::collections::BTreeMap;

use retake_schemas::tables::{DocumentRow, RunRow, SpanRow};
use serde::Serialize;

/// Version of the JSON documents.
pub const SCHEMA_VERSION: u32 = 1;

/// Where a run's time, tokens, money and errors went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breakdown {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run.
    pub run_id: String,
    /// Traces in it.
    pub traces: u64,
    /// Spans in it.
    pub spans: u64,
    /// Sum of the traces' wall times, ns; `rows[].wall_ns` sums to exactly this.
    pub wall_ns: i64,
    /// Spans that are named as a parent but never arrived.
    pub lost_spans: u64,
    /// Events the recorder had to drop.
    pub dropped_events: u64,
    /// One row per group, largest attributed wall time first.
    pub rows: Vec<BreakdownRow>,
    /// Tokens by what they were for, each counted once.
    pub tokens: TokenTotals,
    /// Tokens that the program counted itself, in metrics; `None` when it sent none.
    pub metric_tokens: Option<MetricTokens>,
    /// Failures at their origin.
    pub errors: Vec<ErrorOrigin>,
}

impl Breakdown {
    /// What the program's metrics count and what its spans do, estimates apart, where these differ
    /// by more than one in a hundred: spans that never came, or calls without counts.
    #[must_use]
    pub fn disputed_tokens(&self) -> Option<[MetricTokens; 2]> {
        let TokenTotals { llm_input, llm_output, embedding, .. } = self.tokens;
        let spans = MetricTokens { input: llm_input.saturating_add(embedding), output: llm_output };
        let metrics = self.metric_tokens?;
        let differ = |a: i64, b: i64| a.abs_diff(b) > a.max(b).unsigned_abs() / 100;
        (differ(metrics.input, spans.input) || differ(metrics.output, spans.output))
            .then_some([metrics, spans])
    }
}

/// Tokens as the metrics of a program count them, embeddings among the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct MetricTokens {
    /// Input tokens.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
}

/// One stage (or other group) of a breakdown.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct BreakdownRow {
    /// The group: stage, or what `--by` names, joined with ` / `.
    pub stage: String,
    /// Kind of its spans, when they agree.
    pub kind: String,
    /// Spans, without those that only wrap another of their kind; all spans of a row that has no
    /// others.
    pub calls: u64,
    /// Spans that failed and where the failure began.
    pub errors: u64,
    /// Sum of durations, ns.
    pub total_ns: i64,
    /// Sum of self times, ns.
    pub self_ns: i64,
    /// Attributed wall time, ns.
    pub wall_ns: i64,
    /// `wall_ns` as a share of the run's, 0 to 1.
    pub wall_share: f64,
    /// Time on critical paths as a share of the run's wall time, 0 to 1.
    pub critical_share: f64,
    /// Median duration, ns.
    pub p50_ns: i64,
    /// 95th percentile of durations, ns.
    pub p95_ns: i64,
    /// 99th percentile of durations, ns.
    pub p99_ns: i64,
    /// Mean time waited before the work began, ns; `None` when nobody recorded it.
    pub queue_mean_ns: Option<i64>,
    /// Mean items per batch; `None` where there are no batches.
    pub batch_mean: Option<f64>,
    /// Input tokens, counted once; `None` when nobody counted.
    pub input_tokens: Option<i64>,
    /// Output tokens, counted once; `None` when nobody counted.
    pub output_tokens: Option<i64>,
    /// Who counted: `provider`, `tokenizer`, `estimate`, `none`, or `mixed`.
    pub tokens_source: String,
    /// Cost, US dollars; `None` when nobody recorded it.
    pub cost_usd: Option<f64>,
    /// Median time to first token, ns.
    pub ttft_p50_ns: Option<i64>,
}

/// Tokens of a run, each counted once. Estimates stand apart from counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct TokenTotals {
    /// Input tokens of language models, by provider or tokenizer.
    pub llm_input: i64,
    /// Output tokens of language models, by provider or tokenizer.
    pub llm_output: i64,
    /// Input tokens of embedding models, by provider or tokenizer.
    pub embedding: i64,
    /// Input tokens that are only estimated.
    pub estimated_input: i64,
    /// Output tokens that are only estimated.
    pub estimated_output: i64,
}

/// Where a failure began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorOrigin {
    /// Its trace.
    pub trace_id: String,
    /// The deepest span that failed.
    pub span_id: String,
    /// Its stage.
    pub stage: String,
    /// Class of the error.
    pub error_type: String,
    /// Its text.
    pub message: String,
}

/// One trace at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceSummary {
    /// The trace.
    pub trace_id: String,
    /// Name of its root span, or of its earliest one when the root is missing.
    pub name: String,
    /// The application's name for the request, if it has one.
    pub request_id: Option<String>,
    /// Start, ns since the Unix epoch.
    pub start_unix_ns: i64,
    /// From its first start to its last end, ns.
    pub duration_ns: i64,
    /// Spans in it.
    pub spans: u64,
    /// Time to the first output token, ns after the trace's start.
    pub ttft_ns: Option<i64>,
    /// Input tokens, counted once.
    pub input_tokens: i64,
    /// Output tokens, counted once.
    pub output_tokens: i64,
    /// The failure it began with, if any: `stage: error type`.
    pub error: Option<String>,
}

/// A trace as a tree in display order: parents before children, siblings by start.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceTree {
    /// The trace.
    pub trace_id: String,
    /// Start of the earliest span, ns since the Unix epoch.
    pub start_unix_ns: i64,
    /// From the first start to the last end, ns.
    pub duration_ns: i64,
    /// The spans with their depth.
    pub nodes: Vec<TraceNode>,
}

/// A trace with everything that is known of its spans.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceDetail {
    /// Its run.
    pub run: RunRow,
    /// Its spans.
    pub tree: TraceTree,
    /// What spans were given and gave back, by digest, as far as it was kept.
    pub texts: BTreeMap<String, KeptText>,
    /// Documents by span, in the order of their ranks.
    pub documents: BTreeMap<String, Vec<DocumentRow>>,
}

/// A text that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptText {
    /// The text, or its beginning.
    pub content: String,
    /// Size of the whole, bytes.
    pub bytes: i64,
    /// Whether the recorder cut it.
    pub is_truncated: bool,
}

/// A span in a [`TraceTree`].
#[derive(Debug, Clone, PartialEq)]
pub struct TraceNode {
    /// 0 for a root.
    pub depth: usize,
    /// Time not covered by the union of its children, ns.
    pub self_ns: i64,
    /// Whether it lies on the trace's critical path.
    pub is_critical: bool,
    /// The span.
    pub span: SpanRow,
}

/// Whether a change is for the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval is clear of the practical minimum, on the good side.
    Better,
    /// The interval is clear of the practical minimum, on the bad side.
    Worse,
    /// The whole interval lies within the practical minimum.
    Same,
    /// The data cannot tell; `note` says what would.
    Inconclusive,
}

impl CheckVerdict {
    /// Whether the limit was crossed, whatever that means for the check.
    #[must_use]
    pub fn is_crossed(self) -> bool {
        matches!(self, Self::Warn | Self::Fail)
    }
}

impl Verdict {
    /// As it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Two runs compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run compared against.
    pub base: String,
    /// The run under question.
    pub candidate: String,
    /// Whether both executed the same operations, so that requests are compared pairwise.
    pub paired: bool,
    /// Operations paired.
    pub pairs: u64,
    /// Executions of the workload on each side: base, candidate.
    pub repeats: [u64; 2],
    /// Settings that differ: name, base value, candidate value.
    pub settings_diff: Vec<(String, String, String)>,
    /// Why the numbers may not be comparable: other machine, dropped events, lost spans.
    pub warnings: Vec<String>,
    /// End to end first (`stage` = `(end to end)`), then stages, largest explained share first.
    pub rows: Vec<DiffRow>,
    /// The verdict of the end-to-end row.
    pub verdict: Verdict,
    /// What the verdict rests on, in words.
    pub note: String,
    /// What got worse, each cause once; empty when nothing did.
    pub findings: Vec<Finding>,
}

/// A regression: what got worse for whoever waits or pays, and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What got worse: `latency`, `latency p95`, `ttft`, `cost`, `input tokens`, `output tokens`
    /// or `errors`; further ones of the same cause follow, separated by `, `.
    pub metric: String,
    /// Kind of operation, empty when the program has one only.
    pub operation: String,
    /// The stage that accounts for most of it; `None` where stages do not say.
    pub stage: Option<String>,
    /// Where that stage is instrumented, when the instrumentation says.
    pub source_file: Option<String>,
    /// Line in it, from 1.
    pub source_line: Option<i64>,
    /// Relative change: 0.10 is 10 % more than base.
    pub effect: f64,
    /// 95 % confidence interval of `effect`.
    pub effect_ci: [f64; 2],
    /// Typical value in the base.
    pub base: f64,
    /// Typical value in the candidate.
    pub candidate: f64,
    /// Unit of both.
    pub unit: String,
    /// What each stage adds to the end-to-end change of the mean; sums exactly to it, largest
    /// first.
    pub contributions: Vec<Contribution>,
    /// The candidate's traces that show it best, slowest in that stage first; at most three.
    pub examples: Vec<ExampleTrace>,
}

/// A stage's part of an end-to-end change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contribution {
    /// The stage.
    pub stage: String,
    /// What it adds to the mean operation, ns; below zero when it got faster.
    pub change_ns: f64,
    /// The same as a share of the whole change.
    pub share: f64,
}

/// Whether a run keeps to its budgets, and whether it got worse.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run checked; the first, where several are checked together.
    pub run_id: String,
    /// All runs checked.
    pub runs: Vec<String>,
    /// The runs compared with; empty without a baseline.
    pub baseline: Vec<String>,
    /// Every budget, in the order of the file; with groups, the ones that matter.
    pub budgets: Vec<BudgetVerdict>,
    /// The budgets that were crossed.
    pub violations: Vec<BudgetVerdict>,
    /// The comparison with the baseline, if there is one.
    pub comparison: Option<Diff>,
    /// What got worse, each cause once.
    pub regressions: Vec<Finding>,
    /// What to mind.
    pub warnings: Vec<String>,
    /// Whether the check passes.
    pub verdict: CheckVerdict,
    /// How the process ends (`retake --help`).
    pub exit_code: u8,
}

/// Whether a budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// It is.
    Pass,
    /// It is not, and is only to be said.
    Warn,
    /// It is not.
    Fail,
    /// The data cannot tell; `note` says what would.
    Inconclusive,
}

/// One budget, for one group of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetVerdict {
    /// Name of the budget.
    pub budget: String,
    /// The group, where a budget is `per` something.
    pub group: Option<String>,
    /// What was measured, as written.
    pub metric: String,
    /// Unit of the numbers: `ns`, `usd`, `share` or `number`.
    pub unit: String,
    /// The limit; for a relative budget the change allowed.
    pub limit: Option<f64>,
    /// Whether the limit is the least allowed rather than the most.
    pub is_min: bool,
    /// Whether `limit`, `actual` and `interval` are relative changes against a baseline.
    pub is_relative: bool,
    /// What was found; for a relative budget the change.
    pub actual: Option<f64>,
    /// Room left as a share of the limit; below zero when crossed.
    pub margin: Option<f64>,
    /// 95 % interval of `actual`.
    pub interval: Option<[f64; 2]>,
    /// Rows (for a relative budget runs) it rests on.
    pub samples: u64,
    /// What crossing it means.
    pub severity: crate::check::Severity,
    /// Whether it is kept.
    pub verdict: CheckVerdict,
    /// Traces that contribute most.
    pub evidence: Vec<Evidence>,
    /// The first of the unbroken row of runs, up to this one, that cross it.
    pub first_bad_run: Option<String>,
    /// Line in the budget file, from 1.
    pub line: u64,
    /// What to mind, or what would decide.
    pub note: Option<String>,
}

/// A trace behind a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Its run.
    pub run_id: String,
    /// The trace.
    pub trace_id: String,
    /// What was measured in it.
    pub value: f64,
}

/// A trace to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExampleTrace {
    /// Its run.
    pub run_id: String,
    /// The trace.
    pub trace_id: String,
    /// What it took in the stage in question, ns.
    pub stage_ns: i64,
    /// What it took in all, ns.
    pub duration_ns: i64,
}

/// One stage of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffRow {
    /// The stage.
    pub stage: String,
    /// What is compared, such as `latency`.
    pub metric: String,
    /// Its unit, such as `ns`.
    pub unit: String,
    /// Typical value in the base run (median over operations).
    pub base: f64,
    /// Typical value in the candidate run.
    pub candidate: f64,
    /// Relative change: 0.10 is 10 % more than base.
    pub effect: f64,
    /// 95 % confidence interval of `effect`.
    pub effect_ci: [f64; 2],
    /// p-value after correction for the number of stages; `None` where no test applies.
    pub p_adjusted: Option<f64>,
    /// Operations in the base run; runs, where sets of runs are compared.
    pub n_base: u64,
    /// Operations in the candidate run; runs, where sets of runs are compared.
    pub n_candidate: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// Share of the end-to-end change that this stage's attributed wall time accounts for; the
    /// shares of all stages sum to 1.
    pub explains_share: Option<f64>,
    /// Why it is inconclusive, or what to mind.
    pub note: Option<String>,
    /// Where sets of runs are compared: the smallest relative change that as many runs would find
    /// in four of five attempts. `None` where that is not known.
    pub resolvable: Option<f64>,
    /// Runs a side it would take to find a change of the practical minimum; `None` when decided.
    pub runs_needed: Option<u64>,
}

/// A path of stages from the root of traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Flame {
    /// The stages, root first, joined by `;`.
    pub stack: String,
    /// Spans at its end.
    pub spans: u64,
    /// Sum of their self times, ns.
    pub self_ns: i64,
    /// Their attributed wall time, ns.
    pub wall_ns: i64,
}

/// What is odd about a run's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct DataQuality {
    /// Spans named as a parent that never arrived.
    pub lost_spans: u64,
    /// Spans whose parent never arrived.
    pub orphans: u64,
    /// Spans whose end was never seen.
    pub unfinished: u64,
    /// Events the recorder had to drop.
    pub dropped_events: u64,
    /// Rows by flag, for every flag that occurs.
    pub flags: Vec<(String, u64)>,
}

/// Everything a report draws.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportData {
    /// The run.
    pub run: RunRow,
    /// Its breakdown by stage.
    pub breakdown: Breakdown,
    /// Every trace, slowest first.
    pub traces: Vec<TraceSummary>,
    /// Trees of the slowest and of the failed traces.
    pub trees: Vec<TraceTree>,
    /// What the spans of these trees were given and gave back, by digest; empty unless asked for.
    pub texts: BTreeMap<String, KeptText>,
    /// Durations of every span by stage, ns, for histograms; stages in breakdown order.
    pub durations: Vec<(String, Vec<i64>)>,
    /// Gaps between neighbouring arrivals of output tokens, ns.
    pub token_gaps_ns: Vec<i64>,
    /// Every path of stages, by name.
    pub flames: Vec<Flame>,
    /// What retrieval and reranking found; `None` when nothing was retrieved.
    pub retrieval: Option<Retrieval>,
    /// The budgets of the run, as `retake check` decides them; empty without a budget file.
    pub budgets: Vec<BudgetVerdict>,
    /// The 95th percentile of durations by stage over the history of runs like this one; `None`
    /// where there are too few.
    pub trend: Option<Trend>,
    /// What is odd about the data.
    pub quality: DataQuality,
    /// The run compared against, with its breakdown and the comparison.
    pub baseline: Option<BaselineData>,
    /// The SQL behind the numbers.
    pub queries: Vec<ReportQuery>,
}

/// A query that gives the numbers of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportQuery {
    /// The section, as its links name it.
    pub section: &'static str,
    /// What it shows.
    pub title: String,
    /// The query.
    pub sql: String,
}

/// What retrieval and reranking found in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Retrieval {
    /// Retrieving calls.
    pub retrievals: u64,
    /// Those among them that found nothing.
    pub empty: u64,
    /// Scores by rank, for each stage and role with documents; the scale is the stage's own.
    pub ranks: Vec<RankScores>,
    /// What reranking did to the order of documents; `None` when nothing was reranked.
    pub reranking: Option<Reranking>,
    /// Quality by measure, from labels (`recall_at_5` and the like): name, mean and number of
    /// operations that have it.
    pub quality: Vec<(String, f64, u64)>,
    /// Sources by how often a document of theirs was retrieved, most frequent first.
    pub sources: Vec<(String, u64)>,
    /// Sources that were retrieved, all of them.
    pub sources_all: u64,
}

/// Scores at one rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RankScores {
    /// The stage.
    pub stage: String,
    /// `retrieved` or `rerank_output`.
    pub role: String,
    /// Position, from 0.
    pub rank: i64,
    /// Documents that stood there.
    pub documents: u64,
    /// 10th percentile, median and 90th percentile of their scores; `None` where none has one.
    pub scores: Option<[f64; 3]>,
}

/// What reranking did to the order of documents.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Reranking {
    /// Rerankings with input and output.
    pub rerankings: u64,
    /// Those whose first document changed.
    pub first_changed: u64,
    /// Documents given back, by the rank they came from (columns) and the rank they got (rows).
    pub moves: Vec<Vec<u64>>,
    /// Documents given back that moved up, stayed and moved down.
    pub moved: [u64; 3],
    /// Documents that were left out.
    pub dropped: u64,
}

/// The other side of a report with a baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineData {
    /// The run.
    pub run: RunRow,
    /// Its breakdown by stage.
    pub breakdown: Breakdown,
    /// Durations of its traces, ns.
    pub trace_durations_ns: Vec<i64>,
    /// Every path of stages, by name.
    pub flames: Vec<Flame>,
    /// The comparison; base is this run.
    pub diff: Diff,
}

/// A metric over the history of runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The metric, as written.
    pub metric: String,
    /// Unit of every value: `ns`, `usd`, `share` (0 to 1) or `number`.
    pub unit: String,
    /// SQL condition of the rows it is made of; `None` for all.
    pub select: Option<String>,
    /// What the rows are grouped by; empty for one group.
    pub by: Vec<String>,
    /// Runs looked at.
    pub runs: u64,
    /// Machine of the youngest run; runs of other machines are series of their own.
    pub machine_key: String,
    /// Fewest runs with a value in which a series can have a change point, given how many series
    /// are searched.
    pub runs_min: u64,
    /// Groups that are not among `series`, because there are too many.
    pub groups_left_out: u64,
    /// One per group and machine: those of the youngest run's machine first, by name.
    pub series: Vec<TrendSeries>,
    /// What to mind.
    pub warnings: Vec<String>,
}

/// The history of one group on one machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendSeries {
    /// Name of the group, empty where there is only one; on another machine than the youngest
    /// run's, with the machine's key.
    pub group: String,
    /// The machine.
    pub machine_key: String,
    /// Whether it is the machine of the youngest run.
    pub is_same_machine: bool,
    /// Every run of the machine, oldest first.
    pub points: Vec<TrendPoint>,
    /// The runs among them that have no value.
    pub gaps: Vec<String>,
    /// Where the level changed, oldest first.
    pub changes: Vec<TrendChange>,
    /// The youngest runs against the others since the last change; `None` with too few of them.
    pub recent: Option<TrendShift>,
}

/// A metric in one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendPoint {
    /// The run.
    pub run_id: String,
    /// Its start, ns since the Unix epoch.
    pub started_unix_ns: i64,
    /// Commit it was built from; `None` where that was not recorded.
    pub git_sha: Option<String>,
    /// The value, in the unit of the trend; `None` for a run that does not have the metric.
    pub value: Option<f64>,
    /// Rows the value was made of.
    pub samples: u64,
}

/// A place in a history where its level changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendChange {
    /// Position of the new level's first run in `points`, from 0.
    pub index: u64,
    /// The last run before.
    pub run_before: String,
    /// The first run of the new level.
    pub run: String,
    /// Commit of the run before; with `sha` it bounds what is to blame.
    pub sha_before: Option<String>,
    /// Commit of the new level's first run.
    pub sha: Option<String>,
    /// Median from the change before to this one, in the unit of the trend.
    pub median_before: f64,
    /// Median from this change to the next.
    pub median_after: f64,
    /// Relative change of the median: 0.10 is 10 % more; `None` when it was 0 or below.
    pub change: Option<f64>,
    /// Probability of as clear a change anywhere in any of the series, if nothing changed.
    pub p: f64,
    /// First run of the 95 % interval of where the new level begins.
    pub run_earliest: String,
    /// Last run of that interval.
    pub run_latest: String,
    /// Runs in that interval, both ends included.
    pub interval_runs: u64,
    /// Commit of the last run before that interval: nothing up to it is to blame.
    pub sha_before_earliest: Option<String>,
    /// Commit of the last run of that interval.
    pub sha_latest: Option<String>,
}

/// Whether the youngest runs of a history look unlike those before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendShift {
    /// Position in `points` from which on the runs stand out most, from 0.
    pub index: u64,
    /// The run there.
    pub run: String,
    /// Runs from it on that have a value.
    pub runs: u64,
    /// Median of the runs before it, back to the last change, in the unit of the trend.
    pub median_before: f64,
    /// Median of the runs from it on.
    pub median_after: f64,
    /// Relative change of the median; `None` when it was 0 or below.
    pub change: Option<f64>,
    /// Probability of runs that stand out as much in any of the series, if nothing changed.
    pub p: f64,
    /// Whether `p` is small enough for a warning.
    pub is_shifted: bool,
}
