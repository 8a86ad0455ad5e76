//! Change points of a series of runs: where, and how surely, did its level change?
//!
//! E-divisive (Matteson and James 2014) with exponent 1: the best split of a segment is taken if
//! a shuffled segment seldom has one as good, and both parts are searched in turn. The second part
//! of a split reaches to the end of its segment, or is up to 64 values long (in the paper, any
//! length, which costs the square of the length of a series for each of its shuffles). Values are
//! compared as they are, in any unit. MongoDB finds its regressions in the same way (Daly, Brown,
//! Ingo, O'Leary and Bradford 2020).
//!
//! What the statistic needs of a value is its distances to those before it. With exponent 1 a
//! tree over ranks gives them in O(log n), so one search of a segment is O(n log n) and 64 n, and
//! no matrix of distances is kept. Ranks and sums of distances are the same in every order, so a
//! shuffled segment costs no sorting.
//!
//! The shuffles of a long segment are those of bins of its values. The split itself is always the
//! best of all, and a change too short for the bins is looked for value by value thereafter.

mod energy;
mod long;
mod recent;

use self::energy::Segment;
use self::long::{EXACT_MAX, binned, nearest};
use super::median;
use super::seeded::SplitMix64;

pub use recent::{RecentShift, recent_shift};

/// A place in a series at which its level changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangePoint {
    /// Position of the first value of the new level, from 0.
    pub index: usize,
    /// Earliest position of the 95 % interval.
    pub index_low: usize,
    /// Latest position of the 95 % interval.
    pub index_high: usize,
    /// Probability of so good a best split, if the segment had no change. Corrected for the
    /// search: shuffled segments are split where it suits them best, too.
    pub p: f64,
    /// Median from the change point before to this one, in the unit of the values.
    pub median_before: f64,
    /// Median from this change point to the next.
    pub median_after: f64,
    /// Natural logarithm of the ratio of both medians (0.095 is 10 % more); `None` unless both
    /// are above zero.
    pub log_ratio: Option<f64>,
}

/// How a series is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangePointSearch {
    /// The largest p-value a change point may have. The chance of a false point in a series
    /// without any change is no larger.
    pub significance: f64,
    /// How many shuffles the p-value comes from: it is a multiple of 1 / (shuffles + 1).
    pub shuffles: usize,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for ChangePointSearch {
    /// One false point in a hundred series; the fewest shuffles that leave room below it.
    fn default() -> Self {
        Self { significance: 0.01, shuffles: 199, seed: 0x0e0d_1715_17e5_eed5 }
    }
}

impl ChangePointSearch {
    /// The change points of `values`, a value a run, in order of time. Positions are those in
    /// `values`.
    ///
    /// Values that are not finite are passed over. A level lasts at least [`LEVEL_MIN`] runs, so
    /// a series shorter than two of them has no change point. Once all points are known, each is
    /// placed anew between its neighbours. The interval is that of the position in resampled series
    /// whose levels are as found (a bootstrap within either level).
    #[must_use]
    pub fn find(&self, values: &[f64]) -> Vec<ChangePoint> {
        self.find_binning_above(values, EXACT_MAX)
    }

    /// The same, with `exact_max` instead of [`EXACT_MAX`].
    fn find_binning_above(&self, values: &[f64], exact_max: usize) -> Vec<ChangePoint> {
        let (places, series): (Vec<usize>, Vec<f64>) =
            values.iter().copied().enumerate().filter(|(_, value)| value.is_finite()).unzip();
        let mut random = SplitMix64::new(self.seed);
        let found = self.divide(&series, exact_max, &mut random);
        let ends = found.iter().skip(1).map(|(end, _)| *end).chain([series.len()]);
        let mut start = 0;
        let mut points = Vec::with_capacity(found.len());
        for (&(at, p), end) in found.iter().zip(ends) {
            // What came before may have moved this point's neighbour, never past it.
            let level = Level { start, at, end };
            if let Some(point) = level.describe(&series, p, exact_max, &mut random) {
                start = point.index;
                points.push(point);
            }
        }
        let placed = |index: usize| places.get(index).copied().unwrap_or(index);
        for point in &mut points {
            point.index = placed(point.index);
            point.index_low = placed(point.index_low);
            point.index_high = placed(point.index_high);
        }
        points
    }

    /// Positions and p-values of significant splits, in order of position.
    fn divide(
        &self,
        series: &[f64],
        exact_max: usize,
        random: &mut SplitMix64,
    ) -> Vec<(usize, f64)> {
        let mut open = vec![(0, series.len())];
        let mut found = Vec::new();
        while let Some((start, end)) = open.pop() {
            let part = series.get(start..end).unwrap_or_default();
            if let Some((at, p)) = self.split(part, exact_max, random) {
                found.push((start + at, p));
                open.extend([(start, start + at), (start + at, end)]);
            }
        }
        found.sort_by_key(|(at, _)| *at);
        found
    }

