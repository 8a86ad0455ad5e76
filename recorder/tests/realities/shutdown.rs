//! Ends of runs: with a deadline, under way, with spans that outlive them, and in folders that
//! cannot be written to.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retake_recorder::journal::Offered;
use retake_recorder::store::StoreError;
use retake_recorder::{RecorderBuilder, RunReader, Store, span};
use retake_schemas::EventBody;
use retake_schemas::event::{Annotated, DropCause, Level, RunStatus};
use retake_schemas::settings::{RecordSettings, SyncPolicy, WhenFull};
use retake_schemas::tables::EventRow;
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    HANGS, Truth, assert_accounts, child, child_folder, number, scratch, spans, start, store,
    wait_within,
};

fn line(number: u64) -> EventBody {
    EventBody::Annotated(Annotated {
        span: None,
        level: Level::Info,
        name: "line".to_owned(),
        target: "app".to_owned(),
        message: None,
        attributes: vec![("number".into(), number.cast_signed().into())],
    })
}

/// Leaves the others a core.
fn pause_sometimes(count: u64) {
    if count.is_multiple_of(64) {
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Scenario: threads record spans and emit events while the run is finished, fifty times over.
/// Guarantees: J1, J7 - every event that was answered with `Accepted` is in the run, everything
/// that had ended before the finish is, and the manifest's losses are those of the summary.
#[test]
fn a_run_may_be_finished_while_other_threads_record() {
    for round in 0..50 {
        let (_folder, store) = store();
        let settings = RecordSettings {
            when_full: WhenFull::Block,
            // A seal that began when nobody waited for it keeps its idle priority to its end.
            seal_events: u64::MAX,
            ..RecordSettings::default()
        };
        let recorder = start(&store, settings);
        let run_id = recorder.run_id().clone();
        let dispatcher = recorder.dispatcher().clone();
        let turbo = tracing::Dispatch::new(recorder.subscriber());
        let (is_over, ended) = (AtomicBool::new(false), AtomicU64::new(0));
        let accepted = AtomicU64::new(0);
        let summary = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    tracing::dispatcher::with_default(&turbo, || {
                        while !is_over.load(Ordering::Relaxed) {
                            drop(tracing::info_span!("work", a = 1u64, b = "text").entered());
                            pause_sometimes(ended.fetch_add(1, Ordering::Release));
                        }
                    });
                });
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let offered = dispatcher.emit(&line(round));
                        let is_accepted = u64::from(offered == Offered::Accepted);
                        pause_sometimes(accepted.fetch_add(is_accepted, Ordering::Release));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(3 + round % 5));
            let before = ended.load(Ordering::Acquire);
            let summary = recorder.finish(RunStatus::Finished);
            is_over.store(true, Ordering::Relaxed);
            assert!(summary.spans >= before, "round {round}: {} of {before}", summary.spans);
            summary
        });
        assert_accounts(&summary);
        let reader = RunReader::open(&store, &run_id).unwrap();
        let lines = reader.rows::<EventRow>().unwrap().len() as u64;
        assert_eq!(lines, accepted.into_inner(), "round {round}: accepted, and not in the run");
        let accounting = &reader.manifest().accounting;
        assert_eq!(accounting.accepted, summary.accepted, "round {round}");
        let stated: u64 = accounting.dropped.values().sum();
        assert_eq!(stated, summary.dropped, "round {round}: {accounting:?}, {summary:?}");
        assert!(spans(&store, &run_id).iter().all(|row| row.status != "error"));
    }
}

