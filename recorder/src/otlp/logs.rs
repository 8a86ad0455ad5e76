//! Log records: GenAI events carry contents and exceptions of a span; the rest are log lines.

use std::borrow::Cow;

use retake_schemas::event::{Annotated, Level};
use retake_schemas::mapping::{BUILT_IN, CONTENT_REF_PREFIX};
use retake_schemas::{Attributes, SpanId, SpanKey, TraceId, Value};

use super::messages::{self, Message};
use super::model::{AnyValue, LogRecord};
use super::span::kept;

type Keep<'k> = &'k dyn Fn(&str, &str) -> Option<retake_schemas::Digest>;

/// What a log record becomes.
#[derive(Debug, PartialEq)]
pub(super) struct LogEvents {
    pub(super) time_unix_ns: i64,
    pub(super) line: Annotated,
    /// Contents and results that belong to the record's span.
    pub(super) of_span: Attributes,
    /// One message of the span's prompt or answer.
    pub(super) message: Option<Message>,
}

/// Translates a record that came at `now_unix_ns`.
pub(super) fn translate(
    record: &LogRecord<'_>,
    scope: &str,
    now_unix_ns: i64,
    keep: Keep<'_>,
) -> LogEvents {
    let time = |time: u64| i64::try_from(time).ok().filter(|time| *time > 0);
    let span = record.trace_id.zip(record.span_id).map(|(trace_id, span_id)| SpanKey {
        trace_id: TraceId::from_bytes(trace_id),
        span_id: SpanId::from_bytes(span_id),
    });
    let name = event_name(record);
    let is_genai = name.starts_with("gen_ai.");
    let mut attributes = kept(name, &record.attributes, keep);
    attributes.retain(|(key, _)| key != "event.name");
    let mut message = None;
    if is_genai && !matches!(record.body, AnyValue::Empty) {
        // The body of a GenAI event is what was said.
        if let Some(digest) = keep("application/json", &record.body.to_content()) {
            attributes.push(("body".into(), reference(digest)));
        }
    } else {
        message = match &record.body {
            AnyValue::Empty => None,
            body => Some(body.to_content().into_owned()),
        };
    }
    let of_span =
        if is_genai && span.is_some() { of_span(record, &attributes) } else { Vec::new() };
    let said = messages::message(name, &record.body).filter(|_| span.is_some());
    let line = Annotated {
        span,
        level: level(record.severity),
        name: if name.is_empty() { "log".to_owned() } else { name.to_owned() },
        target: scope.to_owned(),
        message,
        attributes,
    };
    let time_unix_ns =
        time(record.time_unix_ns).or_else(|| time(record.observed_unix_ns)).unwrap_or(now_unix_ns);
    LogEvents { time_unix_ns, line, of_span, message: said }
}

/// `gen_ai.client.inference.operation.details` and its like repeat a span's attributes and bring
/// its contents, which belong to the span.
fn of_span(record: &LogRecord<'_>, kept: &Attributes) -> Attributes {
    if !event_name(record).ends_with("operation.details") {
        return Vec::new();
    }
    let is_known = |name: &str| BUILT_IN.places(name).next().is_some() || BUILT_IN.is_content(name);
    kept.iter().filter(|(name, _)| is_known(name)).cloned().collect()
}

fn event_name<'a>(record: &'a LogRecord<'_>) -> &'a str {
    if !record.event_name.is_empty() {
        return &record.event_name;
    }
    // Before log records had a field for it.
    let named = record.attributes.iter().find(|(key, _)| key == "event.name");
    named.and_then(|(_, value)| value.as_text()).unwrap_or_default()
}

fn reference(digest: retake_schemas::Digest) -> Value {
    Cow::<str>::Owned(format!("{CONTENT_REF_PREFIX}{digest}")).into_owned().into()
}

/// Severity numbers 1 to 24, four to a level; fatal counts as error, none as information.
fn level(severity: i32) -> Level {
    match severity {
        1..=4 => Level::Trace,
        5..=8 => Level::Debug,
        13..=16 => Level::Warn,
        17..=24 => Level::Error,
        _ => Level::Info,
    }
}
