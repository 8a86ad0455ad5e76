//! Columns as a record batch, for who reads spans before their segment is written.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, SchemaRef};
use retake_schemas::tables::{Row, SpanRow};

use super::SpanColumns;
use super::cells::{Present, View, text_of};

impl SpanColumns {
    /// The columns of the table, and those of attributes behind them.
    pub(crate) fn schema(&self) -> SchemaRef {
        let table = SpanRow::schema();
        let typed =
            self.cells.typed.iter().map(|typed| {
                Arc::new(Field::new(typed.name.clone(), typed.kind().data_type(), true))
            });
        let fields: Vec<_> = table.fields().iter().cloned().chain(typed).collect();
        Arc::new(arrow::datatypes::Schema::new(fields))
    }

    /// The spans as a segment holds them; [`retake_schemas::tables::stored::logical`] makes the
    /// table of it.
    pub(crate) fn to_batch(&self) -> RecordBatch {
        let schema = self.schema();
        let columns = schema
            .fields()
            .iter()
            .map(|field| match self.view(field.name()) {
                Some(view) => array(view, field.data_type(), self.len()),
                // A column newer than this module; the test of names keeps it from happening.
                None => new_null_array(field.data_type(), self.len()),
            })
            .collect();
        match RecordBatch::try_new(Arc::clone(&schema), columns) {
            Ok(batch) => batch,
            // Every array is as long as `len` and of its field's type, by construction.
            Err(error) => unreachable!("columns of spans: {error}"),
        }
    }
}

fn array(view: View<'_>, data_type: &DataType, len: usize) -> ArrayRef {
    match view {
        View::Words(present, codes, dictionary) => {
            let texts = codes.iter().map(|code| text_of(dictionary, *code));
            Arc::new(StringArray::from_iter(spread(present, texts, len)))
        }
        View::Texts(present, ends, bytes) => {
            let texts = (0..ends.len()).map(|index| text_at(ends, bytes, index));
            Arc::new(StringArray::from_iter(spread(present, texts, len)))
        }
        View::Ids(present, ids) => {
            let ids = ids.iter().map(|id| format!("{id:016x}"));
            Arc::new(StringArray::from_iter(spread(present, ids, len)))
        }
        View::Ints(present, values) if *data_type == DataType::Int32 => {
            let small = values.iter().map(|v| i32::try_from(*v).unwrap_or(i32::MAX));
            Arc::new(Int32Array::from_iter(spread(present, small, len)))
        }
        View::Ints(present, values) => {
            Arc::new(Int64Array::from_iter(spread(present, values.iter().copied(), len)))
        }
        View::Floats(present, values) => {
            Arc::new(Float64Array::from_iter(spread(present, values.iter().copied(), len)))
        }
        View::Bools(present, values) => {
            Arc::new(BooleanArray::from_iter(spread(present, values.iter().copied(), len)))
        }
    }
}

fn text_at<'a>(ends: &[usize], bytes: &'a [u8], index: usize) -> &'a str {
    let start = index.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(index).copied().unwrap_or(start);
    // The bytes are JSON and were written as UTF-8.
    bytes.get(start..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
}

/// One cell per row from the present values.
fn spread<T>(
    present: Present<'_>,
    values: impl Iterator<Item = T>,
    len: usize,
) -> impl Iterator<Item = Option<T>> {
    let mut values = values;
    let mut at = 0;
    (0..len).map(move |row| {
        let has_value = match present {
            Present::First(count) => row < count,
            Present::At(rows) => rows.get(at).is_some_and(|next| *next as usize == row),
        };
        at += usize::from(has_value);
        if has_value { values.next() } else { None }
    })
}