/// Scenario: a run with much to seal is given five milliseconds to end, while threads go on
/// recording; then the process dies.
/// Guarantees: J1 - the call returns in time, says what is not sealed, and recovery has all of it.
#[test]
fn a_finish_with_a_deadline_keeps_it_and_loses_nothing() {
    let Some(folder) = child_folder() else {
        let folder = scratch();
        let test = "shutdown::a_finish_with_a_deadline_keeps_it_and_loses_nothing";
        let child = child(test, folder.path()).spawn().unwrap();
        assert!(wait_within(child, HANGS).success());
        let truth = Truth::open(&folder.path().join("truth"));
        let store = Store::open(folder.path()).unwrap();
        let repaired = store.recover().unwrap().repaired;
        let run_id = store.run_ids().unwrap().remove(0);
        assert!(repaired.iter().all(|report| report.damage.is_empty()), "{repaired:?}");
        let rows = spans(&store, &run_id);
        let mut numbers: Vec<u64> =
            rows.iter().filter_map(|row| number(row.attributes.as_deref(), "number")).collect();
        numbers.sort_unstable();
        assert_eq!(numbers.len() as u64, truth.get(0));
        assert!(numbers.iter().zip(0..).all(|(found, expected)| *found == expected));
        return;
    };
    let truth = Truth::open(&folder.join("truth"));
    let store = Store::create(&folder).unwrap();
    let settings = RecordSettings {
        seal_events: u64::MAX,
        when_full: WhenFull::Block,
        ..RecordSettings::default()
    };
    let recorder = start(&store, settings);
    let dispatch = tracing::Dispatch::new(recorder.subscriber());
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0..100_000u64 {
            drop(tracing::info_span!("work", number));
            truth.set(0, number + 1);
        }
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tracing::dispatcher::with_default(&dispatch, || {
                while !is_over.load(Ordering::Relaxed) {
                    drop(tracing::info_span!("during the end"));
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        });
        let started = Instant::now();
        let summary = recorder.finish_within(RunStatus::Finished, Duration::from_millis(5));
        let took = started.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert!(took < Duration::from_millis(500), "took {took:?}");
        assert!(summary.unsealed.is_some_and(|why| why.contains("longer than allowed")));
        assert_eq!(summary.offered, summary.accepted + summary.dropped);
    });
    // Sealing goes on in the background, and is cut short.
    // SAFETY: ends the process as it is.
    unsafe { libc::_exit(0) };
}

/// Scenario: spans, handles to them and doors outlive the run they were recorded in.
/// Guarantees: the run is what it was when it ended, and nothing fails.
#[test]
fn what_outlives_its_run_changes_nothing() {
    let (_folder, store) = store();
    let recorder = start(&store, RecordSettings::default());
    let run_id = recorder.run_id().clone();
    let dispatcher = recorder.dispatcher().clone();
    let layered = tracing_subscriber::registry().with(recorder.layer());
    let doors = [tracing::Dispatch::new(layered), tracing::Dispatch::new(recorder.subscriber())];
    let open: Vec<tracing::Span> = doors
        .iter()
        .map(|door| {
            tracing::dispatcher::with_default(door, || {
                tracing::info_span!("outlives", late = tracing::field::Empty)
            })
        })
        .collect();
    let direct = span!(dispatcher, "outlives");
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    let rows = spans(&store, &run_id);
    let manifest = store.manifest(&run_id).unwrap();

    drop(direct);
    dispatcher.token(0, 1);
    assert_eq!(dispatcher.emit(&line(0)), Offered::Dropped(DropCause::Finished));
    drop(span!(dispatcher, "after"));
    for span in open {
        span.record("late", 1);
        let elsewhere = span.clone();
        std::thread::scope(|scope| scope.spawn(move || drop(elsewhere.entered())).join().unwrap());
        drop(span.entered());
    }
    for door in &doors {
        tracing::dispatcher::with_default(door, || {
            let _span = tracing::info_span!("after").entered();
            let _child = tracing::info_span!("after").entered();
            tracing::info!("after");
        });
    }
    drop(doors);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.status == "unfinished"));
    assert_eq!(spans(&store, &run_id), rows);
    assert_eq!(store.manifest(&run_id).unwrap(), manifest);
    assert!(store.verify(&run_id).unwrap().is_sound());
}

