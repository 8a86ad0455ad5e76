//! OTLP/JSON: protobuf's JSON with ids in hex, enums as numbers, and 64-bit numbers as text.

use serde_json::{Map, Value, json};

use super::model::{AnyValue, Event, Group, KeyValue, STATUS_ERROR, Span};

/// What a request begins with, before its resources.
pub(super) const BODY_START: &[u8] = b"{\"resourceSpans\":[";
/// What a request ends with.
pub(super) const BODY_END: &[u8] = b"]}\n";

/// A span.
pub(super) fn span(span: &Span<'_>) -> Vec<u8> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("traceId", span.trace_id.to_string().into());
    put("spanId", span.span_id.to_string().into());
    if let Some(parent) = span.parent_span_id {
        put("parentSpanId", parent.to_string().into());
    }
    put("name", span.name.into());
    put("kind", json!(span.kind as u8));
    put("startTimeUnixNano", span.start_time_unix_nano.to_string().into());
    put("endTimeUnixNano", span.end_time_unix_nano.to_string().into());
    if !span.attributes.is_empty() {
        put("attributes", attributes(&span.attributes));
    }
    if !span.events.is_empty() {
        put("events", span.events.iter().map(event).collect());
    }
    let status = match span.error {
        Some("") => json!({ "code": STATUS_ERROR }),
        Some(message) => json!({ "message": message, "code": STATUS_ERROR }),
        None => json!({}),
    };
    put("status", status);
    Value::Object(object).to_string().into_bytes()
}

/// The elements of `resourceSpans`, with commas between.
pub(super) fn resource_spans(groups: &[Group<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let resource = json!({ "attributes": attributes(&group.resource) });
        out.extend_from_slice(format!("{{\"resource\":{resource},\"scopeSpans\":[").as_bytes());
        for (at, (name, spans)) in group.scopes.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let scope = json!({ "name": name });
            out.extend_from_slice(format!("{{\"scope\":{scope},\"spans\":[").as_bytes());
            out.extend_from_slice(&spans.join(&b','));
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
    }
    out
}

fn event(event: &Event<'_>) -> Value {
    let mut object = Map::new();
    object.insert("timeUnixNano".to_owned(), event.time_unix_nano.to_string().into());
    object.insert("name".to_owned(), event.name.into());
    if !event.attributes.is_empty() {
        object.insert("attributes".to_owned(), attributes(&event.attributes));
    }
    Value::Object(object)
}

fn attributes(attributes: &[KeyValue]) -> Value {
    attributes.iter().map(|(key, value)| json!({ "key": key, "value": any(value) })).collect()
}

fn any(value: &AnyValue) -> Value {
    match value {
        AnyValue::Empty => json!({}),
        AnyValue::Bool(value) => json!({ "boolValue": value }),
        AnyValue::Int(value) => json!({ "intValue": value.to_string() }),
        AnyValue::Double(value) => json!({ "doubleValue": value }),
        AnyValue::Text(text) => json!({ "stringValue": text }),
        AnyValue::Array(values) => {
            json!({ "arrayValue": { "values": values.iter().map(any).collect::<Value>() } })
        }
        AnyValue::Map(entries) => json!({ "kvlistValue": { "values": attributes(entries) } }),
    }
}
