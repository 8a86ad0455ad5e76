//! Files that earlier versions wrote are read as they were meant, for ever.
//!
//! `fixtures/` holds runs as each format's writer left them, and their rows as JSON lines. For a new
//! format, `UPDATE_FIXTURES=1 cargo test --workspace --test old_files` records the runs that are
//! missing; those that are there are never touched again. Mapped files are mostly zeros, and many
//! rows are alike, so they are kept compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use retake_recorder::journal::JournalLimits;
use retake_recorder::reader::{ReadError, read_parquet};
use retake_recorder::{Recorder, RecorderBuilder, RunReader, Store};
use retake_schemas::event::{
    DocumentRole, EventBody, HostFacts, Measured, Payload, Retrieved, RetrievedDocument, RunStatus,
    SpanClosed, SpanOpened, Status,
};
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::{SpanRow, TableName};
use retake_schemas::version::FormatVersion;
use retake_schemas::{Digest, RunId, SpanKey, TraceId};

/// The runs of one format: store layout 1.0, journal 2.0, tables 1.0.
const FORMAT: &str = "store-1.0";
/// A run of the same store and journal whose segments are of tables 2.0.
const TABLES: &str = "tables-2.0";

/// Scenario: a run that was finished, in two seals.
/// Guarantees: J10 - every row is read as it was written.
#[test]
fn a_finished_run_is_read() {
    let run = Fixture::open("finished");
    run.assert_rows();
    assert!(run.store.verify(&run.run_id).unwrap().is_sound());
    assert!(run.store.recover().unwrap().repaired.is_empty());
}

/// Scenario: a process was killed after a seal, with a span open since before it and another one
/// opened later; carry file and mapped lanes are there.
/// Guarantees: J10 - the journal is read before and after recovery, every row as it was.
#[test]
fn the_lanes_of_a_killed_process_are_read() {
    let run = Fixture::open("killed");
    assert!(run.store.manifest(&run.run_id).unwrap().carry.is_some());
    run.assert_rows();
    let outcome = run.store.recover().unwrap();
    assert_eq!(outcome.repaired[0].damage, Vec::<String>::new(), "{outcome:?}");
    run.assert_rows();
}

/// Scenario: power failed, and only the durable journal is left.
/// Guarantees: J10 - the same.
#[test]
fn a_durable_journal_is_read() {
    let run = Fixture::open("durable");
    run.assert_rows();
    let outcome = run.store.recover().unwrap();
    assert_eq!(outcome.repaired[0].damage, Vec::<String>::new(), "{outcome:?}");
    run.assert_rows();
}

/// Scenario: a finished run with thousands of spans, whose frequent attributes have columns in its
/// first segment, in its second too few, and whose own times are stored where there are children.
/// Guarantees: J10 - every row is read as it was written.
#[test]
fn attributes_in_columns_are_read() {
    let run = Fixture::open("columns");
    run.assert_rows();
    assert!(run.store.verify(&run.run_id).unwrap().is_sound());
}

/// Scenario: a segment of tables of the next minor version, and one of the next major version.
/// Guarantees: J10 - the first is read; the second is refused, and the message says what to do.
#[test]
fn segments_of_newer_tables_are_read_or_refused() {
    let run = Fixture::open("columns");
    run.change_tables_version("2.9");
    run.assert_rows();
    run.change_tables_version("3.0");
    let reader = RunReader::open(&run.store, &run.run_id).unwrap();
    let error = reader.checked_files(TableName::Spans).unwrap_err();
    assert!(matches!(error, ReadError::Newer(_)), "{error}");
    assert!(error.to_string().contains("tables of format 3.0"), "{error}");
    assert!(reader.rows::<SpanRow>().is_err());
}

/// Scenario: a manifest of the next minor version, with facts this build does not know.
/// Guarantees: J10 - it is read, without them.
#[test]
fn a_newer_minor_version_of_the_store_is_read() {
    let run = Fixture::open("finished");
    run.change_manifest(|manifest| {
        manifest["format"]["minor"] = 7.into();
        manifest["weather"] = "fair".into();
        manifest["segments"][0]["mood"] = "good".into();
        manifest["facts"]["shoe_size"] = 43.into();
    });
    run.assert_rows();
}

