//! A span as OTLP has it, for both encodings.

use std::collections::BTreeMap;

use retake_schemas::{SpanId, TraceId};

/// `opentelemetry.proto.trace.v1.Span`.
#[derive(Debug)]
pub(super) struct Span<'a> {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) name: &'a str,
    pub(super) kind: SpanKind,
    pub(super) start_time_unix_nano: u64,
    pub(super) end_time_unix_nano: u64,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) events: Vec<Event<'a>>,
    /// Why it failed; `None` if it did not.
    pub(super) error: Option<&'a str>,
}

/// `Span.SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpanKind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// `Span.Event`.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) time_unix_nano: u64,
    pub(super) name: &'a str,
    pub(super) attributes: Vec<KeyValue>,
}

/// An attribute.
pub(super) type KeyValue = (String, AnyValue);

/// `opentelemetry.proto.common.v1.AnyValue`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum AnyValue {
    Empty,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Array(Vec<AnyValue>),
    Map(Vec<KeyValue>),
}

/// Encoded spans of one service, by scope.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) resource: Vec<KeyValue>,
    pub(super) scopes: &'a BTreeMap<String, Vec<Vec<u8>>>,
}

/// `Status.StatusCode`.
pub(super) const STATUS_ERROR: u64 = 2;

impl From<serde_json::Value> for AnyValue {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Empty,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Double(value),
                (None, None) => Self::Text(number.to_string()),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(values) => Self::Array(values.into_iter().map(Self::from).collect()),
            Value::Object(object) => {
                Self::Map(object.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl From<&str> for AnyValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for AnyValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for AnyValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for AnyValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
