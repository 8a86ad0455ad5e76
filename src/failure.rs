//! Exit codes, and errors that say what went wrong, where, and what to do next.

use std::process::ExitCode;

use retake_analyzer::AnalyzeError;
use retake_analyzer::trend::TrendQueryError;
use retake_pipeline::error::PipelineError;
use retake_recorder::reader::ReadError;
use retake_recorder::remote::RemoteError;
use retake_recorder::store::{SelectError, StoreError};
use retake_recorder::upkeep::compact::CompactError;
use retake_replay::arrival::ArrivalError;
use retake_replay::simulate::SimulateError;
use retake_replay::simulate::fit::FitError;
use retake_replay::simulate::model::ModelError;
use retake_replay::sweep::GridError;
use retake_replay::target::{ProgramError, ServiceError, SettingError};
use retake_replay::workload::file::FileError;
use retake_replay::workload::import::ImportError;
use retake_replay::workload::{NoSuchKind, WorkloadError};
use retake_schemas::settings::{OutOfRange, SetError};
use retake_server::ServeError;

use crate::output::inert;
use crate::terminal::{Look, Tone};

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It worked.
    Ok = 0,
    /// A bug in retake.
    Internal = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// A run, file or folder is not there.
    NotFound = 3,
    /// A server, file or permission is in the way.
    Environment = 4,
    /// Recorded data is damaged.
    Damaged = 5,
    /// The candidate is worse than the base.
    Regression = 10,
    /// A budget was crossed.
    OverBudget = 11,
    /// Both.
    RegressionAndOverBudget = 12,
    /// Too few samples to decide.
    Inconclusive = 20,
    /// There is nothing to compare with.
    NoBaseline = 21,
    /// The recording does not hold what this replay needs.
    NotReplayable = 30,
    /// The replay was too far off its schedule to be used.
    ReplayInvalid = 31,
    /// Runs of the same differ too much to tell settings apart.
    TooNoisy = 32,
    /// Ended by Ctrl-C, as shells have it.
    Interrupted = 130,
}

impl Code {
    /// The code of a check, which is one of those it documents.
    pub(crate) fn of_check(code: u8) -> Self {
        let of_checks = [
            Self::Ok,
            Self::Regression,
            Self::OverBudget,
            Self::RegressionAndOverBudget,
            Self::Inconclusive,
        ];
        of_checks.into_iter().find(|known| *known as u8 == code).unwrap_or(Self::Internal)
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By a code of ours.
    Ours(Code),
    /// As the program that was recorded did.
    Program(u8),
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        Self::Ours(code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ours(code) => code.into(),
            Exit::Program(code) => Self::from(code),
        }
    }
}

/// The list of exit codes for `--help`.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0 ok                        10 regression (check; diff --fail-on-regression;
                                 trend --fail-on-change)
  1 internal error            11 budget crossed (check; [record.budget], on_exceeded)
  2 usage or configuration    12 both
  3 not found                 20 inconclusive (check --inconclusive fail;
  4 environment (server,         diff --fail-on-regression)
    file or permission)       21 no baseline and no budgets (check)
  5 data damaged              30 not replayable from this capture
                              31 replay not valid (fidelity)
                              32 noise too high to decide (sweep)
                             130 ended by Ctrl-C; everything recorded so far is kept
  record ends as the recorded program did (128 + the signal that ended it)";

/// What a command failed with.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    help: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What happened, as a fragment that reads after "failed to".
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, where that is known.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Prints the failure to stderr. Text from a trace or a file may hold terminal escapes.
    pub(crate) fn report(&self) -> ExitCode {
        if self.code == Code::Ok {
            return self.code.into();
        }
        let look = Look::of_stderr();
        let error = look.paint("error:", Tone::Bad);
        eprintln!("{error} failed to {}", inert(&self.message));
        if let Some(help) = &self.help {
            eprintln!("  {} {}", look.paint("help:", Tone::Strong), inert(help));
        }
        self.code.into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NoStore(_) | StoreError::NoRun(_) => Code::NotFound,
            StoreError::Manifest(_) => Code::Damaged,
            _ => Code::Environment,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Store(error) => error.into(),
            SelectError::Ambiguous { .. } => Self::new(Code::Usage, error.to_string()),
            error => Self::new(Code::NotFound, error.to_string()),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            error => Self::new(Code::Damaged, error.to_string()),
        }
    }
}