    /// The best split of `part` and its p-value, if that is small enough.
    ///
    /// A part longer than `exact_max` is tested twice, its bins first, so each test has half the
    /// significance and their p-value is twice that of the one that found the change.
    fn split(
        &self,
        part: &[f64],
        exact_max: usize,
        random: &mut SplitMix64,
    ) -> Option<(usize, f64)> {
        let mut segment = Segment::new(part);
        let best = segment.best_split_of_part(LEVEL_MIN)?;
        // Half of it must be within reach of the shuffles.
        let half = self.significance / 2.0 * (1.0 + 1e-9);
        if part.len() <= exact_max || half < self.share(0) {
            let p = self.significant(&mut segment, best.statistic, self.significance, random)?;
            return Some((best.at, p));
        }
        let mut bins = Segment::new(&binned(part));
        let of_bins = bins
            .best_split_of_part(LEVEL_MIN)
            .and_then(|split| self.significant(&mut bins, split.statistic, half, random));
        let p = of_bins.or_else(|| self.significant(&mut segment, best.statistic, half, random))?;
        Some((best.at, 2.0 * p))
    }

    /// The share of shuffled segments whose best split is as good, if it is at most `significance`.
    fn significant(
        &self,
        segment: &mut Segment,
        statistic: f64,
        significance: f64,
        random: &mut SplitMix64,
    ) -> Option<f64> {
        // Nothing can be said where sums are too large for a float.
        if !statistic.is_finite() {
            return None;
        }
        let mut as_good = 0_usize;
        // Sums in another order differ in their last digits.
        let threshold = statistic - 1e-9 * statistic.abs();
        for _ in 0..self.shuffles {
            segment.shuffle(random);
            let shuffled = segment.best_split_of_part(LEVEL_MIN)?;
            as_good += usize::from(shuffled.statistic >= threshold);
            // More shuffles can only make the p-value larger.
            if self.share(as_good) > significance {
                return None;
            }
        }
        let p = self.share(as_good);
        (p <= significance).then_some(p)
    }

    fn share(&self, as_good: usize) -> f64 {
        (as_good + 1) as f64 / (self.shuffles + 1) as f64
    }
}

/// A change point between its neighbours.
#[derive(Debug, Clone, Copy)]
struct Level {
    start: usize,
    at: usize,
    end: usize,
}

impl Level {
    fn describe(
        self,
        series: &[f64],
        p: f64,
        exact_max: usize,
        random: &mut SplitMix64,
    ) -> Option<ChangePoint> {
        let both = series.get(self.start..self.end)?;
        let at = Segment::new(both).best_split(LEVEL_MIN).map_or(self.at - self.start, |s| s.at);
        let (before, after) = both.split_at(at);
        let (median_before, median_after) = (median(before)?, median(after)?);
        let away = position_error(before, after, exact_max, random);
        let is_positive = median_before > 0.0 && median_after > 0.0;
        Some(ChangePoint {
            index: self.start + at,
            index_low: self.start + at.saturating_sub(away).max(1),
            index_high: self.start + (at + away).min(both.len() - 1),
            p,
            median_before,
            median_after,
            log_ratio: is_positive.then(|| (median_after / median_before).ln()),
        })
    }
}

/// How far a search misses the change between `before` and `after` at most, in 95 % of series
/// drawn anew from either.
///
/// A miss does not depend on values far away from it, so of long levels only those nearest to the
/// change are drawn from, more of them where the misses are not well within.
fn position_error(
    before: &[f64],
    after: &[f64],
    exact_max: usize,
    random: &mut SplitMix64,
) -> usize {
    let mut count = if before.len() + after.len() > exact_max { NEAREST_MIN } else { usize::MAX };
    loop {
        let (near_before, near_after) = nearest(before, after, count);
        let error = position_error_among(near_before, near_after, random);
        let are_all = near_before.len() == before.len() && near_after.len() == after.len();
        if are_all || error < count / 4 {
            return error;
        }
        count = count.saturating_mul(2);
    }
}

fn position_error_among(before: &[f64], after: &[f64], random: &mut SplitMix64) -> usize {
    let mut errors: Vec<usize> = (0..RESAMPLES)
        .filter_map(|_| {
            let mut drawn = redrawn(before, random);
            drawn.extend(redrawn(after, random));
            let split = Segment::new(&drawn).best_split(LEVEL_MIN)?;
            Some(split.at.abs_diff(before.len()))
        })
        .collect();
    errors.sort_unstable();
    errors.get(RESAMPLES * 95 / 100).copied().unwrap_or(0)
}

fn redrawn(values: &[f64], random: &mut SplitMix64) -> Vec<f64> {
    values.iter().filter_map(|_| values.get(random.below(values.len())).copied()).collect()
}

