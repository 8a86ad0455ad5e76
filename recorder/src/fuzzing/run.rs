//! A run's folder with files of arbitrary bytes: opened, verified, recovered, recovered again.

use std::path::Path;

use retake_schemas::event::{RunFacts, RunStatus};
use retake_schemas::manifest::{FileEntry, Manifest, Segment};
use retake_schemas::tables::{EventRow, SpanRow, TableName};
use retake_schemas::{Digest, RunId};

use super::input::Input;
use super::{fix_frames, fix_header};
use crate::reader::{JOURNAL_DIR, RunReader};
use crate::store::{Store, write_manifest};

/// Makes the run below `root`, which must be empty, and repairs it.
pub fn run_folder(root: &Path, bytes: &[u8]) {
    let store = Store::create(root).expect("make a store");
    let run_id: RunId = "20260101t000000-abcd".parse().expect("a run id");
    let folder = store.run_dir(&run_id);
    std::fs::create_dir_all(folder.join(JOURNAL_DIR)).expect("make a run");
    let mut input = Input::new(bytes);
    let mut manifest = manifest(&run_id, &mut input);
    while !input.is_empty() {
        add_file(&folder, &mut manifest, &mut input);
    }
    if write_manifest(&folder, &manifest).is_err() {
        return;
    }
    let _ = store.verify(&run_id);
    read(&store, &run_id);
    let repaired = store.recover().expect("the store can be listed").repaired;
    let _ = store.verify(&run_id);
    read(&store, &run_id);
    let again = store.recover().expect("the store can be listed").repaired;
    assert!(repaired.is_empty() || again.is_empty(), "{repaired:?}, then {again:?}");
    let strangers: Vec<_> = std::fs::read_dir(root)
        .expect("list the store")
        .flatten()
        .filter(|entry| entry.file_name() != "runs")
        .collect();
    assert!(strangers.is_empty(), "made outside the runs: {strangers:?}");
}

fn read(store: &Store, run_id: &RunId) {
    let Ok(reader) = RunReader::open(store, run_id) else { return };
    let _ = reader.rows::<SpanRow>();
    let _ = reader.rows::<EventRow>();
    let _ = reader.run_row();
}

/// A manifest of facts by choice, without files.
pub(super) fn manifest(run_id: &RunId, input: &mut Input<'_>) -> Manifest {
    let facts = RunFacts { started_unix_ns: input.signed(), ..RunFacts::default() };
    let mut manifest = Manifest::new(run_id.clone(), facts);
    manifest.status = if input.below(4) == 0 { RunStatus::Finished } else { RunStatus::Recording };
    manifest.last_unix_ns = input.signed();
    manifest.sealed_below = input.number();
    for _ in 0..input.below(3) {
        manifest.lanes.insert(input.number() as u32, input.number());
    }
    manifest.accounting.spans_opened = input.number();
    manifest.accounting.spans_closed = input.number();
    manifest.accounting.offered = input.number();
    for _ in 0..input.below(3) {
        manifest.accounting.dropped.insert(input.text(), input.number());
    }
    manifest
}

fn add_file(folder: &Path, manifest: &mut Manifest, input: &mut Input<'_>) {
    let kind = input.below(6);
    let is_fixed = input.flag();
    let len = input.place(1 << 14);
    let mut file = input.take(len).to_vec();
    match kind {
        0..2 => {
            if is_fixed {
                fix_header(&mut file);
            }
            put(&folder.join(JOURNAL_DIR), "ring-0000.lanes", &file);
        }
        2..4 => {
            if is_fixed {
                fix_header(&mut file);
                fix_frames(&mut file, 64);
            }
            put(&folder.join(JOURNAL_DIR), "durable-000000.journal", &file);
        }
        4 => {
            let mut carry = b"RETAKEC\0".to_vec();
            fix_frames(&mut file, 0);
            carry.extend(file);
            put(folder, "carry-000001.bin", &carry);
            let name = if is_fixed { "carry-000001.bin".to_owned() } else { input.text() };
            let (bytes, blake3) = (carry.len() as u64, Digest::of(&carry));
            manifest.carry = Some(FileEntry { file: name, bytes, blake3 });
        }
        _ => {
            put(folder, "events-000001.parquet", &file);
            manifest.segments.push(Segment {
                table: TableName::Events,
                file: if is_fixed { "events-000001.parquet".to_owned() } else { input.text() },
                bytes: file.len() as u64,
                blake3: Digest::of(&file),
                rows: input.number(),
                min_unix_ns: input.signed(),
                max_unix_ns: input.signed(),
            });
        }
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).expect("write a file of the run");
}
