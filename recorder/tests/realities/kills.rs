//! A process that dies at any moment loses nothing it had recorded.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retake_recorder::journal::JournalLimits;
use retake_recorder::{Recorder, RecorderBuilder, Store, span};
use retake_schemas::RunId;
use retake_schemas::settings::{RecordSettings, SyncPolicy, WhenFull};
use retake_schemas::tables::SpanRow;
use tracing_subscriber::layer::SubscriberExt;

use super::support::{Random, Truth, child, child_folder, number, scratch, seed, size, spans};

/// Words of the truth of a child that is killed.
mod word {
    pub(super) const PHASE: usize = 0;
    /// What recovery in the child found amiss.
    pub(super) const DAMAGE: usize = 1;
    /// Seals done.
    pub(super) const SEALS: usize = 2;
    pub(super) const RUN_ID: usize = 8;
    /// Requests ended, of one thread each.
    pub(super) const ENDED: usize = 16;
}

/// What the child is doing, as it says itself.
mod phase {
    pub(super) const RECOVER: u64 = 1;
    pub(super) const APPEND: u64 = 2;
    pub(super) const SEAL: u64 = 3;
}

const THREADS: usize = 2;

fn start(store: &Store) -> Recorder {
    let sync =
        if std::process::id().is_multiple_of(3) { SyncPolicy::Batch } else { SyncPolicy::Never };
    let settings = RecordSettings {
        sync,
        seal_events: 2_000,
        when_full: WhenFull::Block,
        journal_bytes_max: 4 << 20,
        ..RecordSettings::default()
    };
    let limits = JournalLimits { first_file_bytes: 512 << 10, ..JournalLimits::default() };
    RecorderBuilder::new("t", "svc")
        .record_settings(settings)
        .journal_limits(limits)
        .start(store)
        .unwrap()
}

/// Records requests of two spans through one of the three doors, and counts each that has ended.
fn requests(recorder: &Recorder, door: usize, ended: impl Fn(u64)) {
    let thread = door as u64;
    let with_tracing = |number| {
        let _request = tracing::info_span!("request", thread, number).entered();
        let _rank = tracing::info_span!("rank", score = 0.5, index = "documents").entered();
    };
    let directly = |number| {
        let dispatcher = recorder.dispatcher();
        let _request = span!(dispatcher, "request", "thread" = thread, "number" = number);
        let _rank = span!(dispatcher, "rank", "score" = 0.5, "index" = "documents");
    };
    let dispatch = match door % 3 {
        0 => tracing::Dispatch::new(recorder.subscriber()),
        1 => tracing::Dispatch::new(tracing_subscriber::registry().with(recorder.layer())),
        _ => tracing::Dispatch::none(),
    };
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0.. {
            if door % 3 == 2 {
                directly(number)
            } else {
                with_tracing(number)
            }
            ended(number + 1);
            if number % 8 == 7 {
                // Reading back what a core can record in this time takes seconds.
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
}

/// The child: repairs what the one before it left, then records and seals until it is killed.
fn record_until_killed(folder: &Path) -> ! {
    let truth = Truth::open(&folder.join("truth"));
    truth.set(word::PHASE, phase::RECOVER);
    let store = Store::create(folder).unwrap();
    let outcome = store.recover().unwrap();
    let damaged = outcome.repaired.iter().filter(|report| !report.damage.is_empty()).count();
    if damaged + outcome.failed.len() > 0 {
        std::fs::write(folder.join("damage"), format!("{outcome:?}")).unwrap();
    }
    truth.set(word::DAMAGE, (damaged + outcome.failed.len()) as u64);
    let recorder = start(&store);
    truth.set_text(word::RUN_ID, recorder.run_id().as_str());
    let first_door = std::process::id() as usize % 3;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (recorder, truth) = (&recorder, &truth);
            let ended = move |count| truth.set(word::ENDED + thread, count);
            scope.spawn(move || requests(recorder, first_door + thread * 3 + thread, ended));
        }
        loop {
            truth.set(word::PHASE, phase::APPEND);
            std::thread::sleep(Duration::from_millis(2));
            truth.set(word::PHASE, phase::SEAL);
            recorder.seal().unwrap();
            truth.word(word::SEALS).fetch_add(1, Ordering::Release);
        }
    })
}

