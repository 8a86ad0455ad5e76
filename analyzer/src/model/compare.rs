//! Runs compared: rows, verdicts, and what got worse.

use serde::{Deserialize, Serialize};

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
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
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

/// A trace to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
