//! Do the last few runs look shifted? For a warning before a change point can be told.

use crate::stats::median;
use crate::stats::pooled::Pooled;
use crate::stats::seeded::SplitMix64;

/// The shift that fits the last runs best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecentShift {
    /// Position in the series from which on the runs stand out most, from 0.
    pub index: usize,
    /// Probability of runs that stand out as much among the last, if there was no change.
    /// Corrected for the choice of the position.
    pub p: f64,
    /// Median of the runs before the position, in the unit of the values.
    pub median_before: f64,
    /// Median of the runs from it on.
    pub median_after: f64,
}

/// Looks at the last 1, 2, ... `last` runs of a series for those that stand out most.
///
/// A cumulative sum (Page 1954) from the end backwards, of ranks less their mean, so that one
/// outlier weighs no more than any largest value; each sum in units of its standard deviation
/// (that of the rank-sum test). Shuffled series say how large the largest of these gets by
/// chance, which holds its error rate for any distribution and however short the history.
///
/// Values that are not finite are passed over; only the last [`HISTORY_MAX`] are looked at.
/// `None` when fewer than [`EARLIER_MIN`] runs come before the last, or `last` is 0.
#[must_use]
pub fn recent_shift(values: &[f64], last: usize, seed: u64) -> Option<RecentShift> {
    let (places, series): (Vec<usize>, Vec<f64>) = values
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, value)| value.is_finite())
        .skip(values.iter().filter(|v| v.is_finite()).count().saturating_sub(HISTORY_MAX))
        .unzip();
    if last == 0 || series.len() < last.saturating_add(EARLIER_MIN) {
        return None;
    }
    let mut ranks = centred_ranks(&series);
    let (count, observed) = largest_sum(&ranks, last)?;
    let mut random = SplitMix64::new(seed);
    let mut as_large = 1_u32;
    for _ in 0..SHUFFLES {
        // Only the last runs are looked at, and a shuffle brings its choice to the front.
        random.shuffle(&mut ranks, last);
        let (_, shuffled) = largest_sum_in(ranks.iter().take(last), &ranks)?;
        as_large += u32::from(shuffled >= observed * (1.0 - 1e-12));
    }
    let (before, after) = series.split_at(series.len() - count);
    Some(RecentShift {
        index: places.get(before.len()).copied()?,
        p: f64::from(as_large) / f64::from(SHUFFLES + 1),
        median_before: median(before)?,
        median_after: median(after)?,
    })
}

/// Each value's mid-rank less the mean of all ranks, in the order of the values.
fn centred_ranks(series: &[f64]) -> Vec<f64> {
    let doubled = Pooled::of_values(series, &[]).doubled_ranks();
    let mean = (series.len() as f64 + 1.0) / 2.0;
    let mut order: Vec<(f64, usize)> = series.iter().copied().zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut ranks = vec![0.0; series.len()];
    for ((_, place), rank) in order.into_iter().zip(doubled) {
        if let Some(slot) = ranks.get_mut(place) {
            *slot = rank as f64 / 2.0 - mean;
        }
    }
    ranks
}

fn largest_sum(ranks: &[f64], last: usize) -> Option<(usize, f64)> {
    largest_sum_in(ranks.iter().rev().take(last), ranks)
}

/// After how many of `drawn` their sum is largest in size, and that sum in units of the standard
/// deviation of as many ranks drawn without replacement from `all`.
fn largest_sum_in<'a>(drawn: impl Iterator<Item = &'a f64>, all: &[f64]) -> Option<(usize, f64)> {
    let size = all.len() as f64;
    let mut sum = 0.0;
    drawn
        .enumerate()
        .map(|(index, rank)| {
            sum += rank;
            let count = index as f64 + 1.0;
            // Up to a factor that is the same for all counts.
            (index + 1, f64::abs(sum) / (count * (size - count)).sqrt())
        })
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// Without a few runs before, nothing can stand out.
const EARLIER_MIN: usize = 5;
/// What is older says little about today's level; bounds the time to a few milliseconds.
const HISTORY_MAX: usize = 500;
/// A p-value near 0.01 is then right to 0.006 in 95 of 100 cases.
const SHUFFLES: u32 = 999;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::normal;

    fn noise(count: usize, level: f64, random: &mut SplitMix64) -> Vec<f64> {
        (0..count).map(|_| level * (0.03 * normal::draw(random)).exp()).collect()
    }

    #[test]
    fn three_slower_runs_stand_out() {
        let mut random = SplitMix64::new(1);
        let mut values = noise(30, 100.0, &mut random);
        let quiet = recent_shift(&values, 8, 1).unwrap();
        assert!(quiet.p > 0.05, "{quiet:?}");
        values.extend(noise(3, 115.0, &mut random));
        let found = recent_shift(&values, 8, 1).unwrap();
        assert!(found.index.abs_diff(30) <= 1, "{found:?}");
        assert!(found.p < 0.01 && found.median_after > 110.0, "{found:?}");
        assert_eq!(Some(found), recent_shift(&values, 8, 1));
    }

    #[test]
    fn degenerate_series_say_nothing() {
        assert_eq!(recent_shift(&[], 3, 1), None);
        assert_eq!(recent_shift(&[1.0; 7], 3, 1), None);
        assert_eq!(recent_shift(&[1.0; 8], 0, 1), None);
        assert_eq!(recent_shift(&[1.0; 8], usize::MAX, 1), None);
        assert_eq!(recent_shift(&[f64::NAN; 80], 3, 1), None);
        assert_eq!(recent_shift(&[1.0; 80], 3, 1).unwrap().p, 1.0);
    }

    /// Scenario: 1,000 series of 25 runs without a change, the last 6 looked at.
    /// Guarantees: p is at most 0.05 in no more than 5 % of them, but for chance.
    #[test]
    fn false_warnings_are_as_rare_as_they_say() {
        let mut random = SplitMix64::new(3);
        let warned = (0..1000)
            .filter(|seed| recent_shift(&noise(25, 1.0, &mut random), 6, *seed).unwrap().p <= 0.05)
            .count();
        assert!((30..=70).contains(&warned), "{warned} of 1000");
    }
}
