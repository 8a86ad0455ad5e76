//! How `spans` stands in a file, and how a reader makes the table of it.
//!
//! Two columns are stored otherwise than the table shows them, because they were half of a
//! segment's bytes:
//!
//! * `self_ns` is NULL where it equals `duration_ns`, which it does in every span without children.
//! * Attributes that many spans carry are columns of their own, behind those of the table, with
//!   their type: `attributes.<key>`. The column `attributes` holds the rest.
//!
//! [`logical`] undoes both. Whoever reads batches through [`super::Row::from_batch`] need not know.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    StringBuilder, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use serde_json::value::RawValue;

use super::cell::downcast;
use crate::Value;

/// Name of the column of an attribute; `None` for a key that must stay in the JSON.
///
/// Columns are named by plain keys only: engines fold the case of names, cut them, or split them
/// at what they take for syntax, and what a stranger chose as a key must not decide what they do.
#[must_use]
pub fn column_of_key(key: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    let is_named = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(is_plain);
    is_named.then(|| format!("{PREFIX}{key}"))
}

/// The attribute whose column this is; `None` for a column of the table.
#[must_use]
pub fn key_of_column(column: &str) -> Option<&str> {
    column.strip_prefix(PREFIX).filter(|key| !key.is_empty())
}

/// The batch as the table shows it; one that is so already comes back as it is.
///
/// # Errors
/// An attribute's column has a type that none has, or `attributes` is no JSON object in a row
/// that has attributes of both sorts.
pub fn logical(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let own = own_times(&batch);
    let has_typed =
        batch.schema_ref().fields().iter().any(|field| key_of_column(field.name()).is_some());
    if own.is_none() && !has_typed {
        return Ok(batch);
    }
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut typed: Vec<(&str, ArrayRef)> = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if let Some(key) = key_of_column(field.name()) {
            typed.push((key, Arc::clone(column)));
            continue;
        }
        columns.push(match &own {
            Some(own) if field.name() == OWN => Arc::clone(own),
            _ => Arc::clone(column),
        });
        fields.push(Arc::clone(field));
    }
    if has_typed {
        let place = fields.iter().position(|field| field.name() == ATTRIBUTES);
        let rest = place
            .and_then(|place| columns.get(place))
            .map_or_else(|| new_null_array(&DataType::Utf8, batch.num_rows()), Arc::clone);
        let merged: ArrayRef = Arc::new(attributes(&rest, &typed)?);
        match place.and_then(|place| columns.get_mut(place)) {
            Some(column) => *column = merged,
            None => {
                fields.push(Arc::new(Field::new(ATTRIBUTES, DataType::Utf8, true)));
                columns.push(merged);
            }
        }
    }
    let schema = Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// `self_ns` with its NULLs filled from `duration_ns`; `None` if there is nothing to fill.
fn own_times(batch: &RecordBatch) -> Option<ArrayRef> {
    let own = batch.column_by_name(OWN).filter(|own| own.null_count() > 0)?;
    Some(filled_own_times(own, batch.column_by_name(DURATION)?))
}

/// `self_ns` as the table shows it. Arrays that are no `BIGINT`s come back as they are.
#[must_use]
pub fn filled_own_times(own: &ArrayRef, duration: &ArrayRef) -> ArrayRef {
    let ints = |array: &ArrayRef| array.as_any().downcast_ref::<Int64Array>().cloned();
    let (Some(stored), Some(duration)) = (ints(own), ints(duration)) else {
        return Arc::clone(own);
    };
    let filled = stored.iter().zip(duration.iter()).map(|(own, whole)| own.or(whole));
    Arc::new(filled.collect::<Int64Array>())
}

/// The column `attributes` as the table shows it: the attributes of `rest`, a column of JSON
/// objects, and those of `typed`, by key, as one object in the order of the keys' bytes. NULL
/// where there are none.
///
/// # Errors
/// As [`logical`].
pub fn attributes(rest: &ArrayRef, typed: &[(&str, ArrayRef)]) -> Result<StringArray, ArrowError> {
    let rest = cast(rest, &DataType::Utf8)?;
    let rest: &StringArray = downcast(&rest)?;
    let mut typed =
        typed.iter().map(|(key, array)| Typed::new(key, array)).collect::<Result<Vec<_>, _>>()?;
    typed.sort_by(|a, b| a.key.cmp(&b.key));
    let bytes = rest.value_data().len() + rest.len() * typed.len().min(4) * 16;
    let mut objects = StringBuilder::with_capacity(rest.len(), bytes);
    let mut object = Vec::new();
    for row in 0..rest.len() {
        let of_row = typed.iter().filter(|typed| typed.is_set(row));
        let rest = rest.is_valid(row).then(|| rest.value(row));
        object.clear();
        match rest {
            None => write_object(of_row.map(|typed| (typed, row)), BTreeMap::new(), &mut object),
            // As it was recorded: files without typed columns are older than the order of keys.
            Some(rest) if of_row.clone().next().is_none() => {
                object.extend_from_slice(rest.as_bytes());
            }
            Some(rest) => {
                let rest = serde_json::from_str(rest).map_err(not_json)?;
                write_object(of_row.map(|typed| (typed, row)), rest, &mut object);
            }
        }
        match std::str::from_utf8(&object) {
            Ok("") => objects.append_null(),
            Ok(text) => objects.append_value(text),
            Err(error) => return Err(ArrowError::ExternalError(Box::new(error))),
        }
    }
    Ok(objects.finish())
}