/// Everything that ended is in the run, once, in order, and with its child.
fn assert_all_there(rows: &[SpanRow], ended: &[u64], context: &str) {
    let mut by_thread: HashMap<u64, Vec<(i64, u64)>> = HashMap::new();
    let mut parents: HashMap<&str, u32> = HashMap::new();
    for row in rows {
        if row.name == "rank" {
            let parent = row.parent_span_id.as_deref().expect("a rank has a request");
            *parents.entry(parent).or_default() += 1;
        } else if row.status == "ok" {
            let attributes = row.attributes.as_deref();
            let (thread, number) = (number(attributes, "thread"), number(attributes, "number"));
            let requests = by_thread.entry(thread.unwrap()).or_default();
            requests.push((row.start_unix_ns, number.unwrap()));
        }
    }
    let mut found: Vec<Vec<(i64, u64)>> = by_thread.into_values().collect();
    found.resize_with(ended.len().max(found.len()), Vec::new);
    let mut counts: Vec<u64> = found.iter().map(|requests| requests.len() as u64).collect();
    let mut expected = ended.to_vec();
    counts.sort_unstable();
    expected.sort_unstable();
    for (count, ended) in counts.iter().zip(&expected) {
        // One may have ended in the journal and not yet been counted.
        assert!(count == ended || *count == ended + 1, "{context}: {counts:?} of {expected:?}");
    }
    for mut requests in found {
        requests.sort_unstable();
        let numbers: Vec<u64> = requests.iter().map(|(_, number)| *number).collect();
        let in_order: Vec<u64> = (0..requests.len() as u64).collect();
        assert_eq!(numbers, in_order, "{context}: each once, in the order they happened");
    }
    for row in rows.iter().filter(|row| row.name == "request" && row.status == "ok") {
        assert_eq!(parents.get(row.span_id.as_str()), Some(&1), "{context}: {row:?}");
    }
}

/// Kills one child in a chosen phase, a moment after it was entered. Gives the phase it was in,
/// its run and what it had recorded.
fn kill_one(folder: &Path, random: &mut Random) -> (u64, Option<RunId>, Vec<u64>) {
    let truth_file = folder.join("truth");
    let _ = std::fs::remove_file(&truth_file);
    let truth = Truth::open(&truth_file);
    let test = "kills::a_process_killed_at_random_a_thousand_times_loses_nothing";
    let mut child = child(test, folder).spawn().unwrap();
    let wanted = 1 + random.below(3);
    let seals = if wanted == phase::RECOVER { 0 } else { random.below(6) };
    let deadline = Instant::now() + Duration::from_secs(60);
    while truth.get(word::PHASE) < wanted || truth.get(word::SEALS) < seals {
        assert!(Instant::now() < deadline, "the child does not get to phase {wanted}");
        std::thread::sleep(Duration::from_micros(100));
    }
    // Recovery of what a child leaves takes some milliseconds, and so does a seal.
    std::thread::sleep(Duration::from_micros(random.below(5_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "the child lives until it is killed");
    let damage = std::fs::read_to_string(folder.join("damage"));
    assert_eq!(truth.get(word::DAMAGE), 0, "an earlier kill left {damage:?}");
    let run_id = truth.text(word::RUN_ID).parse().ok();
    let ended = (0..THREADS).map(|thread| truth.get(word::ENDED + thread)).collect();
    (truth.get(word::PHASE), run_id, ended)
}

/// Kills some children that record into one store, one after the other: each repairs what the
/// one before it left. Then everything is checked.
fn kill_some(random: &mut Random, kills: u64, in_phase: &[AtomicU64; 4]) {
    let folder = scratch();
    let mut runs = Vec::new();
    for _ in 0..kills {
        let (phase, run_id, ended) = kill_one(folder.path(), random);
        in_phase[phase as usize].fetch_add(1, Ordering::Relaxed);
        runs.extend(run_id.map(|run_id| (run_id, ended)));
    }
    let store = Store::create(folder.path()).unwrap();
    let outcome = store.recover().unwrap();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    assert!(outcome.repaired.iter().all(|report| report.damage.is_empty()), "{outcome:?}");
    let again = store.recover().unwrap();
    assert!(again.repaired.is_empty() && again.failed.is_empty(), "{again:?}");
    for (run_id, ended) in runs {
        assert_all_there(&spans(&store, &run_id), &ended, run_id.as_str());
    }
}

/// Scenario: a process that repairs, records and seals is killed a thousand times, a random moment
/// after it began one of these, up to five seals into its run; the next one goes on in the same store. The truth is what the
/// process itself counts in memory that outlives it. Every third one writes a durable journal.
/// Guarantees: J1, J3 - nothing that had ended is lost, doubled or out of order, through all three
/// doors; recovery that was itself killed ends, and then finds nothing more to do.
#[test]
fn a_process_killed_at_random_a_thousand_times_loses_nothing() {
    if let Some(folder) = child_folder() {
        record_until_killed(&folder);
    }
    let (seed, kills) = (seed(), size("KILLS", 1_000));
    let in_phase = [const { AtomicU64::new(0) }; 4];
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let in_phase = &in_phase;
            scope.spawn(move || {
                let mut random = Random::new(seed ^ worker << 56);
                for _ in 0..kills / WORKERS / KILLS_PER_STORE {
                    kill_some(&mut random, KILLS_PER_STORE, in_phase);
                }
            });
        }
    });
    let [early, recovering, appending, sealing] =
        in_phase.map(|count| count.load(Ordering::Relaxed));
    eprintln!("killed while recovering {recovering}, appending {appending}, sealing {sealing}");
    assert_eq!(early, 0);
    for (count, phase) in [(recovering, "recovery"), (appending, "recording"), (sealing, "a seal")]
    {
        assert!(count >= kills / 10, "{count} kills hit {phase}");
    }
}

