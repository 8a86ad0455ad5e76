//! Options of `replay`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use retake_replay::cassette::OnRepeat;
use retake_replay::plan::StageSource;
use retake_replay::plan::closure::STAGES;
use retake_replay::workload::Operations;

use super::{RagArgs, StampsArg};
use crate::complete;

/// Replaying.
#[derive(Debug, Subcommand)]
pub(crate) enum Replay {
    /// Say what a replay would do, and which recorded outputs a changed setting makes invalid
    #[command(
        after_help = "Example: retake replay plan last --set retrieve.top_k=2 --llm recorded --on-miss live"
    )]
    Plan(ReplayArgs),
    /// Replay, recorded as a run that links to its source
    #[command(
        after_help = "Example: retake replay run last --set embed.batch_size=64 --set workers=4 --concurrency 2"
    )]
    Run(ReplayArgs),
    /// Check that a run is its own replay: all of it from the recording, in virtual time, gives the
    /// same event log, and every recorded answer is found by its request
    #[command(after_help = "Example: retake replay verify last --threads 8")]
    Verify(ReplayVerify),
}

/// Options of `replay verify`.
#[derive(Debug, Args)]
pub(crate) struct ReplayVerify {
    /// The run
    #[arg(add = complete::one_run())]
    pub(crate) run: String,
    /// Threads to replay on; the result does not depend on them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Do it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repeat: u16,
}

/// Options of a replay.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayArgs {
    /// The run whose workload to repeat, or a workload file (FILE.parquet)
    #[arg(add = complete::one_run())]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) rag: RagArgs,
    /// When operations begin: `open` (recorded times), `session` (later turns when the one before
    /// has ended and its user has thought), `closed:N` (N under way), `poisson:PER_SECOND`, or
    /// `scale-sessions:K` (every session K times, at other moments) [default: open]
    #[arg(long, value_name = "POLICY", value_parser = parse_arrival, conflicts_with = "concurrency")]
    pub(crate) arrival: Option<ArrivalArg>,
    /// What to do about stamps that are coarser than the gaps between requests
    #[arg(long, value_enum, default_value_t = StampsArg::AsIs)]
    pub(crate) stamps: StampsArg,
    /// Seed of everything that is random
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Real time, or virtual time with a model in place of every stage
    #[arg(long, value_enum, default_value_t = ClockArg::Wall)]
    pub(crate) clock: ClockArg,
    /// Send the operations to this OpenAI-compatible service, such as http://127.0.0.1:8000, or to
    /// any that takes JSON (--set route=/PATH), instead of the built-in pipeline
    #[arg(long, value_name = "URL", conflicts_with_all = ["clock", "llm"])]
    pub(crate) target: Option<String>,
    /// Hand the operations to this program, one JSON object a line, instead of the built-in pipeline;
    /// what it records with OpenTelemetry becomes a part of the replay
    #[arg(long, value_name = "CMD", conflicts_with_all = ["clock", "llm", "target"])]
    pub(crate) target_cmd: Option<String>,
    /// What to repeat of a run recorded from outside: its calls of models, or what it was asked
    /// [default: calls; requests for --target-cmd and --set route]
    #[arg(long, value_enum)]
    pub(crate) operations: Option<OperationsArg>,
    /// Only operations of these kinds, as `retake replay plan` names them
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kind: Vec<String>,
    /// How long stages take in virtual time (JSON)
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// In virtual time, step through every output token; the result is the same
    #[arg(long)]
    pub(crate) tokens: bool,
    /// Do not record a replay in virtual time as a run
    #[arg(long)]
    pub(crate) no_record: bool,
    /// The same as `--arrival closed:N`
    #[arg(long, value_name = "N", conflicts_with = "speed", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: Option<u16>,
    /// Factor on the recorded arrival rate
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_speed)]
    pub(crate) speed: f64,
    /// Replay so many times, each a run of its own; `retake diff` compares all of them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) repeat: u16,
    /// Answers of the language model: called anew, or taken from the recording
    #[arg(long, value_enum, default_value_t = LlmSource::Live)]
    pub(crate) llm: LlmSource,
    /// With recorded answers, what becomes of a request that the recording does not know: it fails,
    /// or the model is called for it alone (early cutoff)
    #[arg(long, value_enum, default_value_t = MissArg::Fail)]
    pub(crate) on_miss: MissArg,
    /// With recorded answers, what becomes of a request that is asked more often than it was
    /// recorded: it is one that the recording does not know, or gets the last answer, or all of
    /// them again
    #[arg(long, value_enum, default_value_t = RepeatArg::Fifo)]
    pub(crate) on_repeat: RepeatArg,
    /// Go on with a replay of this run that died or was ended: do what it did not, with its settings
    #[arg(long, value_name = "RUN", conflicts_with_all = ["repeat", "clock"])]
    pub(crate) resume: Option<String>,
    /// Where a stage's outputs come from, such as `llm=recorded`; may be repeated. On the wall clock
    /// only `llm` can be anything but `live`; a model stands in for every stage of the virtual clock
    #[arg(long, value_name = "STAGE=SOURCE", value_parser = parse_stage)]
    pub(crate) stage: Vec<(String, StageSource)>,
}

