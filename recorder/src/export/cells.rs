//! The columns of spans by name and value, so that a column added to the table is in every export
//! without a line of code.

use std::sync::LazyLock;

use retake_schemas::tables::{CellRef, Row, SpanRow};

/// Names of the columns by position.
static NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| SpanRow::columns().into_iter().map(|column| column.name).collect());

/// The position of a column; `None` if the table has none of that name.
pub(super) fn position(column: &str) -> Option<usize> {
    NAMES.iter().position(|name| *name == column)
}

/// All columns of a row that are not NULL.
pub(super) fn named(row: &SpanRow) -> impl Iterator<Item = (&'static str, CellRef<'_>)> {
    NAMES.iter().zip(row.cells()).filter_map(|(name, cell)| Some((*name, cell?)))
}
