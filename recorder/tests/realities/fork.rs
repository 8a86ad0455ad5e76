//! A process that forks, and one that becomes another program.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use retake_recorder::{Recorder, Store, span};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, WhenFull};
use retake_schemas::{RunId, TraceId};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    HANGS, Truth, assert_accounts, child, child_folder, number, scratch, spans, start, store,
    wait_within,
};

/// The three doors of one recorder.
struct Doors {
    recorder: Recorder,
    layered: tracing::Dispatch,
    turbo: tracing::Dispatch,
}

impl Doors {
    fn new(store: &Store) -> Self {
        let settings = RecordSettings { when_full: WhenFull::Block, ..RecordSettings::default() };
        let recorder = start(store, settings);
        let layered = tracing_subscriber::registry().with(recorder.layer());
        let turbo = tracing::Dispatch::new(recorder.subscriber());
        Self { recorder, layered: tracing::Dispatch::new(layered), turbo }
    }

    /// A span through each door.
    fn record(&self, who: &str, number: u64) {
        for dispatch in [&self.layered, &self.turbo] {
            tracing::dispatcher::with_default(dispatch, || {
                let _span = tracing::info_span!("work", who, number).entered();
                tracing::info!(number, "inside");
            });
        }
        let _span = span!(self.recorder.dispatcher(), "work", "who" = who, "number" = number);
    }
}

/// Forks and does `work` in the child, which ends with 0 unless the work panics, and is ended by
/// the system when it takes longer than a minute. Gives the child's pid.
fn fork(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child only calls what the test wants to show to be callable there, and ends
    // without running anything of its parent's.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: a timer of this process; its signal ends it.
            unsafe { libc::alarm(60) };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        pid => pid,
    }
}

/// The status the child ended with: 0, or what it died of.
fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place to write to.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    status
}

/// Runs one test of this module again in a process of its own, where threads are ours alone.
fn in_own_process(test: &str) {
    let folder = scratch();
    let mut command = child(&format!("fork::{test}"), folder.path());
    let child = command.stderr(Stdio::inherit()).spawn().unwrap();
    assert!(wait_within(child, HANGS).success());
}

fn rows_of<'a>(rows: &'a [retake_schemas::tables::SpanRow], who: &str) -> Vec<&'a str> {
    let wanted = format!("\"who\":\"{who}\"");
    rows.iter()
        .filter_map(|row| row.attributes.as_deref())
        .filter(|attributes| attributes.contains(&wanted))
        .collect()
}

/// Scenario: a process forks forty times while its threads record through all three doors; each
/// child goes on recording with what it inherited, and drops it.
/// Guarantees: nothing of the children gets into the parent's run, none of them hangs, and the
/// parent's run has everything of the parent once.
#[test]
fn a_forked_child_records_nothing_into_its_parents_run() {
    if child_folder().is_none() {
        return in_own_process("a_forked_child_records_nothing_into_its_parents_run");
    }
    let (_folder, store) = store();
    let doors = Doors::new(&store);
    let run_id = doors.recorder.run_id().clone();
    let (is_over, recorded) = (AtomicBool::new(false), AtomicU64::new(0));
    doors.record("parent", u64::MAX >> 1);
    let inherited =
        tracing::dispatcher::with_default(&doors.turbo, || tracing::info_span!("inherited"));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    doors.record("parent", recorded.fetch_add(1, Ordering::Relaxed));
                    std::thread::yield_now();
                }
            });
        }
        for _ in 0..40 {
            let pid = fork(|| {
                for number in 0..300 {
                    doors.record("child", number);
                }
                drop(inherited.clone());
                assert!(doors.recorder.seal().is_err(), "it is the parent's");
            });
            doors.record("parent", recorded.fetch_add(1, Ordering::Relaxed));
            assert_eq!(wait(pid), 0, "a child failed or was still running after a minute");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    drop(inherited);
    let summary = doors.recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    assert_eq!(summary.dropped, 0);
    let rows = spans(&store, &run_id);
    assert_eq!(rows_of(&rows, "child"), Vec::<&str>::new());
    let expected = 3 * (recorded.load(Ordering::Relaxed) + 1);
    assert_eq!(rows_of(&rows, "parent").len() as u64, expected);
    assert!(rows.iter().all(|row| row.status == "ok"));
}

