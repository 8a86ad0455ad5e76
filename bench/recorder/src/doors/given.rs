//! Spans with given times into a run, for the bytes they take.

use std::path::Path;

use retake_recorder::Dispatcher;
use retake_schemas::event::{Level, SpanClosed, SpanOpened, Status};
use retake_schemas::settings::RecordSettings;
use retake_schemas::{Attributes, EventBody, SpanId, SpanKey, TraceId, Value};

use super::{Run, block};
use crate::error::BenchError;
use crate::measures::synthetic::{Field, SyntheticSpan, TARGET};
use crate::tracer::Kept;

/// Records `spans` in the order in which a live program would have emitted them, and finishes the
/// run.
///
/// # Errors
/// The run cannot be made or finished.
pub(crate) fn record_given(folder: &Path, spans: &[SyntheticSpan]) -> Result<Kept, BenchError> {
    let mut settings = RecordSettings::default();
    block(&mut settings);
    let run = Run::start(folder, settings)?;
    let dispatcher = run.recorder.dispatcher();
    let mut moments: Vec<(i64, Moment<'_>)> = Vec::with_capacity(spans.len() * 2);
    let keys = keys(dispatcher, spans);
    for (span, key) in spans.iter().zip(&keys) {
        let parent = span.parent.and_then(|at| keys.get(at)).map(|key| key.span_id);
        moments.push((span.start_unix_ns, Moment::Open(span, *key, parent)));
        moments.push((span.end_unix_ns, Moment::Close(*key)));
    }
    // Opens first: a span of no length must not close before it opens.
    moments.sort_by_key(|(time, moment)| (*time, matches!(moment, Moment::Close(_))));
    for (time_unix_ns, moment) in &moments {
        dispatcher.emit_at(*time_unix_ns, &moment.event());
    }
    run.finish()
}

enum Moment<'a> {
    Open(&'a SyntheticSpan, SpanKey, Option<SpanId>),
    Close(SpanKey),
}

impl Moment<'_> {
    /// The same facts as the peers' encodings carry: no source file, no thread.
    fn event(&self) -> EventBody {
        match self {
            Self::Open(span, key, parent) => EventBody::SpanOpened(Box::new(SpanOpened {
                span: *key,
                parent: *parent,
                name: span.name.to_owned(),
                target: TARGET.to_owned(),
                level: Level::Info,
                source_file: None,
                source_line: None,
                thread: None,
                attributes: attributes(span),
            })),
            Self::Close(key) => EventBody::SpanClosed(SpanClosed {
                span: *key,
                busy_ns: None,
                status: Status::Ok,
                message: None,
            }),
        }
    }
}

fn keys(dispatcher: &Dispatcher, spans: &[SyntheticSpan]) -> Vec<SpanKey> {
    spans
        .iter()
        .map(|span| SpanKey {
            trace_id: TraceId::from_bytes(span.trace),
            span_id: dispatcher.new_span_id(),
        })
        .collect()
}

fn attributes(span: &SyntheticSpan) -> Attributes {
    let values = span.fields.iter().map(|(key, field)| {
        let value = match field {
            Field::Int(value) => Value::Int(*value),
            Field::Float(value) => Value::Float(*value),
            Field::Text(value) => Value::Str(value.clone()),
            Field::Flag(value) => Value::Bool(*value),
        };
        ((*key).into(), value)
    });
    values.collect()
}
