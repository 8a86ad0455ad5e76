//! Public traces as workloads.
//!
//! | format | what it is | stamps |
//! |---|---|---|
//! | `azure-csv` | Azure LLM inference traces (CSV) | wall clock, 100 ns digits |
//! | `mooncake-jsonl` | Mooncake traces (JSON lines), prefix blocks of 512 tokens | ms from the start |
//! | `ragpulse` | RAGPulse: a RAG service's requests with their parts | s from the start |
//! | `burstgpt-csv` | BurstGPT (CSV), with or without sessions | s from the start |
//! | `tracelab-csv` | TraceLab sessions (CSV) with pure think times | ms from the start |
//! | `otel-json` | OTLP/JSON, one document or one a line | Unix ns |
//!
//! Every format may be compressed with gzip. Nothing is repaired in silence: what is out of order,
//! how far, and what the clock could tell apart is in the [`ImportReport`]; a line that cannot be
//! read is named by its number and refuses the import unless the caller asks to leave it out.

mod azure;
mod burstgpt;
mod lines;
mod mooncake;
mod order;
mod otel;
mod ragpulse;
mod stamp;
mod tracelab;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::lines::{Lines, ReadLineError};
use self::order::assemble;
pub(super) use self::order::link_sessions;
use super::{Shape, Workload};

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Format {
    /// Azure LLM inference traces.
    #[serde(rename = "azure-csv")]
    Azure,
    /// Mooncake.
    #[serde(rename = "mooncake-jsonl")]
    Mooncake,
    /// RAGPulse.
    #[serde(rename = "ragpulse")]
    RagPulse,
    /// BurstGPT.
    #[serde(rename = "burstgpt-csv")]
    BurstGpt,
    /// TraceLab.
    #[serde(rename = "tracelab-csv")]
    TraceLab,
    /// OTLP/JSON.
    #[serde(rename = "otel-json")]
    OtelJson,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::Azure,
        Self::Mooncake,
        Self::RagPulse,
        Self::BurstGpt,
        Self::TraceLab,
        Self::OtelJson,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Azure => "azure-csv",
            Self::Mooncake => "mooncake-jsonl",
            Self::RagPulse => "ragpulse",
            Self::BurstGpt => "burstgpt-csv",
            Self::TraceLab => "tracelab-csv",
            Self::OtelJson => "otel-json",
        }
    }

    /// What a file begins with, if that tells its format.
    fn of_start(start: &str) -> Option<Self> {
        let first = start.lines().find(|line| !line.trim().is_empty())?.trim();
        if start.contains("\"resourceSpans\"") || start.contains("\"resource_spans\"") {
            return Some(Self::OtelJson);
        }
        if first.starts_with('{') {
            let json: serde_json::Value = serde_json::from_str(first).ok()?;
            let is_lengths = json.get("token_length").is_some();
            return match json.get("hash_ids") {
                Some(ids) if ids.is_object() => Some(Self::RagPulse),
                _ if is_lengths => Some(Self::RagPulse),
                _ if json.get("input_length").is_some() => Some(Self::Mooncake),
                _ => None,
            };
        }
        let columns: Vec<String> = first.split(',').map(lines::column_name).collect();
        let has = |name: &str| columns.iter().any(|column| column == name);
        if has("contexttokens") && has("generatedtokens") {
            Some(Self::Azure)
        } else if has("request tokens") && has("response tokens") {
            Some(Self::BurstGpt)
        } else if has("round_idx") && has("tool_wait_after_ms") {
            Some(Self::TraceLab)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an import is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// The format; `None` to tell it from the files.
    pub format: Option<Format>,
    /// Leave lines out that cannot be read, instead of refusing the import.
    pub skip_bad_lines: bool,
}

/// What an import found, for people and scripts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportReport {
    /// The format read.
    pub format: Format,
    /// Operations taken.
    pub operations: u64,
    /// Lines left out because they could not be read; 0 unless asked for.
    pub bad_lines: u64,
    /// The first of them.
    pub bad_lines_shown: Vec<BadLine>,
    /// Operations whose stamp is before that of the operation recorded before them.
    pub inversions: u64,
    /// The largest such step back, ns.
    pub inversion_ns_max: i64,
    /// Largest step of which every stamp is a multiple, ns.
    pub stamp_resolution_ns: i64,
    /// Operations whose stamp another operation has too.
    pub shared_stamps: u64,
    /// Smallest and largest difference between an input and the sum of its parts, tokens, over
    /// the operations where both are known.
    pub unexplained_tokens: Option<(i64, i64)>,
    /// Operations where both are known.
    pub operations_with_parts: u64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// The file.
    pub file: String,
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} line {}: {}", self.file, self.line, self.reason)
    }
}

