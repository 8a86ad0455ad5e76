//! Finishing what a crash left half done: removals, compactions, and pulls nobody came back to.

use std::path::Path;
use std::time::Duration;

use retake_schemas::RunId;

use super::compact::settle;
use super::gone::{GONE_PREFIX, remove_tree};
use crate::store::{RunLock, Store, StoreError};

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Folders of removals and pulls that had been cut short; they are gone now.
    pub removed: Vec<String>,
    /// Runs whose compaction had been cut short; only what their manifest names is left.
    pub settled: Vec<RunId>,
    /// What could not be finished, and why.
    pub failed: Vec<String>,
}

/// Finishes removals and compactions that were cut short. Doing it twice changes nothing more.
///
/// # Errors
/// The store cannot be listed.
pub fn sweep(store: &Store) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    let runs = store.runs_dir();
    let entries = std::fs::read_dir(&runs).map_err(StoreError::io("list runs in", &runs))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && (name.starts_with(GONE_PREFIX) || is_forgotten_pull(&entry.path(), &name)) {
            match remove_tree(&entry.path()) {
                Ok(()) => swept.removed.push(name),
                Err(error) => swept.failed.push(format!("remove {name}: {error}")),
            }
        }
    }
    for run_id in store.run_ids()? {
        match settle(store, &run_id) {
            Ok(true) => swept.settled.push(run_id),
            Ok(false) => {}
            Err(error) => swept.failed.push(error.to_string()),
        }
    }
    swept.removed.sort();
    Ok(swept)
}

/// A pull goes on where it stopped, so its folder stays for a while.
fn is_forgotten_pull(folder: &Path, name: &str) -> bool {
    let modified = std::fs::symlink_metadata(folder).and_then(|facts| facts.modified());
    let age = modified.ok().and_then(|time| time.elapsed().ok());
    name.starts_with(PULL_PREFIX)
        && age.is_some_and(|age| age > PULL_AGE_MAX)
        && !RunLock::is_held(folder)
}

/// Begins the name of a folder into which a run is being pulled. Not the start of any run id.
pub(crate) const PULL_PREFIX: &str = ".pull-";
/// Who has not come back to a pull after a day starts it anew.
const PULL_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::remove_run;
    use crate::upkeep::testing::{finished_run, store};

    /// Scenario: the process dies after a run lost its name and before its files were removed.
    /// Guarantees: J3 - the run is gone as a whole, and the next sweep frees its space.
    #[test]
    fn a_removal_cut_short_is_finished_by_the_next_sweep() {
        let (_folder, store) = store();
        let run_id = finished_run(&store, "a", 1);
        let gone = store.runs_dir().join(format!("{GONE_PREFIX}{run_id}"));
        std::fs::rename(store.run_dir(&run_id), &gone).unwrap();
        assert!(store.run_ids().unwrap().is_empty());
        let swept = sweep(&store).unwrap();
        assert_eq!(swept.removed, [format!("{GONE_PREFIX}{run_id}")]);
        assert!(!gone.exists());
        assert_eq!(sweep(&store).unwrap(), Swept::default());
    }

    /// Scenario: a folder of the store is a link to a folder elsewhere.
    /// Guarantees: nothing outside the store is ever removed.
    #[test]
    fn links_are_never_followed_out_of_the_store() {
        let (_folder, store) = store();
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        std::fs::write(&precious, "x").unwrap();
        let runs = store.runs_dir();
        for name in [".gone-a", "linked", ".pull-b"] {
            std::os::unix::fs::symlink(outside.path(), runs.join(name)).unwrap();
        }
        let run_id = finished_run(&store, "a", 1);
        std::os::unix::fs::symlink(outside.path(), store.run_dir(&run_id).join("quarantine"))
            .unwrap();
        assert_eq!(sweep(&store).unwrap(), Swept::default());
        let linked = remove_run(&store, &"linked".parse().unwrap());
        assert!(matches!(linked, Err(StoreError::NoRun(_))), "{linked:?}");
        remove_run(&store, &run_id).unwrap();
        assert!(precious.exists());
    }

    /// Scenario: somebody removes a run that is being recorded.
    /// Guarantees: J11 - it is refused, and the run goes on.
    #[test]
    fn a_run_being_recorded_is_not_removed() {
        let (_folder, store) = store();
        let recorder = crate::RecorderBuilder::new("t", "svc").start(&store).unwrap();
        let refused = remove_run(&store, recorder.run_id());
        assert!(matches!(refused, Err(StoreError::Busy(_))), "{refused:?}");
        assert!(store.run_dir(recorder.run_id()).is_dir());
    }
}
