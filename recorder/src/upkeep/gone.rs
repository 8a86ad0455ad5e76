//! Removing folders so that a crash half way leaves no half run behind.

use std::io;
use std::path::Path;

use retake_schemas::RunId;

use crate::store::{RunLock, Store, StoreError, sync_dir};

/// Removes a run that nobody is recording: its folder loses its name first, so it is there as a
/// whole or not at all.
///
/// # Errors
/// There is no such run, it is being recorded, or its folder cannot be moved or removed.
pub fn remove_run(store: &Store, run_id: &RunId) -> Result<(), StoreError> {
    let folder = store.run_dir(run_id);
    if !is_real_folder(&folder) {
        return Err(StoreError::NoRun(run_id.clone()));
    }
    let _lock = RunLock::take(&folder, run_id)?;
    let gone = format!("{GONE_PREFIX}{run_id}");
    remove_folder(store, &folder, &gone).map_err(StoreError::io("remove run", &folder))?;
    // Groups there may be named after users of the run that goes. What was kept of other runs is
    // computed again.
    let history = store.history_dir();
    if is_real_folder(&history) {
        remove_tree(&history).map_err(StoreError::io("remove", &history))?;
    }
    Ok(())
}

/// Moves `folder` aside as `gone` among the runs, and removes it there.
pub(super) fn remove_folder(store: &Store, folder: &Path, gone: &str) -> io::Result<()> {
    let runs = store.runs_dir();
    let gone = runs.join(gone);
    remove_tree(&gone)?;
    std::fs::rename(folder, &gone)?;
    sync_dir(&runs)?;
    remove_tree(&gone)
}

/// Removes a folder and everything in it; links in it are removed, never followed.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        // Another process removes the same leftovers.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether this is a folder and not a link to one, which could lead out of the store.
pub(super) fn is_real_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir())
}

/// Bytes of all files below a folder; links count as nothing, wherever they lead.
pub(super) fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += bytes_below(&entry.path())?;
        } else if kind.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Begins the name of a folder that is being removed. Not the start of any run id.
pub(super) const GONE_PREFIX: &str = ".gone-";
