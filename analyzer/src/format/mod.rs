//! Results of queries for other programs: one writer per format.

mod csv;
mod ipc;
mod json;
mod markdown;
mod text;

use std::io::Write;
use std::str::FromStr;

use crate::error::AnalyzeError;
use crate::session::QueryResult;

/// A format a result can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON document with columns and rows.
    Json,
    /// One JSON object per row and line.
    Ndjson,
    /// RFC 4180, safe to open in a spreadsheet.
    Csv,
    /// A Markdown table.
    Markdown,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] =
        [Self::Json, Self::Ndjson, Self::Csv, Self::Markdown, Self::Arrow, Self::Parquet];

    /// The word used on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Markdown => "markdown",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Whether a terminal can show it.
    #[must_use]
    pub const fn is_text(self) -> bool {
        !matches!(self, Self::Arrow | Self::Parquet)
    }
}

/// A word that names no [`Format`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("choose format {0:?}: there are json, ndjson, csv, markdown, arrow, parquet")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// Writes a result. Columns of the same name are told apart by `_2`, `_3` and so on, because
/// objects and readers know only one of each name.
///
/// # Errors
/// The writer fails, or the format cannot hold a type.
pub fn write_result(
    result: &QueryResult,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), AnalyzeError> {
    let failed = |reason: String| AnalyzeError::Write { format: format.as_str(), reason };
    let result = text::distinct_names(result).map_err(|error| failed(error.to_string()))?;
    let written = match format {
        Format::Json => json::document(&result, out),
        Format::Ndjson => json::lines(&result, out),
        Format::Csv => csv::write(&result, out),
        Format::Markdown => markdown::write(&result, out),
        Format::Arrow => ipc::stream(&result, out),
        Format::Parquet => ipc::parquet(&result, out),
    };
    written.map_err(|error| failed(error.to_string()))
}

type Written = Result<(), Box<dyn std::error::Error>>;

#[cfg(test)]
mod tests;
