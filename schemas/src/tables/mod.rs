//! The tables everyone reads: one Arrow schema each, with the meaning of every column.
//!
//! A table is declared once, as a row struct; the macro derives the Arrow schema, the column
//! documentation (`docs/tables.md` is generated from it) and both directions between rows and
//! record batches. Columns are only ever added, and last: other people's SQL depends on them.
//!
//! Conventions for all tables: times are nanoseconds since the Unix epoch (`_unix_ns`), durations
//! nanoseconds (`_ns`), money US dollars (`_usd`), ids lowercase hex, absent values NULL. A zero
//! is a measured zero.

mod cell;
mod declare;
mod rows;
pub mod stored;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

pub use cell::{Cell, CellRef};
pub use rows::{DocumentRow, EventRow, MeasureRow, PayloadRow, RunRow, SpanRow, TokenRow};

/// The tables of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableName {
    /// One row per run; from the manifests.
    Runs,
    /// One row per span.
    Spans,
    /// One row per arrival of output tokens.
    Tokens,
    /// One row per log line.
    Events,
    /// One row per document that passed through a stage.
    Documents,
    /// One row per distinct content.
    Payloads,
    /// One row per resource sample.
    Measures,
}

impl TableName {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Runs,
        Self::Spans,
        Self::Tokens,
        Self::Events,
        Self::Documents,
        Self::Payloads,
        Self::Measures,
    ];

    /// The tables that are sealed into segments, which is all but `runs`.
    pub const SEALED: [Self; 6] =
        [Self::Spans, Self::Tokens, Self::Events, Self::Documents, Self::Payloads, Self::Measures];

    /// The name in SQL and in file names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Spans => "spans",
            Self::Tokens => "tokens",
            Self::Events => "events",
            Self::Documents => "documents",
            Self::Payloads => "payloads",
            Self::Measures => "measures",
        }
    }

    /// The Arrow schema.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Runs => RunRow::schema(),
            Self::Spans => SpanRow::schema(),
            Self::Tokens => TokenRow::schema(),
            Self::Events => EventRow::schema(),
            Self::Documents => DocumentRow::schema(),
            Self::Payloads => PayloadRow::schema(),
            Self::Measures => MeasureRow::schema(),
        }
    }

    /// The columns and their meaning.
    #[must_use]
    pub fn columns(self) -> Vec<Column> {
        match self {
            Self::Runs => RunRow::columns(),
            Self::Spans => SpanRow::columns(),
            Self::Tokens => TokenRow::columns(),
            Self::Events => EventRow::columns(),
            Self::Documents => DocumentRow::columns(),
            Self::Payloads => PayloadRow::columns(),
            Self::Measures => MeasureRow::columns(),
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A column and its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in SQL.
    pub name: &'static str,
    /// Arrow type.
    pub data_type: arrow::datatypes::DataType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Meaning, unit, and the convention it comes from.
    pub doc: String,
}

/// A row type that stands for a whole table.
pub trait Row: Sized {
    /// Which table.
    const TABLE: TableName;

    /// The columns and their meaning.
    fn columns() -> Vec<Column>;

    /// The row's values in the order of the columns; `None` for NULL.
    fn cells(&self) -> Vec<Option<CellRef<'_>>>;

    /// The rows as one record batch with exactly [`Row::schema`].
    fn to_batch(rows: &[Self]) -> RecordBatch;

    /// The rows of a batch, which may be as a file holds it ([`stored`]). Columns are found by
    /// name, so a batch of an older or newer minor version can be read: missing nullable columns
    /// are `None`, unknown columns are ignored.
    ///
    /// # Errors
    /// A column that may not be NULL is missing, or a column has another type.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError>;

    /// The Arrow schema.
    fn schema() -> SchemaRef {
        let fields: Vec<_> = Self::columns()
            .into_iter()
            .map(|c| arrow::datatypes::Field::new(c.name, c.data_type, c.nullable))
            .collect();
        Arc::new(arrow::datatypes::Schema::new(fields))
    }
}

/// The documentation of every table as Markdown; `docs/tables.md` is this text.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Tables\n\nGenerated from `schemas/src/tables/rows.rs`. Columns are only ever added, and last.\n\n\
         Times are nanoseconds since the Unix epoch (`_unix_ns`), durations nanoseconds (`_ns`),\n\
         money US dollars (`_usd`), ids lowercase hex. NULL means nobody said; a zero was measured.\n",
    );
    for table in TableName::ALL {
        text.push_str(&format!(
            "\n## {table}\n\n| column | type | null | meaning |\n|---|---|---|---|\n"
        ));
        for column in table.columns() {
            text.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                column.name,
                column.data_type,
                if column.nullable { "yes" } else { "no" },
                column.doc.replace('|', "\\|")
            ));
        }
    }
    text
}
