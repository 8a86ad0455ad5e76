//! The Rust types a column can have, and their Arrow counterparts.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// A value of whatever column, borrowed from its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CellRef<'a> {
    /// A boolean.
    Bool(bool),
    /// A whole number, of 32 bits too.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Text(&'a str),
}

/// A value of one column in one row.
pub trait Cell: Sized {
    /// The Arrow type.
    const TYPE: DataType;
    /// Whether the column may hold NULL.
    const NULLABLE: bool;

    /// The value; `None` for NULL.
    fn value(&self) -> Option<CellRef<'_>>;

    /// Builds the column from one cell per row.
    fn write<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;

    /// Reads the column back, one cell per row. The array may be an encoding of the same values
    /// (a dictionary, a string view), as query engines produce.
    ///
    /// # Errors
    /// The array has another type, or a NULL where none may be.
    fn read(array: &ArrayRef) -> Result<Vec<Self>, ArrowError>;
}

fn unexpected_null() -> ArrowError {
    ArrowError::SchemaError("NULL in a column that may not hold one".to_owned())
}

pub(super) fn downcast<A: 'static>(array: &ArrayRef) -> Result<&A, ArrowError> {
    array.as_any().downcast_ref::<A>().ok_or_else(|| {
        ArrowError::SchemaError(format!("unexpected column type {}", array.data_type()))
    })
}

macro_rules! cell {
    ($rust:ty, $array:ty, $arrow:expr, $borrow:expr, $own:expr, $value:expr) => {
        impl Cell for $rust {
            const TYPE: DataType = $arrow;
            const NULLABLE: bool = false;

            fn value(&self) -> Option<CellRef<'_>> {
                Some($value(self))
            }

            fn write<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(<$array>::from_iter(cells.map(|cell| Some($borrow(cell)))))
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, ArrowError> {
                let array = cast(array, &$arrow)?;
                downcast::<$array>(&array)?
                    .iter()
                    .map(|cell| cell.map($own).ok_or_else(unexpected_null))
                    .collect()
            }
        }

        impl Cell for Option<$rust> {
            const TYPE: DataType = $arrow;
            const NULLABLE: bool = true;

            fn value(&self) -> Option<CellRef<'_>> {
                self.as_ref().map($value)
            }

            fn write<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(<$array>::from_iter(cells.map(|cell| cell.as_ref().map($borrow))))
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, ArrowError> {
                let array = cast(array, &$arrow)?;
                Ok(downcast::<$array>(&array)?.iter().map(|cell| cell.map($own)).collect())
            }
        }
    };
}

cell!(String, StringArray, DataType::Utf8, String::as_str, str::to_owned, text);
cell!(i64, Int64Array, DataType::Int64, i64::clone, std::convert::identity, int);
cell!(i32, Int32Array, DataType::Int32, i32::clone, std::convert::identity, int);
cell!(f64, Float64Array, DataType::Float64, f64::clone, std::convert::identity, float);
cell!(bool, BooleanArray, DataType::Boolean, bool::clone, std::convert::identity, boolean);

fn text<T: AsRef<str>>(value: &T) -> CellRef<'_> {
    CellRef::Text(value.as_ref())
}

fn int<T: Copy + Into<i64>>(value: &T) -> CellRef<'static> {
    CellRef::Int((*value).into())
}

fn float(value: &f64) -> CellRef<'static> {
    CellRef::Float(*value)
}

fn boolean(value: &bool) -> CellRef<'static> {
    CellRef::Bool(*value)
}
