//! Values larger than a chunk of the journal, and more open spans than anybody plans for.

use std::time::Instant;

use retake_recorder::{RunReader, span};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, WhenFull};
use retake_schemas::tables::{EventRow, SpanRow};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{
    HANGS, assert_accounts, child, child_folder, number, peak_bytes, resident_bytes, scratch,
    spans, start, store, wait_within,
};

/// A text of this many bytes that says where each of its parts belongs.
fn text(bytes: usize) -> String {
    let mut text: String = (0..bytes / 8)
        .flat_map(|word| format!("{word:07} ").into_bytes())
        .map(char::from)
        .collect();
    text.truncate(bytes);
    text
}

fn attribute(row: &SpanRow, key: &str) -> String {
    let object: serde_json::Value =
        serde_json::from_str(row.attributes.as_deref().unwrap()).unwrap();
    object[key].as_str().unwrap_or_else(|| panic!("{} has no {key}", row.name)).to_owned()
}

/// Records a text at all places a text can be, through all three doors: nine spans, three events.
fn record_everywhere(recorder: &retake_recorder::Recorder, text: &str) {
    let layered = tracing_subscriber::registry().with(recorder.layer());
    for dispatch in [tracing::Dispatch::new(layered), tracing::Dispatch::new(recorder.subscriber())]
    {
        tracing::dispatcher::with_default(&dispatch, || {
            drop(tracing::info_span!("opened", small = 1u64, value = text, after = "end"));
            drop(
                tracing::info_span!("formatted", small = 1u64, value = ?Shown(text), after = "end"),
            );
            let late = tracing::info_span!("late", small = 1u64, value = tracing::field::Empty);
            late.record("value", text);
            late.in_scope(|| tracing::info!(value = text, after = "end", "line"));
        });
    }
    drop(span!(recorder.dispatcher(), "direct", "small" = 1u64, "value" = text, "after" = "end"));
}

struct Shown<'a>(&'a str);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // In parts, as real ones write.
        for part in self.0.as_bytes().chunks(1_000) {
            f.write_str(std::str::from_utf8(part).unwrap())?;
        }
        Ok(())
    }
}

/// Records texts of 64 KiB, 1 MiB and 10 MiB and gives what is read back.
fn recorded(attribute_bytes_max: usize) -> Vec<(String, Vec<SpanRow>, Vec<EventRow>)> {
    [64 << 10, 1 << 20, 10 << 20]
        .into_iter()
        .map(|bytes| {
            let (_folder, store) = store();
            let settings = RecordSettings { attribute_bytes_max, ..RecordSettings::default() };
            let recorder = start(&store, settings);
            let run_id = recorder.run_id().clone();
            let text = text(bytes);
            record_everywhere(&recorder, &text);
            let summary = recorder.finish(RunStatus::Finished);
            assert_accounts(&summary);
            assert_eq!(summary.dropped, 0, "{bytes} bytes: {summary:?}");
            let reader = RunReader::open(&store, &run_id).unwrap();
            let rows: Vec<SpanRow> = reader.rows().unwrap();
            assert_eq!(rows.len(), 7, "{bytes} bytes");
            (text, rows, reader.rows().unwrap())
        })
        .collect()
}

/// Scenario: attributes of 64 KiB, 1 MiB and 10 MiB, given at the opening, formatted, filled in
/// later and logged, through all three doors, with the default limit.
/// Guarantees: no span is lost for the size of a value; the value is cut at the limit, the row
/// says so, and the fields around it are untouched.
#[test]
fn a_value_over_the_limit_is_cut_and_its_span_says_so() {
    let limit = RecordSettings::default().attribute_bytes_max;
    for (text, rows, events) in recorded(limit) {
        for row in &rows {
            let kept = attribute(row, "value");
            assert!(kept.len() <= limit && kept.len() > limit - 64, "{} kept", kept.len());
            assert!(text.starts_with(kept.trim_end_matches(|c: char| !c.is_ascii())));
            assert_eq!(row.flags.as_deref(), Some("truncated"), "{}", row.name);
            assert_eq!(number(row.attributes.as_deref(), "small"), Some(1));
            assert!(row.name == "late" || attribute(row, "after") == "end");
        }
        assert_eq!(events.len(), 2);
        for event in events {
            let attributes = event.attributes.unwrap();
            assert!(attributes.len() < limit + 100 && attributes.contains("\"after\":\"end\""));
        }
    }
}