/// Four runs are the fewest that differ significantly from as many; the fifth may be an outlier.
const LEVEL_MIN: usize = 5;
/// Values on either side of a change from which its position's interval is told, at first.
const NEAREST_MIN: usize = 250;
/// The 190th of them is the 95 % point.
const RESAMPLES: usize = 199;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::normal;

    fn levels(parts: &[(usize, f64)], seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(seed);
        let mut values = Vec::new();
        for (count, level) in parts {
            values.extend((0..*count).map(|_| level * (0.03 * normal::draw(&mut random)).exp()));
        }
        values
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let values = levels(&[(30, 100.0), (20, 120.0)], 1);
        let found = ChangePointSearch::default().find(&values);
        let [point] = found[..] else { panic!("{found:?}") };
        assert_eq!(point.index, 30);
        assert!(point.index_low <= 30 && 30 <= point.index_high);
        assert_eq!(point.p, 1.0 / 200.0);
        assert!((point.log_ratio.unwrap() - 1.2_f64.ln()).abs() < 0.03);
        assert_eq!(found, ChangePointSearch::default().find(&values));
    }

    /// Scenario: a level that is left and comes back, and two steps in one direction.
    /// Guarantees: every change is a point of its own.
    #[test]
    fn several_changes_are_several_points() {
        let values = levels(&[(25, 100.0), (12, 125.0), (30, 100.0), (20, 90.0)], 2);
        let found = ChangePointSearch::default().find(&values);
        let places: Vec<usize> = found.iter().map(|point| point.index).collect();
        assert_eq!(places.len(), 3, "{found:?}");
        for (place, expected) in places.iter().zip([25_usize, 37, 67]) {
            assert!(place.abs_diff(expected) <= 1, "{found:?}");
        }
    }

    #[test]
    fn positions_are_those_of_the_series_given() {
        let mut values = levels(&[(30, 100.0), (20, 120.0)], 1);
        for place in [0, 7, 31] {
            values.insert(place, f64::NAN);
        }
        let found = ChangePointSearch::default().find(&values);
        assert_eq!(found.len(), 1);
        assert!(found[0].index == 32 || found[0].index == 33, "{found:?}");
    }

    #[test]
    fn short_constant_and_odd_series_have_no_change_point() {
        let search = ChangePointSearch::default();
        assert_eq!(search.find(&[]), []);
        assert_eq!(search.find(&[1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]), []);
        assert_eq!(search.find(&[3.0; 100]), []);
        assert_eq!(search.find(&[f64::NAN; 100]), []);
        assert_eq!(search.find(&[f64::INFINITY; 100]), []);
        let none = ChangePointSearch { shuffles: 0, ..search };
        assert_eq!(none.find(&levels(&[(30, 1.0), (30, 2.0)], 1)), []);
    }

    /// Scenario: series of some thousand values, with changes that last, one that passes within a
    /// bin's width, and none.
    /// Guarantees: a search by bins finds the changes of the exact search, at its very positions.
    #[test]
    fn bins_find_what_the_exact_search_finds_and_where() {
        let search = ChangePointSearch::default();
        for (seed, parts) in [
            (1, &[(900, 100.0), (1_100, 103.0)][..]),
            (2, &[(700, 100.0), (400, 110.0), (900, 104.0)]),
            (3, &[(1_000, 100.0), (12, 140.0), (988, 100.0)]),
            (4, &[(1_500, 100.0), (500, 102.0)]),
            (5, &[(2_000, 100.0)]),
        ] {
            let values = levels(parts, seed);
            let exact = search.find_binning_above(&values, usize::MAX);
            let by_bins = search.find_binning_above(&values, 400);
            assert_eq!(exact.len(), parts.len() - 1, "{exact:?}");
            let places = |found: &[ChangePoint]| -> Vec<usize> {
                found.iter().map(|point| point.index).collect()
            };
            assert_eq!(places(&exact), places(&by_bins), "of series {seed}");
            for (exact, by_bins) in exact.iter().zip(&by_bins) {
                assert!(by_bins.p <= search.significance, "{by_bins:?}");
                assert!(by_bins.index_low <= by_bins.index && by_bins.index <= by_bins.index_high);
                let width = |point: &ChangePoint| point.index_high - point.index_low;
                // Both are drawn; a point that is hard to place has the wider interval of either.
                assert!(width(by_bins) <= 2 * width(exact) + 20, "{exact:?} {by_bins:?}");
            }
        }
    }

    /// Guarantees: the oldest runs of a very long history are searched like the youngest.
    #[test]
    fn the_first_change_of_ten_thousand_runs_is_found() {
        let values = levels(&[(300, 100.0), (9_700, 110.0)], 8);
        let found = ChangePointSearch::default().find(&values);
        let [point] = found[..] else { panic!("{found:?}") };
        assert_eq!(point.index, 300);
    }

    #[test]
    fn levels_that_are_not_positive_have_no_ratio() {
        let mut values = levels(&[(30, 1.0), (30, 3.0)], 4);
        values.iter_mut().for_each(|value| *value -= 1.5);
        let found = ChangePointSearch::default().find(&values);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].log_ratio, None);
        assert!(found[0].median_before < 0.0);
    }
}