/// Values of an attribute's column as text, without quotes.
///
/// # Errors
/// The column has a type that none has.
pub fn texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let typed = Typed::new("", column)?;
    if let Values::Text(texts) = typed.values {
        return Ok(texts);
    }
    let mut text = Vec::new();
    let texts = (0..column.len()).map(|row| {
        text.clear();
        typed.is_set(row).then(|| {
            typed.write_value(row, &mut text);
            String::from_utf8_lossy(&text).trim_matches('"').to_owned()
        })
    });
    Ok(texts.collect())
}

fn not_json(error: serde_json::Error) -> ArrowError {
    ArrowError::JsonError(format!("attributes of a span are no JSON object: {error}"))
}

/// Writes both sorts of attributes in the order of their keys; nothing if there are none.
fn write_object<'a>(
    typed: impl Iterator<Item = (&'a Typed, usize)>,
    rest: BTreeMap<String, &RawValue>,
    out: &mut Vec<u8>,
) {
    let begin = |out: &mut Vec<u8>| out.push(if out.is_empty() { b'{' } else { b',' });
    let mut rest = rest.into_iter().peekable();
    let write_rest = |(key, value): (String, &RawValue), out: &mut Vec<u8>| {
        begin(out);
        // Writing into memory does not fail, and a text is always JSON.
        let _ = serde_json::to_writer(&mut *out, &key);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    };
    for (typed, row) in typed {
        while let Some(entry) = rest.next_if(|(key, _)| *key < typed.key) {
            write_rest(entry, out);
        }
        // No writer makes both; were it so, the object must still have each key once.
        rest.next_if(|(key, _)| *key == typed.key);
        begin(out);
        out.extend_from_slice(&typed.json_key);
        typed.write_value(row, out);
    }
    for entry in rest {
        write_rest(entry, out);
    }
    if !out.is_empty() {
        out.push(b'}');
    }
}

/// One attribute's column.
#[derive(Debug)]
struct Typed {
    key: String,
    /// The key as a JSON string, with the colon.
    json_key: Vec<u8>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Int(Int64Array),
    Float(Float64Array),
    Bool(BooleanArray),
    Text(StringArray),
}

impl Typed {
    fn new(key: &str, array: &ArrayRef) -> Result<Self, ArrowError> {
        let values = match array.data_type() {
            DataType::Int64 => Values::Int(downcast::<Int64Array>(array)?.clone()),
            DataType::Float64 => Values::Float(downcast::<Float64Array>(array)?.clone()),
            DataType::Boolean => Values::Bool(downcast::<BooleanArray>(array)?.clone()),
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Dictionary(..) => {
                Values::Text(downcast::<StringArray>(&cast(array, &DataType::Utf8)?)?.clone())
            }
            other => {
                return Err(ArrowError::SchemaError(format!(
                    "column {PREFIX}{key} has type {other}, which no attribute has"
                )));
            }
        };
        let json_key = format!("{}:", serde_json::Value::from(key)).into_bytes();
        Ok(Self { key: key.to_owned(), json_key, values })
    }

    fn is_set(&self, row: usize) -> bool {
        match &self.values {
            Values::Int(values) => values.is_valid(row),
            Values::Float(values) => values.is_valid(row),
            Values::Bool(values) => values.is_valid(row),
            Values::Text(values) => values.is_valid(row),
        }
    }

    /// The value as JSON, in the same words as [`Value::to_json`].
    fn write_value(&self, row: usize, out: &mut Vec<u8>) {
        // Writing into memory does not fail.
        let _ = match &self.values {
            Values::Int(values) => write!(out, "{}", values.value(row)),
            Values::Float(values) => {
                write!(out, "{}", Value::Float(values.value(row)).to_json())
            }
            Values::Bool(values) => write!(out, "{}", values.value(row)),
            Values::Text(values) => {
                serde_json::to_writer(out, values.value(row)).map_err(Into::into)
            }
        };
    }
}

