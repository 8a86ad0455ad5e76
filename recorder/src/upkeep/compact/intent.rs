//! The note a compaction leaves while it works, so that a crash cannot leave files of unknown
//! origin: everything it lists and the manifest does not name may go, and nothing else.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use retake_schemas::RunId;
use retake_schemas::tables::TableName;
use serde::{Deserialize, Serialize};

use crate::store::write_file_synced;
use crate::store::{ManifestError, RunLock, Store, StoreError, read_manifest, sync_dir};

/// What a compaction is about to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Files to come.
    pub(super) new: Vec<String>,
    /// Files to go.
    pub(super) old: Vec<String>,
}

impl Intent {
    pub(super) fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(INTENT_FILE);
        let write = || write_file_synced(&path, &serde_json::to_vec_pretty(self)?);
        write().map_err(StoreError::io("write", &path))
    }
}

/// Removes what a compaction that was cut short left behind. Returns whether there was one. A run
/// that somebody writes to is left alone: it may be the compaction itself.
///
/// # Errors
/// The manifest or the intent cannot be read, or a file cannot be removed.
pub(crate) fn settle(store: &Store, run_id: &RunId) -> Result<bool, StoreError> {
    let folder = store.run_dir(run_id);
    if !folder.join(INTENT_FILE).is_file() {
        return Ok(false);
    }
    let lock = RunLock::try_take(&folder).map_err(StoreError::io("lock run", &folder))?;
    let Some(_lock) = lock else { return Ok(false) };
    finish(&folder).map(|()| true)
}

/// Removes the files of an intent that the manifest does not name, and the intent last.
pub(super) fn finish(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(INTENT_FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    let damaged = |reason: String| ManifestError::Damaged { path: path.clone(), reason };
    let intent: Intent = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let manifest = read_manifest(folder)?;
    let named: HashSet<&str> = manifest.segments.iter().map(|s| s.file.as_str()).collect();
    for file in intent.new.iter().chain(&intent.old) {
        if !is_segment_name(file) {
            return Err(damaged(format!("{file:?} is no segment")).into());
        }
        if !named.contains(file.as_str()) {
            remove(&folder.join(file))?;
            remove(&folder.join(format!("{file}.tmp")))?;
        }
    }
    sync_dir(folder).map_err(StoreError::io("sync run", folder))?;
    remove(&path)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::io("remove", path)),
    }
}

/// An intent that names anything else, or another folder, was not written by us.
fn is_segment_name(file: &str) -> bool {
    let number = TableName::SEALED
        .iter()
        .find_map(|table| file.strip_prefix(table.as_str())?.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(".parquet"));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Name of the note, inside the run's folder.
const INTENT_FILE: &str = "compacting.json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::testing::{finished_run, store};

    #[test]
    fn only_segments_are_segment_names() {
        for good in ["spans-000001.parquet", "tokens-1.parquet"] {
            assert!(is_segment_name(good), "{good}");
        }
        for bad in [
            "manifest.json",
            "spans-.parquet",
            "spans-1/../../x.parquet",
            "../spans-1.parquet",
            "spans-1.parquet.tmp",
            "carry-000001.bin",
            "",
        ] {
            assert!(!is_segment_name(bad), "{bad}");
        }
    }

    /// Scenario: somebody plants a note that lists a file outside the run, or is no note at all.
    /// Guarantees: nothing is removed, and the message names the note.
    #[test]
    fn a_planted_intent_removes_nothing() {
        let (_folder, store) = store();
        let run_id = finished_run(&store, "a", 1);
        let folder = store.run_dir(&run_id);
        let precious = store.root().join("precious");
        std::fs::write(&precious, "x").unwrap();
        for text in [r#"{"new":[],"old":["../../precious"]}"#, "{torn"] {
            std::fs::write(folder.join(INTENT_FILE), text).unwrap();
            let error = settle(&store, &run_id).unwrap_err().to_string();
            assert!(error.contains(INTENT_FILE), "{error}");
        }
        assert!(precious.exists());
        assert!(store.verify(&run_id).unwrap().is_sound());
    }
}
