//! Threads that come and go while they record, and spans that move between them.

use std::sync::Barrier;
use std::time::Duration;

use retake_recorder::{Recorder, span};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, WhenFull};
use retake_schemas::tables::SpanRow;
use retake_schemas::{EventBody, SpanKey, TraceId};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    HANGS, assert_accounts, child, child_folder, resident_bytes, scratch, spans, start, store,
    wait_within,
};

/// The two doors of `tracing` into one run.
fn dispatches(recorder: &Recorder) -> [tracing::Dispatch; 2] {
    let layered = tracing_subscriber::registry().with(recorder.layer());
    [tracing::Dispatch::new(layered), tracing::Dispatch::new(recorder.subscriber())]
}

fn on_other_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn row<'a>(rows: &'a [SpanRow], name: &str) -> &'a SpanRow {
    let mut found = rows.iter().filter(|row| row.name == name);
    let row = found.next().unwrap_or_else(|| panic!("no span {name}"));
    assert!(found.next().is_none(), "two spans {name}");
    row
}

/// Scenario: thousands of threads, one after the other, each record a little through all doors
/// and end; none flushes anything.
/// Guarantees: everything is there, a thread's lane is used again by the next, and memory does
/// not grow.
#[test]
fn lanes_of_ended_threads_are_used_again() {
    if child_folder().is_none() {
        let folder = scratch();
        let test = "threads::lanes_of_ended_threads_are_used_again";
        let child = child(test, folder.path()).spawn().unwrap();
        return assert!(wait_within(child, HANGS).success());
    }
    let (_folder, store) = store();
    let recorder = start(&store, RecordSettings::default());
    let run_id = recorder.run_id().clone();
    let dispatches = dispatches(&recorder);
    let one_thread = |number: u64| {
        for dispatch in &dispatches {
            tracing::dispatcher::with_default(dispatch, || {
                let _span = tracing::info_span!("work", number).entered();
            });
        }
        let _span = span!(recorder.dispatcher(), "work", "number" = number);
    };
    let record = |threads: u64| {
        for number in 0..threads {
            on_other_thread(|| one_thread(number));
        }
    };
    record(100);
    let before = resident_bytes();
    record(1_000);
    let grown = resident_bytes().saturating_sub(before);
    // 3,000 spans in memory until they are sealed take less than one mebibyte.
    assert!(grown < 4 << 20, "a thousand threads cost {grown} bytes");
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    assert_eq!((summary.dropped, summary.spans), (0, 3_300));
    let lanes = store.manifest(&run_id).unwrap().lanes.len();
    // One for the recorder, one per door.
    assert!(lanes <= 6, "{lanes} lanes for one thread at a time");
    assert!(spans(&store, &run_id).iter().all(|row| row.status == "ok"));
}

/// Scenario: one thread makes three hundred runs, one after the other, each with doors of its own.
/// Guarantees: J8 - the memory of a run that is over goes when the thread records into another.
#[test]
fn a_thread_keeps_nothing_of_the_runs_that_are_over() {
    if child_folder().is_none() {
        let folder = scratch();
        let test = "threads::a_thread_keeps_nothing_of_the_runs_that_are_over";
        let child = child(test, folder.path()).spawn().unwrap();
        return assert!(wait_within(child, HANGS).success());
    }
    let (_folder, store) = store();
    let one_run = || {
        let recorder = start(&store, RecordSettings::default());
        for dispatch in dispatches(&recorder) {
            tracing::dispatcher::with_default(&dispatch, || {
                let _span = tracing::info_span!("work").entered();
            });
        }
        drop(span!(recorder.dispatcher(), "work"));
        let summary = recorder.finish(RunStatus::Finished);
        assert_accounts(&summary);
        assert_eq!(summary.spans, 3);
    };
    (0..20).for_each(|_| one_run());
    let before = resident_bytes();
    (0..300).for_each(|_| one_run());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "300 runs that are over keep {grown} bytes");
}

/// Scenario: 1,200 threads are alive and recording at once, while spans with ids of their own are
/// emitted.
/// Guarantees: J4 - each span has an id of its own, whichever lane it came from.
#[test]
fn more_threads_than_lanes_in_an_id_still_give_every_span_its_own_id() {
    let (_folder, store) = store();
    let recorder = start(&store, RecordSettings::default());
    let run_id = recorder.run_id().clone();
    let dispatcher = recorder.dispatcher();
    let are_all_here = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let work = || {
                drop(span!(dispatcher, "first"));
                are_all_here.wait();
                drop(span!(dispatcher, "second"));
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).unwrap();
        }
    });
    for _ in 0..100 {
        let span =
            SpanKey { trace_id: TraceId::generate(), span_id: recorder.dispatcher().new_span_id() };
        recorder.dispatcher().emit(&opened(span));
    }
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    let rows = spans(&store, &run_id);
    assert_eq!(rows.len(), THREADS * 2 + 100);
    let ids: std::collections::HashSet<_> = rows.iter().map(|row| &row.span_id).collect();
    assert_eq!(ids.len(), rows.len());
}

