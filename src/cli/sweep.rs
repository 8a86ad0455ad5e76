//! Options of `sweep`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use retake_replay::sweep::Objective;

use super::replay::{OperationsArg, parse_arrival, parse_speed};
use super::{ArrivalArg, LlmSource, MissArg};
use crate::complete;

/// Options of `sweep`.
#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// The recorded run whose workload is replayed
    #[arg(add = complete::one_run())]
    pub(crate) run: String,
    /// A setting and its values, such as `embed.batch_size=1,4,16` or `1..256:x2`; several make a
    /// grid, and one with a single value holds for all
    #[arg(long, required = true, value_name = "NAME=V1,V2,...")]
    pub(crate) set: Vec<String>,
    /// Sweep settings of this OpenAI-compatible service instead of the built-in pipeline's
    #[arg(long, value_name = "URL", conflicts_with_all = ["llm", "predict_only", "confirm"])]
    pub(crate) target: Option<String>,
    /// Sweep settings of this program, as of `replay run --target-cmd`
    #[arg(long, value_name = "CMD", conflicts_with_all = ["llm", "predict_only", "confirm", "target"])]
    pub(crate) target_cmd: Option<String>,
    /// What to repeat of a run recorded from outside, as of `replay run`
    #[arg(long, value_enum)]
    pub(crate) operations: Option<OperationsArg>,
    /// Only operations of these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kind: Vec<String>,
    /// What to be good at, the most important first: throughput, latency_p50, latency_p95,
    /// latency_p99, wall, cost, agreement, recall [default: what the run says something about]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_objective)]
    pub(crate) objective: Vec<Objective>,
    /// Measure each setting so many times, in interleaved order; an odd number counts as the next one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=100))]
    pub(crate) repeat: u16,
    /// Measure only the K settings that are predicted to be best, and the one as recorded
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) confirm: Option<u16>,
    /// Predict from what is recorded, and replay nothing
    #[arg(long, conflicts_with_all = ["confirm", "repeat"])]
    pub(crate) predict_only: bool,
    /// Measure the worse half of the settings less often: from nine settings on, always, or never
    #[arg(long, value_enum, default_value_t = HalvingArg::Auto)]
    pub(crate) halving: HalvingArg,
    /// Predict also far outside the sizes that were seen
    #[arg(long)]
    pub(crate) extrapolate: bool,
    /// JSON lines with `question` and `references`, for the objective `recall`
    #[arg(long, value_name = "FILE")]
    pub(crate) questions: Option<PathBuf>,
    /// When operations begin, as of `replay run`
    #[arg(long, value_name = "POLICY", value_parser = parse_arrival, default_value = "closed:1")]
    pub(crate) arrival: ArrivalArg,
    /// Factor on the recorded arrival rate
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_speed)]
    pub(crate) speed: f64,
    /// Answers of the language model: called anew, or taken from the recording
    #[arg(long, value_enum, default_value_t = LlmSource::Live)]
    pub(crate) llm: LlmSource,
    /// With recorded answers, what becomes of a request that the recording does not know
    #[arg(long, value_enum, default_value_t = MissArg::Fail)]
    pub(crate) on_miss: MissArg,
    /// Seed of the order and of every interval
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Name of the sweep's own run
    #[arg(long = "run", value_name = "NAME", id = "name")]
    pub(crate) name: Option<String>,
    /// Label of all its runs; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Go on with a sweep that died or was ended, given the same options: blocks that it measured are
    /// not measured again
    #[arg(long, value_name = "RUN", conflicts_with = "predict_only", add = complete::one_run())]
    pub(crate) resume: Option<String>,
    /// Write a picture: an .svg, or an .html page with the table
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Whether settings are thinned out by successive halving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HalvingArg {
    /// From nine settings on.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

fn parse_objective(text: &str) -> Result<Objective, String> {
    let known = || Objective::ALL.map(Objective::as_str).join(", ");
    Objective::parse(text.trim()).ok_or_else(|| format!("expected one of {}", known()))
}
