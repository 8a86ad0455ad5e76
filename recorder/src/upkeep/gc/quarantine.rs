//! Emptying quarantine: what recovery moved aside and nobody has looked at for long enough.

use std::time::{Duration, SystemTime};

use retake_schemas::RunId;

use crate::store::{RunLock, Store, StoreError};
use crate::upkeep::gone::{GONE_PREFIX, bytes_below, is_real_folder, remove_folder};

/// A run's quarantine folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// The run.
    pub run_id: RunId,
    /// Bytes in it.
    pub bytes: u64,
    /// How long ago a file was last moved into it.
    pub age: Duration,
}

/// The quarantine folders into which nothing was moved for longer than `older_than`.
///
/// # Errors
/// The store or a folder cannot be listed.
pub fn old_quarantines(
    store: &Store,
    older_than: Duration,
    now: SystemTime,
) -> Result<Vec<Quarantine>, StoreError> {
    let mut old = Vec::new();
    for run_id in store.run_ids()? {
        let folder = store.run_dir(&run_id).join(QUARANTINE_DIR);
        if !is_real_folder(&folder) {
            continue;
        }
        let measure = || -> std::io::Result<(u64, SystemTime)> {
            // Moving a file into a folder changes the folder's time, not the file's.
            Ok((bytes_below(&folder)?, std::fs::symlink_metadata(&folder)?.modified()?))
        };
        let (bytes, modified) = measure().map_err(StoreError::io("measure", &folder))?;
        let age = now.duration_since(modified).unwrap_or_default();
        if age > older_than {
            old.push(Quarantine { run_id, bytes, age });
        }
    }
    Ok(old)
}

/// Removes a run's quarantine folder.
///
/// # Errors
/// The run is being written to, or the folder cannot be moved or removed.
pub fn remove_quarantine(store: &Store, run_id: &RunId) -> Result<(), StoreError> {
    let run = store.run_dir(run_id);
    let folder = run.join(QUARANTINE_DIR);
    if !is_real_folder(&folder) {
        return Ok(());
    }
    let _lock = RunLock::take(&run, run_id)?;
    // A run id cannot hold a dot, so this is no run's own name.
    let gone = format!("{GONE_PREFIX}{run_id}.{QUARANTINE_DIR}");
    remove_folder(store, &folder, &gone).map_err(StoreError::io("remove", &folder))
}

/// Folder of what recovery moved aside, inside the run's folder.
const QUARANTINE_DIR: &str = "quarantine";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::testing::{finished_run, store};

    /// Scenario: a run has a quarantine folder of today; somebody empties those of last month.
    /// Guarantees: it stays until it is old enough, and the run itself always does.
    #[test]
    fn only_old_quarantines_go_and_their_runs_stay() {
        let (_folder, store) = store();
        let run_id = finished_run(&store, "a", 1);
        finished_run(&store, "b", 1);
        let folder = store.run_dir(&run_id).join(QUARANTINE_DIR);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("spans-000001.parquet"), "12345").unwrap();
        let month = Duration::from_secs(30 * 86_400);
        let now = SystemTime::now();
        assert_eq!(old_quarantines(&store, month, now).unwrap(), []);
        let old = old_quarantines(&store, month, now + month + month).unwrap();
        assert_eq!(old.iter().map(|q| (&q.run_id, q.bytes)).collect::<Vec<_>>(), [(&run_id, 5)]);
        remove_quarantine(&store, &run_id).unwrap();
        remove_quarantine(&store, &run_id).unwrap();
        assert!(!folder.exists());
        assert!(store.verify(&run_id).unwrap().is_sound());
    }
}