/// Children that record at the same time: one per core of a small machine.
const WORKERS: u64 = 2;
const KILLS_PER_STORE: u64 = 10;

/// Ways to die without being killed from outside.
const DEATHS: [&str; 5] = ["abort", "stack overflow", "bad memory access", "exit", "panic twice"];

fn die(way: &str) -> ! {
    match way {
        "abort" => std::process::abort(),
        "stack overflow" => {
            overflow(0);
            unreachable!("the stack has an end")
        }
        "bad memory access" => {
            // SAFETY: the signal that a bad access raises; its handler is the system's own.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::raise(libc::SIGSEGV);
            }
            unreachable!("the signal ends the process")
        }
        "exit" => std::process::exit(3),
        _ => {
            struct PanicsAgain;
            impl Drop for PanicsAgain {
                fn drop(&mut self) {
                    panic!("while panicking");
                }
            }
            let _again = PanicsAgain;
            panic!("once");
        }
    }
}

#[expect(unconditional_recursion, reason = "the end of the stack is what is wanted")]
fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    overflow(room[0] + 1) + room[511]
}

fn record_and_die(folder: &Path) -> ! {
    let way = std::fs::read_to_string(folder.join("way")).unwrap();
    let truth = Truth::open(&folder.join("truth"));
    let store = Store::create(folder).unwrap();
    let recorder = start(&store);
    truth.set_text(word::RUN_ID, recorder.run_id().as_str());
    let door = way.len();
    let ended = move |count| {
        truth.set(word::ENDED, count);
        if count == 3_000 {
            die(&way);
        }
    };
    requests(&recorder, door, ended);
    unreachable!("it dies first")
}

/// Scenario: a recording process aborts, overflows its stack, accesses memory it has not, exits
/// without ending the run, and panics while it panics.
/// Guarantees: J1 - nothing that had ended is lost, doubled or out of order.
#[test]
fn a_process_that_dies_by_itself_loses_nothing() {
    if let Some(folder) = child_folder() {
        record_and_die(&folder);
    }
    for way in DEATHS {
        let folder = scratch();
        std::fs::write(folder.path().join("way"), way).unwrap();
        let test = "kills::a_process_that_dies_by_itself_loses_nothing";
        let output = child(test, folder.path()).output().unwrap();
        let is_exit = way == "exit";
        assert_eq!(output.status.code(), is_exit.then_some(3), "{way}: {output:?}");
        let truth = Truth::open(&folder.path().join("truth"));
        assert_eq!(truth.get(word::ENDED), 3_000, "{way}");
        let store = Store::create(folder.path()).unwrap();
        let repaired = store.recover().unwrap().repaired;
        assert_eq!(repaired.len(), 1, "{way}");
        assert!(repaired[0].damage.is_empty(), "{way}: {repaired:?}");
        let run_id: RunId = truth.text(word::RUN_ID).parse().unwrap();
        assert_all_there(&spans(&store, &run_id), &[3_000], way);
    }
}
