//! A recorded run as a file that other tools open.
//!
//! | format | what it is | opened by |
//! |---|---|---|
//! | [`Format::Perfetto`] | `perfetto.protos.Trace`, native track events | ui.perfetto.dev, trace processor |
//! | [`Format::Chrome`] | Trace Event JSON | Perfetto, `chrome://tracing`, speedscope |
//! | [`Format::Otlp`] | OpenTelemetry's trace requests | collectors and whatever takes OTLP |
//!
//! An export is one pass over the run: rows are gathered until a trace is complete, the trace is
//! written and forgotten. What stays in memory is some 80 bytes per trace, and the traces that are
//! spread over the segment at hand. Nothing is written before every sealed file's digest was
//! checked, so a damaged run costs an error and not half a file.
//!
//! What a format cannot say is left out and counted ([`ExportSummary::left_out`]), never bent.

mod args;
mod cells;
mod chrome;
mod lanes;
mod layout;
mod otlp;
mod perfetto;
mod source;
mod texts;
mod timeline;
mod wire;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use crate::reader::{ReadError, RunReader};
use source::{Catalog, Source};
use texts::Texts;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Perfetto's own protobuf. Times are nanoseconds since the earliest in the run, on a clock of
    /// the file's own that is tied to wall time by a clock snapshot.
    Perfetto,
    /// Trace Event JSON, one object. Times are microseconds with three decimals since the earliest
    /// in the run.
    Chrome,
    /// OpenTelemetry trace requests. Times are nanoseconds since the Unix epoch.
    Otlp(OtlpFraming),
}

/// How OTLP requests stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OtlpFraming {
    /// One OTLP/JSON request a line, as the Collector's file exporter writes.
    #[default]
    JsonLines,
    /// One OTLP/JSON request for the whole run: a body to post.
    JsonBody,
    /// Protobuf requests, each after its length as 4 bytes, most significant first, as the
    /// Collector's file exporter writes.
    ProtobufDelimited,
    /// One protobuf request for the whole run: a body to post.
    ProtobufBody,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::Perfetto,
        Self::Chrome,
        Self::Otlp(OtlpFraming::JsonLines),
        Self::Otlp(OtlpFraming::JsonBody),
        Self::Otlp(OtlpFraming::ProtobufDelimited),
        Self::Otlp(OtlpFraming::ProtobufBody),
    ];

    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Perfetto => "perfetto",
            Self::Chrome => "chrome",
            Self::Otlp(OtlpFraming::JsonLines) => "otlp",
            Self::Otlp(OtlpFraming::JsonBody) => "otlp-json-body",
            Self::Otlp(OtlpFraming::ProtobufDelimited) => "otlp-proto",
            Self::Otlp(OtlpFraming::ProtobufBody) => "otlp-proto-body",
        }
    }

    /// The ending a file of this format usually has, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Perfetto => "pftrace",
            Self::Chrome | Self::Otlp(OtlpFraming::JsonBody) => "json",
            Self::Otlp(OtlpFraming::JsonLines) => "jsonl",
            Self::Otlp(OtlpFraming::ProtobufDelimited | OtlpFraming::ProtobufBody) => "pb",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read format: expected one of {}, got {found:?}", names())]
pub struct UnknownFormat {
    found: String,
}

fn names() -> String {
    Format::ALL.map(Format::as_str).join(", ")
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|format| format.as_str() == text);
        named.ok_or_else(|| UnknownFormat { found: text.chars().take(80).collect() })
    }
}

/// What to put into the file beyond the spans themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportOptions {
    /// Puts prompts, answers, and documents into the file, as far as the run holds them. Otherwise
    /// their digests stand there (`blake3:<hex>`).
    pub with_text: bool,
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportProgress {
    /// Rows read.
    pub rows_done: u64,
    /// Rows there are to read; every row is read twice.
    pub rows_total: u64,
}

/// What an export wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportSummary {
    /// Spans written.
    pub spans: u64,
    /// Traces they belong to.
    pub traces: u64,
    /// Arrivals of tokens and log lines written.
    pub instants: u64,
    /// Resource samples written.
    pub samples: u64,
    /// Rows of spans, tokens, events, and measures that the format has no place for: in OTLP
    /// resource samples and what belongs to no span of the run, elsewhere samples that are not
    /// finite.
    pub left_out: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Why a run was not exported. What was written until then is not a whole file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output does not take the bytes.
    #[error("write export: {0}")]
    Write(#[source] io::Error),
    /// Texts cannot be kept at hand.
    #[error("keep texts in a temporary file: {0}")]
    Texts(#[source] io::Error),
}

/// Writes a run, as it is now, to `out`. Rows are read in batches; `progress` is called after each.
///
/// # Errors
/// A sealed file is damaged (then nothing was written), or `out` or the disk failed.
pub fn write(
    run: &RunReader,
    format: Format,
    options: &ExportOptions,
    out: &mut impl Write,
    progress: &mut dyn FnMut(ExportProgress),
) -> Result<ExportSummary, ExportError> {
    let source = Source::open(run)?;
    let rows_total = source.rows_total();
    let mut rows_done = 0;
    let mut on_rows = |rows: u64| {
        rows_done += rows;
        progress(ExportProgress { rows_done, rows_total });
    };
    let catalog = Catalog::read(&source, &mut on_rows)?;
    let texts = if options.with_text { Some(Texts::read(&source)?) } else { None };
    let outline = Outline {
        run,
        base_unix_ns: catalog.base_unix_ns().unwrap_or(run.manifest().facts.started_unix_ns),
    };
    let mut out = Counted { inner: out, bytes: 0 };
    let summary = match format {
        Format::Perfetto => {
            let pen = perfetto::Pen::new(&mut out, &outline)?;
            timeline::write(&source, catalog, &outline, texts, (pen, &mut on_rows))
        }
        Format::Chrome => {
            let pen = chrome::Pen::new(&mut out, &outline)?;
            timeline::write(&source, catalog, &outline, texts, (pen, &mut on_rows))
        }
        Format::Otlp(framing) => {
            let requests = otlp::Requests::new(&mut out, framing, &outline)?;
            requests.write(&source, catalog, texts, &mut on_rows)
        }
    }?;
    out.flush().map_err(ExportError::Write)?;
    Ok(ExportSummary { bytes: out.bytes, ..summary })
}

/// What all of a file hangs on.
struct Outline<'a> {
    run: &'a RunReader,
    /// Earliest time in the run that is one, ns since the Unix epoch.
    base_unix_ns: i64,
}

impl Outline<'_> {
    /// A moment on the file's own clock, ns. What is before the beginning (nobody said when, or a
    /// clock was odd) is at the beginning.
    fn since_base_ns(&self, time_unix_ns: i64) -> u64 {
        u64::try_from(time_unix_ns.saturating_sub(self.base_unix_ns)).unwrap_or(0)
    }

    /// A number that is the same in every export of the run and hardly in any other's, so that
    /// files can be laid together.
    fn seed(&self) -> u64 {
        let digest = retake_schemas::Digest::of(self.run.run_id().as_str().as_bytes());
        let (first, _) = digest.as_bytes().split_at(8);
        first.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

/// Counts what goes through.
struct Counted<'a, W> {
    inner: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
