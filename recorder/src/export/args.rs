//! What timelines say of a span or a moment besides its name and time.

use std::borrow::Cow;

use retake_schemas::tables::{CellRef, DocumentRow, SpanRow};
use serde_json::{Map, Value, json};

use super::ExportError;
use super::cells;
use super::texts::{Texts, resolve};

/// What is known of a slice or a moment besides its time.
#[derive(Debug)]
pub(super) struct Arg<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: ArgValue<'a>,
}

#[derive(Debug)]
pub(super) enum ArgValue<'a> {
    /// A column's value.
    Cell(CellRef<'a>),
    /// A text of a column that holds few different ones.
    Word(&'a str),
    /// An attribute.
    Json(Value),
}

/// Everything known of a span that name, kind, and place do not say.
pub(super) fn of_span<'a>(
    span: &'a SpanRow,
    documents: &[&DocumentRow],
    mut texts: Option<&mut Texts>,
) -> Result<Vec<Arg<'a>>, ExportError> {
    let mut args = Vec::new();
    for (name, value) in cells::named(span).filter(|(name, _)| !DRAWN.contains(name)) {
        args.push(match value {
            CellRef::Text(text) if WORDS.contains(&name) => word(name, text),
            value => cell(name, value),
        });
    }
    for (name, reference) in [("input", &span.input_ref), ("output", &span.output_ref)] {
        if let (Some(texts), Some(digest)) = (texts.as_deref_mut(), reference)
            && let Some(text) = texts.get(digest)?
        {
            args.push(Arg { name: name.into(), value: ArgValue::Json(text.into()) });
        }
    }
    let attributes = attribute_args(span.attributes.as_deref(), texts.as_deref_mut())?;
    extend(&mut args, attributes);
    if !documents.is_empty() {
        let rows: Result<Vec<_>, _> =
            documents.iter().map(|row| document(row, texts.as_deref_mut())).collect();
        let documents =
            Arg { name: "documents".into(), value: ArgValue::Json(Value::Array(rows?)) };
        extend(&mut args, vec![documents]);
    }
    Ok(args)
}

/// Adds attributes. Of two values of one name readers show one, or neither, so a name that is taken
/// becomes another.
pub(super) fn extend<'a>(args: &mut Vec<Arg<'a>>, attributes: Vec<Arg<'a>>) {
    for mut attribute in attributes {
        if args.iter().any(|arg| arg.name == attribute.name) {
            attribute.name = format!("attributes.{}", attribute.name).into();
        }
        args.push(attribute);
    }
}

fn document(row: &DocumentRow, texts: Option<&mut Texts>) -> Result<Value, ExportError> {
    let mut object = Map::new();
    object.insert("role".to_owned(), json!(row.role));
    object.insert("rank".to_owned(), json!(row.rank));
    object.insert("id".to_owned(), json!(row.document_id));
    object.extend(row.score.map(|score| ("score".to_owned(), json!(score))));
    object.extend(row.source.as_ref().map(|source| ("source".to_owned(), json!(source))));
    if let (Some(texts), Some(digest)) = (texts, &row.content_ref)
        && let Some(text) = texts.get(digest)?
    {
        object.insert("content".to_owned(), text.into());
    }
    Ok(Value::Object(object))
}

/// The column `attributes` as one value per attribute.
pub(super) fn attribute_args<'a>(
    attributes: Option<&str>,
    mut texts: Option<&mut Texts>,
) -> Result<Vec<Arg<'a>>, ExportError> {
    let Some(attributes) = attributes else { return Ok(Vec::new()) };
    let Ok(Value::Object(object)) = serde_json::from_str(attributes) else {
        // Not an object, which no writer of ours makes; shown as it is rather than lost.
        let value = ArgValue::Json(attributes.into());
        return Ok(vec![Arg { name: "attributes".into(), value }]);
    };
    let mut args = Vec::with_capacity(object.len());
    for (name, value) in object {
        let text = match &value {
            Value::String(text) => resolve(texts.as_deref_mut(), text)?,
            _ => None,
        };
        let value = ArgValue::Json(text.map_or(value, Value::from));
        args.push(Arg { name: name.into(), value });
    }
    Ok(args)
}

pub(super) fn cell<'a>(name: &'a str, value: CellRef<'a>) -> Arg<'a> {
    Arg { name: name.into(), value: ArgValue::Cell(value) }
}

pub(super) fn word<'a>(name: &'a str, value: &'a str) -> Arg<'a> {
    Arg { name: name.into(), value: ArgValue::Word(value) }
}

/// Columns that a slice shows by what it is, or that are the same for a whole process.
const DRAWN: [&str; 5] = ["run_id", "name", "kind", "service", "attributes"];

/// Text columns that hold few different values.
const WORDS: [&str; 14] = [
    "stage",
    "status",
    "error_type",
    "model_request",
    "model_response",
    "provider",
    "operation",
    "tokens_source",
    "source_file",
    "target",
    "level",
    "thread",
    "finish_reason",
    "flags",
];
