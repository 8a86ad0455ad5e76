//! Looking at a store before anything is decided.

use std::collections::BTreeMap;

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;

use crate::store::{RunEntry, Store, StoreError};
use crate::upkeep::gone::bytes_below;

/// A run as a garbage collection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// The run.
    pub run_id: RunId,
    /// Its name; empty when the manifest cannot be read, like all facts.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it began, nanoseconds since the Unix epoch.
    pub started_unix_ns: i64,
    /// Time of its last event, nanoseconds since the Unix epoch.
    pub ended_unix_ns: i64,
    /// Size of its folder, bytes.
    pub bytes: u64,
    /// The run it replays.
    pub replay_of: Option<RunId>,
    /// How it stands.
    pub state: RunState,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It has ended.
    Closed,
    /// A process holds its lock.
    Recording,
    /// Its process died and nobody has repaired it yet.
    Unfinished,
    /// Its manifest cannot be read, so nothing is known of its age or name.
    Unreadable,
}

/// All runs of a store, oldest first.
///
/// # Errors
/// The store or the folder of a run cannot be listed.
pub fn survey(store: &Store) -> Result<Vec<StoredRun>, StoreError> {
    store.runs()?.into_iter().filter_map(|entry| stored_run(store, entry).transpose()).collect()
}

/// `None` when the run was removed while we looked.
fn stored_run(store: &Store, entry: RunEntry) -> Result<Option<StoredRun>, StoreError> {
    let RunEntry { run_id, manifest } = entry;
    let folder = store.run_dir(&run_id);
    let bytes = match bytes_below(&folder) {
        Ok(bytes) => bytes,
        // A live run seals, and its journal files go while they are counted.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.is_dir() => {
            return Ok(None);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(StoreError::io("measure run", &folder)(error)),
    };
    let is_live = store.is_live(&run_id);
    let Ok(manifest) = manifest else {
        let state = if is_live { RunState::Recording } else { RunState::Unreadable };
        return Ok(Some(StoredRun {
            run_id,
            name: String::new(),
            service: String::new(),
            labels: BTreeMap::new(),
            started_unix_ns: i64::MIN,
            ended_unix_ns: i64::MIN,
            bytes,
            replay_of: None,
            state,
        }));
    };
    let state = match manifest.status {
        _ if is_live => RunState::Recording,
        RunStatus::Recording => RunState::Unfinished,
        _ => RunState::Closed,
    };
    Ok(Some(StoredRun {
        run_id,
        name: manifest.facts.name,
        service: manifest.facts.service,
        labels: manifest.facts.labels,
        started_unix_ns: manifest.facts.started_unix_ns,
        ended_unix_ns: manifest.last_unix_ns,
        bytes,
        replay_of: manifest.facts.replay_of,
        state,
    }))
}