const PREFIX: &str = "attributes.";
const ATTRIBUTES: &str = "attributes";
const OWN: &str = "self_ns";
const DURATION: &str = "duration_ns";
/// Longer than the names of any convention; short enough for every engine.
const KEY_BYTES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Row as _, SpanRow};

    fn stored(rest: Vec<Option<&str>>, typed: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let rest: ArrayRef = Arc::new(StringArray::from(rest));
        RecordBatch::try_from_iter_with_nullable(
            std::iter::once(("attributes", rest, true))
                .chain(typed.into_iter().map(|(name, array)| (name, array, true))),
        )
        .unwrap()
    }

    fn shown(batch: RecordBatch) -> Vec<Option<String>> {
        let batch = logical(batch).unwrap();
        assert_eq!(batch.num_columns(), 1);
        let column = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        column.iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// Scenario: attributes of every type in columns, in the rest, in both, and in none.
    /// Guarantees: one JSON object in the order of keys, NULL where there is nothing.
    #[test]
    fn attributes_of_both_sorts_become_one_object() {
        let batch = stored(
            vec![None, Some(r#"{"b":[1,2],"é":1}"#), Some(r#"{"z":1,"a":2}"#), None],
            vec![
                ("attributes.n", Arc::new(Int64Array::from(vec![Some(-7), None, None, None]))),
                (
                    "attributes.f",
                    Arc::new(Float64Array::from(vec![Some(-0.0), Some(1e300), None, None])),
                ),
                (
                    "attributes.a.b",
                    Arc::new(BooleanArray::from(vec![Some(true), None, None, None])),
                ),
                (
                    "attributes.t",
                    Arc::new(StringArray::from(vec![Some("a \"b\"\n"), Some(""), None, None])),
                ),
            ],
        );
        let expected = [
            Some(r#"{"a.b":true,"f":-0.0,"n":-7,"t":"a \"b\"\n"}"#),
            Some(r#"{"b":[1,2],"f":1e+300,"t":"","é":1}"#),
            Some(r#"{"z":1,"a":2}"#),
            None,
        ];
        assert_eq!(shown(batch), expected.map(|text| text.map(str::to_owned)));
    }

    /// Scenario: a file of another writer, with a key in both places, without the column
    /// `attributes`, with text in it that is no object, and with a column of a type of its own.
    /// Guarantees: an object has each key once; what cannot be shown is an error, not a guess.
    #[test]
    fn what_no_writer_makes_is_shown_whole_or_refused() {
        let ints = || -> ArrayRef { Arc::new(Int64Array::from(vec![1])) };
        let batch = stored(vec![Some(r#"{"n":2,"o":3}"#)], vec![("attributes.n", ints())]);
        assert_eq!(shown(batch), [Some(r#"{"n":1,"o":3}"#.to_owned())]);
        let batch = RecordBatch::try_from_iter([("attributes.n", ints())]).unwrap();
        assert_eq!(shown(batch), [Some(r#"{"n":1}"#.to_owned())]);
        assert!(logical(stored(vec![Some("[]")], vec![("attributes.n", ints())])).is_err());
        let small: ArrayRef = Arc::new(arrow::array::Int8Array::from(vec![1]));
        assert!(logical(stored(vec![None], vec![("attributes.n", small)])).is_err());
    }

    /// Scenario: spans as files hold them, with and without children, and as the table shows them.
    /// Guarantees: no NULL is left in `self_ns`, and what is shown already stays as it is.
    #[test]
    fn own_times_that_are_the_whole_duration_are_filled() {
        let row = |duration_ns, self_ns| SpanRow { duration_ns, self_ns, ..SpanRow::default() };
        let batch = SpanRow::to_batch(&[row(9, None), row(8, Some(3)), row(0, None)]);
        let read = SpanRow::from_batch(&batch).unwrap();
        assert_eq!(
            read.iter().map(|row| row.self_ns).collect::<Vec<_>>(),
            [Some(9), Some(3), Some(0)]
        );
        let shown = logical(batch).unwrap();
        assert_eq!(shown.schema(), SpanRow::schema());
        assert_eq!(logical(shown.clone()).unwrap(), shown);
    }

    #[test]
    fn only_plain_keys_name_columns() {
        for key in ["http.route", "a", "A-b_c/d:e", &"k".repeat(100)] {
            let column = column_of_key(key).unwrap();
            assert_eq!(key_of_column(&column), Some(key));
        }
        for key in ["", "a b", "é", "a\0", "a\"", &"k".repeat(101)] {
            assert_eq!(column_of_key(key), None, "{key:?}");
        }
        assert_eq!((key_of_column("attributes"), key_of_column("attributes.")), (None, None));
    }
}
