//! Why an analysis has no answer.

use datafusion::common::DataFusionError;
use retake_recorder::reader::ReadError;
use retake_recorder::store::{SelectError, StoreError};
use retake_schemas::RunId;

/// A sealed file that is not what was sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read {file} of run {run_id}: {reason}; nothing of this file was used \
     (`retake verify` lists every damaged file)"
)]
pub struct DamagedFile {
    /// The run.
    pub run_id: RunId,
    /// The file in the run's folder.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why an analysis has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalyzeError {
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run cannot be opened.
    #[error("open run {run_id}: {source}")]
    Run {
        /// The run.
        run_id: RunId,
        /// Why not.
        #[source]
        source: Box<ReadError>,
    },
    /// The run is not among those the analyzer was opened for.
    #[error("find run {0}: it is not among the runs that were opened; `retake runs` lists them")]
    NoRun(RunId),
    /// A selector names no run in scope, or several.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A sealed file is damaged.
    #[error(transparent)]
    Damaged(#[from] DamagedFile),
    /// The SQL is wrong, or asks for something that does not exist.
    #[error("run query: {message}")]
    Sql {
        /// What the parser, the planner or the engine says, with candidates where it has any.
        message: String,
    },
    /// The SQL would change something, or reach outside the runs.
    #[error(
        "run query: {statement} is not allowed; SELECT, WITH, VALUES, EXPLAIN, SHOW and DESCRIBE are"
    )]
    NotAQuery {
        /// What it begins with.
        statement: String,
    },
    /// The query needs more memory than queries may take, even with temporary files.
    #[error("run query: out of its memory: {message}")]
    Memory {
        /// Which operator wanted how much.
        message: String,
    },
    /// The SQL text is too long.
    #[error("run query: the text has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// No trace, or several, begin with what was given.
    #[error("find trace {prefix:?} in run {run_id}: {reason}")]
    Trace {
        /// What was given.
        prefix: String,
        /// The run.
        run_id: RunId,
        /// None, or which.
        reason: String,
    },
    /// The run has no such stage.
    #[error("find stage {stage:?} in run {run_id}: it has {known}")]
    NoStage {
        /// The run.
        run_id: RunId,
        /// What was given.
        stage: String,
        /// The stages it has.
        known: String,
    },
    /// A result cannot be written out.
    #[error("write result as {format}: {reason}")]
    Write {
        /// The output format.
        format: &'static str,
        /// Why not.
        reason: String,
    },
    /// Something that cannot happen did.
    #[error("analyze: internal error: {0}; please report it")]
    Internal(String),
}

impl AnalyzeError {
    /// Whether data on disk is damaged, as opposed to the question being wrong.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Store(StoreError::Manifest(_)) => true,
            Self::Run { source, .. } => matches!(
                **source,
                ReadError::Damaged { .. }
                    | ReadError::Parquet { .. }
                    | ReadError::Table { .. }
                    | ReadError::Store(StoreError::Manifest(_))
            ),
            _ => false,
        }
    }

    pub(crate) fn run(run_id: &RunId, source: impl Into<ReadError>) -> Self {
        Self::Run { run_id: run_id.clone(), source: Box::new(source.into()) }
    }
}

/// The damage behind an error, however many layers of the engine it came through.
fn damaged_file<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a DamagedFile> {
    let mut layers = std::iter::successors(Some(error), |error| error.source());
    layers.find_map(|error| error.downcast_ref::<DamagedFile>())
}

impl From<DataFusionError> for AnalyzeError {
    fn from(error: DataFusionError) -> Self {
        if let Some(damaged) = damaged_file(&error) {
            return Self::Damaged(damaged.clone());
        }
        match error.find_root() {
            DataFusionError::External(cause) => {
                // What a table function failed with already says what and why.
                if let Some(analysis) = cause.downcast_ref::<Self>() {
                    return Self::Sql {
                        message: match analysis {
                            Self::Sql { message } => message.clone(),
                            other => other.to_string(),
                        },
                    };
                }
            }
            DataFusionError::ResourcesExhausted(message) => {
                let first = message.lines().next().unwrap_or_default().to_owned();
                return Self::Memory { message: first };
            }
            DataFusionError::Internal(message) => return Self::Internal(message.clone()),
            _ => {}
        }
        Self::Sql { message: plain(&error) }
    }
}

/// The engine's message without the names of its layers, and without a backtrace.
fn plain(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = LAYERS
        .iter()
        .fold(text.as_str(), |rest, layer| rest.strip_prefix(layer).unwrap_or(rest))
        .trim();
    // The parser prints its errors as Rust values.
    let inside = ["ParserError(\"", "TokenizerError(\""]
        .iter()
        .find_map(|value| text.strip_prefix(value)?.strip_suffix("\")"));
    inside.map_or_else(|| text.to_owned(), |message| message.replace("\\\"", "\""))
}

const LAYERS: [&str; 5] = [
    "Error during planning: ",
    "Schema error: ",
    "SQL error: ",
    "Execution error: ",
    "Optimizer rule failed: ",
];
