//! Options of the verbs that ask why, and what if: `explain`, `bubble-up` and `what-if`.

use clap::Args;

use crate::complete;

/// Options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The runs to compare with, such as `last~1`, `baseline:main` or `nightly*10`
    #[arg(add = complete::some_runs())]
    pub(crate) base: String,
    /// The runs under question
    #[arg(default_value = "last", add = complete::some_runs())]
    pub(crate) candidate: String,
}

/// Options of `bubble-up`.
#[derive(Debug, Args)]
pub(crate) struct BubbleUp {
    /// The runs: one, or several such as `nightly*5`
    #[arg(default_value = "last", add = complete::some_runs())]
    pub(crate) runs: String,
    /// Which traces to look at: an SQL condition over the view `trace_summary` (`duration_ns`,
    /// `ttft_ns`, `errors`, `input_tokens`, `cost_usd`, ...) [default: the slowest tenth]
    #[arg(long = "where", value_name = "SQL")]
    pub(crate) condition: Option<String>,
    /// Rows to show; attributes that the very same traces have share one
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

/// Options of `what-if`.
#[derive(Debug, Args)]
pub(crate) struct WhatIf {
    /// The run
    #[arg(default_value = "last", add = complete::one_run())]
    pub(crate) run: String,
    /// `STAGE*FACTOR`, several with commas between them: `llm*0.5` is twice as fast, `rerank*0` is
    /// gone [default: every stage in turn, a tenth faster to gone]
    #[arg(value_name = "CHANGE")]
    pub(crate) change: Option<String>,
}
