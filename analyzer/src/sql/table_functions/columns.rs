//! Columns of answers.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::error::AnalyzeError;

/// A schema of columns that may all be NULL.
pub(super) fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<Field>>()))
}

/// Rows from columns, in the order of the schema.
pub(super) fn batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
) -> Result<RecordBatch, AnalyzeError> {
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| AnalyzeError::Internal(error.to_string()))
}

pub(super) fn texts<T: Into<Option<String>>>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(values.map(Into::into).collect::<StringArray>())
}

pub(super) fn ints<T: Into<Option<i64>>>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(values.map(Into::into).collect::<Int64Array>())
}

/// Numbers; what is not finite becomes NULL.
pub(super) fn floats<T: Into<Option<f64>>>(values: impl Iterator<Item = T>) -> ArrayRef {
    let finite = |value: T| value.into().filter(|value: &f64| value.is_finite());
    Arc::new(values.map(finite).collect::<Float64Array>())
}

pub(super) fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}
