//! Compactions of real runs, whole and cut short.

use retake_schemas::tables::{EventRow, PayloadRow, SpanRow};

use super::*;
use crate::reader::RunReader;
use crate::upkeep::testing::{ROWS_PER_PART, finished_run, store};
use crate::upkeep::{Swept, sweep};

/// Every row of the tables a test run has, in order.
fn rows(store: &Store, run_id: &RunId) -> (Vec<SpanRow>, Vec<EventRow>, Vec<PayloadRow>) {
    let reader = RunReader::open(store, run_id).unwrap();
    (reader.rows().unwrap(), reader.rows().unwrap(), reader.rows().unwrap())
}

fn files(store: &Store, run_id: &RunId) -> Vec<String> {
    let entries = std::fs::read_dir(store.run_dir(run_id)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "writer.lock");
    names.sort();
    names
}

/// Scenario: a run of five seals is compacted, twice.
/// Guarantees: J4 - every row is there once, in its order, with its content; each table has one
/// file; the second time there is nothing to do.
#[test]
fn a_compacted_run_reads_as_before() {
    let (_folder, store) = store();
    let run_id = finished_run(&store, "a", 5);
    let before = rows(&store, &run_id);
    assert_eq!(before.0.len(), 5 * ROWS_PER_PART);
    let revision = store.manifest(&run_id).unwrap().revision;
    let mut heard = Vec::new();
    let merged = compact(&store, &run_id, &mut |progress| heard.push(progress)).unwrap();
    assert_eq!(merged.len(), 3, "{merged:?}");
    assert!(merged.iter().all(|m| m.files_before == 5 && m.rows == 200), "{merged:?}");
    assert!(merged.iter().all(|m| m.bytes_after < m.bytes_before), "{merged:?}");
    assert_eq!(heard.last(), Some(&CompactProgress { rows_done: 600, rows_total: 600 }));

    assert_eq!(rows(&store, &run_id), before);
    let manifest = store.manifest(&run_id).unwrap();
    assert_eq!(manifest.revision, revision + 1);
    assert_eq!(manifest.segments.len(), 3);
    let report = store.verify(&run_id).unwrap();
    assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
    assert_eq!(
        files(&store, &run_id),
        [
            "events-000006.parquet",
            "manifest.json",
            "payloads-000006.parquet",
            "spans-000006.parquet"
        ]
    );
    assert_eq!(compact(&store, &run_id, &mut |_| {}).unwrap(), []);
    assert_eq!(store.manifest(&run_id).unwrap(), manifest);
}

/// Scenario: a compacted file is looked at from outside.
/// Guarantees: encodings, bloom filters and the version of the tables are those of the seal.
#[test]
fn a_merged_file_keeps_what_the_seal_chose() {
    use parquet::basic::Encoding;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let (_folder, store) = store();
    let run_id = finished_run(&store, "a", 2);
    let facts = |store: &Store| {
        let manifest = store.manifest(&run_id).unwrap();
        let spans = manifest.segments.iter().find(|s| s.table == TableName::Spans).unwrap();
        let file = std::fs::File::open(store.run_dir(&run_id).join(&spans.file)).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let metadata = reader.metadata();
        let column = |name: &str| {
            let columns = metadata.row_group(0).columns();
            columns.iter().find(|c| c.column_path().string() == name).unwrap().clone()
        };
        let version = metadata.file_metadata().key_value_metadata().unwrap().clone();
        let version = version.into_iter().find(|fact| fact.key == "retake.tables").unwrap();
        let splits = column("start_unix_ns").encodings().any(|e| e == Encoding::BYTE_STREAM_SPLIT);
        (splits, column("trace_id").bloom_filter_offset().is_some(), version.value)
    };
    let before = facts(&store);
    assert!(before.0 && before.1, "the seal splits times by byte and makes a bloom filter");
    compact(&store, &run_id, &mut |_| {}).unwrap();
    assert_eq!(facts(&store), before);
}

