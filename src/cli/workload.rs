//! Options of `workload`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use retake_replay::workload::import::Format;

use super::replay::{OperationsArg, parse_speed};
use crate::complete;
use crate::quantity::parse_age;

/// Workloads as files.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Read public traces: what is out of order, and how fine the clock was, is reported
    #[command(
        after_help = "Example: retake workload import AzureLLMInferenceTrace_conv.csv.gz -o azure.parquet"
    )]
    Import(WorkloadImport),
    /// Take the workload out of a recorded run, or a window of time out of a workload
    #[command(after_help = "Example: retake workload cut last -o today.parquet")]
    Cut {
        /// The run (id, unique prefix, name, `last`, `last~1`, `label:key=value`), or a workload file
        #[arg(add = complete::one_run())]
        source: String,
        /// Begin so long after the first operation, such as 30m
        #[arg(long, value_name = "AGE", value_parser = parse_age)]
        from: Option<Duration>,
        /// End so long after that
        #[arg(long = "for", value_name = "AGE", value_parser = parse_age)]
        length: Option<Duration>,
        /// What of a run recorded from outside: its calls of models, or what it was asked
        /// [default: calls]
        #[arg(long, value_enum)]
        operations: Option<OperationsArg>,
        /// Where to write
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Draw whole sessions at random
    #[command(
        after_help = "Example: retake workload sample azure.parquet --operations 1000 -o small.parquet"
    )]
    Sample {
        /// A workload file
        workload: PathBuf,
        /// Stop when there are so many operations; the last session stays whole
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        operations: u64,
        /// Seed of the random numbers
        #[arg(long, value_name = "SEED", default_value_t = 1)]
        seed: u64,
        /// Where to write
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Make arrivals faster, sessions more, or stamps finer
    #[command(
        after_help = "Example: retake workload scale azure.parquet --sessions 4 -o busy.parquet"
    )]
    Scale(WorkloadScale),
    /// What a workload is like: arrivals, lengths, sessions, what prompts share
    #[command(after_help = "Example: retake workload stats ragpulse.parquet --format json")]
    Stats {
        /// A workload file, or a run
        workload: String,
    },
}

/// Options of `workload import`.
#[derive(Debug, Args)]
pub(crate) struct WorkloadImport {
    /// Files of one trace, also with gzip, or the folder that holds them
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// What the files are: azure-csv, mooncake-jsonl, ragpulse, burstgpt-csv, tracelab-csv,
    /// otel-json [default: told from how they begin]
    #[arg(long = "as", value_name = "FORMAT", value_parser = parse_format)]
    pub(crate) trace_format: Option<Format>,
    /// Leave out lines that cannot be read, and say how many
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Where to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Options of `workload scale`.
#[derive(Debug, Args)]
pub(crate) struct WorkloadScale {
    /// A workload file
    pub(crate) workload: PathBuf,
    /// Factor on the arrival rate; think times stay as they are
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed)]
    pub(crate) speed: Option<f64>,
    /// Every session so many times, each copy beginning at another moment
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sessions: Option<u32>,
    /// Poisson arrivals of so many a second, instead of the recorded times
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_speed, conflicts_with_all = ["speed", "sessions"])]
    pub(crate) poisson: Option<f64>,
    /// What to do about stamps that are coarser than the gaps between requests
    #[arg(long, value_enum, default_value_t = StampsArg::AsIs)]
    pub(crate) stamps: StampsArg,
    /// Seed of the random numbers
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Stamp repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StampsArg {
    /// As recorded: requests of one stamp come together.
    AsIs,
    /// Evenly over the step that the clock could not tell apart.
    Spread,
    /// At random in that step.
    Jitter,
}

fn parse_format(text: &str) -> Result<Format, String> {
    let known = || Format::ALL.map(Format::as_str).join(", ");
    Format::ALL
        .into_iter()
        .find(|format| format.as_str() == text)
        .ok_or_else(|| format!("expected one of {}", known()))
}
