//! Lines of plain and gzipped files, one at a time and never longer than a limit, so that a file of
//! a stranger cannot fill the memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::ImportError;

/// A file's lines.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum ReadLineError {
    /// This line cannot be used; the next one may.
    Bad { line: u64, reason: String },
    /// The file cannot be read on.
    Io(std::io::Error),
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        Ok(Self { reader: open(path)?, line: Vec::new(), number: 0 })
    }

    /// The next line without its end, and its number from 1.
    pub(super) fn next_line(&mut self) -> Result<Option<(u64, &str)>, ReadLineError> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX + 1);
        let read = limited.read_until(b'\n', &mut self.line).map_err(ReadLineError::Io)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let bad = |reason: String| ReadLineError::Bad { line: self.number, reason };
        if self.line.len() as u64 > LINE_BYTES_MAX {
            skip_line(&mut self.reader).map_err(ReadLineError::Io)?;
            return Err(bad(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&self.line).map_err(|e| bad(e.to_string()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        let text = if self.number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        Ok(Some((self.number, text)))
    }
}

/// Reads away the rest of a line, a buffer at a time.
fn skip_line(reader: &mut dyn BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |position| position + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// A file, plain or gzipped: its first two bytes tell.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, ImportError> {
    let file = File::open(path).map_err(|error| read_error(path, &error))?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let start = reader.fill_buf().map_err(|error| read_error(path, &error))?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(reader)))
    } else {
        Box::new(reader)
    })
}

/// How a file begins.
pub(super) fn start_of(path: &Path) -> Result<String, ImportError> {
    let mut start = Vec::new();
    let read = open(path)?.take(START_BYTES).read_to_end(&mut start);
    let _: usize = read.map_err(|error| read_error(path, &error))?;
    let text = String::from_utf8_lossy(&start);
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Folders become the files in them, in the order of their names; hidden ones and those that are no
/// trace by their ending stay out.
pub(super) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ImportError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| read_error(path, &error))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|p| is_trace(p))
            .collect();
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn is_trace(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let ends = [".jsonl", ".csv", ".json", ".ndjson"];
    !name.starts_with('.') && ends.iter().any(|end| plain.ends_with(end))
}

pub(super) fn read_error(path: &Path, error: &std::io::Error) -> ImportError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return ImportError::NotFound(path.to_owned());
    }
    ImportError::Read { path: path.to_owned(), reason: error.to_string() }
}

/// A column's name as it is compared: without quotes, spaces around it, and case.
pub(super) fn column_name(name: &str) -> String {
    name.trim().trim_matches('"').trim().to_ascii_lowercase()
}

/// The columns of a CSV file by name.
#[derive(Debug)]
pub(super) struct Columns(Vec<String>);

impl Columns {
    pub(super) fn of(header: &str) -> Self {
        Self(fields(header).iter().map(|name| column_name(name)).collect())
    }

    /// Where a column stands.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column == name)
    }

    /// The fields of a line, one for each column.
    pub(super) fn split(&self, line: &str) -> Result<Vec<String>, String> {
        let fields = fields(line);
        if fields.len() == self.0.len() {
            return Ok(fields);
        }
        Err(format!("it has {} fields, the header has {}", fields.len(), self.0.len()))
    }
}

/// The fields of a line of CSV; none of the traces has a line end inside quotes.
fn fields(line: &str) -> Vec<String> {
    let mut builder = csv::ReaderBuilder::new();
    let reader = builder.has_headers(false).buffer_capacity(line.len() + 1);
    let mut reader = reader.from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    // A `&str` is always UTF-8 and one record, which cannot differ in length from another.
    let _ = reader.read_record(&mut record);
    record.iter().map(|field| field.trim().to_owned()).collect()
}

/// A whole number of tokens.
pub(super) fn tokens(field: &str, name: &str) -> Result<u64, String> {
    // Some files have passed through a table of floats: 374.0.
    let plain = field.strip_suffix(".0").unwrap_or(field);
    plain
        .parse::<u64>()
        .ok()
        .filter(|count| *count <= TOKENS_MAX)
        .ok_or_else(|| format!("{name} is {field:?}, expected a number of tokens"))
}

/// More than any model takes; what is above is no count.
pub(super) const TOKENS_MAX: u64 = 1 << 31;
/// Longest line: a Mooncake request of a million tokens has 2,000 ids; OTLP lines hold whole batches.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// What tells the format stands at the start.
const START_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 64 << 10;