impl From<CompactError> for Failure {
    fn from(error: CompactError) -> Self {
        let code = match error {
            CompactError::Store(error) => return error.into(),
            CompactError::Damaged { .. } => Code::Damaged,
            _ => Code::Environment,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let code = match error {
            RemoteError::Store(error) => return error.into(),
            RemoteError::Url { .. } => Code::Usage,
            RemoteError::NoRun { .. } => Code::NotFound,
            RemoteError::Damaged { .. } => Code::Damaged,
            _ => Code::Environment,
        };
        Self::new(code, error.to_string())
    }
}

impl From<AnalyzeError> for Failure {
    fn from(error: AnalyzeError) -> Self {
        let code = match &error {
            _ if error.is_damage() => Code::Damaged,
            AnalyzeError::NoRun(_)
            | AnalyzeError::Select(_)
            | AnalyzeError::Trace { .. }
            | AnalyzeError::NoStage { .. }
            | AnalyzeError::Store(StoreError::NoStore(_) | StoreError::NoRun(_)) => Code::NotFound,
            AnalyzeError::Sql { .. }
            | AnalyzeError::NotAQuery { .. }
            | AnalyzeError::TooLong { .. } => Code::Usage,
            AnalyzeError::Internal(_) => Code::Internal,
            _ => Code::Environment,
        };
        let failure = Self::new(code, error.to_string());
        match error {
            AnalyzeError::Memory { .. } => failure.help(
                "give it more with --memory (4GiB, say), or ask about fewer runs (--run), \
                 fewer columns, or fewer groups",
            ),
            _ => failure,
        }
    }
}

impl From<TrendQueryError> for Failure {
    fn from(error: TrendQueryError) -> Self {
        Self::new(Code::Usage, error.to_string())
            .help("`retake check --example` shows metrics of every kind")
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            PipelineError::NotFound(_) => Code::NotFound,
            PipelineError::Damaged { .. } => Code::Damaged,
            PipelineError::Configuration(_)
            | PipelineError::ModelMismatch { .. }
            | PipelineError::NotText { .. } => Code::Usage,
            PipelineError::CassetteMiss(_) => Code::NotReplayable,
            PipelineError::Cancelled => Code::Interrupted,
            _ => Code::Environment,
        };
        Self::new(code, error.to_string())
    }
}

impl From<WorkloadError> for Failure {
    fn from(error: WorkloadError) -> Self {
        match error {
            WorkloadError::Read(error) => error.into(),
            error => Self::new(Code::NotReplayable, error.to_string()),
        }
    }
}

impl From<ArrivalError> for Failure {
    fn from(error: ArrivalError) -> Self {
        Self::new(Code::NotReplayable, error.to_string())
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let code = match &error {
            ModelError::Read { .. } => Code::Environment,
            _ => Code::Usage,
        };
        Self::new(code, error.to_string())
    }
}

impl From<FitError> for Failure {
    fn from(error: FitError) -> Self {
        let code = match &error {
            FitError::SeveralKinds(_) => Code::Usage,
            _ => Code::NotReplayable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SimulateError> for Failure {
    fn from(error: SimulateError) -> Self {
        match error {
            SimulateError::Model(error) => error.into(),
            SimulateError::Arrival(error) => error.into(),
            SimulateError::Missing { .. } => Self::new(Code::NotReplayable, error.to_string()),
            error => Self::new(Code::Usage, error.to_string()),
        }
    }
}

impl From<GridError> for Failure {
    fn from(error: GridError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        let code = match &error {
            ProgramError::Refused { .. } | ProgramError::Unknown { .. } => Code::Usage,
            _ => Code::Environment,
        };
        let failure = Self::new(code, error.to_string());
        match error {
            ProgramError::NotReady { .. } => failure.help(
                "it reads JSON lines and answers the first with {\"type\":\"ready\"}; docs/replay.md \
                 has the lines, examples/llamaindex a program",
            ),
            _ => failure,
        }
    }
}

impl From<NoSuchKind> for Failure {
    fn from(error: NoSuchKind) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::NotFound(_) => Code::NotFound,
            FileError::Malformed { .. } => Code::Damaged,
            FileError::Newer { .. } => Code::Usage,
            _ => Code::Environment,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let code = match &error {
            ImportError::NotFound(_) => Code::NotFound,
            ImportError::Read { .. } => Code::Environment,
            ImportError::BadLines { .. } => Code::Damaged,
            _ => Code::Usage,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match &error {
            ServeError::Exposed { .. } => Self::new(Code::Usage, error.to_string())
                .help("set RETAKE_TOKEN or --token-file, or listen on 127.0.0.1"),
            ServeError::Bind { .. } => Self::new(Code::Environment, error.to_string()).help(
                "another program may be listening there; --listen and --grpc take other addresses",
            ),
            _ => Self::new(Code::Usage, error.to_string()),
        }
    }
}

impl From<SetError> for Failure {
    fn from(error: SetError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<OutOfRange> for Failure {
    fn from(error: OutOfRange) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

/// Writing to a pipe whose reader has gone is how `| head` ends, not a failure of ours.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::BrokenPipe {
            Code::Ok
        } else {
            Code::Environment
        };
        Self::new(code, format!("write output: {error}"))
    }
}
