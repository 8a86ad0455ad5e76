//! Code that runs in the middle of a record and records something itself, or panics.
//!
//! In processes of their own with a global subscriber: scoped ones hide re-entrancy
//! (tracing-opentelemetry #250, delta-kernel-rs #2547).

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use retake_recorder::Recorder;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, WhenFull};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    HANGS, assert_accounts, child, child_folder, scratch, spans, start, store, wait_within,
};

/// Opens spans and logs while it is formatted.
struct Emits;

impl fmt::Debug for Emits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _span = tracing::info_span!("from Debug", deeper = ?Deeper).entered();
        tracing::info!("from Debug");
        f.write_str("emits")
    }
}

struct Deeper;

impl fmt::Debug for Deeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _span = tracing::info_span!("from Debug of Debug", text = "x".repeat(3_000));
        f.write_str("deeper")
    }
}

/// Opens a span with itself in it, for ever.
struct Endless;

impl fmt::Debug for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _span = tracing::info_span!("endless", again = ?Endless);
        f.write_str("endless")
    }
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half of it, ")?;
        let _span = tracing::info_span!("left by a panic").entered();
        panic!("in Debug")
    }
}

struct Fails;

impl fmt::Debug for Fails {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

/// Records every hostile thing once, and leaves the span to whoever takes it from `left`.
fn record_hostile(round: u64, left: &Mutex<Vec<tracing::Span>>) {
    let span = tracing::info_span!(
        "outer",
        value = ?Emits,
        bad = ?Panics,
        worse = ?Fails,
        late = tracing::field::Empty
    );
    span.in_scope(|| tracing::info!(value = ?Emits, bad = ?Panics, "inside"));
    if round.is_multiple_of(2) {
        span.record("late", tracing::field::debug(Emits));
    } else {
        span.record("late", tracing::field::debug(Panics));
    }
    if round.is_multiple_of(8) {
        let _endless = tracing::info_span!("holds endless", value = ?Endless);
    }
    let mut left = left.lock().unwrap();
    left.push(span);
    let other = (left.len() > 40).then(|| left.swap_remove(0));
    drop(left);
    // Mostly opened by another thread; it is entered here and ends here.
    drop(other.map(tracing::Span::entered));
}

/// The child: 64 threads, and a global subscriber that is `door`.
fn survive(recorder: Recorder, store: &retake_recorder::Store) {
    let run_id = recorder.run_id().clone();
    let left = Mutex::new(Vec::new());
    let panics_seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let outcome = std::panic::catch_unwind(|| record_hostile(round, &left));
                    panics_seen.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    drop(left.into_inner().unwrap());
    assert_eq!(panics_seen.into_inner(), 0, "a panic of a Debug reached the program");
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    // Recursion without an end is cut somewhere, and that is the only loss.
    let cut = THREADS * ROUNDS.div_ceil(8);
    assert_eq!((summary.dropped, summary.spans_dropped), (cut, cut), "{summary:?}");
    let rows = spans(store, &run_id);
    let count = |name: &str| rows.iter().filter(|row| row.name == name).count() as u64;
    let outer = THREADS * ROUNDS;
    assert_eq!(count("outer"), outer);
    // A record that does not fit the chunk is formatted once more.
    assert!(count("from Debug") >= outer * 2 + outer / 2);
    assert_eq!(count("from Debug of Debug"), count("from Debug"));
    assert!(count("left by a panic") >= outer * 2 + outer / 2);
    assert_eq!(count("holds endless"), cut);
    assert!(rows.iter().all(|row| row.status == "ok"), "every span ended");
}

fn in_own_process(test: &str, door: &str) {
    let folder = scratch();
    std::fs::write(folder.path().join("door"), door).unwrap();
    let mut command = child(&format!("reentrancy::{test}"), folder.path());
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let status = wait_within(child, HANGS);
    assert!(status.success(), "{door}: {status}");
}

fn install(recorder: &Recorder, folder: &Path) {
    if std::fs::read_to_string(folder.join("door")).unwrap() == "layer" {
        let layered = tracing_subscriber::registry().with(recorder.layer());
        tracing::subscriber::set_global_default(layered).unwrap();
    } else {
        tracing::subscriber::set_global_default(recorder.subscriber()).unwrap();
    }
}

/// Scenario: on 64 threads, under a global subscriber, formatting fields opens spans, logs,
/// recurses without end, fails, and panics, in new spans, events and late values; the spans are
/// entered and closed on other threads.
/// Guarantees: J9 - no deadlock (the parent waits five minutes), no panic reaches the program, and
/// everything that was emitted is recorded.
#[test]
fn sixty_four_threads_of_hostile_fields_are_survived() {
    let Some(folder) = child_folder() else {
        for door in ["layer", "subscriber"] {
            in_own_process("sixty_four_threads_of_hostile_fields_are_survived", door);
        }
        return;
    };
    let (_folder, store) = store();
    let settings = RecordSettings { when_full: WhenFull::Block, ..RecordSettings::default() };
    let recorder = start(&store, settings);
    install(&recorder, &folder);
    survive(recorder, &store);
}

/// Scenario: the same into a journal that is full almost all of the time.
/// Guarantees: J9, J7 - no deadlock and no panic; what is lost is counted, and whole.
#[test]
fn hostile_fields_are_survived_in_a_full_journal() {
    let Some(folder) = child_folder() else {
        for door in ["layer", "subscriber"] {
            in_own_process("hostile_fields_are_survived_in_a_full_journal", door);
        }
        return;
    };
    let (_folder, store) = store();
    let settings = RecordSettings { journal_bytes_max: 1 << 20, ..RecordSettings::default() };
    let recorder = start(&store, settings);
    let run_id = recorder.run_id().clone();
    install(&recorder, &folder);
    let left = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..ROUNDS).for_each(|round| record_hostile(round, &left)));
        }
    });
    drop(left.into_inner().unwrap());
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    assert!(summary.dropped > 0, "the journal was large enough after all");
    let rows = spans(&store, &run_id);
    assert_eq!(rows.len() as u64, summary.spans);
    let parents: std::collections::HashSet<_> = rows.iter().map(|row| &row.span_id).collect();
    assert_eq!(parents.len(), rows.len(), "no span stands twice");
    assert!(rows.iter().all(|row| row.parent_span_id.as_ref().is_none_or(|p| parents.contains(p))));
}

const THREADS: u64 = 64;
const ROUNDS: u64 = 16;
