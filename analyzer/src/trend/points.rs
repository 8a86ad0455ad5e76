//! The points of a history as rows, for other programs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::AnalyzeError;
use crate::model::{Trend, TrendPoint};
use crate::session::QueryResult;

/// One row per run and group: `run_id`, `started_unix_ns`, `git_sha`, `group`, `value`. A run that
/// does not have the metric has a row without a value.
///
/// # Errors
/// None that can be provoked: the columns are made for their schema.
pub fn points(trend: &Trend) -> Result<QueryResult, AnalyzeError> {
    let rows: Vec<(&str, &TrendPoint)> = trend
        .series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| (series.group.as_str(), point)))
        .collect();
    let text = |of: fn(&TrendPoint) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, point)| of(point)).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(|point| Some(&point.run_id)),
        Arc::new(rows.iter().map(|(_, point)| point.started_unix_ns).collect::<Int64Array>()),
        text(|point| point.git_sha.as_deref()),
        Arc::new(rows.iter().map(|(group, _)| Some(*group)).collect::<StringArray>()),
        Arc::new(rows.iter().map(|(_, point)| point.value).collect::<Float64Array>()),
    ];
    let schema = Arc::new(Schema::new(vec![
        Field::new("run_id", DataType::Utf8, false),
        Field::new("started_unix_ns", DataType::Int64, false),
        Field::new("git_sha", DataType::Utf8, true),
        Field::new("group", DataType::Utf8, false),
        Field::new("value", DataType::Float64, true),
    ]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
        .map_err(|error| AnalyzeError::Internal(error.to_string()))?;
    Ok(QueryResult { schema, batches: vec![batch] })
}
