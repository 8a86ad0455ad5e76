//! More than the recorder can keep up with, in real time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retake_recorder::journal::JournalLimits;
use retake_recorder::{RecorderBuilder, span};
use retake_schemas::event::{DropCause, RunStatus};
use retake_schemas::settings::RecordSettings;

use super::support::{
    assert_accounts, child, child_folder, resident_bytes, scratch, size, spans, store, wait_within,
};

/// Scenario: threads record as fast as they can, for some seconds, into a journal that takes a
/// fraction of it.
/// Guarantees: J7 - memory stays below what was configured plus 32 MiB, every event is accepted or
/// counted as dropped, and only whole spans are lost.
#[test]
fn memory_stays_bounded_and_losses_exact_for_seconds_of_overload() {
    if child_folder().is_none() {
        let folder = scratch();
        let test = "overload::memory_stays_bounded_and_losses_exact_for_seconds_of_overload";
        let child = child(test, folder.path()).spawn().unwrap();
        let at_most = Duration::from_secs(120 + overload_secs() * 4);
        return assert!(wait_within(child, at_most).success());
    }
    let (_folder, store) = store();
    let settings = RecordSettings {
        journal_bytes_max: JOURNAL_BYTES,
        seal_events: 20_000,
        ..RecordSettings::default()
    };
    let limits = JournalLimits { first_file_bytes: 1 << 20, ..JournalLimits::default() };
    let recorder = RecorderBuilder::new("t", "svc")
        .record_settings(settings)
        .journal_limits(limits)
        .start(&store)
        .unwrap();
    let run_id = recorder.run_id().clone();
    let dispatcher = recorder.dispatcher();
    let dispatch = tracing::Dispatch::new(recorder.subscriber());
    let before = resident_bytes();
    let (is_over, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut highest = before;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tracing::dispatcher::with_default(&dispatch, || {
                while !is_over.load(Ordering::Relaxed) {
                    let _request = tracing::info_span!("request", number = 7u64).entered();
                    let _search = tracing::info_span!("search", index = "documents").entered();
                    opened.fetch_add(2, Ordering::Relaxed);
                }
            });
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _answer = span!(dispatcher, "answer", "text" = "as long as an answer is");
                    (0..16).for_each(|index| dispatcher.token(index, 1));
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(overload_secs()) {
            std::thread::sleep(Duration::from_millis(10));
            highest = highest.max(resident_bytes());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let summary = recorder.finish(RunStatus::Finished);
    highest = highest.max(resident_bytes());
    let grown = highest - before;
    eprintln!(
        "offered {} in {} s, {:.1} times what was kept; resident memory grew by {} MiB",
        summary.offered,
        overload_secs(),
        summary.offered as f64 / summary.accepted.max(1) as f64,
        grown >> 20
    );
    assert_accounts(&summary);
    assert_eq!(summary.spans_opened, opened.into_inner());
    assert_eq!(summary.losses.keys().collect::<Vec<_>>(), [&DropCause::JournalFull]);
    assert!(grown < JOURNAL_BYTES + (32 << 20), "{} MiB", grown >> 20);
    let rows = spans(&store, &run_id);
    assert_eq!(rows.len() as u64, summary.spans);
    assert!(rows.iter().all(|row| row.status == "ok"), "half of a span was kept");
}

/// How long; a longer run by `OVERLOAD_SECS`.
fn overload_secs() -> u64 {
    size("OVERLOAD_SECS", 3)
}

const JOURNAL_BYTES: u64 = 32 << 20;