impl ReplayArgs {
    /// A replay of the built-in pipeline with these settings, and everything else as by default.
    pub(crate) fn of(source: String, rag: RagArgs) -> Self {
        Self {
            source,
            rag,
            arrival: None,
            stamps: StampsArg::AsIs,
            seed: 1,
            clock: ClockArg::Wall,
            target: None,
            target_cmd: None,
            operations: None,
            kind: Vec::new(),
            model: None,
            tokens: false,
            no_record: false,
            concurrency: None,
            speed: 1.0,
            repeat: 1,
            llm: LlmSource::Live,
            on_miss: MissArg::Fail,
            on_repeat: RepeatArg::Fifo,
            resume: None,
            stage: Vec::new(),
        }
    }
}

/// What is repeated of a run whose program knows nothing of retake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OperationsArg {
    /// Its calls of models.
    Calls,
    /// Its root spans that have an input.
    Requests,
}

impl From<OperationsArg> for Operations {
    fn from(arg: OperationsArg) -> Self {
        match arg {
            OperationsArg::Calls => Self::Calls,
            OperationsArg::Requests => Self::Requests,
        }
    }
}

/// What becomes of a request that a recording does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MissArg {
    /// The operation fails.
    Fail,
    /// The model is called.
    Live,
}

/// What becomes of a request that is asked more often than it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RepeatArg {
    /// Each answer is used once, in order.
    Fifo,
    /// The last answer again.
    Last,
    /// All of them again.
    Cycle,
}

impl From<RepeatArg> for OnRepeat {
    fn from(arg: RepeatArg) -> Self {
        match arg {
            RepeatArg::Fifo => Self::Fifo,
            RepeatArg::Last => Self::Last,
            RepeatArg::Cycle => Self::Cycle,
        }
    }
}

fn parse_stage(text: &str) -> Result<(String, StageSource), String> {
    let (stage, source) =
        text.split_once('=').ok_or("write it as STAGE=SOURCE, such as llm=recorded")?;
    if !STAGES.contains(&stage) {
        return Err(format!("no stage {stage:?}; there are {}", STAGES.join(", ")));
    }
    let known = StageSource::ALL.map(StageSource::as_str).join(", ");
    let source =
        StageSource::parse(source).ok_or(format!("no source {source:?}; there are {known}"))?;
    Ok((stage.to_owned(), source))
}

/// An arrival policy as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ArrivalArg {
    /// At recorded times.
    Open,
    /// Turns of a session one after the other.
    Session,
    /// So many under way.
    Closed(usize),
    /// So many a second, at random.
    Poisson(f64),
    /// Every session so many times.
    ScaleSessions(u32),
}

/// Which time a replay runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockArg {
    /// Real time, against a real target.
    Wall,
    /// Virtual time, against a model.
    Virtual,
}

pub(super) fn parse_arrival(text: &str) -> Result<ArrivalArg, String> {
    let expected = || {
        format!(
            "{text:?} is no policy; write open, session, closed:N, poisson:PER_SECOND or \
             scale-sessions:K"
        )
    };
    let (name, number) = text.split_once(':').unwrap_or((text, ""));
    let whole = || number.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(expected);
    match (name, number) {
        ("open", "") => Ok(ArrivalArg::Open),
        ("session", "") => Ok(ArrivalArg::Session),
        ("closed", _) => Ok(ArrivalArg::Closed(usize::from(whole()?))),
        ("poisson", rate) => parse_speed(rate).map(ArrivalArg::Poisson).map_err(|_| expected()),
        ("scale-sessions", _) => Ok(ArrivalArg::ScaleSessions(u32::from(whole()?))),
        _ => Err(expected()),
    }
}

pub(super) fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("expected a number above 0, such as 2 or 0.5".to_owned()),
    }
}

/// Where LLM answers of a replay come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LlmSource {
    /// The model is called.
    Live,
    /// The recording answers; a request it does not know fails, and is never called live.
    Recorded,
}