/// Scenario: a manifest of the next major version.
/// Guarantees: J10 - it is neither read nor written nor repaired, and the message says what to
/// do.
#[test]
fn a_newer_major_version_of_the_store_is_refused() {
    for case in ["finished", "killed"] {
        let run = Fixture::open(case);
        run.change_manifest(|manifest| manifest["format"]["major"] = 2.into());
        let before = files(run.store.root());
        let error = run.store.manifest(&run.run_id).unwrap_err().to_string();
        assert!(error.contains("format 2.0") && error.contains("at least as new"), "{error}");
        assert!(RunReader::open(&run.store, &run.run_id).is_err());
        assert!(run.store.update_manifest(&run.run_id, |m| m.revision += 1).is_err());
        let outcome = run.store.recover().unwrap();
        assert_eq!((outcome.repaired.len(), outcome.failed.len()), (0, 1));
        assert_eq!(files(run.store.root()), before, "nothing was changed");
        assert!(!run.store.verify(&run.run_id).unwrap().is_sound());
    }
}

/// Scenario: a journal of the next minor version, and one of the next major version.
/// Guarantees: J10 - the first is read; the second is said to be unreadable, and recovery leaves
/// the run to a retake that can read it.
#[test]
fn a_newer_journal_is_read_or_left_alone() {
    for case in ["killed", "durable"] {
        let run = Fixture::open(case);
        run.change_journal_version(2, 9);
        run.assert_rows();
        run.change_journal_version(3, 0);
        let reader = RunReader::open(&run.store, &run.run_id).unwrap();
        assert!(reader.damage().iter().any(|d| d.contains("format 3.0")), "{:?}", reader.damage());
        let before = files(run.store.root());
        let outcome = run.store.recover().unwrap();
        assert_eq!((outcome.repaired.len(), outcome.failed.len()), (0, 1), "{outcome:?}");
        let mut after = files(run.store.root());
        // Recovery looks under the run's lock.
        after.retain(|path, _| !path.ends_with("writer.lock"));
        assert_eq!(after, before, "nothing was changed");
    }
}

/// Scenario: the constants of this build.
/// Guarantees: J10 - a format whose fixtures are not here yet is noticed.
#[test]
fn the_present_formats_have_fixtures() {
    let store = FormatVersion::STORE;
    assert_eq!(FORMAT, format!("store-{store}"), "add a folder of fixtures for the new format");
    for case in ["finished", "killed", "durable"] {
        let run = Fixture::open(case);
        let manifest = run.store.manifest(&run.run_id).unwrap();
        assert_eq!(manifest.format, store);
        let files = files(&run.store.run_dir(&run.run_id));
        let journal = files.into_iter().filter(|(path, _)| path.starts_with("journal"));
        for (path, bytes) in journal {
            let version = FormatVersion {
                major: u16::from_le_bytes([bytes[8], bytes[9]]),
                minor: u16::from_le_bytes([bytes[10], bytes[11]]),
            };
            assert_eq!(version, FormatVersion::JOURNAL, "{}", path.display());
        }
    }
    assert_eq!(TABLES, format!("tables-{}", FormatVersion::TABLES), "the same for tables");
    let run = Fixture::open("columns");
    let segments = run.store.manifest(&run.run_id).unwrap().segments;
    let path = |segment: &Segment| run.store.run_dir(&run.run_id).join(&segment.file);
    let columns: Vec<bool> = segments
        .iter()
        .filter(|segment| segment.table == TableName::Spans)
        .map(|segment| {
            let file = std::fs::File::open(path(segment)).unwrap();
            let footer = ArrowReaderMetadata::load(&file, Default::default()).unwrap();
            footer.schema().field_with_name("attributes.tenant").is_ok()
        })
        .collect();
    assert_eq!(columns, [true, false]);
}

