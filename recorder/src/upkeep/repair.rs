//! Recovery on request: what became of each run, also of those with nothing to repair.

use retake_schemas::RunId;

use crate::recover::{RecoveryReport, recover_run};
use crate::store::{Store, StoreError};

/// What recovery found and did.
#[derive(Debug)]
pub enum Repair {
    /// Its process had died; it was repaired.
    Repaired(RecoveryReport),
    /// There was nothing to repair.
    Clean,
    /// A process holds its lock; it was left alone.
    Recording,
    /// It held nothing: its process died while making it. It is gone.
    Removed,
    /// It could not be repaired.
    Failed(StoreError),
}

/// Repairs runs whose process died, one after the other; one that cannot be repaired holds up no
/// other.
///
/// # Errors
/// A run is not there.
pub fn repair(store: &Store, runs: &[RunId]) -> Result<Vec<(RunId, Repair)>, StoreError> {
    let one = |run_id: &RunId| {
        if !store.run_dir(run_id).is_dir() {
            return Err(StoreError::NoRun(run_id.clone()));
        }
        let repair = match recover_run(store, run_id) {
            Ok(Some(report)) => Repair::Repaired(report),
            Err(error) => Repair::Failed(error),
            Ok(None) if !store.run_dir(run_id).is_dir() => Repair::Removed,
            Ok(None) if store.is_live(run_id) => Repair::Recording,
            Ok(None) => Repair::Clean,
        };
        Ok((run_id.clone(), repair))
    };
    runs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecorderBuilder;
    use crate::upkeep::testing::{finished_run, store};

    /// Scenario: a finished run, a live one, one without a manifest but with data, and one of a
    /// dead process (a copy of the live one, whose lock nobody holds).
    /// Guarantees: J3 - each gets its own answer, the dead one is repaired, and the second time
    /// there is nothing left to repair.
    #[test]
    fn every_run_gets_its_own_answer() {
        let (_folder, store) = store();
        let finished = finished_run(&store, "a", 1);
        let torn = finished_run(&store, "b", 1);
        std::fs::remove_file(store.run_dir(&torn).join("manifest.json")).unwrap();
        let recorder = RecorderBuilder::new("live", "svc").start(&store).unwrap();
        let live = recorder.run_id().clone();
        let (_other, other) = crate::upkeep::testing::store();
        copy(&store.run_dir(&live), &other.run_dir(&live));

        let answers = repair(&store, &[finished, torn, live.clone()]).unwrap();
        let kinds: Vec<_> = answers.iter().map(|(_, answer)| kind(answer)).collect();
        assert_eq!(kinds, ["clean", "failed", "recording"]);
        for expected in ["repaired", "clean"] {
            let answers = repair(&other, std::slice::from_ref(&live)).unwrap();
            assert_eq!(kind(&answers[0].1), expected);
        }
        let nobody = repair(&store, &["nobody".parse().unwrap()]);
        assert!(matches!(nobody, Err(StoreError::NoRun(_))));
    }

    fn kind(repair: &Repair) -> &'static str {
        match repair {
            Repair::Repaired(_) => "repaired",
            Repair::Clean => "clean",
            Repair::Recording => "recording",
            Repair::Removed => "removed",
            Repair::Failed(_) => "failed",
        }
    }

    fn copy(from: &std::path::Path, to: &std::path::Path) {
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
}
