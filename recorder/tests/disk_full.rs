//! A disk that is really full, in a process of its own: by a limit on the size of files, and on a
//! small file system where the machine lets a user mount one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use retake_recorder::journal::{JournalLimits, Offered};
use retake_recorder::{Recorder, RecorderBuilder, RunReader, Store};
use retake_schemas::event::{Annotated, EventBody, Level, RunStatus};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::{EventRow, MeasureRow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Scenario: files may not grow beyond a few kilobytes any more, so neither the journal nor a seal
/// has room; later they may again.
/// Guarantees: J6 - the program records on and ends well, what it lost is counted exactly, and
/// recording goes on when there is room.
#[test]
fn a_limit_on_files_harms_only_the_recording() {
    if std::env::var_os(CHILD).is_some() {
        let unlimited = getrlimit(Resource::Fsize);
        let limit = |bytes| setrlimit(Resource::Fsize, Rlimit { current: bytes, ..unlimited });
        let folder = PathBuf::from(std::env::var_os(CHILD).unwrap());
        record_through(
            &folder,
            || limit(Some(4096)).unwrap(),
            || limit(unlimited.current).unwrap(),
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Who exceeds the limit is killed, unless the signal is ignored: then writes fail.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .args(this_test("a_limit_on_files_harms_only_the_recording"))
        .env(CHILD, folder.path())
        .output();
    assert_ended_well(&child.unwrap());
}

/// Scenario: another program fills the file system the run is on, and later makes room.
/// Guarantees: J6 - as above.
#[test]
fn a_full_file_system_harms_only_the_recording() {
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let ballast = folder.join("ballast");
        let fill = || {
            let mut bytes = 1 << 20;
            while bytes > 0 {
                let path = ballast.with_extension(bytes.to_string());
                // What fits of it stays.
                let done = std::fs::write(&path, vec![0; bytes]);
                let more = ballast.with_extension(format!("{bytes}-{:?}", Instant::now()));
                match done {
                    Ok(()) => std::fs::rename(path, more).unwrap(),
                    Err(_) => bytes /= 16,
                }
            }
        };
        let free = || {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.file_stem().is_some_and(|name| name == "ballast") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        };
        record_through(&folder, fill, free);
        return;
    }
    let can_mount = Command::new("unshare").args(["-rm", "true"]).status();
    if !can_mount.is_ok_and(|status| status.success()) {
        println!("skipped: this machine lets no user make a mount namespace");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=24m tmpfs \"$RETAKE_TEST_FULL\" && exec \"$0\" \"$@\"";
    let child = Command::new("unshare")
        .args(["-rm", "sh", "-c", mount])
        .args(this_test("a_full_file_system_harms_only_the_recording"))
        .env(CHILD, folder.path())
        .output();
    assert_ended_well(&child.unwrap());
}

/// This program, to run one test only.
fn this_test(name: &str) -> [String; 4] {
    let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    [program, name.to_owned(), "--exact".to_owned(), "--nocapture".to_owned()]
}

fn assert_ended_well(child: &std::process::Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&child.stdout), text(&child.stderr));
    assert_eq!(child.status.code(), Some(0), "{said}\n{complained}");
    let facts = said.lines().find(|line| line.starts_with("lost "));
    println!("{}", facts.unwrap_or_else(|| panic!("{said}\n{complained}")));
}

/// Records before, while, and after the disk is full; then reads the run back.
fn record_through(folder: &Path, fill: impl FnOnce(), free: impl FnOnce()) {
    let store = Store::create(&folder.join("store")).unwrap();
    let settings = RecordSettings { sync: SyncPolicy::Batch, ..RecordSettings::default() };
    let limits = JournalLimits { first_file_bytes: 512 << 10, ..JournalLimits::default() };
    let recorder = RecorderBuilder::new("full", "svc")
        .record_settings(settings)
        .journal_limits(limits)
        .start(&store)
        .unwrap();
    let run_id = recorder.run_id().clone();
    let mut notes = Notes { recorder: &recorder, taken: Vec::new(), lost: 0, next: 0 };
    notes.record(50);
    notes.recorder.flush().unwrap();
    fill();
    // Three times what the lanes hold.
    notes.record(800);
    let lost = notes.lost;
    assert!(lost > 0, "there was room after all");
    assert!(notes.recorder.seal().is_err(), "there was room for a segment");
    free();
    let patience = Instant::now();
    while notes.recorder.seal().is_err() {
        assert!(patience.elapsed() < Duration::from_secs(20), "sealing does not resume");
        std::thread::sleep(Duration::from_millis(50));
    }
    notes.record(50);
    assert_eq!(notes.lost, lost, "there is room again");
    let taken = std::mem::take(&mut notes.taken);
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!((summary.unsealed, summary.dropped), (None, lost));
    let reader = RunReader::open(&store, &run_id).unwrap();
    let rows: Vec<EventRow> = reader.rows().unwrap();
    let there: Vec<u64> =
        rows.iter().map(|row| row.message.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(there, taken);
    let measures: Vec<MeasureRow> = reader.rows().unwrap();
    let stated = measures.iter().filter(|row| row.name == "retake.dropped").map(|row| row.value);
    assert_eq!(stated.sum::<f64>() as u64, lost);
    assert_eq!(reader.manifest().accounting.dropped_total(), lost);
    println!("lost {lost} of {} events, {:?}", taken.len() as u64 + lost, summary.losses);
}

struct Notes<'a> {
    recorder: &'a Recorder,
    taken: Vec<u64>,
    lost: u64,
    next: u64,
}

impl Notes<'_> {
    fn record(&mut self, count: usize) {
        for _ in 0..count {
            self.next += 1;
            let note = EventBody::Annotated(Annotated {
                span: None,
                level: Level::Info,
                name: "note".to_owned(),
                target: "app".to_owned(),
                message: Some(self.next.to_string()),
                attributes: vec![("padding".into(), incompressible(self.next).into())],
            });
            match self.recorder.dispatcher().emit(&note) {
                Offered::Accepted => self.taken.push(self.next),
                Offered::Dropped(_) => self.lost += 1,
            }
        }
    }
}

/// 2,000 characters no compressor makes small: a segment of them is larger than the limit on files,
/// however few of them the journal took.
fn incompressible(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..2000).map(|_| char::from(rng.sample(Alphanumeric))).collect()
}

/// Set in the child: the folder to record into.
const CHILD: &str = "RETAKE_TEST_FULL";
