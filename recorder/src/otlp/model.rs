//! OTLP messages as both encodings give them, borrowed from the body where they can be.
//!
//! Only what is used is kept. Everything here is counted against [`Budget`] while it is made, so a
//! small body cannot become a large structure.

use std::borrow::Cow;
use std::cell::Cell;

use base64::prelude::{BASE64_STANDARD, Engine};
use retake_schemas::Value;

use super::DecodeError;

/// How much may still be made of a body.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_left: Cell<usize>,
    depth: Cell<usize>,
}

impl Budget {
    pub(super) fn new(decoded_bytes_max: usize) -> Self {
        Self { bytes_left: Cell::new(decoded_bytes_max), depth: Cell::new(0) }
    }

    /// Pays for one `T` in a list.
    pub(super) fn charge<T>(&self) -> Result<(), DecodeError> {
        let left = self.bytes_left.get().checked_sub(size_of::<T>());
        self.bytes_left.set(left.ok_or(DecodeError::TooLarge)?);
        Ok(())
    }

    /// Goes one value deeper for the duration of `work`.
    pub(super) fn nested<R>(
        &self,
        work: impl FnOnce() -> Result<R, DecodeError>,
    ) -> Result<R, DecodeError> {
        self.deeper()?;
        let result = work();
        self.shallower();
        result
    }

    pub(super) fn deeper(&self) -> Result<(), DecodeError> {
        let depth = self.depth.get() + 1;
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        self.depth.set(depth);
        Ok(())
    }

    pub(super) fn shallower(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }
}

pub(super) type Text<'a> = Cow<'a, str>;
pub(super) type KeyValues<'a> = Vec<(Text<'a>, AnyValue<'a>)>;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum AnyValue<'a> {
    #[default]
    Empty,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<AnyValue<'a>>),
    Map(KeyValues<'a>),
    /// An embedding, of which only the dimensions are wanted.
    Vector(usize),
}

/// Spans, log records or metrics of one resource and scope.
#[derive(Debug)]
pub(super) struct Group<'a, T> {
    pub(super) resource: KeyValues<'a>,
    pub(super) scopes: Vec<Scoped<'a, T>>,
}

impl<T> Default for Group<'_, T> {
    fn default() -> Self {
        Self { resource: Vec::new(), scopes: Vec::new() }
    }
}

#[derive(Debug)]
pub(super) struct Scoped<'a, T> {
    pub(super) scope: Scope<'a>,
    pub(super) items: Vec<T>,
}

impl<T> Default for Scoped<'_, T> {
    fn default() -> Self {
        Self { scope: Scope::default(), items: Vec::new() }
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Scope<'a> {
    pub(super) name: Text<'a>,
    pub(super) version: Text<'a>,
}

/// An id as it came: right, or of no use.
pub(super) type Id<const N: usize> = Option<[u8; N]>;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Span<'a> {
    pub(super) trace_id: Id<16>,
    pub(super) span_id: Id<8>,
    pub(super) parent_span_id: Id<8>,
    pub(super) name: Text<'a>,
    pub(super) kind: i32,
    pub(super) start_unix_ns: u64,
    pub(super) end_unix_ns: u64,
    pub(super) attributes: KeyValues<'a>,
    pub(super) events: Vec<SpanEvent<'a>>,
    pub(super) links: Vec<Link>,
    pub(super) status_code: i32,
    pub(super) status_message: Text<'a>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct SpanEvent<'a> {
    pub(super) time_unix_ns: u64,
    pub(super) name: Text<'a>,
    pub(super) attributes: KeyValues<'a>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Link {
    pub(super) trace_id: Id<16>,
    pub(super) span_id: Id<8>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct LogRecord<'a> {
    pub(super) time_unix_ns: u64,
    pub(super) observed_unix_ns: u64,
    pub(super) severity: i32,
    pub(super) event_name: Text<'a>,
    pub(super) body: AnyValue<'a>,
    pub(super) attributes: KeyValues<'a>,
    pub(super) trace_id: Id<16>,
    pub(super) span_id: Id<8>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Metric<'a> {
    pub(super) name: Text<'a>,
    pub(super) unit: Text<'a>,
    pub(super) points: Vec<Point<'a>>,
    /// How the points of a sum or histogram follow each other: 1 each by itself, 2 each with all
    /// before it.
    pub(super) temporality: i32,
}

/// One point of any kind of metric; what a kind does not have is `None`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Point<'a> {
    pub(super) start_unix_ns: u64,
    pub(super) time_unix_ns: u64,
    pub(super) attributes: KeyValues<'a>,
    /// Of a sum or gauge.
    pub(super) value: Option<f64>,
    /// Of a histogram or summary.
    pub(super) count: Option<u64>,
    pub(super) sum: Option<f64>,
}

impl AnyValue<'_> {
    /// The value as the recorder keeps it. Lists of anything but plain values, and maps, become
    /// JSON text; bytes become base64, as in OTLP's own JSON.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Empty => Value::Str(String::new()),
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Double(value) => Value::Float(*value),
            Self::Text(text) => Value::Str(text.to_string()),
            Self::List(items) if items.iter().all(Self::is_plain) => {
                Value::List(items.iter().map(Self::to_value).collect())
            }
            Self::Bytes(_) | Self::List(_) | Self::Map(_) | Self::Vector(_) => {
                match self.to_json() {
                    serde_json::Value::String(text) => Value::Str(text),
                    other => Value::Str(other.to_string()),
                }
            }
        }
    }

    fn is_plain(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Map(_))
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Empty => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Double(value) => Value::Float(*value).to_json(),
            Self::Text(text) => text.as_ref().into(),
            Self::Bytes(bytes) => BASE64_STANDARD.encode(bytes).into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect(),
            ),
            Self::Vector(dimensions) => format!("{dimensions} dimensions").into(),
        }
    }

    /// The text, where the value is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text as it is, anything else as JSON: how a content is kept.
    pub(super) fn to_content(&self) -> Text<'_> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_json().to_string()),
        }
    }
}

/// Whether an attribute holds an embedding; they are large, and only their size is kept.
pub(super) fn is_vector(key: &str) -> bool {
    key == "embedding.vector" || key.ends_with(".embedding.vector")
}

/// Values in values. Exporters send two or three; every level costs the reader of OTLP/JSON three
/// of its own.
pub(super) const DEPTH_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_become_json_and_plain_lists_stay_lists() {
        let list = AnyValue::List(vec![AnyValue::Int(1), AnyValue::Text("a".into())]);
        assert_eq!(list.to_value(), Value::List(vec![Value::Int(1), Value::Str("a".to_owned())]));
        let map = AnyValue::Map(vec![("k".into(), list)]);
        assert_eq!(map.to_value(), Value::Str(r#"{"k":[1,"a"]}"#.to_owned()));
    }
}
