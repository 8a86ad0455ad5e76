//! Where a run's time, tokens, money and errors went.

use serde::Serialize;

/// Where a run's time, tokens, money and errors went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breakdown {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
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
    /// Traces that met an objective, if one was given.
    pub goodput: Option<Goodput>,
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
    /// Median time for each output token after the first, ns: (duration - time to first token) /
    /// (output tokens - 1), as serving benchmarks define it. `None` when no call streamed.
    pub tpot_p50_ns: Option<i64>,
    /// Part of `input_tokens` that the provider read from its cache.
    pub cache_read_tokens: Option<i64>,
    /// Part of `output_tokens` spent on reasoning.
    pub reasoning_tokens: Option<i64>,
    /// Attempts after the first; `None` when nobody recorded any.
    pub retries: Option<i64>,
    /// Spans that say whether a cache answered.
    pub cache_lookups: u64,
    /// Those whose answer came from it.
    pub cache_hits: u64,
}

/// How many traces were as good as was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goodput {
    /// What was asked for.
    pub slo: String,
    /// Share of the traces that satisfy it, 0 to 1; `None` when it is known of none.
    pub share: Option<f64>,
    /// Traces of which it is known whether they do.
    pub traces: u64,
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
