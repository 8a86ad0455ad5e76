//! An interval for the ratio of two quantiles when there is one run a side, with many traces.
//!
//! Two kinds of chance separate two runs. Within a run, traces vary, and neighbours in time
//! together: blocks of neighbours are drawn anew. Between runs, everything shifts a little, and of
//! that a single run knows nothing: it has to be added from history.

use super::Interval;
use super::cluster::variance;
use super::run_spread::RunSpread;
use super::seeded::SplitMix64;
use super::student;

/// How far a quantile of the candidate lies above that of the base, as the natural logarithm of
/// their ratio (0.095 is 10 % more).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantileRatio {
    /// The logarithm of the ratio.
    pub log_ratio: f64,
    /// Its standard error from the variation within the two runs alone.
    pub standard_error: f64,
    /// Degrees of freedom of that standard error.
    pub degrees_of_freedom: f64,
}

impl QuantileRatio {
    /// The 95 % interval if both runs had been one: for what this pair of runs did. Too narrow to
    /// say that the program changed.
    #[must_use]
    pub fn within_runs(&self) -> Interval {
        self.interval(self.standard_error, self.degrees_of_freedom)
    }

    /// The 95 % interval for the change itself: the spread of two runs is added to the standard
    /// error, degrees of freedom after Welch (1947) and Satterthwaite (1946).
    #[must_use]
    pub fn between_runs(&self, spread: RunSpread) -> Interval {
        let within =
            Estimated { variance: self.standard_error.powi(2), freedom: self.degrees_of_freedom };
        // One run a side, so the difference has the variance of both.
        let between =
            Estimated { variance: 2.0 * spread.sd.powi(2), freedom: spread.degrees_of_freedom };
        let total = within.plus(between);
        self.interval(total.variance.sqrt(), total.freedom)
    }

    fn interval(&self, standard_error: f64, freedom: f64) -> Interval {
        // Without any variation there is nothing to be unsure of, whatever the freedom.
        let half = if standard_error == 0.0 {
            0.0
        } else {
            standard_error * student::two_sided(0.95, freedom)
        };
        let estimate = self.log_ratio;
        Interval { estimate, low: estimate - half, high: estimate + half }
    }
}

/// Compares quantile `q` (0.95, say; nearest rank) of two runs, values in order of time.
///
/// The standard error is that of a circular block bootstrap (Politis and Romano 1992, after the
/// moving blocks of Kuensch 1989) with 20 to 100 blocks, so that each is long enough to hold what
/// neighbours share. As blocks are few, the variance is widened by b / (b - 1) and counts b - 1
/// degrees of freedom.
///
/// Values that are not finite are left out. `None` unless either side has [`BLOCKS_MIN`] blocks of
/// five and [`BEYOND_MIN`] values beyond the quantile on both of its sides (100 values for the
/// median, 200 for p95, 1,000 for p99), and both quantiles are above zero. Above [`VALUES_MAX`]
/// values every k-th is used.
#[must_use]
pub fn quantile_ratio(base: &[f64], candidate: &[f64], q: f64, seed: u64) -> Option<QuantileRatio> {
    let mut random = SplitMix64::new(seed);
    let base = Side::of(base, q, &mut random)?;
    let candidate = Side::of(candidate, q, &mut random)?;
    let total = base.error.plus(candidate.error);
    Some(QuantileRatio {
        log_ratio: candidate.log_quantile - base.log_quantile,
        standard_error: total.variance.sqrt(),
        degrees_of_freedom: total.freedom,
    })
}

/// A variance that is itself an estimate.
#[derive(Debug, Clone, Copy)]
struct Estimated {
    variance: f64,
    freedom: f64,
}

impl Estimated {
    fn plus(self, other: Self) -> Self {
        let variance = self.variance + other.variance;
        let doubt = |part: Self| part.variance.powi(2) / part.freedom;
        let doubts = doubt(self) + doubt(other);
        let freedom =
            if doubts > 0.0 { variance.powi(2) / doubts } else { self.freedom + other.freedom };
        Self { variance, freedom }
    }
}

struct Side {
    log_quantile: f64,
    error: Estimated,
}

impl Side {
    fn of(values: &[f64], q: f64, random: &mut SplitMix64) -> Option<Self> {
        let step = values.len().div_ceil(VALUES_MAX).max(1);
        let values: Vec<f64> =
            values.iter().copied().filter(|v| v.is_finite()).step_by(step).collect();
        let count = values.len() as f64;
        let beyond = (count * q).min(count * (1.0 - q));
        // The rounding of `q` must not cost the last value; a `q` that is no number fails.
        let is_enough =
            values.len() >= BLOCKS_MIN * BLOCK_LENGTH_MIN && beyond >= BEYOND_MIN - 1e-6;
        if !is_enough {
            return None;
        }
        let log_quantile = log_at(&mut values.clone(), q)?;
        let blocks = (count.sqrt() as usize).clamp(BLOCKS_MIN, BLOCKS_MAX);
        let mut drawn = Vec::with_capacity(values.len());
        let quantiles: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                resample(&values, values.len() / blocks, random, &mut drawn);
                log_at(&mut drawn, q)
            })
            .collect();
        let blocks = blocks as f64;
        let variance = variance(&quantiles) * blocks / (blocks - 1.0);
        Some(Self { log_quantile, error: Estimated { variance, freedom: blocks - 1.0 } })
    }
}

