//! Where a series changed its level, in words of runs and commits.

use crate::check::Unit;
use crate::model::{TrendChange, TrendPoint, TrendSeries, TrendShift};
use crate::stats::{ChangePoint, ChangePointSearch, median, rank_sum_runs_min, recent_shift};

/// How the series of one history are searched, together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Search {
    change_points: ChangePointSearch,
    /// Series that are long enough to be searched, at least 1.
    series: usize,
    unit: Unit,
}

impl Search {
    /// A search whose chance of any false change point in all of `series` together is that of
    /// [`ChangePointSearch::default`] in one: Bonferroni's correction, with as many more shuffles
    /// as it takes to tell so small a probability.
    pub(super) fn of(series: &[TrendSeries], unit: Unit) -> Self {
        let long_enough = series.iter().filter(|one| {
            one.points.iter().filter(|point| point.value.is_some()).count() >= RUNS_MIN
        });
        let series = long_enough.count().max(1);
        let single = ChangePointSearch::default();
        let change_points = ChangePointSearch {
            significance: single.significance / series as f64,
            shuffles: (single.shuffles + 1) * series - 1,
            ..single
        };
        Self { change_points, series, unit }
    }

    /// The fewest runs in which a step can be told from chance: with fewer, too many orders of the
    /// same values look as good.
    pub(super) fn runs_min(&self) -> usize {
        rank_sum_runs_min(self.change_points.significance)
            .map_or(RUNS_MIN, |runs| (2 * runs).max(RUNS_MIN))
    }

    fn corrected(&self, p: f64) -> f64 {
        (p * self.series as f64).min(1.0)
    }
}

/// Finds the change points of a series, and whether its youngest runs look shifted.
pub(super) fn describe(series: &mut TrendSeries, search: &Search) {
    let values: Vec<f64> =
        series.points.iter().map(|point| point.value.unwrap_or(f64::NAN)).collect();
    let found = search.change_points.find(&compared(&values, search.unit));
    let starts: Vec<usize> = found.iter().map(|point| point.index).collect();
    let mut changes = Vec::with_capacity(found.len());
    for (place, point) in found.iter().enumerate() {
        let start = place.checked_sub(1).and_then(|before| starts.get(before)).copied();
        let end = starts.get(place + 1).copied().unwrap_or(values.len());
        let level = |from: usize, to: usize| finite_median(values.get(from..to)?);
        let before = level(start.unwrap_or(0), point.index);
        let medians = before.zip(level(point.index, end));
        if let Some(change) =
            medians.and_then(|medians| change(&series.points, point, medians, search))
        {
            changes.push(change);
        }
    }
    series.recent = recent(&series.points, &values, starts.last().copied().unwrap_or(0), search);
    series.changes = changes;
}

/// The values as the search compares them. Times and costs vary by factors, so their logarithms
/// are compared, if all have one; shares as they are, because 0 is a share.
fn compared(values: &[f64], unit: Unit) -> Vec<f64> {
    let is_factor = unit != Unit::Share
        && values.iter().filter(|value| value.is_finite()).all(|value| *value > 0.0);
    match is_factor {
        true => values.iter().map(|value| value.ln()).collect(),
        false => values.to_vec(),
    }
}

fn change(
    points: &[TrendPoint],
    found: &ChangePoint,
    (median_before, median_after): (f64, f64),
    search: &Search,
) -> Option<TrendChange> {
    let (before, at) = (run_before(points, found.index)?, points.get(found.index)?);
    let (earliest, latest) = (points.get(found.index_low)?, points.get(found.index_high)?);
    let interval = points.get(found.index_low..=found.index_high)?;
    Some(TrendChange {
        index: found.index as u64,
        run_before: before.run_id.clone(),
        run: at.run_id.clone(),
        sha_before: before.git_sha.clone(),
        sha: at.git_sha.clone(),
        median_before,
        median_after,
        change: relative(median_before, median_after),
        p: search.corrected(found.p),
        run_earliest: earliest.run_id.clone(),
        run_latest: latest.run_id.clone(),
        interval_runs: interval.iter().filter(|point| point.value.is_some()).count() as u64,
        sha_before_earliest: run_before(points, found.index_low)?.git_sha.clone(),
        sha_latest: latest.git_sha.clone(),
    })
}

/// The youngest run before a position that has a value.
fn run_before(points: &[TrendPoint], index: usize) -> Option<&TrendPoint> {
    points.get(..index)?.iter().rev().find(|point| point.value.is_some())
}

