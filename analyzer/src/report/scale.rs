//! From values to positions: axes, ticks, and percentiles.

use super::units::{length, ns_float, signed_whole, whole};
use crate::stats::nearest_rank;

/// A logarithmic axis of durations.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogScale {
    ln_low: f64,
    ln_high: f64,
}

impl LogScale {
    /// An axis that holds every positive value with some room at both ends; `None` when there is
    /// no positive value to place.
    pub(super) fn holding(values: impl Iterator<Item = i64>) -> Option<Self> {
        let (low, high) = values
            .filter(|&ns| ns > 0)
            .fold((i64::MAX, 0), |(low, high), ns| (low.min(ns), high.max(ns)));
        if high == 0 {
            return None;
        }
        let (ln_low, ln_high) = (ns_float(low).ln(), ns_float(high).ln());
        // At least a factor of 3, so that equal values do not fill the axis with noise.
        let room =
            ((ln_high - ln_low) * 0.04).max((3_f64.ln() - (ln_high - ln_low)) / 2.0).max(0.05);
        Some(Self { ln_low: ln_low - room, ln_high: ln_high + room })
    }

    /// Where a duration stands, 0 to 1; what is not positive stands at 0.
    pub(super) fn at(&self, ns: i64) -> f64 {
        if ns <= 0 {
            return 0.0;
        }
        ((ns_float(ns).ln() - self.ln_low) / (self.ln_high - self.ln_low)).clamp(0.0, 1.0)
    }

    /// The duration that stands at a share of the axis.
    pub(super) fn value(&self, share: f64) -> i64 {
        signed_whole((self.ln_low + share * (self.ln_high - self.ln_low)).exp())
    }

    /// Round durations inside the axis with their positions: the finest set that does not crowd.
    pub(super) fn ticks(&self, ticks_max: usize) -> Vec<(f64, i64)> {
        const STEPS: [&[i64]; 6] = [
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            &[1, 2, 3, 4, 6, 8],
            &[1, 2, 3, 5],
            &[1, 2, 5],
            &[1, 3],
            &[1],
        ];
        let mut ticks = Vec::new();
        for steps in STEPS {
            ticks = self.ticks_of(steps);
            if ticks.len() <= ticks_max && are_apart(&ticks) {
                return ticks;
            }
        }
        let every = ticks.len().div_ceil(ticks_max.max(1));
        ticks.into_iter().step_by(every).collect()
    }

    fn ticks_of(&self, steps: &[i64]) -> Vec<(f64, i64)> {
        // i64 nanoseconds end within the 19th decade.
        let decades = (0..19).map(|power| 10_i64.pow(power));
        decades
            .flat_map(|decade| steps.iter().filter_map(move |step| step.checked_mul(decade)))
            .filter(|&ns| (self.ln_low..=self.ln_high).contains(&ns_float(ns).ln()))
            .map(|ns| (self.at(ns), ns))
            .collect()
    }
}

/// Whether labels at these ticks do not touch, even where the axis is only 320 pixels long.
fn are_apart(ticks: &[(f64, i64)]) -> bool {
    ticks.iter().zip(ticks.iter().skip(1)).all(|(one, next)| next.0 - one.0 > 0.13)
}

/// Round ticks of a linear axis from 0 to `end_ns`, with their positions.
pub(super) fn linear_ticks(end_ns: i64, ticks_max: i64) -> Vec<(f64, i64)> {
    if end_ns <= 0 || ticks_max <= 0 {
        return Vec::new();
    }
    let rough = ns_float(end_ns) / ns_float(ticks_max);
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * decade)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(rough);
    let step = signed_whole(step).max(1);
    (0..=end_ns / step).map(|n| (ns_float(n * step) / ns_float(end_ns), n * step)).collect()
}

/// A percentile of sorted values by nearest rank, as the breakdown has it; `None` without values.
pub(super) fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    (!sorted.is_empty()).then(|| nearest_rank(sorted, percent))
}

/// Sorted copy, for percentiles.
pub(super) fn sorted(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values
}

/// How many values fall into each of `bins` equal parts of the axis.
pub(super) fn bin_counts(scale: &LogScale, values: &[i64], bins: usize) -> Vec<u64> {
    let mut counts = vec![0; bins];
    for &ns in values {
        let bin = usize::try_from(whole((scale.at(ns) * length(bins)).floor())).unwrap_or(0);
        if let Some(count) = counts.get_mut(bin.min(bins.saturating_sub(1))) {
            *count += 1;
        }
    }
    counts
}

/// A position as an SVG percentage.
pub(super) fn percent_of(share: f64) -> String {
    format!("{}%", decimal(share * 100.0))
}

/// A coordinate with no more digits than a screen shows; what is not a number stands at 0.
pub(super) fn decimal(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: one value, equal values, a huge spread, and none.
    /// Guarantees: an axis always has a tick, never a crowd, and every value on it.
    #[test]
    fn axes_hold_their_values() {
        for values in
            [&[5_i64][..], &[7, 7, 7], &[1, i64::MAX], &[0, 999, 1_000_000], &[430_000, 520_000]]
        {
            let Some(scale) = LogScale::holding(values.iter().copied()) else {
                panic!("{values:?}")
            };
            let ticks = scale.ticks(7);
            assert!((1..=7).contains(&ticks.len()), "{values:?}: {ticks:?}");
            assert!(values.iter().all(|&ns| (0.0..=1.0).contains(&scale.at(ns))));
            assert_eq!(bin_counts(&scale, values, 12).iter().sum::<u64>(), values.len() as u64);
        }
        assert!(LogScale::holding([0, -5].into_iter()).is_none());
        assert_eq!(linear_ticks(1_000, 5).len(), 6);
        assert!(linear_ticks(0, 5).is_empty());
        assert!(linear_ticks(i64::MAX, 6).len() <= 7);
    }
}