/// Gives up the right to write everywhere, which the owner of a machine has.
fn become_nobody() {
    // SAFETY: no other thread of this process needs the right.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!((libc::setgid(65_534), libc::setuid(65_534)), (0, 0));
        }
    }
}

/// Scenario: the store's folder may not be written to, from the start, or from some moment of a
/// recording on.
/// Guarantees: J6 - the start is a typed error that names the folder; a recording under way
/// harms nothing, keeps what its journal has room for, counts the rest, and is recovered whole
/// when the folder may be written to again.
#[test]
fn a_store_that_cannot_be_written_to_harms_only_the_recording() {
    let Some(folder) = child_folder() else {
        let folder = scratch();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let test = "shutdown::a_store_that_cannot_be_written_to_harms_only_the_recording";
        let child = child(test, folder.path()).spawn().unwrap();
        return assert!(wait_within(child, HANGS).success());
    };
    become_nobody();
    let allow = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let root = folder.join("store");
    let store = Store::create(&root).unwrap();
    allow(&store.runs_dir(), 0o500);
    let refused = RecorderBuilder::new("t", "svc").start(&store).unwrap_err();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused:?}");
    assert!(refused.to_string().contains("runs"), "{refused}");
    allow(&store.runs_dir(), 0o700);

    let settings = RecordSettings { journal_bytes_max: 12 << 20, ..RecordSettings::default() };
    let recorder = start(&store, settings);
    let run_id = recorder.run_id().clone();
    let run = store.run_dir(&run_id);
    drop(span!(recorder.dispatcher(), "before"));
    recorder.seal().unwrap();
    allow(&run, 0o500);
    allow(&run.join("journal"), 0o500);
    let text = "x".repeat(1_000);
    for _ in 0..20_000 {
        drop(span!(recorder.dispatcher(), "during", "text" = text.as_str()));
    }
    assert!(recorder.seal().is_err());
    let summary = recorder.finish(RunStatus::Finished);
    assert!(summary.unsealed.is_some());
    assert_eq!(summary.offered, summary.accepted + summary.dropped);
    assert!(summary.losses.get(&DropCause::Disk).is_some_and(|lost| *lost > 0), "{summary:?}");
    assert_eq!(summary.spans_opened, 20_001);

    allow(&run, 0o700);
    allow(&run.join("journal"), 0o700);
    let repaired = store.recover().unwrap().repaired;
    assert_eq!((repaired.len(), repaired[0].damage.len()), (1, 0), "{repaired:?}");
    let rows = spans(&store, &run_id);
    assert_eq!(rows.len() as u64 + summary.spans_dropped, 20_001);
}

/// Scenario: the store's folder vanishes while threads record through all doors, and while the
/// durable journal is written.
/// Guarantees: J6 - the program goes on, and the losses are counted.
#[test]
fn a_folder_that_vanishes_while_recording_harms_only_the_recording() {
    for sync in [SyncPolicy::Never, SyncPolicy::Batch] {
        let (folder, store) = store();
        let settings = RecordSettings {
            sync,
            journal_bytes_max: 10 << 20,
            seal_events: 5_000,
            ..RecordSettings::default()
        };
        let recorder = start(&store, settings);
        let layered = tracing_subscriber::registry().with(recorder.layer());
        let doors =
            [tracing::Dispatch::new(layered), tracing::Dispatch::new(recorder.subscriber())];
        let mut folder = Some(folder);
        std::thread::scope(|scope| {
            for door in &doors {
                scope.spawn(|| {
                    tracing::dispatcher::with_default(door, || {
                        for number in 0..60_000u64 {
                            drop(tracing::info_span!("work", number).entered());
                        }
                    });
                });
            }
            std::thread::sleep(Duration::from_millis(5));
            drop(folder.take());
        });
        assert!(recorder.flush().is_err());
        let summary = recorder.finish(RunStatus::Finished);
        assert!(summary.unsealed.is_some());
        assert_eq!(summary.offered, summary.accepted + summary.dropped);
        assert_eq!(summary.spans_opened, 120_000, "{summary:?}");
    }
}
