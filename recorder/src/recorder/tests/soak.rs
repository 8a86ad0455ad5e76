//! A day of traffic, in as little time as it takes to record and seal it.

use std::process::{Command, Stdio};

use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, WhenFull};

use super::by_hand::ByHand;
use super::store;
use crate::journal::JournalLimits;
use crate::span;
use crate::store::Store;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    resident_bytes: u64,
    descriptors: usize,
    journal_files: usize,
    threads: usize,
}

impl Held {
    fn now(journal: &std::path::Path) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let count = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().count();
        Self {
            resident_bytes: number("VmRSS:") << 10,
            descriptors: count("/proc/self/fd".as_ref()),
            journal_files: count(journal),
            threads: usize::try_from(number("Threads:")).unwrap(),
        }
    }
}

/// A second of traffic: a hundred events, in requests of some tens of milliseconds.
fn second(run: &mut ByHand, turbo: &tracing::Dispatch, second: u64) {
    tracing::dispatcher::with_default(turbo, || {
        for request in 0..12 {
            let _request = tracing::info_span!("request", second, request, path = "/ask").entered();
            run.pass(20_000_000);
            {
                let _search = tracing::info_span!("search", top_k = 8u64, index = "docs").entered();
                run.pass(30_000_000);
            }
            let _answer = tracing::info_span!("answer", gen_ai.operation.name = "chat").entered();
            tracing::info!(target: "retake::token", index = 0, count = 1);
            run.pass(30_000_000);
        }
    });
    for _ in 0..8 {
        let dispatcher = run.dispatcher.clone();
        let _direct = span!(dispatcher, "direct", "second" = second);
        run.pass(5_000_000);
    }
    run.tick();
}

/// The child of the test below.
fn record_a_day() {
    let (_folder, store) = scratch();
    let settings = RecordSettings {
        // Every five minutes.
        seal_events: 30_000,
        when_full: WhenFull::Block,
        ..RecordSettings::default()
    };
    let mut run = ByHand::start(&store, settings, JournalLimits::default());
    let run_id = run.run_id();
    let journal = store.run_dir(&run_id).join("journal");
    let turbo = tracing::Dispatch::new(crate::RecorderSubscriber::new(&run.dispatcher));
    let all_day = tracing::dispatcher::with_default(&turbo, || tracing::info_span!("all day"));
    let mut by_hour = Vec::new();
    for hour in 0..24 {
        let of_the_hour =
            tracing::dispatcher::with_default(&turbo, || tracing::info_span!("of the hour", hour));
        for at in 0..3_600 {
            second(&mut run, &turbo, hour * 3_600 + at);
            run.end_seal();
        }
        drop(of_the_hour);
        by_hour.push(Held::now(&journal));
    }
    drop(all_day);
    let summary = run.finish(RunStatus::Finished);
    eprintln!(
        "{} events; {:?} after an hour, {:?} after a day",
        summary.accepted, by_hour[0], by_hour[23]
    );
    assert_eq!((summary.dropped, summary.unsealed), (0, None));
    assert!(summary.accepted >= 8_600_000, "{} events", summary.accepted);
    let (early, late) = (by_hour[5], by_hour[23]);
    let grown = late.resident_bytes.saturating_sub(early.resident_bytes);
    assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes in 18 hours: {by_hour:?}");
    assert_eq!((late.descriptors, late.threads), (early.descriptors, early.threads));
    assert!(late.journal_files <= early.journal_files, "{by_hour:?}");
    check(&store, &run_id, summary.spans);
}

/// The rows agree with the accounting, and no span lasted longer or shorter than it did.
fn check(store: &Store, run_id: &retake_schemas::RunId, spans: u64) {
    let manifest = store.manifest(run_id).unwrap();
    let accounting = &manifest.accounting;
    assert_eq!(spans, 24 * 3_600 * (12 * 3 + 8) + 24 + 1);
    assert_eq!(accounting.spans_opened, spans);
    assert_eq!(accounting.spans_closed, spans);
    assert!(store.verify(run_id).unwrap().is_sound());
    let last = manifest.segments.iter().rfind(|s| s.file.starts_with("spans")).unwrap();
    let path = store.run_dir(run_id).join(&last.file);
    for batch in crate::reader::read_parquet(&path).unwrap() {
        use retake_schemas::tables::{Row, SpanRow};
        for row in SpanRow::from_batch(&batch).unwrap() {
            let expected = match row.name.as_str() {
                "request" => 80_000_000,
                "search" | "answer" => 30_000_000,
                "direct" => 5_000_000,
                "of the hour" => 3_600 * 1_000_000_000,
                "all day" => 24 * 3_600 * 1_000_000_000,
                other => panic!("a span {other}"),
            };
            // The simulated clock steps by a nanosecond with every reading.
            let readings = row.duration_ns - expected;
            let readings_max = if expected > 1_000_000_000 { expected / 1_000_000 } else { 200 };
            assert!((0..readings_max).contains(&readings), "{row:?}");
        }
    }
}

pub(super) fn scratch() -> (tempfile::TempDir, Store) {
    let memory = std::path::Path::new("/dev/shm");
    if !memory.is_dir() {
        return store();
    }
    let folder = tempfile::tempdir_in(memory).unwrap();
    let store = Store::create(folder.path()).unwrap();
    (folder, store)
}

/// Scenario: 8.6 million events in the 24 hours of a simulated clock, drained every second and
/// sealed every five minutes, with spans that are open for an hour and for the whole day.
/// Guarantees: J8 - resident memory, descriptors, threads and journal files are after a day what
/// they were after six hours, and every duration is exact.
#[test]
fn a_day_of_traffic_leaves_nothing_behind() {
    if std::env::var_os(CHILD).is_some() {
        return record_a_day();
    }
    // Alone in a process: other tests' memory must not count.
    let test = "recorder::tests::soak::a_day_of_traffic_leaves_nothing_behind";
    let status = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

const CHILD: &str = "RETAKE_TEST_SOAK_CHILD";
/// What the list of segments in the manifest takes, and what an allocator keeps to itself.
const GROWTH_BYTES_MAX: u64 = 6 << 20;
