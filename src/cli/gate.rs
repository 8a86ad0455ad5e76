//! Options of the gate: `check`, `baseline` and `trend`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::complete;

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The runs under question: one, or several such as `nightly*5` (see `retake diff --help`)
    #[arg(default_value = "last", add = complete::some_runs())]
    pub(crate) runs: String,
    /// The runs to compare with, such as `baseline:main` or `nightly*10`
    /// [default: baseline:main, if there is one]
    #[arg(long, value_name = "RUNS", add = complete::some_runs())]
    pub(crate) baseline: Option<String>,
    /// The budgets [default: `budgets.toml` found upward, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) budgets: Option<PathBuf>,
    /// Smallest relative change that counts as a regression, such as 5%
    #[arg(long, value_name = "CHANGE", default_value = "5%", value_parser = parse_change)]
    pub(crate) min_change: f64,
    /// What it means when the data cannot tell: `fail` exits with 20
    #[arg(long, value_name = "WHAT", default_value = "pass")]
    pub(crate) inconclusive: Inconclusive,
    /// For GitHub Actions: annotate lines of source, and write the step's summary
    #[arg(long)]
    pub(crate) github: bool,
    /// Write Markdown, short enough for a comment on a pull request
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write a SARIF log
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Option<PathBuf>,
    /// Print an example of a budget file, and do nothing else
    #[arg(long)]
    pub(crate) example: bool,
}

/// What it means when the data cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Inconclusive {
    /// The check passes, and says so.
    Pass,
    /// The check fails with exit code 20.
    Fail,
}

/// Options of `trend`.
#[derive(Debug, Args)]
pub(crate) struct Trend {
    /// A metric of budgets, such as `p95(duration)`, `p(99)` (of requests), `mean(cost_usd)`,
    /// `p95(ttft)`, `mean(recall)`, `share(critical_path, 'llm')`, `error_rate()`
    pub(crate) metric: String,
    /// A history for each stage, model, session, user, tenant, or SQL expression over the columns
    /// of `spans`; several with commas between them
    #[arg(long, value_name = "EXPR")]
    pub(crate) by: Vec<String>,
    /// Only of rows that satisfy an SQL condition, such as "stage = 'rerank'"
    #[arg(long, value_name = "SQL")]
    pub(crate) select: Option<String>,
    /// The runs, such as `nightly*50` or `baseline:main` (see `retake diff --help`)
    /// [default: the finished runs that have name and service of the youngest one]
    #[arg(long, value_name = "RUNS", add = complete::some_runs())]
    pub(crate) runs: Option<String>,
    /// Without --runs: at most so many of the youngest
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: u32,
    /// Exit with 10 when the last change is recent, for the worse, and large enough
    #[arg(long)]
    pub(crate) fail_on_change: bool,
    /// For --fail-on-change: less is worse, as it is for qualities
    #[arg(long)]
    pub(crate) less_is_worse: bool,
    /// For --fail-on-change: the new level began among so many of the youngest runs. A change is
    /// known when five runs have the new level
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(5..))]
    pub(crate) within: u32,
    /// For --fail-on-change: smallest relative change, such as 5%
    #[arg(long, value_name = "CHANGE", default_value = "5%", value_parser = parse_change)]
    pub(crate) min_change: f64,
}

/// Options of `baseline`.
#[derive(Debug, Args)]
pub(crate) struct Baseline {
    #[command(subcommand)]
    pub(crate) action: Option<BaselineAction>,
}

/// What to do with baselines.
#[derive(Debug, Subcommand)]
pub(crate) enum BaselineAction {
    /// These runs, and no others, are what is compared with from now on
    #[command(
        visible_alias = "bless",
        after_help = "Example: retake baseline set main 'nightly*10'"
    )]
    Set {
        /// Name of the baseline, such as main
        #[arg(add = complete::baselines())]
        name: String,
        /// The runs
        #[arg(default_value = "last", add = complete::some_runs())]
        runs: String,
    },
    /// Add runs to a baseline, keeping the youngest
    #[command(after_help = "Example: retake baseline add main last --keep 20")]
    Add {
        /// Name of the baseline
        #[arg(add = complete::baselines())]
        name: String,
        /// The runs
        #[arg(default_value = "last", add = complete::some_runs())]
        runs: String,
        /// Keep at most so many of the youngest runs in it
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
    },
    /// Remove a baseline, or some runs from it; the runs stay in the store
    Rm {
        /// Name of the baseline
        #[arg(add = complete::baselines())]
        name: String,
        /// The runs [default: all of it]
        #[arg(add = complete::some_runs())]
        runs: Option<String>,
    },
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Measure how often the gate would raise a false alarm on runs of an unchanged program, by
    /// dividing them at random [without RUNS: the youngest 40 of the youngest run's name]
    #[arg(long, value_name = "RUNS", num_args = 0..=1, default_missing_value = "", add = complete::some_runs())]
    pub(crate) aa: Option<String>,
}

fn parse_change(text: &str) -> Result<f64, String> {
    let expected = || format!("{text:?} is no change; write it as 5% or 0.05");
    let (number, factor) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let change: f64 = number.trim().parse().map_err(|_| expected())?;
    let change = change * factor;
    if change > 0.0 && change < 10.0 { Ok(change) } else { Err(expected()) }
}
