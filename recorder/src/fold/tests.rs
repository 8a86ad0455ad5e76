//! The fold on small hand-made sequences, and on random ones against a plain oracle.

use proptest::prelude::*;
use retake_schemas::event::{
    Level, SpanClosed, SpanOpened, SpanUpdated, Status, TokensSource, Usage,
};
use retake_schemas::tables::{Row, SpanRow, TableName};
use retake_schemas::{Attributes, Event, SpanId};

use super::*;

const TRACE: TraceId = TraceId::from_bytes([7; 16]);

fn key(id: u64) -> SpanKey {
    SpanKey { trace_id: TRACE, span_id: SpanId::from_u64(id) }
}

fn open(id: u64, parent: Option<u64>, name: &str, attributes: Attributes) -> EventBody {
    EventBody::SpanOpened(Box::new(SpanOpened {
        span: key(id),
        parent: parent.map(SpanId::from_u64),
        name: name.to_owned(),
        target: "app".to_owned(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes,
    }))
}

fn close(id: u64, status: Status) -> EventBody {
    EventBody::SpanClosed(SpanClosed { span: key(id), busy_ns: None, status, message: None })
}

fn usage(id: u64, input: i64, output: i64) -> EventBody {
    EventBody::Usage(Usage {
        span: key(id),
        source: TokensSource::Provider,
        input: Some(input),
        output: Some(output),
        cache_read: None,
        cache_write: None,
        reasoning: None,
    })
}

fn sequence(bodies: Vec<(i64, EventBody)>) -> Vec<Event> {
    bodies
        .into_iter()
        .enumerate()
        .map(|(seq, (time_unix_ns, body))| Event { seq: EventSeq(seq as u64), time_unix_ns, body })
        .collect()
}

fn fold() -> Fold {
    let timeline = Timeline::new(crate::clock::Anchor { ticks: 0, unix_ns: 0 }, 1.0);
    Fold::new(&"r".parse().unwrap(), "svc", EventSeq(0), timeline)
}

fn span_rows(fold: &mut Fold, open_spans: OpenSpans) -> Vec<SpanRow> {
    SpanRow::from_batch(&fold.take(open_spans).batch(TableName::Spans)).unwrap()
}

/// Folds with a take after every `every` events, as seals would.
fn rows(events: &[Event], every: usize) -> Vec<SpanRow> {
    let mut fold = fold();
    let mut rows = Vec::new();
    for (index, event) in events.iter().enumerate() {
        fold.apply(event);
        if (index + 1).is_multiple_of(every) {
            rows.extend(span_rows(&mut fold, OpenSpans::Carry));
        }
    }
    rows.extend(span_rows(&mut fold, OpenSpans::Finish));
    rows.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    rows
}

#[test]
fn self_time_is_the_span_minus_the_union_of_its_children() {
    let events = sequence(vec![
        (0, open(1, None, "root", vec![])),
        (10, open(2, Some(1), "a", vec![])),
        (20, open(3, Some(1), "b", vec![])),
        (40, close(2, Status::Ok)),
        (60, close(3, Status::Ok)),
        (100, close(1, Status::Ok)),
    ]);
    for every in [1, 2, 3, 100] {
        let rows = rows(&events, every);
        let self_ns: Vec<_> = rows.iter().map(|row| row.self_ns).collect();
        assert_eq!(self_ns, [Some(50), Some(30), Some(40)], "take every {every}");
    }
}

/// Scenario: a failure passes through two ancestors.
#[test]
fn one_failure_has_one_origin() {
    let events = sequence(vec![
        (0, open(1, None, "query", vec![])),
        (1, open(2, Some(1), "synthesize", vec![])),
        (2, open(3, Some(2), "llm", vec![("error.type".into(), "timeout".into())])),
        (3, close(3, Status::Error)),
        (4, close(2, Status::Error)),
        (5, close(1, Status::Error)),
    ]);
    for every in [1, 4, 100] {
        let rows = rows(&events, every);
        let origins: Vec<_> = rows.iter().map(|row| row.is_error_origin).collect();
        assert_eq!(origins, [false, false, true]);
        assert_eq!(rows[2].error_type.as_deref(), Some("timeout"));
    }
}

/// Scenario: LLM spans nest and each layer repeats the counts of the layer below.
#[test]
fn tokens_of_nested_calls_count_once() {
    let events = sequence(vec![
        (0, open(1, None, "chain", vec![("gen_ai.usage.input_tokens".into(), "23".into())])),
        (1, open(2, Some(1), "llm", vec![])),
        (2, open(3, Some(2), "llm inner", vec![])),
        (3, usage(3, 23, 5)),
        (4, close(3, Status::Ok)),
        (5, usage(2, 23, 5)),
        (6, close(2, Status::Ok)),
        (7, close(1, Status::Ok)),
    ]);
    for every in [1, 5, 100] {
        let rows = rows(&events, every);
        let counted: Vec<_> = rows.iter().map(|row| row.tokens_counted).collect();
        assert_eq!(counted, [false, false, true], "take every {every}");
        assert!(rows.iter().all(|row| row.flags.is_none()), "a roll-up is no disagreement");
    }
}

#[test]
fn a_parent_that_states_more_than_its_descendants_is_flagged() {
    let events = sequence(vec![
        (0, open(1, None, "outer", vec![])),
        (1, open(2, Some(1), "inner", vec![])),
        (2, usage(2, 10, 5)),
        (3, close(2, Status::Ok)),
        (4, usage(1, 99, 5)),
        (5, close(1, Status::Ok)),
    ]);
    assert_eq!(rows(&events, 100)[0].flags.as_deref(), Some("tokens_disagree"));
}

#[test]
fn a_stream_lasts_until_its_last_token() {
    let token = |time, index| (time, EventBody::Token(Token { span: key(1), index, count: 1 }));
    let events = sequence(vec![
        (0, open(1, None, "llm", vec![])),
        (1, close(1, Status::Ok)),
        token(38, 0),
        token(50, 1),
    ]);
    let rows = rows(&events, 100);
    assert_eq!((rows[0].duration_ns, rows[0].ttft_ns), (50, Some(38)));
    assert_eq!(rows[0].flags.as_deref(), Some("stream_extended"));
}

#[test]
fn spans_without_an_end_become_unfinished_rows() {
    let events = sequence(vec![
        (0, open(1, None, "root", vec![])),
        (5, open(2, Some(1), "child", vec![])),
        (9, close(2, Status::Ok)),
    ]);
    let rows = rows(&events, 100);
    assert_eq!((rows[0].status.as_str(), rows[0].duration_ns), ("unfinished", 9));
    assert_eq!(rows[0].flags.as_deref(), Some("unfinished"));
}

#[test]
fn later_attributes_win_and_unknown_ones_are_kept() {
    let events = sequence(vec![
        (0, open(1, None, "llm", vec![("gen_ai.operation.name".into(), "chat".into())])),
        (
            1,
            EventBody::SpanUpdated(SpanUpdated {
                span: key(1),
                attributes: vec![
                    ("gen_ai.usage.output_tokens".into(), 5_i64.into()),
                    ("x".into(), 1_i64.into()),
                ],
            }),
        ),
        (2, close(1, Status::Ok)),
    ]);
    let row = &rows(&events, 100)[0];
    assert_eq!((row.kind.as_str(), row.stage.as_str()), ("llm", "llm"));
    assert_eq!(row.output_tokens, Some(5));
    assert_eq!(row.tokens_source, "provider");
    assert_eq!(row.attributes.as_deref(), Some(r#"{"x":1}"#));
}

/// Guarantees: F1 - a cycle of parents or a span that is its own parent ends.
#[test]
fn cycles_of_parents_end() {
    let events = sequence(vec![
        (0, open(1, Some(2), "a", vec![])),
        (0, open(2, Some(1), "b", vec![])),
        (0, open(3, Some(3), "self", vec![])),
        (1, close(1, Status::Ok)),
        (1, close(2, Status::Ok)),
        (1, close(3, Status::Ok)),
    ]);
    assert_eq!(rows(&events, 100).len(), 3);
}

#[test]
fn an_event_applied_twice_changes_nothing() {
    let events = sequence(vec![(0, open(1, None, "a", vec![])), (5, close(1, Status::Ok))]);
    let mut fold = fold();
    for event in events.iter().chain(&events) {
        fold.apply(event);
    }
    assert_eq!(fold.take(OpenSpans::Finish).span_count(), 1);
    assert_eq!(fold.span_counts(), SpanCounts { opened: 1, closed: 1, dropped: 0 });
}

/// A random tree as events: span i+1 has a parent among 1..=i, times are random.
fn tree() -> impl Strategy<Value = Vec<(i64, i64, Option<u64>)>> {
    prop::collection::vec((0_i64..1000, 0_i64..1000, any::<prop::sample::Index>()), 1..25).prop_map(
        |nodes| {
            nodes
                .iter()
                .enumerate()
                .map(|(index, (a, b, parent))| {
                    let parent = (index > 0).then(|| parent.index(index) as u64 + 1);
                    ((*a).min(*b), (*a).max(*b), parent)
                })
                .collect()
        },
    )
}

proptest! {
    /// Self time by counting nanoseconds one by one, and the same rows however often rows are
    /// taken in between.
    #[test]
    fn self_time_agrees_with_counting(nodes in tree(), every in 1usize..10) {
        let mut timed = Vec::new();
        for (index, (start, end, parent)) in nodes.iter().enumerate() {
            let id = index as u64 + 1;
            timed.push((*start, 0, open(id, *parent, "s", vec![])));
            timed.push((*end, 1, close(id, Status::Ok)));
        }
        timed.sort_by_key(|(time, order, _)| (*time, *order));
        let events = sequence(timed.into_iter().map(|(time, _, body)| (time, body)).collect());
        let whole = rows(&events, usize::MAX);
        for (index, (start, end, _)) in nodes.iter().enumerate() {
            let id = index as u64 + 1;
            let children: Vec<_> =
                nodes.iter().filter(|(_, _, parent)| *parent == Some(id)).collect();
            let counted = (*start..*end)
                .filter(|t| !children.iter().any(|(s, e, _)| s <= t && t < e))
                .count() as i64;
            prop_assert_eq!(whole[index].self_ns, Some(counted));
        }
        // A child that outlives its parent may be sealed after it; then only the parent's self
        // time can differ, so compare all else.
        let parts = rows(&events, every);
        prop_assert_eq!(parts.len(), whole.len());
        for (part, all) in parts.iter().zip(&whole) {
            prop_assert_eq!(part.duration_ns, all.duration_ns);
            prop_assert_eq!(&part.status, &all.status);
        }
    }
}

/// Scenario: a trace comes in pieces, children first, with seals between them.
/// Guarantees: what the family decides is as if all had come at once; a trace that was quiet long
/// enough is sealed, and a span that comes later still knows its parent.
#[test]
fn a_trace_that_is_still_arriving_is_not_torn_apart_by_a_seal() {
    const SECOND: i64 = 1_000_000_000;
    let waiting = || {
        let mut fold = fold();
        fold.wait_for_traces(10 * SECOND);
        fold
    };
    let span =
        |fold: &mut Fold, id: u64, parent: Option<u64>, times: (i64, i64), status: Status| {
            fold.apply_body(times.0 * SECOND, &open(id, parent, "s", Vec::new()));
            fold.apply_body(times.1 * SECOND, &close(id, status));
        };
    let tick = |fold: &mut Fold, time: i64| {
        let (name, unit) = ("m".to_owned(), "1".to_owned());
        let measured = Measured { name, unit, value: 0.0, attributes: Vec::new() };
        fold.apply_body(time * SECOND, &EventBody::Measured(measured));
    };
    let taken = |fold: &mut Fold| {
        SpanRow::from_batch(&fold.take(OpenSpans::Carry).batch(TableName::Spans)).unwrap()
    };
    let mut first = waiting();
    span(&mut first, 2, Some(1), (1, 3), Status::Error);
    assert!(taken(&mut first).is_empty(), "its trace is still arriving");

    // A process that takes over what was carried goes on from there.
    let mut fold = waiting();
    fold.take_over(first.carried());
    assert_eq!(fold.open_count(), 0);
    span(&mut fold, 1, None, (0, 4), Status::Error);
    assert!(taken(&mut fold).is_empty(), "it was touched just now");
    tick(&mut fold, 30);
    let rows = taken(&mut fold);
    let facts: Vec<_> =
        rows.iter().map(|row| (row.self_ns, row.is_error_origin, row.flags.as_deref())).collect();
    let expected = [(Some(2 * SECOND), false, None), (Some(2 * SECOND), true, None)];
    assert_eq!(facts, expected, "parent, child");

    span(&mut fold, 3, Some(1), (5, 6), Status::Ok);
    tick(&mut fold, 60);
    let late = taken(&mut fold);
    assert_eq!((late.len(), late[0].flags.as_deref()), (1, None), "its parent is known");
}
