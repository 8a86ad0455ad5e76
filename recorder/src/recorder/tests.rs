//! Whole runs: handlers, sealing in parts, crashes at any point, and recovery.

mod by_hand;
mod overload;
mod soak;

use std::path::Path;
use std::sync::atomic::AtomicUsize;

use retake_schemas::event::{Annotated, EventKind, Level, SpanClosed, SpanOpened, Status};
use retake_schemas::tables::{EventRow, SpanRow};
use retake_schemas::{Event, SpanKey, TraceId};

use super::*;
use crate::dispatcher::{Handler, Interest};
use crate::reader::RunReader;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    (folder, store)
}

fn note(text: &str) -> EventBody {
    EventBody::Annotated(Annotated {
        span: None,
        level: Level::Info,
        name: "note".to_owned(),
        target: "app::rag".to_owned(),
        message: Some(text.to_owned()),
        attributes: Vec::new(),
    })
}

fn open(recorder: &Recorder, parent: Option<SpanKey>, name: &str) -> SpanKey {
    let dispatcher = recorder.dispatcher();
    let span = SpanKey {
        trace_id: parent.map_or_else(TraceId::generate, |p| p.trace_id),
        span_id: dispatcher.new_span_id(),
    };
    dispatcher.emit(&EventBody::SpanOpened(Box::new(SpanOpened {
        span,
        parent: parent.map(|p| p.span_id),
        name: name.to_owned(),
        target: "app::rag".to_owned(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes: Vec::new(),
    })));
    span
}

fn close(recorder: &Recorder, span: SpanKey) {
    let status = Status::Ok;
    let closed = SpanClosed { span, busy_ns: None, status, message: None };
    recorder.dispatcher().emit(&EventBody::SpanClosed(closed));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn notes(store: &Store, run_id: &RunId) -> Vec<String> {
    let rows: Vec<EventRow> = RunReader::open(store, run_id).unwrap().rows().unwrap();
    rows.into_iter().filter_map(|row| row.message).collect()
}

#[test]
fn a_run_in_several_seals_reads_as_one() {
    let (_folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let root = open(&recorder, None, "root");
    for n in 0..5 {
        let child = open(&recorder, Some(root), &format!("child {n}"));
        close(&recorder, child);
        recorder.seal().unwrap();
    }
    close(&recorder, root);
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!((summary.dropped, summary.spans), (0, 6));
    let reader = RunReader::open(&store, &run_id).unwrap();
    let rows: Vec<SpanRow> = reader.rows().unwrap();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row.status == "ok" && row.flags.is_none()), "{rows:?}");
    let children: i64 = rows.iter().filter(|r| r.name != "root").map(|r| r.duration_ns).sum();
    let root = rows.iter().find(|row| row.name == "root").unwrap();
    assert_eq!(root.self_ns, Some(root.duration_ns - children), "children were sealed earlier");
    let accounting = &reader.manifest().accounting;
    assert_eq!((accounting.spans_opened, accounting.spans_closed), (6, 6));
    assert_eq!(accounting.offered, accounting.accepted);
    assert!(!store.run_dir(&run_id).join("journal").exists());
    assert!(store.verify(&run_id).unwrap().is_sound());
}

/// Scenario: the process dies when everything is sealed but a span that is still open.
/// Guarantees: J1, J3 - it becomes an unfinished row that ends when the run was last heard of.
#[test]
fn a_span_open_since_the_last_seal_is_recovered_from_the_carry_file() {
    let (folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let subscriber = recorder.subscriber();
    tracing::subscriber::with_default(subscriber, || {
        let open = tracing::info_span!("open", x = 1u64);
        let other = tracing::info_span!("other");
        let _entered = open.enter();
        drop(other);
        recorder.seal().unwrap();
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        let copied = Store::open(copied.path()).unwrap();
        // A copied lock is nobody's, so this is what a dead process leaves.
        let outcome = copied.recover().unwrap();
        assert_eq!(outcome.repaired[0].unfinished_spans, 1, "{outcome:?}");
        let rows: Vec<SpanRow> = RunReader::open(&copied, &run_id).unwrap().rows().unwrap();
        let row = rows.iter().find(|row| row.name == "open").unwrap();
        assert_eq!((row.status.as_str(), row.flags.as_deref()), ("unfinished", Some("unfinished")));
        assert!(row.duration_ns >= 0 && row.busy_ns <= Some(row.duration_ns), "{row:?}");
        assert_eq!(row.attributes.as_deref(), Some(r#"{"x":1}"#));
    });
}

/// Scenario: a power cut after a flush takes the mapped lanes with it, and then also the end of
/// the durable journal.
/// Guarantees: J2 - what was flushed is recovered from the durable journal alone.
#[test]
fn what_was_flushed_survives_without_the_mapped_lanes() {
    let (folder, store) = store();
    let settings = RecordSettings { sync: SyncPolicy::Batch, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("t", "svc").record_settings(settings).start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    for text in ["one", "two", "three"] {
        recorder.dispatcher().emit(&note(text));
    }
    let durable = recorder.flush().unwrap();
    assert_eq!(recorder.durable_below(), durable);
    let copied = tempfile::tempdir().unwrap();
    copy(folder.path(), copied.path());
    let copied = Store::open(copied.path()).unwrap();
    let journal = copied.run_dir(&run_id).join("journal");
    for path in crate::journal::journal_files(&*crate::disk::real(), &journal).unwrap() {
        if path.extension().is_some_and(|extension| extension == "lanes") {
            std::fs::remove_file(path).unwrap();
        }
    }
    copied.recover().unwrap();
    assert_eq!(notes(&copied, &run_id), ["one", "two", "three"]);
    assert_eq!(recorder.finish(RunStatus::Finished).unsealed, None);
}

/// Scenario: the process is killed in the middle of a write to the durable journal; or the power
/// fails there, and takes the mapped lanes.
/// Guarantees: J5 - a torn tail whose events are in the lanes is no damage; one whose events are
/// nowhere is reported.
#[test]
fn a_torn_tail_is_damage_only_if_the_lanes_do_not_have_it() {
    let (folder, store) = store();
    let settings = RecordSettings { sync: SyncPolicy::Batch, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("t", "svc").record_settings(settings).start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for text in &texts {
        recorder.dispatcher().emit(&note(text));
    }
    recorder.flush().unwrap();
    // Frames start at even places, so the first is in the middle of one. The others are in the
    // header of the first frame, as where a page ends there.
    let (half, headers) = (None, [1, 4, 8, 12, 23].map(Some));
    let cuts = std::iter::once(half).chain(headers);
    for (cut, has_lanes) in cuts.flat_map(|cut| [(cut, true), (cut, false)]) {
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        let copied = Store::open(copied.path()).unwrap();
        let files = crate::journal::journal_files(
            &crate::disk::RealDisk,
            &copied.run_dir(&run_id).join("journal"),
        );
        for path in files.unwrap() {
            let is_durable = path.extension().is_some_and(|extension| extension == "journal");
            if is_durable {
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                let half = (file.metadata().unwrap().len() / 2) | 1;
                // Bytes of the file before its frames.
                let header = 64;
                file.set_len(cut.map_or(half, |bytes| header + bytes)).unwrap();
            } else if !has_lanes {
                std::fs::remove_file(path).unwrap();
            }
        }
        let repaired = copied.recover().unwrap().repaired.remove(0);
        assert_eq!(repaired.damage.is_empty(), has_lanes, "cut at {cut:?}: {repaired}");
        assert_eq!(notes(&copied, &run_id) == texts, has_lanes);
    }
}

#[test]
fn a_live_run_can_be_read_before_anything_is_sealed() {
    let (_folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let open_span = open(&recorder, None, "open");
    recorder.dispatcher().emit(&note("seen at once"));
    assert_eq!(notes(&store, recorder.run_id()), ["seen at once"]);
    let reader = RunReader::open(&store, recorder.run_id()).unwrap();
    let rows: Vec<SpanRow> = reader.rows().unwrap();
    assert_eq!(rows[0].status, "unfinished");
    assert!(store.is_live(recorder.run_id()));
    assert!(store.recover().unwrap().repaired.is_empty(), "a live run is left alone");
    close(&recorder, open_span);
}

/// Scenario: the process dies between any two events, with seals in between. A copy of the
/// folder stands for what the death leaves: mapped pages belong to the kernel.
/// Guarantees: J1, J3, J4 - every accepted event is read exactly once after recovery, and
/// recovering twice changes nothing.
#[test]
fn a_death_between_any_two_events_loses_nothing() {
    let (folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let root = open(&recorder, None, "root");
    let mut expected = Vec::new();
    for n in 0..12 {
        recorder.dispatcher().emit(&note(&n.to_string()));
        expected.push(n.to_string());
        if n % 4 == 3 {
            recorder.seal().unwrap();
        }
        let image = tempfile::tempdir().unwrap();
        copy(folder.path(), image.path());
        let dead = Store::open(image.path()).unwrap();
        let repaired = dead.recover().unwrap().repaired;
        assert_eq!(repaired.len(), 1);
        assert_eq!(repaired[0].damage, Vec::<String>::new());
        assert_eq!(repaired[0].unfinished_spans, 1);
        assert_eq!(notes(&dead, &run_id), expected, "after event {n}");
        assert!(dead.recover().unwrap().repaired.is_empty());
        let rows: Vec<SpanRow> = RunReader::open(&dead, &run_id).unwrap().rows().unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].flags.as_deref(), Some("unfinished"));
        assert_eq!(dead.manifest(&run_id).unwrap().status, RunStatus::Recovered);
        assert!(dead.verify(&run_id).unwrap().is_sound());
    }
    close(&recorder, root);
}

/// Scenario: a seal is cut short at each of its steps.
/// Guarantees: J4 - half a seal is moved aside, and its events are read once, from the journal.
#[test]
fn a_seal_cut_short_is_redone_from_the_journal() {
    let (folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    recorder.dispatcher().emit(&note("a"));
    let run = store.run_dir(&run_id);
    for leftover in ["events-000001.parquet", "events-000001.parquet.tmp", "carry-000001.bin"] {
        let image = tempfile::tempdir().unwrap();
        copy(folder.path(), image.path());
        let dead = Store::open(image.path()).unwrap();
        std::fs::write(dead.run_dir(&run_id).join(leftover), b"half").unwrap();
        let repaired = dead.recover().unwrap().repaired;
        assert_eq!(repaired[0].quarantined, [leftover]);
        assert_eq!(notes(&dead, &run_id), ["a"]);
    }
    drop(recorder);
    assert!(!run.join("journal").exists());
}

/// Guarantees: J5 - a damaged journal or segment is reported, never read as other data.
#[test]
fn damage_is_reported() {
    let (folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    for n in 0..3 {
        recorder.dispatcher().emit(&note(&n.to_string()));
    }
    let image = tempfile::tempdir().unwrap();
    copy(folder.path(), image.path());
    let dead = Store::open(image.path()).unwrap();
    let journal = dead.run_dir(&run_id).join(JOURNAL_DIR);
    let path = crate::journal::journal_files(&*crate::disk::real(), &journal).unwrap().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).rposition(|w| w == b"note").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let repaired = dead.recover().unwrap().repaired.remove(0);
    assert_eq!(repaired.damage.len(), 1, "{repaired}");
    assert_eq!(notes(&dead, &run_id), ["0", "1"]);
    assert_eq!(repaired.quarantined.len(), 1, "the damaged journal is kept");

    let _ = recorder.finish(RunStatus::Finished);
    let manifest = store.manifest(&run_id).unwrap();
    let segment = store.run_dir(&run_id).join(&manifest.segments[0].file);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let reader = RunReader::open(&store, &run_id).unwrap();
    assert!(reader.rows::<EventRow>().is_err());
    assert_eq!(store.verify(&run_id).unwrap().damage.len(), 1);
}

/// Guarantees: J6 - a folder that vanishes harms only the recording.
#[test]
fn a_vanished_folder_does_not_break_the_program() {
    let (folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    std::fs::remove_dir_all(folder.path()).unwrap();
    for n in 0..100 {
        recorder.dispatcher().emit(&note(&n.to_string()));
    }
    assert!(recorder.seal().is_err());
    let summary = recorder.finish(RunStatus::Finished);
    assert!(summary.unsealed.is_some());
    assert_eq!(summary.offered, summary.accepted + summary.dropped);
}

/// A seal that fails must not lose what it had taken.
#[test]
fn a_failed_seal_is_tried_again_with_everything() {
    let (_folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    recorder.dispatcher().emit(&note("kept"));
    // A folder in the place of the segment's temporary file makes the first seal fail.
    let obstacle = store.run_dir(&run_id).join("events-000001.parquet.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(recorder.seal().is_err());
    std::fs::remove_dir(&obstacle).unwrap();
    recorder.dispatcher().emit(&note("later"));
    recorder.seal().unwrap();
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!(summary.unsealed, None);
    assert_eq!(notes(&store, &run_id), ["kept", "later"]);
}

struct Counting {
    seen: Arc<AtomicUsize>,
    fails: bool,
}

impl Handler for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn handle(&mut self, events: &[Event]) -> Result<(), String> {
        self.seen.fetch_add(events.len(), Ordering::Relaxed);
        assert!(!self.fails, "a handler's panic is its own");
        Ok(())
    }
}

#[test]
fn handlers_see_what_they_asked_for_and_their_panics_are_counted() {
    let (_folder, store) = store();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let counting = |interest: Interest, fails: bool| {
        let seen = Arc::new(AtomicUsize::new(0));
        let handler = Counting { seen: Arc::clone(&seen), fails };
        recorder.dispatcher().subscribe(interest, handler).unwrap();
        seen
    };
    let spans = counting(Interest::all().kinds([EventKind::SpanOpened]), false);
    let scope = counting(Interest::all().scope("app.rag"), false);
    let other = counting(Interest::all().scope("app.ra"), false);
    let failing = counting(Interest::all().kinds([EventKind::Annotated]), true);
    // What was drained before a handler subscribed it does not see; nothing was yet.
    let span = open(&recorder, None, "a");
    recorder.dispatcher().emit(&note("x"));
    close(&recorder, span);
    let summary = recorder.finish(RunStatus::Finished);
    let count = |seen: &AtomicUsize| seen.load(Ordering::Relaxed);
    assert_eq!((count(&spans), count(&other), count(&failing)), (1, 0, 1));
    assert!(count(&scope) >= 2, "{}", count(&scope));
    let failures: u64 = summary.handlers.iter().map(|handler| handler.failures).sum();
    assert_eq!(failures, 1);
}
