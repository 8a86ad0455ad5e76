//! What accounts for the end-to-end change.

use std::collections::BTreeMap;

use super::ops::Op;

/// The share of each stage in the change of the mean time of an operation.
///
/// An operation's attributed wall times sum to its wall time, so the shares sum to 1; stages that
/// got faster while the whole got slower have negative ones. `None` when the whole did not change
/// enough for shares to mean anything.
pub(super) fn shares(
    base: &BTreeMap<String, f64>,
    candidate: &BTreeMap<String, f64>,
) -> Option<BTreeMap<String, f64>> {
    let change = |stage: &String| {
        candidate.get(stage).copied().unwrap_or(0.0) - base.get(stage).copied().unwrap_or(0.0)
    };
    let whole: f64 = base.values().sum();
    let mut stages: Vec<&String> = base.keys().chain(candidate.keys()).collect();
    stages.sort();
    stages.dedup();
    let total: f64 = stages.iter().map(|stage| change(stage)).sum();
    let is_noticeable = total.abs() > CHANGE_MIN * whole;
    is_noticeable
        .then(|| stages.iter().map(|stage| ((*stage).clone(), change(stage) / total)).collect())
}

/// Mean of each stage over operations.
pub(super) fn means<'a>(
    operations: impl Iterator<Item = &'a BTreeMap<String, f64>>,
) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    let mut count = 0.0;
    for stages in operations {
        count += 1.0;
        for (stage, ns) in stages {
            *sums.entry(stage.clone()).or_default() += ns;
        }
    }
    sums.values_mut().for_each(|sum| *sum /= count);
    sums
}

/// Mean attributed wall time of each stage in an operation, ns. An operation without a stage spent
/// none in it.
pub(super) fn mean_stages(ops: &[&Op]) -> BTreeMap<String, f64> {
    let stages: Vec<BTreeMap<String, f64>> = ops
        .iter()
        .map(|op| op.stages.iter().map(|(name, ns)| (name.clone(), *ns as f64)).collect())
        .collect();
    means(stages.iter())
}

/// Below half a percent of the whole, shares would be quotients of noise.
const CHANGE_MIN: f64 = 0.005;
