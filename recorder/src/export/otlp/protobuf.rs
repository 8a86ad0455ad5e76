//! OTLP as protobuf: field numbers of `opentelemetry/proto/trace/v1/trace.proto` and its imports.

use super::super::wire::Message;
use super::model::{AnyValue, Event, Group, KeyValue, STATUS_ERROR, Span};

/// A span, without field number and length.
pub(super) fn span(span: &Span<'_>) -> Vec<u8> {
    let mut message = Message::default();
    message.raw(1, span.trace_id.as_bytes());
    message.raw(2, span.span_id.as_bytes());
    if let Some(parent) = span.parent_span_id {
        message.raw(4, parent.as_bytes());
    }
    message.text(5, span.name);
    message.uint(6, span.kind as u64);
    message.fixed64(7, span.start_time_unix_nano);
    message.fixed64(8, span.end_time_unix_nano);
    attributes(&mut message, 9, &span.attributes);
    for event in &span.events {
        message.message(11, |message| write_event(message, event));
    }
    if let Some(text) = span.error {
        message.message(15, |status| {
            status.text(2, text);
            status.uint(3, STATUS_ERROR);
        });
    }
    message.bytes().to_vec()
}

/// An `ExportTraceServiceRequest`.
pub(super) fn request(groups: &[Group<'_>]) -> Vec<u8> {
    let mut request = Message::default();
    for group in groups {
        request.message(1, |resource_spans| {
            resource_spans.message(1, |resource| attributes(resource, 1, &group.resource));
            for (name, spans) in group.scopes {
                resource_spans.message(2, |scope_spans| {
                    scope_spans.message(1, |scope| scope.text(1, name));
                    for span in spans {
                        scope_spans.raw(2, span);
                    }
                });
            }
        });
    }
    request.bytes().to_vec()
}

fn write_event(message: &mut Message, event: &Event<'_>) {
    message.fixed64(1, event.time_unix_nano);
    message.text(2, event.name);
    attributes(message, 3, &event.attributes);
}

fn attributes(message: &mut Message, field: u32, attributes: &[KeyValue]) {
    for (key, value) in attributes {
        message.message(field, |entry| {
            entry.text(1, key);
            entry.message(2, |message| any(message, value));
        });
    }
}

fn any(message: &mut Message, value: &AnyValue) {
    match value {
        AnyValue::Empty => {}
        AnyValue::Text(text) => message.text(1, text),
        AnyValue::Bool(value) => message.bool(2, *value),
        AnyValue::Int(value) => message.int(3, *value),
        AnyValue::Double(value) => message.double(4, *value),
        AnyValue::Array(values) => message.message(5, |array| {
            for value in values {
                array.message(1, |message| any(message, value));
            }
        }),
        AnyValue::Map(entries) => message.message(6, |map| attributes(map, 1, entries)),
    }
}