/// As many values as there are, in blocks of neighbours; the first follows the last.
fn resample(values: &[f64], block: usize, random: &mut SplitMix64, drawn: &mut Vec<f64>) {
    drawn.clear();
    while drawn.len() < values.len() {
        let wanted = block.min(values.len() - drawn.len());
        let (start, end) = values.split_at(random.below(values.len()));
        drawn.extend(end.iter().chain(start).take(wanted));
    }
}

fn log_at(values: &mut [f64], q: f64) -> Option<f64> {
    let rank = (values.len() as f64 * q).ceil() as usize;
    let index = rank.clamp(1, values.len()) - 1;
    let quantile = *values.select_nth_unstable_by(index, f64::total_cmp).1;
    (quantile > 0.0).then(|| quantile.ln())
}

const BLOCKS_MIN: usize = 20;
/// More blocks tell little more about the spread, and shorter ones lose what neighbours share.
const BLOCKS_MAX: usize = 100;
const BLOCK_LENGTH_MIN: usize = 5;
/// Fewer values beyond a quantile, and its bootstrap distribution is a few lumps.
const BEYOND_MIN: f64 = 10.0;
/// A spread from so many is right to 4 %.
const RESAMPLES: usize = 400;
/// Bounds the time of one interval to about a tenth of a second.
const VALUES_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SpreadPrior;

    fn latencies(count: usize, scale: f64, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(seed);
        (0..count).map(|_| scale / random.unit().sqrt()).collect()
    }

    #[test]
    fn the_interval_contains_the_planted_change() {
        let (base, candidate) = (latencies(4000, 1.0, 1), latencies(4000, 1.2, 2));
        for q in [0.5, 0.95, 0.99] {
            let found = quantile_ratio(&base, &candidate, q, 3).unwrap();
            let interval = found.within_runs();
            assert!(interval.low < 1.2_f64.ln() && 1.2_f64.ln() < interval.high, "{interval:?}");
            assert_eq!(Some(found), quantile_ratio(&base, &candidate, q, 3));
        }
    }

    /// Scenario: two runs with a run-to-run spread of 5 %.
    /// Guarantees: what runs differ by of themselves is in the interval.
    #[test]
    fn the_spread_between_runs_widens_the_interval() {
        let (base, candidate) = (latencies(4000, 1.0, 1), latencies(4000, 1.0, 2));
        let found = quantile_ratio(&base, &candidate, 0.5, 3).unwrap();
        let prior = SpreadPrior { sd: 0.05, weight: 400.0 };
        let spread = RunSpread::of_history(&[], prior).unwrap();
        let width = |interval: Interval| interval.high - interval.low;
        let (within, between) = (found.within_runs(), found.between_runs(spread));
        let expected = (found.standard_error.powi(2) + 2.0 * 0.05_f64.powi(2)).sqrt();
        assert!(width(between) > width(within));
        assert!((width(between) / (2.0 * 1.96 * expected) - 1.0).abs() < 0.02);
    }

    #[test]
    fn too_little_gives_no_interval() {
        let plenty = latencies(1000, 1.0, 1);
        assert_eq!(quantile_ratio(&[], &plenty, 0.5, 1), None);
        assert_eq!(quantile_ratio(&plenty[..99], &plenty, 0.5, 1), None);
        assert!(quantile_ratio(&plenty[..100], &plenty, 0.5, 1).is_some());
        assert_eq!(quantile_ratio(&plenty[..199], &plenty, 0.95, 1), None);
        assert!(quantile_ratio(&plenty[..200], &plenty, 0.95, 1).is_some());
        assert_eq!(quantile_ratio(&plenty[..999], &plenty, 0.99, 1), None);
        assert!(quantile_ratio(&plenty, &plenty, 0.99, 1).is_some());
        for q in [0.0, 1.0, f64::NAN, -1.0, 2.0] {
            assert_eq!(quantile_ratio(&plenty, &plenty, q, 1), None);
        }
        assert_eq!(quantile_ratio(&[0.0; 500], &plenty, 0.5, 1), None);
        let constant = quantile_ratio(&[2.0; 500], &[1.0; 500], 0.5, 1).unwrap();
        assert!((constant.within_runs().low - constant.log_ratio).abs() < 1e-9);
        assert!((constant.log_ratio - 0.5_f64.ln()).abs() < 1e-12);
    }
}
