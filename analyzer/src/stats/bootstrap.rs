//! An interval for the ratio of two medians when operations cannot be paired.

use super::seeded::SplitMix64;
use super::{Interval, median};

/// The relative change of the median from `base` to `candidate` (0.1 is 10 % more), with a 95 %
/// moving-block bootstrap interval (Kuensch 1989). Values must be in order of time: neighbours
/// resemble each other, and drawing them one by one would give intervals that are too narrow.
///
/// `None` when a side is empty or its median is not above zero.
#[must_use]
pub fn median_ratio(base: &[f64], candidate: &[f64], seed: u64) -> Option<Interval> {
    let (base, candidate) = (thinned(base), thinned(candidate));
    let estimate = ratio(&base, &candidate)?;
    let mut random = SplitMix64::new(seed);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| ratio(&resample(&base, &mut random), &resample(&candidate, &mut random)))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let tail = ratios.len() / 40;
    let low = ratios.get(tail).copied()?;
    let high = ratios.iter().rev().nth(tail).copied()?;
    Some(Interval { estimate, low: low.min(estimate), high: high.max(estimate) })
}

fn ratio(base: &[f64], candidate: &[f64]) -> Option<f64> {
    let (base, candidate) = (median(base)?, median(candidate)?);
    (base > 0.0 && candidate > 0.0).then(|| candidate / base - 1.0)
}

fn resample(values: &[f64], random: &mut SplitMix64) -> Vec<f64> {
    let block = (values.len() as f64).cbrt().ceil() as usize;
    let starts = values.len() + 1 - block.min(values.len());
    let mut drawn = Vec::with_capacity(values.len() + block);
    while drawn.len() < values.len() {
        drawn.extend(values.iter().skip(random.below(starts)).take(block));
    }
    drawn.truncate(values.len());
    drawn
}

/// Every k-th value, so that at most [`VALUES_MAX`] stay, still in order.
fn thinned(values: &[f64]) -> Vec<f64> {
    let step = values.len().div_ceil(VALUES_MAX).max(1);
    values.iter().copied().step_by(step).collect()
}

const RESAMPLES: usize = 600;
/// Bounds the time of one interval to about a tenth of a second.
const VALUES_MAX: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_contains_the_planted_change() {
        let mut random = SplitMix64::new(3);
        let mut side = |centre: f64| -> Vec<f64> {
            (0..300).map(|_| centre * (1.0 + random.next_u64() as f64 / u64::MAX as f64)).collect()
        };
        let (base, candidate) = (side(100.0), side(120.0));
        let found = median_ratio(&base, &candidate, 1).unwrap();
        assert!(found.low < 0.2 && 0.2 < found.high, "{found:?}");
        assert!(found.low > 0.05);
        assert_eq!(Some(found), median_ratio(&base, &candidate, 1));
    }

    #[test]
    fn nothing_to_compare_gives_no_interval() {
        assert_eq!(median_ratio(&[], &[1.0], 1), None);
        assert_eq!(median_ratio(&[0.0], &[1.0], 1), None);
        assert!(median_ratio(&[2.0], &[1.0], 1).is_some());
    }
}
