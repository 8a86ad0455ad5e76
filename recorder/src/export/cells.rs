//! The columns of spans by name and type, so that a column added to the table is in every export
//! without a line of code.

use std::sync::LazyLock;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use retake_schemas::tables::{Row, SpanRow};

/// A value of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Text(&'a str),
}

/// Spans as columns.
#[derive(Debug)]
pub(super) struct Cells {
    batch: RecordBatch,
}

/// Names of the columns by position.
static NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| SpanRow::columns().into_iter().map(|column| column.name).collect());

impl Cells {
    pub(super) fn new(spans: &[SpanRow]) -> Self {
        Self { batch: SpanRow::to_batch(spans) }
    }

    /// The position of a column; `None` if the table has none of that name.
    pub(super) fn position(column: &str) -> Option<usize> {
        NAMES.iter().position(|name| *name == column)
    }

    /// All columns of a row that are not NULL.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (&'static str, Cell<'_>)> {
        let names = NAMES.iter().enumerate();
        names.filter_map(move |(index, name)| Some((*name, self.at(index, row)?)))
    }

    /// The value of the column at a position; `None` for NULL.
    pub(super) fn at(&self, index: usize, row: usize) -> Option<Cell<'_>> {
        let array = self.batch.columns().get(index)?;
        if row >= array.len() || array.is_null(row) {
            return None;
        }
        Some(match array.data_type() {
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row)),
            DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Int32 => Cell::Int(i64::from(array.as_primitive::<Int32Type>().value(row))),
            DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
            _ => return None,
        })
    }
}
