//! The live figures of hand-made and of real runs.

use retake_schemas::event::{DropCause, Gap, RunStatus, SpanUpdated, TokensSource, Usage};
use retake_schemas::{EventSeq, SpanId, TraceId};

use super::*;
use crate::recorder::RecorderBuilder;
use crate::store::Store;

const MS: i64 = 1_000_000;

fn key(n: u64) -> SpanKey {
    SpanKey { trace_id: TraceId::from_bytes([3; 16]), span_id: SpanId::from_u64(n) }
}

fn open(n: u64, parent: Option<u64>, name: &str) -> EventBody {
    EventBody::SpanOpened(Box::new(SpanOpened {
        span: key(n),
        parent: parent.map(SpanId::from_u64),
        name: name.to_owned(),
        target: "app".to_owned(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes: Vec::new(),
    }))
}

fn update(n: u64, name: &'static str, value: &str) -> EventBody {
    let attributes = vec![(name.into(), value.into())];
    EventBody::SpanUpdated(SpanUpdated { span: key(n), attributes })
}

fn close(n: u64, status: Status) -> EventBody {
    EventBody::SpanClosed(SpanClosed { span: key(n), busy_ns: None, status, message: None })
}

fn figures(bodies: impl IntoIterator<Item = (i64, EventBody)>) -> LiveSnapshot {
    let (mut handler, stats) = LiveHandler::new();
    let mut last = 0;
    for (time_unix_ns, body) in bodies {
        last = time_unix_ns;
        handler.handle(&[Event { seq: EventSeq(0), time_unix_ns, body }]).unwrap();
    }
    stats.snapshot(last)
}

#[test]
fn the_slowest_stage_is_a_stage_and_not_the_request() {
    let mut bodies = vec![(0, open(0, None, "request"))];
    for n in 1..=20 {
        let begin = n as i64 * 100 * MS;
        bodies.push((begin, open(2 * n, Some(0), "search")));
        bodies.push((begin + 5 * MS, close(2 * n, Status::Ok)));
        bodies.push((begin + 5 * MS, open(2 * n + 1, Some(0), "ask the model")));
        bodies.push((begin + 5 * MS, update(2 * n + 1, "gen_ai.operation.name", "chat")));
        bodies.push((begin + (5 + n as i64) * MS, close(2 * n + 1, Status::Ok)));
    }
    bodies.push((3_000 * MS, close(0, Status::Ok)));
    let live = figures(bodies);
    let stage = |stage: &str, p50_ms: i64, p95_ms: i64| StageLatency {
        stage: stage.to_owned(),
        spans: 20,
        p50_ns: p50_ms * MS,
        p95_ns: p95_ms * MS,
    };
    assert_eq!(live.stages, [stage("llm", 10, 19), stage("search", 5, 5)]);
    assert_eq!((live.spans, live.open_spans, live.errors), (41, 0, 0));
    assert!((live.spans_per_s - 41.0 / 3.0).abs() < 0.1, "{}", live.spans_per_s);
}

#[test]
fn a_failure_passed_on_is_one_error_and_a_loss_is_shown() {
    let logged = EventBody::Annotated(Annotated {
        span: Some(key(4)),
        level: Level::Error,
        name: "event".to_owned(),
        target: "app".to_owned(),
        message: None,
        attributes: vec![("error".into(), "no answer".into())],
    });
    let live = figures([
        (0, open(1, None, "root")),
        (1, open(2, Some(1), "call")),
        (2, close(2, Status::Error)),
        (3, close(1, Status::Error)),
        (4, open(3, None, "said")),
        (5, update(3, "otel.status_code", "ERROR")),
        (6, close(3, Status::Ok)),
        (7, open(4, None, "logged")),
        (8, logged),
        (9, close(4, Status::Ok)),
        (10, open(5, None, "given up")),
        (11, update(5, "retake.cancelled", "true")),
        (12, close(5, Status::Error)),
        (13, open(6, None, "still open")),
        (14, EventBody::Gap(Gap { dropped: 7, spans: 0, cause: DropCause::JournalFull })),
    ]);
    assert_eq!((live.errors, live.dropped, live.open_spans), (3, 7, 1));
}

/// Scenario: a run is followed while it is recorded.
/// Guarantees: the figures are those of the run, and tokens a parent repeats are shown once.
#[test]
fn a_real_run_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let dispatcher = recorder.dispatcher().clone();
    let stats = follow(&dispatcher).unwrap();
    assert_eq!(stats.snapshot(dispatcher.now_unix_ns()), LiveSnapshot::default());
    dispatcher.emit(&open(1, None, "request"));
    dispatcher.emit(&update(1, "gen_ai.usage.input_tokens", "40"));
    for n in 2..6 {
        dispatcher.emit(&open(n, Some(1), "call"));
        dispatcher.emit(&EventBody::Usage(Usage {
            span: key(n),
            source: TokensSource::Provider,
            input: Some(10),
            output: Some(1),
            cache_read: None,
            cache_write: None,
            reasoning: None,
        }));
        dispatcher.emit(&close(n, Status::Ok));
    }
    dispatcher.emit(&close(1, Status::Ok));
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    let live = stats.snapshot(dispatcher.now_unix_ns());
    assert_eq!((live.spans, live.open_spans), (5, 0));
    assert_eq!((live.input_tokens, live.output_tokens), (40, 4));
    assert!(live.spans_per_s > 0.0);
    assert_eq!(live.stages.iter().map(|s| s.stage.as_str()).collect::<Vec<_>>(), ["call"]);
}