/// A run of the fixtures in a store of its own.
struct Fixture {
    _folder: tempfile::TempDir,
    store: Store,
    run_id: RunId,
    expected: Vec<String>,
    /// Its rows come from a journal of ticks: which nanosecond they stand for is for the reader
    /// to interpolate between anchors, and no part of the format.
    is_converted: bool,
}

impl Fixture {
    fn open(case: &str) -> Self {
        let fixture = fixtures(case);
        if !fixture.is_dir()
            && std::env::var_os("UPDATE_FIXTURES").is_some_and(|value| value == "1")
        {
            // Tests run at the same time, and several open the same fixture.
            static RECORDED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
            let mut recorded = RECORDED.lock().unwrap();
            if recorded.insert(case.to_owned()) {
                update(case, &fixture);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        unpack(&fixture.join("runs"), &store.runs_dir());
        let run_id = store.run_ids().unwrap().remove(0);
        let rows = match std::fs::read(fixture.join("rows.jsonl.zst")) {
            Ok(packed) => String::from_utf8(zstd::decode_all(&packed[..]).unwrap()).unwrap(),
            Err(_) => std::fs::read_to_string(fixture.join("rows.jsonl")).unwrap(),
        };
        let expected = rows.lines().map(str::to_owned).collect();
        let is_converted = case != "finished";
        Self { _folder: folder, store, run_id, expected, is_converted }
    }

    fn assert_rows(&self) {
        let rows = rows(&self.store, &self.run_id);
        assert_eq!(rows.len(), self.expected.len());
        for (found, expected) in rows.iter().zip(&self.expected) {
            let ((table, mut found), (of, expected)) = (in_order(found), in_order(expected));
            assert_eq!(table, of);
            if self.is_converted {
                round_times(&mut found, &expected);
            }
            assert_eq!(found, expected, "{table}");
        }
    }

    /// States another version of the tables in the footers of all segments of spans.
    fn change_tables_version(&self, version: &str) {
        let folder = self.store.run_dir(&self.run_id);
        self.change_manifest(|manifest| {
            for segment in manifest["segments"].as_array_mut().unwrap() {
                if segment["table"] != "spans" {
                    continue;
                }
                let path = folder.join(segment["file"].as_str().unwrap());
                let bytes = with_tables_version(&path, version);
                std::fs::write(&path, &bytes).unwrap();
                segment["bytes"] = bytes.len().into();
                segment["blake3"] = Digest::of(&bytes).to_string().into();
            }
        });
    }

    /// Changes the manifest and its digest, as a newer retake would write it.
    fn change_manifest(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.store.run_dir(&self.run_id).join("manifest.json");
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut manifest = file["manifest"].clone();
        change(&mut manifest);
        let text = manifest.to_string();
        let digest = Digest::of(text.as_bytes());
        std::fs::write(&path, format!(r#"{{"blake3":"{digest}","manifest":{text}}}"#)).unwrap();
    }

    /// States another version in the headers of all journal files.
    fn change_journal_version(&self, major: u16, minor: u16) {
        let journal = self.store.run_dir(&self.run_id).join("journal");
        for (path, mut bytes) in files(&journal) {
            bytes[8..10].copy_from_slice(&major.to_le_bytes());
            bytes[10..12].copy_from_slice(&minor.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(journal.join(path), bytes).unwrap();
        }
    }
}

/// The file with another version of the tables in its footer.
fn with_tables_version(path: &Path, version: &str) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let facts = vec![KeyValue::new("retake.tables".to_owned(), version.to_owned())];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(facts)).build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, reader.schema().clone(), Some(properties)).unwrap();
    for batch in reader.build().unwrap() {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// The line with the attributes in the order of their keys: what is not sealed was shown in the
/// order of recording before tables 2.0.
fn in_order(line: &str) -> (String, serde_json::Value) {
    let (table, row) = line.split_once(' ').unwrap();
    let mut row: serde_json::Value = serde_json::from_str(row).unwrap();
    if let Some(text) = row["attributes"].as_str() {
        let attributes: BTreeMap<String, &serde_json::value::RawValue> =
            serde_json::from_str(text).unwrap();
        row["attributes"] = serde_json::to_string(&attributes).unwrap().into();
    }
    (table.to_owned(), row)
}

/// Takes times that are less than a microsecond from what they were as what they were.
fn round_times(found: &mut serde_json::Value, expected: &serde_json::Value) {
    for (column, value) in found.as_object_mut().unwrap() {
        let was = &expected[column];
        let is_near = value.as_i64().zip(was.as_i64()).is_some_and(|(a, b)| a.abs_diff(b) < 1_000);
        if column.ends_with("_ns") && is_near {
            *value = was.clone();
        }
    }
}

/// All rows of a run's tables as JSON without NULLs, so that later columns change nothing.
fn rows(store: &Store, run_id: &RunId) -> Vec<String> {
    let reader = RunReader::open(store, run_id).unwrap();
    assert_eq!(reader.damage(), Vec::<String>::new());
    let mut lines = Vec::new();
    for table in TableName::SEALED {
        let mut batches = vec![reader.tail(table)];
        for path in reader.checked_files(table).unwrap() {
            batches.extend(read_parquet(&path).unwrap());
        }
        let mut text = Vec::new();
        let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
        writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        let text = String::from_utf8(text).unwrap();
        lines.extend(text.lines().map(|line| format!("{table} {line}")));
    }
    lines.sort();
    lines
}

/// The files below a folder, by path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
    found
}

fn fixtures(case: &str) -> PathBuf {
    let format = if case == "columns" { TABLES } else { FORMAT };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format).join(case)
}

fn unpack(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        match path.to_str().unwrap().strip_suffix(".zst") {
            Some(name) => {
                std::fs::write(to.join(name), zstd::decode_all(&bytes[..]).unwrap()).unwrap();
            }
            None => std::fs::write(target, bytes).unwrap(),
        }
    }
}

// -- recording fixtures that are missing

fn update(case: &str, fixture: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let run_id = record(case, folder.path(), &store);
    let run = store.run_dir(&run_id);
    for (path, bytes) in files(&run) {
        let target = fixture.join("runs").join(run_id.as_str()).join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        match path.extension().is_some_and(|extension| extension == "lanes") {
            true => {
                let packed = zstd::encode_all(&bytes[..], 19).unwrap();
                std::fs::write(format!("{}.zst", target.display()), packed).unwrap();
            }
            false => std::fs::write(target, bytes).unwrap(),
        }
    }
    let rows = rows(&store, &run_id);
    assert!(rows.len() > 10, "{rows:#?}");
    let rows = rows.join("\n") + "\n";
    match rows.len() {
        0..1_000_000 => std::fs::write(fixture.join("rows.jsonl"), rows).unwrap(),
        _ => {
            let packed = zstd::encode_all(rows.as_bytes(), 19).unwrap();
            std::fs::write(fixture.join("rows.jsonl.zst"), packed).unwrap();
        }
    }
}

/// Makes the run in `store` as its process leaves it.
fn record(case: &str, folder: &Path, store: &Store) -> RunId {
    // No facts of the checkout go into the fixtures.
    std::env::set_current_dir(std::env::temp_dir()).unwrap();
    let settings = RecordSettings {
        sync: if case == "durable" { SyncPolicy::Batch } else { SyncPolicy::Never },
        // One file, which does not grow.
        journal_bytes_max: if case == "columns" { 8 << 20 } else { 512 << 10 },
        ..RecordSettings::default()
    };
    let limits = JournalLimits { first_file_bytes: 512 << 10, ..JournalLimits::default() };
    let recorder = RecorderBuilder::new("fixture", "svc")
        .record_settings(settings)
        .journal_limits(limits)
        .start(store)
        .unwrap();
    let run_id = recorder.run_id().clone();
    let living = tempfile::tempdir().unwrap();
    tracing::subscriber::with_default(recorder.subscriber(), || {
        let _outer = tracing::info_span!("outer", batch = 7u64).entered();
        if case == "columns" {
            (0..5_000).for_each(frequent);
        }
        work(&recorder);
        if case != "durable" {
            recorder.seal().unwrap();
        }
        let _inner = tracing::info_span!("inner", ratio = 0.25, is_last = true).entered();
        work(&recorder);
        if case == "durable" {
            recorder.flush().unwrap();
        }
        for (path, bytes) in files(folder) {
            let target = living.path().join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, bytes).unwrap();
        }
    });
    assert_eq!(recorder.finish(RunStatus::Finished).unsealed, None);
    if !["finished", "columns"].contains(&case) {
        // What the process had left, had it been killed after the flush.
        std::fs::remove_dir_all(store.run_dir(&run_id)).unwrap();
        unpack(living.path(), folder);
    }
    let run = store.run_dir(&run_id);
    let without_host = |manifest: &mut Manifest| {
        manifest.facts.host = HostFacts::default();
        manifest.facts.git_sha = None;
        manifest.facts.git_branch = None;
    };
    store.update_manifest(&run_id, without_host).unwrap();
    std::fs::remove_file(run.join("writer.lock")).unwrap();
    for (path, _) in files(&run) {
        if case == "durable" && path.extension().is_some_and(|extension| extension == "lanes") {
            std::fs::remove_file(run.join(path)).unwrap();
        }
    }
    run_id
}