/// Scenario: the same with the limit raised over the largest of them.
/// Guarantees: every value is kept whole, byte for byte.
#[test]
fn a_value_under_a_raised_limit_is_kept_whole() {
    for (text, rows, events) in recorded(16 << 20) {
        for row in &rows {
            assert!(attribute(row, "value") == text, "{}: not the text", row.name);
            assert_eq!(row.flags, None, "{}", row.name);
            assert!(row.name == "late" || attribute(row, "after") == "end");
        }
        assert_eq!(events.len(), 2);
        for event in events {
            let attributes: serde_json::Value =
                serde_json::from_str(&event.attributes.unwrap()).unwrap();
            assert!(attributes["value"].as_str() == Some(&text), "not the text");
            assert_eq!(attributes["after"], "end");
        }
    }
}

/// Scenario: a hundred thousand values, each too large for an ordinary chunk's end, and a thousand
/// each larger than any, while the journal is sealed again and again.
/// Guarantees: J8 - nothing is lost, and memory, files and descriptors stay as they were.
#[test]
fn large_values_leave_nothing_behind() {
    if child_folder().is_none() {
        let folder = scratch();
        let test = "large::large_values_leave_nothing_behind";
        let child = child(test, folder.path()).spawn().unwrap();
        return assert!(wait_within(child, HANGS).success());
    }
    let (_folder, store) = store();
    let settings = RecordSettings {
        attribute_bytes_max: 1 << 20,
        seal_events: 200,
        when_full: WhenFull::Block,
        ..RecordSettings::default()
    };
    let recorder = start(&store, settings);
    let run_id = recorder.run_id().clone();
    let journal = store.run_dir(&run_id).join("journal");
    let large = text(200 << 10);
    let round = || {
        for _ in 0..100 {
            drop(span!(recorder.dispatcher(), "large", "value" = large.as_str()));
        }
        recorder.seal().unwrap();
        let files = std::fs::read_dir(&journal).unwrap().count();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (resident_bytes(), files, descriptors)
    };
    let mut before = round();
    for _ in 0..5 {
        before = round();
    }
    let mut after = before;
    for _ in 0..15 {
        after = round();
    }
    assert!(after.0 < before.0 + (24 << 20), "resident bytes: {before:?}, then {after:?}");
    assert!(after.1 <= before.1 + 1 && after.2 <= before.2, "{before:?}, then {after:?}");
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    assert_eq!((summary.dropped, summary.spans), (0, 2_100));
}

/// Scenario: a million spans are open at once, across seals, and are then closed in another order.
/// Guarantees: every row is right, and memory is stated: what a million open spans cost.
#[test]
fn a_million_spans_may_be_open_at_once() {
    if child_folder().is_none() {
        let folder = scratch();
        let test = "large::a_million_spans_may_be_open_at_once";
        let mut command = child(test, folder.path());
        let child = command.spawn().unwrap();
        return assert!(wait_within(child, HANGS).success());
    }
    let (_folder, store) = store();
    let settings = RecordSettings {
        when_full: WhenFull::Block,
        seal_secs: 3_600,
        // Two million events: one seal while nearly all are open.
        seal_events: 1_200_000,
        ..RecordSettings::default()
    };
    let recorder = start(&store, settings);
    let run_id = recorder.run_id().clone();
    let before = resident_bytes();
    let started = Instant::now();
    let dispatch = tracing::Dispatch::new(recorder.subscriber());
    tracing::dispatcher::with_default(&dispatch, || {
        let root = tracing::info_span!("root").entered();
        let mut open: Vec<tracing::Span> =
            (0..OPEN).map(|number| tracing::info_span!("open", number)).collect();
        eprintln!("{OPEN} spans opened in {:?}", started.elapsed());
        while open.len() > 1 {
            // The last, then one from the middle.
            open.pop();
            let middle = open.len() / 2;
            open.swap_remove(middle);
        }
        drop((open, root));
    });
    let summary = recorder.finish(RunStatus::Finished);
    let each = (peak_bytes() - before) / OPEN;
    eprintln!(
        "closed and sealed after {:?}; at most {each} resident bytes each",
        started.elapsed()
    );
    assert!(each < OPEN_BYTES_MAX, "{each} bytes for each open span");
    assert_accounts(&summary);
    assert_eq!((summary.dropped, summary.spans), (0, OPEN + 1));
    let rows = spans(&store, &run_id);
    let root = rows.iter().find(|row| row.name == "root").unwrap().span_id.clone();
    let mut seen = vec![false; usize::try_from(OPEN).unwrap()];
    for row in rows.iter().filter(|row| row.name == "open") {
        assert_eq!((row.status.as_str(), row.parent_span_id.as_ref()), ("ok", Some(&root)));
        let number = number(row.attributes.as_deref(), "number").unwrap();
        assert!(!std::mem::replace(&mut seen[usize::try_from(number).unwrap()], true));
    }
    assert!(seen.into_iter().all(|is_seen| is_seen));
}

const OPEN: u64 = 1_000_000;
/// In the journal, in the fold, in the carry file as it is encoded, and in the segment's columns.
const OPEN_BYTES_MAX: u64 = 2_500;
