//! Logs of every shape: nested, in parallel, with clocks that disagree.

use retake_schemas::tables::{DocumentRow, EventRow, SpanRow, TokenRow};

use super::*;
use crate::rng::Rng;

fn span(id: u64, parent: Option<u64>, start: i64, duration: i64) -> SpanRow {
    SpanRow {
        run_id: "r".to_owned(),
        trace_id: format!("{:032x}", 1),
        span_id: format!("{id:016x}"),
        parent_span_id: parent.map(|parent| format!("{parent:016x}")),
        name: format!("span {id}"),
        start_unix_ns: ORIGIN + start,
        duration_ns: duration,
        status: "ok".to_owned(),
        ..SpanRow::default()
    }
}

fn token(id: u64, time: i64) -> TokenRow {
    TokenRow {
        trace_id: format!("{:032x}", 1),
        span_id: format!("{id:016x}"),
        token_count: 1,
        time_unix_ns: ORIGIN + time,
        ..TokenRow::default()
    }
}

/// A log of random trees: children in sequence, in parallel, some longer than their parents, some
/// that begin before them, some without one; and what they said.
fn random(seed: u64) -> Log {
    let mut rng = Rng::new(seed);
    let mut below = |most: u64| rng.below(most);
    let mut log = Log::default();
    for trace in 0..1 + below(6) {
        let mut spans: Vec<SpanRow> = Vec::new();
        for id in 1..=1 + below(30) {
            let parent = (id > 1).then(|| 1 + below(id + 1));
            let start = below(2_000) as i64 + trace as i64 * 700;
            let duration = if below(5) == 0 { 0 } else { below(900) as i64 };
            spans.push(SpanRow {
                trace_id: format!("{:032x}", trace + 1),
                ..span(id, parent, start, duration)
            });
        }
        for row in &spans {
            for _ in 0..below(4) {
                log.tokens.push(TokenRow {
                    trace_id: row.trace_id.clone(),
                    span_id: row.span_id.clone(),
                    token_count: 1,
                    time_unix_ns: row.start_unix_ns + below(1_000) as i64 - 50,
                    ..TokenRow::default()
                });
            }
            log.documents.push(DocumentRow {
                trace_id: row.trace_id.clone(),
                span_id: row.span_id.clone(),
                document_id: "d".to_owned(),
                score: Some(0.1),
                time_unix_ns: row.start_unix_ns + row.duration_ns,
                ..DocumentRow::default()
            });
        }
        log.events
            .push(EventRow { time_unix_ns: ORIGIN + below(5_000) as i64, ..EventRow::default() });
        log.spans.append(&mut spans);
    }
    log
}

/// Scenario: 300 random logs, on one thread and on eight.
/// Guarantees: REPLAY "identity replay" - every event at its time, 0 ns off, on any number of threads.
#[test]
fn every_log_replays_to_itself() {
    for seed in 0..300 {
        let log = random(seed);
        for threads in [1, 8] {
            assert_eq!(play(&log, threads), log, "seed {seed}, {threads} threads");
            let identity = check(&log, threads);
            assert!(identity.holds() && identity.difference.is_none(), "{identity:?}");
        }
    }
}

/// Scenario: one log a hundred times, on one thread and on eight.
/// Guarantees: R1 - the same digest each time.
#[test]
fn the_digest_is_the_same_a_hundred_times() {
    let log = random(77);
    let digests: std::collections::HashSet<_> =
        (0..100).map(|n| play(&log, if n % 2 == 0 { 1 } else { 8 }).digest()).collect();
    assert_eq!(digests, [log.digest()].into());
}

/// Scenario: what stood in another order on disk, in another run, at another time of day; and a log
/// with one nanosecond, one token, one word changed.
/// Guarantees: the digest is that of what happened, and sees every change; the first row that differs
/// is named.
#[test]
fn a_digest_is_of_what_happened() {
    let log = Log {
        spans: vec![span(1, None, 0, 100), span(2, Some(1), 10, 50)],
        tokens: vec![token(2, 30), token(2, 40)],
        ..Log::default()
    };
    let mut moved = log.clone();
    moved.spans.reverse();
    for span in &mut moved.spans {
        span.run_id = "another".to_owned();
        span.start_unix_ns += 5;
    }
    moved.tokens.iter_mut().for_each(|token| token.time_unix_ns += 5);
    assert_eq!(moved.digest(), log.digest());
    assert_eq!(log.normalised().first_difference(&moved.normalised()), None);

    let changed = |change: fn(&mut Log)| {
        let mut other = log.clone();
        change(&mut other);
        assert_ne!(other.digest(), log.digest());
        log.normalised().first_difference(&other.normalised()).expect("a difference")
    };
    assert!(changed(|log| log.spans[1].duration_ns += 1).contains("duration_ns=51"));
    assert!(changed(|log| log.spans[1].name.push('x')).contains("span 2x"));
    assert!(changed(|log| log.tokens[1].time_unix_ns -= 1).contains("time_unix_ns=39"));
    assert!(changed(|log| drop(log.tokens.pop())).contains("nothing"));
}

/// Scenario: an embedding that took longer, found by moving one pause.
/// Guarantees: what waited for it moves by as much, what did not stays: causes are causes.
#[test]
fn what_waits_for_a_longer_stage_moves_with_it() {
    let log = Log {
        spans: vec![
            span(1, None, 0, 100),
            span(2, Some(1), 10, 20),
            span(3, Some(1), 35, 60),
            span(4, Some(3), 36, 10),
            span(5, None, 50, 10),
        ],
        tokens: vec![token(3, 60), token(3, 70)],
        ..Log::default()
    };
    let mut causes = causes::Causes::of(&log);
    causes.after[causes::end_of(1) as usize].1 += 1_000;
    let times = super::play::times(&causes, 2);
    let moved: Vec<i64> = [
        causes::start_of(0),
        causes::end_of(0),
        causes::end_of(1),
        causes::start_of(2),
        causes::end_of(3),
        causes::start_of(4),
        10,
        11,
    ]
    .iter()
    .map(|event| times[*event as usize])
    .collect();
    assert_eq!(moved, [0, 1_100, 1_030, 1_035, 1_046, 50, 1_060, 1_070]);
}

#[test]
fn an_empty_log_is_itself() {
    assert!(check(&Log::default(), 4).holds());
}

const ORIGIN: i64 = 1_790_000_000_000_000_000;