/// A span with attributes of every type, of which some have columns if there are many such spans.
fn frequent(n: i64) {
    let span = tracing::info_span!(
        "frequent",
        tenant = format!("tenant-{}", n % 7),
        size = n * n,
        ratio = (n % 50) as f64 / 64.0,
        ok = n % 3 == 0,
        "odd key \"\u{e9}\"" = n % 2,
        list = ?[n % 4],
        mixed = tracing::field::Empty,
    );
    match n % 5 {
        0 => span.record("mixed", "text"),
        _ => span.record("mixed", n % 11),
    };
    // Every tenth has a child.
    let _child = (n % 10 == 0).then(|| span.in_scope(|| tracing::info_span!("child")));
}

/// A little of everything that has a table or a kind of record of its own.
fn work(recorder: &Recorder) {
    let dispatcher = recorder.dispatcher();
    {
        let call = tracing::info_span!(
            "chat",
            gen_ai.request.model = "m",
            gen_ai.usage.input_tokens = 12u64,
            late = tracing::field::Empty,
        );
        let _entered = call.enter();
        call.record("late", -3i64);
        for index in 0..3u32 {
            tracing::info!(target: "retake::token", index, count = 2u32);
        }
        tracing::error!(error = "no answer", "failed");
    }
    tracing::warn!(text = "\u{e9}\u{1f980}\n\"quoted\"", "outside");
    let span = SpanKey { trace_id: TraceId::generate(), span_id: dispatcher.new_span_id() };
    dispatcher.emit(&EventBody::SpanOpened(Box::new(SpanOpened {
        span,
        parent: None,
        name: "explicit".to_owned(),
        target: "app".to_owned(),
        level: retake_schemas::event::Level::Debug,
        source_file: Some("main.rs".to_owned()),
        source_line: Some(7),
        thread: None,
        attributes: vec![("retake.stage".into(), "retrieve".into())],
    })));
    dispatcher.emit(&EventBody::Retrieved(Retrieved {
        span,
        role: DocumentRole::Retrieved,
        documents: vec![RetrievedDocument {
            rank: 1,
            id: "doc-1".to_owned(),
            score: Some(0.75),
            source: Some("a.md".to_owned()),
            start_char: Some(0),
            end_char: Some(10),
            content: Some(Digest::of(b"text")),
        }],
    }));
    dispatcher.emit(&EventBody::Payload(Payload {
        digest: Digest::of(b"text"),
        bytes: 4,
        media_type: "text/plain".to_owned(),
        content: None,
        truncated: false,
    }));
    dispatcher.emit(&EventBody::Measured(Measured {
        name: "process.memory.usage".to_owned(),
        unit: "By".to_owned(),
        value: 4096.0,
        attributes: Vec::new(),
    }));
    let (status, message) = (Status::Error, Some("gone".to_owned()));
    dispatcher.emit(&EventBody::SpanClosed(SpanClosed { span, busy_ns: Some(5), status, message }));
}