/// Scenario: two seals with enough spans that attributes have columns, of other names and other
/// types in the second; the live run is read before each seal.
/// Guarantees: J4 - every attribute is read as it was while the run was live, sealed, and merged.
#[test]
fn attributes_of_different_seals_are_read_as_before() {
    let (_folder, store) = store();
    let recorder = crate::RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let read = || -> Vec<SpanRow> {
        let mut rows: Vec<SpanRow> = RunReader::open(&store, &run_id).unwrap().rows().unwrap();
        rows.sort_by(|a, b| (a.start_unix_ns, &a.span_id).cmp(&(b.start_unix_ns, &b.span_id)));
        rows
    };
    let mut live = Vec::new();
    for part in 0..2_u64 {
        tracing::subscriber::with_default(recorder.subscriber(), || {
            for n in 0..1100_u64 {
                let second = part == 1;
                let _ = match second {
                    false => tracing::info_span!("a", z = n, same = n, mixed = n % 7, ok = true),
                    true => tracing::info_span!("b", mixed = "text", same = n, list = ?[n]),
                };
            }
        });
        recorder.flush().unwrap();
        live = read();
        recorder.seal().unwrap();
        assert_eq!(read(), live, "part {part}");
    }
    assert!(live.iter().all(|row| row.attributes.is_some()));
    assert_eq!(live[0].attributes.as_deref(), Some(r#"{"mixed":0,"ok":true,"same":0,"z":0}"#));
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    compact(&store, &run_id, &mut |_| {}).unwrap();
    let manifest = store.manifest(&run_id).unwrap();
    let spans: Vec<_> = manifest.segments.iter().filter(|s| s.table == TableName::Spans).collect();
    assert_eq!(spans.len(), 1);
    let file = std::fs::File::open(store.run_dir(&run_id).join(&spans[0].file)).unwrap();
    let footer =
        parquet::arrow::arrow_reader::ArrowReaderMetadata::load(&file, Default::default()).unwrap();
    for column in ["attributes.same", "attributes.mixed", "attributes.ok"] {
        assert!(footer.schema().field_with_name(column).is_ok(), "{column}");
    }
    assert_eq!(read(), live);
}

/// Scenario: the process dies after each step of a compaction.
/// Guarantees: J3, J4 - the run reads the same before and after the next sweep, which leaves
/// exactly what the manifest names, and a later compaction comes to its end.
#[test]
fn a_compaction_cut_short_leaves_a_readable_run() {
    for step in 0..4 {
        let (_folder, store) = store();
        let run_id = finished_run(&store, "a", 3);
        let before = rows(&store, &run_id);
        let compaction = Compaction::prepare(&store, &run_id, SEGMENT_BYTES_MAX).unwrap().unwrap();
        compaction.announce().unwrap();
        if step > 0 {
            std::fs::write(compaction.folder.join("spans-000004.parquet.tmp"), "torn").unwrap();
        }
        if step > 1 {
            let merged = compaction.write(&mut |_| {}).unwrap();
            if step > 2 {
                compaction.commit(&merged).unwrap();
                std::fs::remove_file(compaction.folder.join("events-000002.parquet")).unwrap();
            }
        }
        assert_eq!(sweep(&store).unwrap(), Swept::default(), "it is still at work");
        drop(compaction);

        assert_eq!(rows(&store, &run_id), before, "step {step}");
        assert_eq!(sweep(&store).unwrap().settled, std::slice::from_ref(&run_id));
        assert_eq!(rows(&store, &run_id), before, "step {step}");
        let mut named: Vec<_> =
            store.manifest(&run_id).unwrap().segments.into_iter().map(|s| s.file).collect();
        named.push("manifest.json".to_owned());
        named.sort();
        assert_eq!(files(&store, &run_id), named, "step {step}");
        assert_eq!(sweep(&store).unwrap(), Swept::default());
        compact(&store, &run_id, &mut |_| {}).unwrap();
        assert_eq!(rows(&store, &run_id), before, "step {step}");
        assert_eq!(store.manifest(&run_id).unwrap().segments.len(), 3);
    }
}

/// Scenario: the limit allows two of four segments in a file.
/// Guarantees: files stay within it, and the order of the rows stays.
#[test]
fn the_size_limit_makes_several_files() {
    let (_folder, store) = store();
    let run_id = finished_run(&store, "a", 4);
    let before = rows(&store, &run_id);
    let largest = store.manifest(&run_id).unwrap().segments.iter().map(|s| s.bytes).max().unwrap();
    let compaction = Compaction::prepare(&store, &run_id, largest * 2).unwrap().unwrap();
    compaction.announce().unwrap();
    let merged = compaction.write(&mut |_| {}).unwrap();
    compaction.commit(&merged).unwrap();
    compaction.clean().unwrap();
    drop(compaction);
    assert_eq!(rows(&store, &run_id), before);
    let manifest = store.manifest(&run_id).unwrap();
    let spans: Vec<_> = manifest.segments.iter().filter(|s| s.table == TableName::Spans).collect();
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(store.verify(&run_id).unwrap().is_sound());
}

/// Scenario: one segment of a run has a flipped byte; another run is being recorded.
/// Guarantees: J5, J11 - neither is compacted, and both are as they were.
#[test]
fn damaged_and_live_runs_are_refused() {
    let (_folder, store) = store();
    let run_id = finished_run(&store, "a", 2);
    let path = store.run_dir(&run_id).join("events-000002.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let there = files(&store, &run_id);
    let error = compact(&store, &run_id, &mut |_| {}).unwrap_err();
    assert!(
        matches!(&error, CompactError::Damaged { file, .. } if file == "events-000002.parquet")
    );
    assert_eq!(files(&store, &run_id), there);

    let recorder = crate::RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let error = compact(&store, recorder.run_id(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, CompactError::Store(StoreError::Busy(_))), "{error}");
    let error = compact(&store, &"none".parse().unwrap(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, CompactError::Store(StoreError::NoRun(_))), "{error}");
}
