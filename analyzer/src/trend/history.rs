//! The values of runs as series: one per group and machine.

use std::collections::{BTreeMap, BTreeSet};

use retake_schemas::tables::RunRow;

use crate::check::Groups;
use crate::model::{TrendPoint, TrendSeries};

/// The series of a history, and how many groups there was no room for.
#[derive(Debug)]
pub(super) struct Histories {
    pub(super) series: Vec<TrendSeries>,
    pub(super) left_out: usize,
}

/// What tells one series from another, in the order in which they are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    is_other_machine: bool,
    machine_key: String,
    group: String,
}

/// The series of `runs`, oldest first, whose values by group are `found`.
pub(super) fn of_runs(runs: &[RunRow], found: &[Groups], machine_key: &str) -> Histories {
    let mut samples: BTreeMap<Key, u64> = BTreeMap::new();
    for (run, groups) in runs.iter().zip(found) {
        for (group, value) in groups.iter().filter(|(_, value)| value.samples > 0) {
            let key = Key {
                is_other_machine: run.machine_key != machine_key,
                machine_key: run.machine_key.clone(),
                group: group.clone(),
            };
            *samples.entry(key).or_default() += value.samples;
        }
    }
    let mut keys: Vec<(Key, u64)> = samples.into_iter().collect();
    let left_out = keys.len().saturating_sub(SERIES_MAX);
    keys.sort_by(|(a, a_samples), (b, b_samples)| {
        (a.is_other_machine, std::cmp::Reverse(a_samples), a).cmp(&(
            b.is_other_machine,
            std::cmp::Reverse(b_samples),
            b,
        ))
    });
    let keys: BTreeSet<Key> = keys.into_iter().take(SERIES_MAX).map(|(key, _)| key).collect();
    Histories { series: keys.iter().map(|key| series(key, runs, found)).collect(), left_out }
}

fn series(key: &Key, runs: &[RunRow], found: &[Groups]) -> TrendSeries {
    let of_machine = runs.iter().zip(found).filter(|(run, _)| run.machine_key == key.machine_key);
    let points: Vec<TrendPoint> = of_machine
        .map(|(run, groups)| {
            // A share of nothing is no share.
            let found = groups.get(&key.group).filter(|found| found.samples > 0);
            TrendPoint {
                run_id: run.run_id.clone(),
                started_unix_ns: run.started_unix_ns,
                git_sha: run.git_sha.clone(),
                value: found.map(|found| found.value),
                samples: found.map_or(0, |found| found.samples),
            }
        })
        .collect();
    let gaps = points.iter().filter(|point| point.value.is_none());
    let gaps = gaps.map(|point| point.run_id.clone()).collect();
    let group = match (key.is_other_machine, key.group.as_str()) {
        (false, group) => group.to_owned(),
        (true, "") => format!("(machine {})", key.machine_key),
        (true, group) => format!("{group} (machine {})", key.machine_key),
    };
    TrendSeries {
        group,
        machine_key: key.machine_key.clone(),
        is_same_machine: !key.is_other_machine,
        points,
        gaps,
        changes: Vec::new(),
        recent: None,
    }
}

/// More lines than anybody reads; those with the most rows are kept. Bounds the searches, which
/// take more shuffles the more of them there are.
const SERIES_MAX: usize = 50;