/// Looks at the youngest runs of the level that begins at `start`.
fn recent(
    points: &[TrendPoint],
    values: &[f64],
    start: usize,
    search: &Search,
) -> Option<TrendShift> {
    let level = values.get(start..)?;
    let runs = level.iter().filter(|value| value.is_finite()).count();
    let last = RECENT_RUNS_MAX.min(runs.saturating_sub(LEVEL_RUNS));
    let found = recent_shift(level, last, search.change_points.seed)?;
    let p = search.corrected(found.p);
    let since = level.get(found.index..)?;
    Some(TrendShift {
        index: (start + found.index) as u64,
        run: points.get(start + found.index)?.run_id.clone(),
        runs: since.iter().filter(|value| value.is_finite()).count() as u64,
        median_before: found.median_before,
        median_after: found.median_after,
        change: relative(found.median_before, found.median_after),
        p,
        is_shifted: p <= SHIFT_P_MAX,
    })
}

fn finite_median(values: &[f64]) -> Option<f64> {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    median(&finite)
}

fn relative(before: f64, after: f64) -> Option<f64> {
    (before > 0.0).then(|| after / before - 1.0)
}

/// Runs of a level, at least.
const LEVEL_RUNS: usize = 5;
/// Two levels.
const RUNS_MIN: usize = 2 * LEVEL_RUNS;
/// Beyond these a change point would be found.
const RECENT_RUNS_MAX: usize = 8;
/// A warning may be wrong more often than a change point.
const SHIFT_P_MAX: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix64;

    /// A series whose values have 3 % of luck.
    fn series(levels: &[f64], random: &mut SplitMix64) -> TrendSeries {
        let point = |level: &f64| {
            // The sum of three uniform numbers has a standard deviation of a half.
            let luck = (0..3).map(|_| random.unit()).sum::<f64>() - 1.5;
            TrendPoint {
                run_id: String::new(),
                started_unix_ns: 0,
                git_sha: None,
                value: Some(level * (1.0 + 0.06 * luck)),
                samples: 1,
            }
        };
        TrendSeries {
            group: String::new(),
            machine_key: String::new(),
            is_same_machine: true,
            points: levels.iter().map(point).collect(),
            gaps: Vec::new(),
            changes: Vec::new(),
            recent: None,
        }
    }

    fn described(all: &mut [TrendSeries]) {
        let search = Search::of(all, Unit::Ns);
        all.iter_mut().for_each(|one| describe(one, &search));
    }

    /// Scenario: 300 histories of six stages over 24 runs in which nothing changed.
    /// Guarantees: one in a hundred has a change point in any of its stages, and one in twenty a
    /// warning, but for chance.
    #[test]
    fn many_stages_are_not_many_false_alarms() {
        let mut random = SplitMix64::new(1);
        let (mut changed, mut warned) = (0, 0);
        for _ in 0..300 {
            let mut all: Vec<TrendSeries> =
                (0..6).map(|_| series(&[100.0; 24], &mut random)).collect();
            described(&mut all);
            changed += usize::from(all.iter().any(|one| !one.changes.is_empty()));
            let shifts = all.iter().filter_map(|one| one.recent.as_ref());
            warned += usize::from(shifts.into_iter().any(|shift| shift.is_shifted));
        }
        assert!(changed <= 7, "{changed} of 300 changed");
        assert!(warned <= 25, "{warned} of 300 warned");
    }

    /// Scenario: 50 histories of six stages, one of which takes 10 % more in the last 10 of 24 runs.
    /// Guarantees: all but a few are found, with the size of the step.
    #[test]
    fn a_step_of_three_standard_deviations_is_found() {
        let mut random = SplitMix64::new(2);
        let found = (0..50).filter(|_| {
            let mut levels = [100.0; 24];
            levels.iter_mut().skip(14).for_each(|level| *level = 110.0);
            let mut all: Vec<TrendSeries> =
                (0..5).map(|_| series(&[100.0; 24], &mut random)).collect();
            all.push(series(&levels, &mut random));
            described(&mut all);
            let change = all.last().and_then(|one| one.changes.first()?.change);
            change.is_some_and(|change| (change - 0.1).abs() < 0.05)
        });
        let found = found.count();
        assert!(found >= 45, "{found} of 50");
    }

    #[test]
    fn fewer_runs_do_for_fewer_series() {
        let mut random = SplitMix64::new(3);
        let mut runs_min = |count: usize| {
            let all: Vec<TrendSeries> =
                (0..count).map(|_| series(&[1.0; 10], &mut random)).collect();
            Search::of(&all, Unit::Number).runs_min()
        };
        assert_eq!([runs_min(0), runs_min(1), runs_min(4), runs_min(50)], [10, 10, 12, 16]);
    }

    /// Guarantees: shares may be 0, and from 0 there is no relative change.
    #[test]
    fn shares_are_compared_as_they_are() {
        let mut levels = vec![0.0; 10];
        levels.extend([0.2; 10]);
        let mut all = [series(&levels, &mut SplitMix64::new(4))];
        let search = Search::of(&all, Unit::Share);
        describe(&mut all[0], &search);
        let [change] = all[0].changes.as_slice() else { panic!("{:?}", all[0].changes) };
        assert_eq!((change.index, change.change, change.median_before), (10, None, 0.0));
    }
}
