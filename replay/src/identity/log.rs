//! The log of a run: every timed row, normalised.

use retake_recorder::RunReader;
use retake_recorder::reader::ReadError;
use retake_schemas::Digest;
use retake_schemas::tables::{CellRef, DocumentRow, EventRow, Row, SpanRow, TokenRow};

/// The timed rows of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Log {
    /// Spans.
    pub spans: Vec<SpanRow>,
    /// Arrivals of output tokens.
    pub tokens: Vec<TokenRow>,
    /// Log lines.
    pub events: Vec<EventRow>,
    /// Documents that passed through a stage.
    pub documents: Vec<DocumentRow>,
}

/// How many rows of each kind a log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogCounts {
    /// Spans.
    pub spans: u64,
    /// Arrivals of output tokens.
    pub tokens: u64,
    /// Log lines.
    pub events: u64,
    /// Documents.
    pub documents: u64,
}

impl Log {
    /// Reads the log of a run.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn read(reader: &RunReader) -> Result<Self, ReadError> {
        Ok(Self {
            spans: reader.rows()?,
            tokens: reader.rows()?,
            events: reader.rows()?,
            documents: reader.rows()?,
        })
    }

    /// What it holds.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        LogCounts {
            spans: self.spans.len() as u64,
            tokens: self.tokens.len() as u64,
            events: self.events.len() as u64,
            documents: self.documents.len() as u64,
        }
    }

    /// When its first event happened, ns since the Unix epoch; 0 without any.
    #[must_use]
    pub fn first_unix_ns(&self) -> i64 {
        self.times().min().unwrap_or(0)
    }

    /// From the first event to the last, ns.
    #[must_use]
    pub fn span_ns(&self) -> i64 {
        let ends = self.spans.iter().map(|span| span.start_unix_ns + span.duration_ns);
        self.times().chain(ends).max().map_or(0, |last| last - self.first_unix_ns())
    }

    fn times(&self) -> impl Iterator<Item = i64> + '_ {
        let spans = self.spans.iter().map(|row| row.start_unix_ns);
        let tokens = self.tokens.iter().map(|row| row.time_unix_ns);
        let events = self.events.iter().map(|row| row.time_unix_ns);
        let documents = self.documents.iter().map(|row| row.time_unix_ns);
        spans.chain(tokens).chain(events).chain(documents)
    }

    /// Digest of what happened: equal for runs in which the same did, whenever, and however it is
    /// stored.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.normalised().digest()
    }

    pub(super) fn normalised(&self) -> Normalised {
        let first = self.first_unix_ns();
        let mut rows = Vec::new();
        add(&mut rows, first, &self.spans);
        add(&mut rows, first, &self.tokens);
        add(&mut rows, first, &self.events);
        add(&mut rows, first, &self.documents);
        rows.sort_unstable();
        Normalised(rows)
    }
}

/// The rows of a log in an order that does not depend on how they are stored, with times counted
/// from the first event and without the run's id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normalised(Vec<Vec<u8>>);

impl Normalised {
    /// BLAKE3 over the rows.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for row in &self.0 {
            hasher.update(&(row.len() as u64).to_le_bytes());
            hasher.update(row);
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The first row that the other does not have like this.
    pub(super) fn first_difference(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (&self.0, &other.0);
        let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
        let at =
            at.or_else(|| (ours.len() != theirs.len()).then_some(ours.len().min(theirs.len())))?;
        let words = |rows: &[Vec<u8>]| {
            rows.get(at)
                .map_or("nothing".to_owned(), |row| String::from_utf8_lossy(row).into_owned())
        };
        Some(format!("row {at} was {}, and is {}", words(ours), words(theirs)))
    }
}

/// Rows as `table|name=value|...`, with each value's length before it where it is a text, so that no
/// two rows are written alike.
fn add<R: Row>(rows: &mut Vec<Vec<u8>>, first_unix_ns: i64, of: &[R]) {
    let columns = R::columns();
    for row in of {
        let mut text = R::TABLE.as_str().to_owned();
        for (column, cell) in columns.iter().zip(row.cells()) {
            let value = match cell {
                _ if column.name == "run_id" => continue,
                None => continue,
                Some(CellRef::Bool(value)) => value.to_string(),
                Some(CellRef::Int(time)) if column.name.ends_with("_unix_ns") => {
                    (time - first_unix_ns).to_string()
                }
                Some(CellRef::Int(value)) => value.to_string(),
                Some(CellRef::Float(value)) => format!("{:016x}", value.to_bits()),
                Some(CellRef::Text(value)) => format!("{}:{value}", value.len()),
            };
            text.push('|');
            text.push_str(column.name);
            text.push('=');
            text.push_str(&value);
        }
        rows.push(text.into_bytes());
    }
}