/// Why a trace cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file is not there.
    #[error("import {path}: there is no such file", path = .0.display())]
    NotFound(PathBuf),
    /// A file cannot be read, or is not the gzip it begins as.
    #[error("import {path}: {reason}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The format cannot be told.
    #[error(
        "import {path}: its format cannot be told from how it begins; say --as with one of \
         azure-csv, mooncake-jsonl, ragpulse, burstgpt-csv, tracelab-csv, otel-json",
         path = .0.display()
    )]
    UnknownFormat(PathBuf),
    /// Files of several formats together.
    #[error(
        "import {path}: it is {found}, the files before it are {expected}; import them one by one",
         path = .path.display()
    )]
    MixedFormats {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: Format,
        /// That of the files before.
        expected: Format,
    },
    /// A column or field that the format must have.
    #[error("import {path}: it has no column {column:?}, which {format} must have",
         path = .path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// What is missing.
        column: &'static str,
        /// The format.
        format: Format,
    },
    /// Lines that cannot be read.
    #[error(
        "import: {count} lines cannot be read, the first of them {first}; mend them, or leave \
         them out with --skip-bad"
    )]
    BadLines {
        /// How many.
        count: u64,
        /// The first.
        first: BadLine,
    },
    /// Stamps that do not count from the same moment.
    #[error(
        "import: clock origins are mixed: {first} and {second}; such stamps cannot be put in one \
         order, so import the parts one by one"
    )]
    MixedOrigins {
        /// A stamp of one kind and where it stands.
        first: String,
        /// One of the other.
        second: String,
    },
    /// Nothing to import.
    #[error("import {path}: it holds no operation", path = .0.display())]
    Empty(PathBuf),
    /// More than is taken.
    #[error("import: more than {OPERATIONS_MAX} operations; split the trace")]
    TooMany,
    /// OTLP that cannot be taken apart.
    #[error("import {path}: {reason}", path = .path.display())]
    Otlp {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An operation as its line has it.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// Which file, by position.
    file: usize,
    /// Line in it, from 1.
    line: u64,
    /// Its stamp on the trace's clock, ns.
    stamp_ns: i64,
    /// What the stamp counts from.
    origin: Origin,
    kind: String,
    duration_ns: i64,
    input: serde_json::Value,
    shape: Shape,
}

/// What a stamp counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Origin {
    /// The start of the trace, whenever that was: each file has its own.
    #[default]
    Start,
    /// The calendar, without a zone.
    Local,
    /// The calendar, with a zone: Unix time.
    Unix,
}

/// What the readers of all formats fill.
#[derive(Debug, Default)]
struct Gathered {
    entries: Vec<Entry>,
    bad: Vec<BadLine>,
    bad_count: u64,
    notes: Vec<String>,
}

impl Gathered {
    fn bad_line(&mut self, file: &Path, line: u64, reason: impl Into<String>) {
        self.bad_count += 1;
        if self.bad.len() < BAD_LINES_SHOWN_MAX {
            let (file, reason) = (file.display().to_string(), reason.into());
            self.bad.push(BadLine { file, line, reason });
        }
    }

    fn push(&mut self, entry: Entry) -> Result<(), ImportError> {
        if self.entries.len() >= OPERATIONS_MAX {
            return Err(ImportError::TooMany);
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// Imports a trace: one file, or several of one format that share a clock. A folder stands for the
/// files in it.
///
/// # Errors
/// See [`ImportError`].
pub fn import(
    paths: &[PathBuf],
    options: ImportOptions,
) -> Result<(Workload, ImportReport), ImportError> {
    let paths = lines::expand(paths)?;
    let format = match options.format {
        Some(format) => format,
        None => tell_format(&paths)?,
    };
    let mut gathered = Gathered::default();
    match format {
        Format::RagPulse => ragpulse::read(&paths, &mut gathered)?,
        Format::OtelJson => otel::read(&paths, &mut gathered)?,
        _ => {
            for (position, path) in paths.iter().enumerate() {
                let read = match format {
                    Format::Azure => azure::read,
                    Format::Mooncake => mooncake::read,
                    Format::BurstGpt => burstgpt::read,
                    _ => tracelab::read,
                };
                read(path, position, &mut gathered)?;
            }
        }
    }
    if gathered.bad_count > 0
        && !options.skip_bad_lines
        && let Some(first) = gathered.bad.first()
    {
        return Err(ImportError::BadLines { count: gathered.bad_count, first: first.clone() });
    }
    if gathered.entries.is_empty() {
        return Err(ImportError::Empty(paths.first().cloned().unwrap_or_default()));
    }
    assemble(format, gathered, &paths)
}

fn tell_format(paths: &[PathBuf]) -> Result<Format, ImportError> {
    let mut told = None;
    for path in paths {
        let start = lines::start_of(path)?;
        let found =
            Format::of_start(&start).ok_or_else(|| ImportError::UnknownFormat(path.clone()))?;
        match told {
            Some(expected) if expected != found => {
                return Err(ImportError::MixedFormats { path: path.clone(), found, expected });
            }
            _ => told = Some(found),
        }
    }
    told.ok_or_else(|| ImportError::UnknownFormat(PathBuf::new()))
}

/// Takes a line with its number. The inner `Err` says why the line is bad, the outer one ends the
/// import.
type TakeLine<'t> =
    dyn FnMut(u64, &str, &mut Gathered) -> Result<Result<(), String>, ImportError> + 't;

/// Calls `take` with every line of a file that is not blank. What `take` refuses is a bad line.
fn each_line(
    path: &Path,
    gathered: &mut Gathered,
    take: &mut TakeLine<'_>,
) -> Result<(), ImportError> {
    let mut lines = Lines::open(path)?;
    loop {
        match lines.next_line() {
            Ok(None) => return Ok(()),
            Ok(Some((_, line))) if line.trim().is_empty() => {}
            Ok(Some((number, line))) => {
                if let Err(reason) = take(number, line, gathered)? {
                    gathered.bad_line(path, number, reason);
                }
            }
            Err(ReadLineError::Bad { line, reason }) => gathered.bad_line(path, line, reason),
            Err(ReadLineError::Io(error)) => return Err(lines::read_error(path, &error)),
        }
    }
}

/// Operations of one workload. At some 300 bytes each without parts, a machine still holds them.
const OPERATIONS_MAX: usize = 20_000_000;
/// Bad lines shown; all are counted.
const BAD_LINES_SHOWN_MAX: usize = 10;

#[cfg(test)]
mod tests;
