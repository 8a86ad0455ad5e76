//! Columns of answers.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};

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

pub(super) fn bytes<'a>(values: impl Iterator<Item = &'a [u8]>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BinaryArray>())
}
