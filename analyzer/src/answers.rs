//! Small answers of SQL, row by row: for what is computed by a query and shown as a whole.

use arrow::array::{Array, Float64Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::assemble::{text, value};
use crate::error::AnalyzeError;
use crate::session::Analyzer;

/// A row of a small answer.
#[derive(Debug)]
pub(crate) struct Row {
    batch: RecordBatch,
    at: usize,
}

impl Row {
    /// A text; empty for none.
    pub(crate) fn text(&self, name: &str) -> String {
        let column = text(&self.batch, name).ok();
        column.and_then(|column| value(&column, self.at).map(str::to_owned)).unwrap_or_default()
    }

    /// A finite number.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        let column = cast(self.batch.column_by_name(name)?, &DataType::Float64).ok()?;
        let column = column.as_any().downcast_ref::<Float64Array>()?;
        column.is_valid(self.at).then(|| column.value(self.at)).filter(|value| value.is_finite())
    }

    /// A whole number.
    pub(crate) fn whole(&self, name: &str) -> Option<i64> {
        let column = cast(self.batch.column_by_name(name)?, &DataType::Int64).ok()?;
        let column = column.as_any().downcast_ref::<Int64Array>()?;
        column.is_valid(self.at).then(|| column.value(self.at))
    }

    /// A number that is not below zero; 0 for none.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.whole(name).and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
    }
}

/// The rows of a query.
pub(crate) async fn rows(analyzer: &Analyzer, sql: &str) -> Result<Vec<Row>, AnalyzeError> {
    let batches = analyzer.query(sql).await?.batches;
    let of =
        |batch: RecordBatch| (0..batch.num_rows()).map(move |at| Row { batch: batch.clone(), at });
    Ok(batches.into_iter().flat_map(of).collect())
}