fn opened(span: SpanKey) -> EventBody {
    EventBody::SpanOpened(Box::new(retake_schemas::event::SpanOpened {
        span,
        parent: None,
        name: "emitted".to_owned(),
        target: String::new(),
        level: retake_schemas::event::Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes: Vec::new(),
    }))
}

/// Scenario: spans are opened, entered, and closed on different threads, in all ways there are:
/// entered and closed elsewhere; entered here, closed elsewhere; entered elsewhere, then here;
/// closed elsewhere while a child is still open here.
/// Guarantees: parents, ends and busy times are right through both doors of `tracing`: a span is
/// never said to be busy while nobody was in it.
#[test]
fn a_span_may_be_opened_entered_and_closed_on_different_threads() {
    let pause = || std::thread::sleep(Duration::from_millis(10));
    let pause_ns = 10_000_000;
    let (_folder, store) = store();
    for door in 0..2 {
        let recorder = start(&store, RecordSettings::default());
        let run_id = recorder.run_id().clone();
        let dispatch = &dispatches(&recorder)[door];
        let there = |work: &(dyn Fn() + Sync)| {
            on_other_thread(|| tracing::dispatcher::with_default(dispatch, work));
        };
        tracing::dispatcher::with_default(dispatch, || {
            let root = tracing::info_span!("root").entered();

            let elsewhere = std::sync::Mutex::new(Some(tracing::info_span!("elsewhere")));
            there(&|| {
                let span = elsewhere.lock().unwrap().take().unwrap();
                span.in_scope(pause);
                tracing::info_span!(parent: &span, "child of elsewhere");
            });

            let closed = std::sync::Mutex::new(Some(tracing::info_span!("closed elsewhere")));
            closed.lock().unwrap().as_ref().unwrap().in_scope(pause);
            pause();
            there(&|| drop(closed.lock().unwrap().take()));

            let moved = tracing::info_span!("there and back");
            there(&|| moved.in_scope(pause));
            pause();
            moved.in_scope(pause);
            drop(moved);

            let parent = tracing::info_span!("parent that ends first");
            let child = parent.in_scope(|| tracing::info_span!("child that ends last"));
            let parent = std::sync::Mutex::new(Some(parent));
            there(&|| drop(parent.lock().unwrap().take()));
            drop(child);
            drop(root);
        });
        let summary = recorder.finish(RunStatus::Finished);
        assert_accounts(&summary);
        let rows = spans(&store, &run_id);
        assert!(rows.iter().all(|row| row.status == "ok" && row.flags.is_none()), "{rows:?}");
        let root = row(&rows, "root");
        for name in ["elsewhere", "closed elsewhere", "there and back", "parent that ends first"] {
            assert_eq!(row(&rows, name).parent_span_id.as_ref(), Some(&root.span_id), "{name}");
        }
        let parent = |name: &str| row(&rows, name).parent_span_id.clone().unwrap();
        assert_eq!(parent("child of elsewhere"), row(&rows, "elsewhere").span_id);
        assert_eq!(parent("child that ends last"), row(&rows, "parent that ends first").span_id);

        let times = |name: &str| (row(&rows, name).duration_ns, row(&rows, name).busy_ns);
        let (lasted, busy) = times("elsewhere");
        assert!(busy.is_some_and(|busy| busy >= pause_ns && busy <= lasted), "door {door}");
        // Idle before it was closed: unknown is allowed, the whole duration is not.
        let (lasted, busy) = times("closed elsewhere");
        assert!(lasted >= pause_ns * 2);
        assert!(busy.is_none_or(|busy| busy <= lasted - pause_ns), "door {door}: {busy:?}");
        let (lasted, busy) = times("there and back");
        assert!(lasted >= pause_ns * 3);
        assert!(busy.is_none_or(|busy| busy <= lasted - pause_ns), "door {door}: {busy:?}");
    }
}

/// Scenario: threads end while a span that is still open stands in what they recorded, and while
/// the journal is being drained.
/// Guarantees: J1 - what they recorded is there, and the span ends when its last handle goes.
#[test]
fn threads_that_end_leave_what_they_recorded() {
    let (_folder, store) = store();
    let settings = RecordSettings {
        seal_events: 3_000,
        when_full: WhenFull::Block,
        ..RecordSettings::default()
    };
    let recorder = start(&store, settings);
    let run_id = recorder.run_id().clone();
    let mut open = Vec::new();
    for dispatch in dispatches(&recorder) {
        for _ in 0..100 {
            open.push(on_other_thread(|| {
                tracing::dispatcher::with_default(&dispatch, || {
                    for number in 0..40u64 {
                        tracing::info_span!("closed", number).in_scope(|| {});
                    }
                    tracing::info_span!("left open")
                })
            }));
        }
    }
    open.truncate(150);
    recorder.seal().unwrap();
    open.clear();
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    let rows = spans(&store, &run_id);
    let count = |name: &str| rows.iter().filter(|row| row.name == name).count();
    assert_eq!((summary.dropped, count("closed"), count("left open")), (0, 8_000, 200));
    assert!(rows.iter().all(|row| row.status == "ok"));
}

/// Threads at once: more than an id has room for lanes.
const THREADS: usize = 1_200;
