//! The Hodges-Lehmann shift between two samples: the median of all differences.
//!
//! What the rank-sum test is to a p-value: as robust as medians, nearly as sharp as means, and
//! with an interval that assumes only that the candidate is the base moved.

use super::hodges_lehmann::{Shift, sampled};
use super::mann_whitney::{EXACT_VALUES_MAX, subset_sums};
use super::{Interval, median, normal};

/// How far `candidate` lies above `base`, in their unit, with an interval of the given
/// `confidence` (0.95, say). Of logarithms it is the logarithm of a ratio.
///
/// The interval holds the shifts that the two-sided rank-sum test does not reject (Hodges and
/// Lehmann 1963; Lehmann 1975, section 2.7; R's `wilcox.test`): exact up to 60 values, by the
/// normal approximation above. With ties it is wider than it says. Where all differences together
/// give less than `confidence`, it is their whole range, and not decidable.
///
/// Values that are not finite are left out; `None` when a side is then empty, or `confidence` is
/// not between 0 and 1. Above [`SIDE_VALUES_MAX`] a side the same random sample of it is used
/// each time: the interval is then that of the sample.
#[must_use]
pub fn two_sample_shift(base: &[f64], candidate: &[f64], confidence: f64) -> Option<Shift> {
    if !(0.0 < confidence && confidence < 1.0) {
        return None;
    }
    let (base, candidate) = (usable(base), usable(candidate));
    let mut differences: Vec<f64> =
        candidate.iter().flat_map(|above| base.iter().map(move |below| above - below)).collect();
    let estimate = median(&differences)?;
    let outside = differences_outside(base.len(), candidate.len(), confidence);
    let skipped = outside.unwrap_or(0).min((differences.len() - 1) / 2);
    let last = differences.len() - 1 - skipped;
    let low = *differences.select_nth_unstable_by(skipped, f64::total_cmp).1;
    let high = *differences.select_nth_unstable_by(last, f64::total_cmp).1;
    Some(Shift { interval: Interval { estimate, low, high }, is_decidable: outside.is_some() })
}

fn usable(values: &[f64]) -> Vec<f64> {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sampled(&finite, SIDE_VALUES_MAX)
}

/// How many of the lowest (and of the highest) differences lie outside the interval. `None` where
/// even all of them give less than `confidence`.
pub(super) fn differences_outside(base: usize, candidate: usize, confidence: f64) -> Option<usize> {
    let tail = (1.0 - confidence) / 2.0;
    if base + candidate > EXACT_VALUES_MAX {
        let (n, m) = (base as f64, candidate as f64);
        let spread = (n * m * (n + m + 1.0) / 12.0).sqrt();
        let outside = (n * m / 2.0 + normal::quantile(tail) * spread).floor();
        // Below zero where one side has a value or two: no interval then.
        return (outside >= 0.0).then_some(outside as usize);
    }
    let ranks: Vec<usize> = (1..=base + candidate).collect();
    let size = base.min(candidate);
    let counts = subset_sums(&ranks, size);
    let all: f64 = counts.iter().sum();
    let smallest_sum = size * (size + 1) / 2;
    let mut below = 0.0;
    let within = counts.iter().skip(smallest_sum).take_while(|count| {
        below += **count;
        below / all <= tail * (1.0 + ROUNDING)
    });
    within.count().checked_sub(1)
}

/// Two million differences: a few hundredths of a second, and an interval already narrower than
/// any practical minimum.
const SIDE_VALUES_MAX: usize = 1400;
/// `1.0 - 0.95` is not 0.05; a tail of exactly 2.5 % must still count as one.
const ROUNDING: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_ends_are_differences_that_occurred() {
        let base = [1.1, 2.3, 3.2, 4.7, 5.9];
        let candidate = [3.4, 4.1, 6.6, 7.2, 8.5];
        let mut differences: Vec<f64> =
            candidate.iter().flat_map(|c| base.iter().map(move |b| c - b)).collect();
        differences.sort_by(f64::total_cmp);
        let found = two_sample_shift(&base, &candidate, 0.95).unwrap();
        // Tables: 2 is the critical value of five against five, so the 3rd of 25 from either end.
        assert_eq!(found.interval.low, differences[2]);
        assert_eq!(found.interval.high, differences[22]);
        assert_eq!(found.interval.estimate, differences[12]);
        assert!(found.is_decidable);
    }

    #[test]
    fn four_values_a_side_are_the_fewest_that_can_decide() {
        assert_eq!(differences_outside(3, 3, 0.95), None);
        assert_eq!(differences_outside(3, 3, 0.9), Some(0));
        assert_eq!(differences_outside(4, 4, 0.95), Some(0));
        assert_eq!(differences_outside(4, 4, 0.99), None);
        assert_eq!(differences_outside(8, 8, 0.95), Some(13));
        assert_eq!(differences_outside(1, 5000, 0.95), None);
        // Tables: 317 is the critical value of thirty against thirty.
        assert_eq!(differences_outside(30, 30, 0.95), Some(317));
        assert!((315..=320).contains(&(differences_outside(30, 31, 0.95).unwrap() - 11)));
    }

    #[test]
    fn degenerate_samples_give_no_interval() {
        assert_eq!(two_sample_shift(&[], &[1.0], 0.95), None);
        assert_eq!(two_sample_shift(&[f64::NAN, f64::INFINITY], &[1.0], 0.95), None);
        for confidence in [0.0, 1.0, f64::NAN, -3.0] {
            assert_eq!(two_sample_shift(&[1.0], &[1.0], confidence), None);
        }
        let single = two_sample_shift(&[1.0], &[3.0], 0.95).unwrap();
        assert_eq!(single.interval, Interval { estimate: 2.0, low: 2.0, high: 2.0 });
        assert!(!single.is_decidable);
    }

    #[test]
    fn large_samples_are_thinned_the_same_way_each_time() {
        let base: Vec<f64> = (0..5000).map(|i| f64::from(i % 100)).collect();
        let candidate: Vec<f64> = base.iter().map(|value| value + 7.0).collect();
        let found = two_sample_shift(&base, &candidate, 0.95).unwrap();
        assert_eq!(Some(found), two_sample_shift(&base, &candidate, 0.95));
        assert!(found.interval.low <= 7.0 && 7.0 <= found.interval.high);
        assert!(found.interval.high - found.interval.low < 6.0);
    }
}
