//! Small stores for the tests of upkeep and of remote copies.

use retake_schemas::event::{Annotated, EventBody, Level, Payload, RunStatus};
use retake_schemas::event::{SpanClosed, SpanOpened, Status};
use retake_schemas::{Digest, RunId, SpanKey, TraceId};

use crate::{Recorder, RecorderBuilder, Store};

/// A store in a folder that goes away with the first of the pair.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    (folder, store)
}

/// A run to its end, in `seals` segments of each table.
pub(crate) fn finished_run(store: &Store, name: &str, seals: usize) -> RunId {
    let recorder = RecorderBuilder::new(name, "svc").start(store).unwrap();
    let run_id = recorder.run_id().clone();
    for part in 0..seals {
        record_part(&recorder, part);
        if part + 1 < seals {
            recorder.seal().unwrap();
        }
    }
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    run_id
}

/// Spans, log lines, payloads and measures, different in each part.
fn record_part(recorder: &Recorder, part: usize) {
    let dispatcher = recorder.dispatcher();
    for n in 0..ROWS_PER_PART {
        let text = format!("part {part} line {n}");
        let span = SpanKey { trace_id: TraceId::generate(), span_id: dispatcher.new_span_id() };
        dispatcher.emit(&EventBody::SpanOpened(Box::new(SpanOpened {
            span,
            parent: None,
            name: text.clone(),
            target: "app".to_owned(),
            level: Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes: vec![("retake.stage".into(), "query".into())],
        })));
        dispatcher.emit(&EventBody::Annotated(Annotated {
            span: Some(span),
            level: Level::Info,
            name: "note".to_owned(),
            target: "app".to_owned(),
            message: Some(text.clone()),
            attributes: Vec::new(),
        }));
        dispatcher.emit(&EventBody::Payload(Payload {
            digest: Digest::of(text.as_bytes()),
            bytes: text.len() as u64,
            media_type: "text/plain".to_owned(),
            content: Some(text),
            truncated: false,
        }));
        let status = Status::Ok;
        let closed = SpanClosed { span, busy_ns: None, status, message: None };
        dispatcher.emit(&EventBody::SpanClosed(closed));
    }
}

/// Rows of spans, events and payloads that each part of a run has.
pub(crate) const ROWS_PER_PART: usize = 40;
