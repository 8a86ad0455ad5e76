//! Removing what a plan says, run by run.

use retake_schemas::RunId;

use super::Decision;
use crate::store::{Store, StoreError};
use crate::upkeep::remove_run;

/// What became of a run that was to go.
#[derive(Debug)]
pub struct Removal {
    /// The run.
    pub run_id: RunId,
    /// Bytes its folder had.
    pub bytes: u64,
    /// Why it is still there, if it is: one that cannot go holds up no other.
    pub outcome: Result<(), StoreError>,
}

/// Removes the runs that a plan removes; `removed` hears of each. A run that somebody has opened
/// for writing since the plan was made stays.
pub fn carry_out(
    store: &Store,
    plan: &[Decision],
    mut removed: impl FnMut(&Removal),
) -> Vec<Removal> {
    let mut removals = Vec::new();
    for decision in plan.iter().filter(|decision| decision.removes()) {
        let outcome = match remove_run(store, &decision.run_id) {
            // Somebody else was faster.
            Err(StoreError::NoRun(_)) => Ok(()),
            other => other,
        };
        let removal = Removal { run_id: decision.run_id.clone(), bytes: decision.bytes, outcome };
        removed(&removal);
        removals.push(removal);
    }
    removals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecorderBuilder;
    use crate::upkeep::gc::{Criteria, plan, survey};
    use crate::upkeep::testing::{finished_run, store};

    /// Scenario: a store with closed runs and one under way is emptied as far as it may be.
    /// Guarantees: J11 - the live run stays and is not disturbed; sizes are those of the folders.
    #[test]
    fn closed_runs_go_and_a_live_one_stays() {
        let (_folder, store) = store();
        let closed = [finished_run(&store, "a", 1), finished_run(&store, "b", 2)];
        let recorder = RecorderBuilder::new("live", "svc").start(&store).unwrap();
        let runs = survey(&store).unwrap();
        assert_eq!(runs.len(), 3);
        assert!(runs.iter().all(|run| run.bytes > 0), "{runs:?}");
        let criteria = Criteria { keep_last: Some(0), is_forced: true, ..Criteria::default() };
        let plan = plan(&runs, &criteria, i64::MAX);
        let mut heard = Vec::new();
        let removals = carry_out(&store, &plan, |removal| heard.push(removal.run_id.clone()));
        assert!(removals.iter().all(|removal| removal.outcome.is_ok()), "{removals:?}");
        heard.sort();
        let mut expected = closed.to_vec();
        expected.sort();
        assert_eq!(heard, expected);
        assert_eq!(store.run_ids().unwrap(), [recorder.run_id().clone()]);
    }

    /// Scenario: between plan and removal a run was removed, and another one opened for writing.
    /// Guarantees: the first counts as gone, the second stays and is reported.
    #[test]
    fn what_changed_since_the_plan_is_respected() {
        let (_folder, store) = store();
        let (first, second) = (finished_run(&store, "a", 1), finished_run(&store, "b", 1));
        let criteria = Criteria { keep_last: Some(0), ..Criteria::default() };
        let plan = plan(&survey(&store).unwrap(), &criteria, i64::MAX);
        store.remove(&first).unwrap();
        let lock = crate::store::RunLock::take(&store.run_dir(&second), &second).unwrap();
        let removals = carry_out(&store, &plan, |_| {});
        let failed: Vec<_> = removals.iter().filter(|r| r.outcome.is_err()).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].run_id, second);
        drop(lock);
        assert!(store.verify(&second).unwrap().is_sound());
    }
}