/// Scenario: children of a fork start runs of their own in the same store, one of them through
/// the layer it inherited, while the parent's run goes on.
/// Guarantees: each run has what its own process recorded, and ids of different processes differ
/// although all began with the same random state.
#[test]
fn a_forked_child_may_make_a_run_of_its_own() {
    if child_folder().is_none() {
        return in_own_process("a_forked_child_may_make_a_run_of_its_own");
    }
    let (folder, store) = store();
    let truth = Truth::open(&folder.path().join("truth"));
    let doors = Doors::new(&store);
    let run_id = doors.recorder.run_id().clone();
    let layer = doors.recorder.layer();
    let shared = tracing::Dispatch::new(tracing_subscriber::registry().with(layer.clone()));
    let record_shared = |number: u64| {
        tracing::dispatcher::with_default(&shared, || {
            let _span = tracing::info_span!("work", who = "shared", number).entered();
        });
    };
    record_shared(0);
    doors.record("parent", 0);
    for place in 0..10 {
        let pid = fork(|| {
            truth.set_text(20 + place * 10, TraceId::generate().to_string().as_str());
            let own = Doors::new(&store);
            truth.set_text(120 + place * 10, own.recorder.run_id().as_str());
            layer.attach(Some(own.recorder.dispatcher()));
            record_shared(1);
            for number in 0..100 {
                own.record("own", number);
                doors.record("child", number);
            }
            let summary = own.recorder.finish(RunStatus::Finished);
            assert_accounts(&summary);
            assert_eq!((summary.dropped, summary.spans), (0, 301));
        });
        doors.record("parent", 1);
        assert_eq!(wait(pid), 0, "child {place}");
        record_shared(2);
    }
    let summary = doors.recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    assert_eq!((summary.dropped, summary.spans), (0, 3 + 30 + 11));
    assert_eq!(rows_of(&spans(&store, &run_id), "child").len(), 0);
    let mut traces: Vec<String> = (0..10).map(|place| truth.text(20 + place * 10)).collect();
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), 10, "children draw the same trace ids");
    assert_eq!(store.run_ids().unwrap().len(), 11);
    for place in 0..10 {
        let own: RunId = truth.text(120 + place * 10).parse().unwrap();
        let rows = spans(&store, &own);
        assert_eq!((rows_of(&rows, "own").len(), rows_of(&rows, "shared").len()), (300, 1));
    }
}

fn record_and_become_another_program(folder: &Path) -> ! {
    use std::os::unix::process::CommandExt;
    let store = Store::create(folder).unwrap();
    let doors = Doors::new(&store);
    for number in 0..1_000 {
        doors.record("before", number);
    }
    // What it becomes lives on for a while, so a lock that it inherited would still be held.
    let error = std::process::Command::new("sleep").arg("30").exec();
    panic!("exec: {error}");
}

/// Scenario: a recording process replaces itself with another program by exec, which goes on
/// living, and a process that it started before outlives it.
/// Guarantees: J1, J11 - the run is no longer locked, and everything recorded is recovered.
#[test]
fn a_process_that_becomes_another_program_leaves_a_run_to_recover() {
    if let Some(folder) = child_folder() {
        record_and_become_another_program(&folder);
    }
    let (folder, store) = store();
    let test = "fork::a_process_that_becomes_another_program_leaves_a_run_to_recover";
    let mut child = child(test, folder.path()).spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let run_id = loop {
        assert!(std::time::Instant::now() < deadline, "the child becomes no other program");
        std::thread::sleep(Duration::from_millis(5));
        let command = std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
        if command.trim() == "sleep" {
            break store.run_ids().unwrap().remove(0);
        }
    };
    // The name changes in the middle of exec; files are closed when it returns, which takes as long
    // as the machine lets it. A lock that was inherited would outlast the wait.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while store.is_live(&run_id) {
        assert!(std::time::Instant::now() < deadline, "the other program holds the lock");
        std::thread::sleep(Duration::from_millis(5));
    }
    let repaired = store.recover().unwrap().repaired;
    assert_eq!((repaired.len(), repaired[0].damage.len()), (1, 0));
    child.kill().unwrap();
    child.wait().unwrap();
    let rows = spans(&store, &run_id);
    let mut numbers: Vec<u64> =
        rows.iter().filter_map(|row| number(row.attributes.as_deref(), "number")).collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..1_000).flat_map(|number| [number; 3]).collect();
    assert_eq!(numbers, expected);
}
