//! `T(n) = a + b n`: what a call takes, and what each of its items adds.

use serde::Serialize;

use crate::quantile::nearest_rank;
use crate::rng::Rng;

/// A fitted line with what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallFit {
    /// Time of a call whatever its size, ns; not negative.
    pub base_ns: f64,
    /// Time of each item, ns; not negative.
    pub per_item_ns: f64,
    /// Smallest size seen.
    pub seen_min: f64,
    /// Largest size seen.
    pub seen_max: f64,
    /// Different sizes seen.
    pub sizes: usize,
    /// Calls it is fitted from.
    pub calls: usize,
    /// Whether both coefficients follow from the calls. If not, only calls of the sizes seen can be
    /// predicted.
    pub is_identified: bool,
    /// Median size of a relative error of a call, 0.05 for 5 %.
    pub error_median: f64,
    /// Coefficients of the resamples, for intervals.
    #[serde(skip)]
    resamples: Vec<(f64, f64)>,
}

/// A predicted time with a 95 % interval of its mean, ns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Why a size cannot be predicted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unpredictable {
    /// Nothing was recorded.
    #[error("no call of {stage} was recorded")]
    NoCalls {
        /// The stage.
        stage: &'static str,
    },
    /// The calls do not tell the time of a call from the time of its items.
    #[error(
        "calls of {stage} are too alike ({sizes} different sizes, {min:.0} to {max:.0} items) to tell \
         what a call costs from what its items cost"
    )]
    NotIdentified {
        /// The stage.
        stage: &'static str,
        /// Different sizes.
        sizes: usize,
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// It is too far from what was seen.
    #[error(
        "{size:.0} items a call of {stage} are outside half the smallest to twice the largest size \
         seen ({min:.0} to {max:.0})"
    )]
    OutsideSeen {
        /// The stage.
        stage: &'static str,
        /// Size asked about.
        size: f64,
        /// Smallest seen.
        min: f64,
        /// Largest seen.
        max: f64,
    },
}

/// Fits sizes and times (ns) of calls: non-negative least squares of relative errors, which weighs
/// a call of a millisecond like one of a second, with Huber's weights against stragglers (Huber
/// 1964; k = 1.345 standard deviations). `None` without a call of positive size and time.
///
/// The coefficients are *identified* when sizes differ in the calls drawn anew in at least 97.5 %
/// of 200 resamples, and the largest is at least 1.5 times the smallest: one leftover batch among
/// a hundred full ones decides nothing.
#[must_use]
pub fn fit(calls: &[(f64, f64)], seed: u64) -> Option<CallFit> {
    let calls: Vec<(f64, f64)> =
        calls.iter().copied().filter(|(size, ns)| *size > 0.0 && *ns > 0.0).collect();
    let mut sizes: Vec<f64> = calls.iter().map(|(size, _)| *size).collect();
    sizes.sort_by(f64::total_cmp);
    let (seen_min, seen_max) = (*sizes.first()?, *sizes.last()?);
    let count = calls.len();
    sizes.dedup();
    let thinned: Vec<(f64, f64)> =
        calls.iter().copied().step_by(count.div_ceil(CALLS_MAX)).collect();
    let mut rng = Rng::new(seed);
    let mut differing = 0;
    let resamples: Vec<(f64, f64)> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<(f64, f64)> = (0..thinned.len())
                .filter_map(|_| thinned.get(rng.below(thinned.len() as u64) as usize).copied())
                .collect();
            let first = drawn.first().map(|call| call.0);
            differing += usize::from(drawn.iter().any(|call| Some(call.0) != first));
            line(&drawn)
        })
        .collect();
    let (base_ns, per_item_ns) = line(&thinned);
    let is_identified =
        seen_max >= RATIO_MIN * seen_min && differing as f64 >= 0.975 * RESAMPLES as f64;
    let mut errors: Vec<f64> = thinned
        .iter()
        .map(|(size, ns)| (ns / (base_ns + per_item_ns * size) - 1.0).abs())
        .collect();
    errors.sort_by(f64::total_cmp);
    Some(CallFit {
        base_ns,
        per_item_ns,
        seen_min,
        seen_max,
        sizes: sizes.len(),
        calls: count,
        is_identified,
        error_median: nearest_rank(&errors, 0.5).unwrap_or(0.0),
        resamples,
    })
}

impl CallFit {
    /// The mean time of calls of a size.
    ///
    /// # Errors
    /// The size is not one this fit may be asked about; `extrapolate` lifts the limit of the range,
    /// but not the need for identified coefficients.
    pub fn predict(
        &self,
        stage: &'static str,
        size: f64,
        range: Range,
    ) -> Result<Estimate, Unpredictable> {
        let (min, max) = (self.seen_min, self.seen_max);
        let is_seen = (min..=max).contains(&size) && min == max;
        if !self.is_identified && !is_seen {
            return Err(Unpredictable::NotIdentified { stage, sizes: self.sizes, min, max });
        }
        let is_near = (min / SEEN_FACTOR..=max * SEEN_FACTOR).contains(&size);
        if !is_near && range == Range::Seen {
            return Err(Unpredictable::OutsideSeen { stage, size, min, max });
        }
        let mut drawn: Vec<f64> = self.resamples.iter().map(|(a, b)| a + b * size).collect();
        drawn.sort_by(f64::total_cmp);
        let estimate = self.base_ns + self.per_item_ns * size;
        let low = nearest_rank(&drawn, 0.025).unwrap_or(estimate).min(estimate);
        let high = nearest_rank(&drawn, 0.975).unwrap_or(estimate).max(estimate);
        Ok(Estimate { estimate, low, high })
    }

    /// The fit as people write it.
    #[must_use]
    pub fn formula(&self) -> String {
        let (base, item) = (self.base_ns / 1e6, self.per_item_ns / 1e6);
        if self.is_identified {
            format!("{base:.3} ms + {item:.4} ms x items")
        } else {
            let size = f64::midpoint(self.seen_min, self.seen_max);
            let whole = base + item * size;
            format!("{whole:.3} ms at about {size:.0} items; the parts are not identified")
        }
    }
}

/// How far from the sizes seen a prediction may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// From half the smallest to twice the largest.
    Seen,
    /// Anywhere.
    Any,
}

/// Intercept and slope, neither negative.
fn line(calls: &[(f64, f64)]) -> (f64, f64) {
    // Relative errors of the data first; then of the fit, with the weights of Huber.
    let mut weights: Vec<f64> = calls.iter().map(|(_, ns)| 1.0 / (ns * ns)).collect();
    let mut found = weighted(calls, &weights);
    for _ in 0..ROUNDS {
        let residual = |(size, ns): &(f64, f64)| {
            let fitted = (found.0 + found.1 * size).max(1e-9);
            ns / fitted - 1.0
        };
        let mut sizes: Vec<f64> = calls.iter().map(|call| residual(call).abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let sd = (nearest_rank(&sizes, 0.5).unwrap_or(0.0) / 0.6745).max(1e-6);
        weights.clear();
        weights.extend(calls.iter().map(|call| {
            let fitted = (found.0 + found.1 * call.0).max(1e-9);
            let huber = (1.345 * sd / residual(call).abs().max(1e-12)).min(1.0);
            huber / (fitted * fitted)
        }));
        let next = weighted(calls, &weights);
        let moved = (next.0 - found.0).abs() + (next.1 - found.1).abs();
        found = next;
        if moved <= 1e-9 * (found.0 + found.1) {
            break;
        }
    }
    found
}

/// Weighted least squares under `a >= 0, b >= 0`: with two coefficients, the best of the inner
/// solution and of the two edges.
fn weighted(calls: &[(f64, f64)], weights: &[f64]) -> (f64, f64) {
    let (mut s, mut sn, mut snn, mut st, mut snt) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((size, ns), weight) in calls.iter().zip(weights) {
        s += weight;
        sn += weight * size;
        snn += weight * size * size;
        st += weight * ns;
        snt += weight * size * ns;
    }
    let determinant = s * snn - sn * sn;
    let only_slope = (0.0, if snn > 0.0 { snt / snn } else { 0.0 });
    // Sizes that are all alike give no determinant but rounding.
    if determinant <= 1e-12 * s * snn {
        return only_slope;
    }
    let slope = (s * snt - sn * st) / determinant;
    let base = (st - slope * sn) / s;
    if base < 0.0 {
        only_slope
    } else if slope < 0.0 {
        (st / s, 0.0)
    } else {
        (base, slope)
    }
}

/// A prediction may leave the sizes seen by this factor at either end.
pub const SEEN_FACTOR: f64 = 2.0;
/// Sizes closer than this cannot carry a line.
const RATIO_MIN: f64 = 1.5;
/// Enough for the ends of a 95 % interval.
const RESAMPLES: usize = 200;
/// Bounds the time of a fit to some hundredths of a second.
const CALLS_MAX: usize = 500;
/// Reweighting converges long before.
const ROUNDS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls of `2 ms + 0.5 ms n` with errors of some percent and a straggler now and then.
    fn calls(sizes: &[u32], each: usize) -> Vec<(f64, f64)> {
        let mut rng = Rng::new(3);
        let mut calls = Vec::new();
        for size in sizes {
            for number in 0..each {
                let size = f64::from(*size);
                let noise = 1.0 + 0.04 * (rng.unit() - 0.5);
                let straggler = if number % 17 == 5 { 10.0 } else { 1.0 };
                calls.push((size, (2e6 + 5e5 * size) * noise * straggler));
            }
        }
        calls
    }

    /// Scenario: known coefficients, noise of 2 %, every seventeenth call ten times too long.
    /// Guarantees: both coefficients within 5 %, and sizes between and near those seen within 3 %,
    /// inside their interval.
    #[test]
    fn coefficients_come_back_from_noisy_calls() {
        let found = fit(&calls(&[4, 64], 60), 1).unwrap();
        assert!(found.is_identified);
        assert!((found.base_ns / 2e6 - 1.0).abs() < 0.05, "{found:?}");
        assert!((found.per_item_ns / 5e5 - 1.0).abs() < 0.05, "{found:?}");
        for size in [2.0, 8.0, 16.0, 32.0, 128.0] {
            let truth = 2e6 + 5e5 * size;
            let predicted = found.predict("embed", size, Range::Seen).unwrap();
            assert!((predicted.estimate / truth - 1.0).abs() < 0.03, "{size}: {predicted:?}");
            assert!(predicted.low <= predicted.estimate && predicted.estimate <= predicted.high);
            assert!(predicted.high / predicted.low < 1.2, "{predicted:?}");
        }
    }

    /// Scenario: one batch size; one batch size with a single leftover; sizes far from those seen.
    /// Guarantees: the fit says what it cannot know, and knows again what it has seen.
    #[test]
    fn what_is_not_identified_is_not_predicted() {
        let one = fit(&calls(&[32], 50), 1).unwrap();
        let refused = one.predict("embed", 64.0, Range::Any).unwrap_err();
        assert!(matches!(refused, Unpredictable::NotIdentified { sizes: 1, .. }), "{refused}");
        let seen = one.predict("embed", 32.0, Range::Seen).unwrap();
        assert!((seen.estimate / 18e6 - 1.0).abs() < 0.05, "{seen:?}");

        let mut leftover = calls(&[32], 50);
        leftover.push((7.0, 5.5e6));
        assert!(!fit(&leftover, 1).unwrap().is_identified);

        let two = fit(&calls(&[8, 16], 30), 1).unwrap();
        assert!(two.predict("embed", 4.0, Range::Seen).is_ok());
        let far = two.predict("embed", 64.0, Range::Seen).unwrap_err();
        assert!(matches!(far, Unpredictable::OutsideSeen { .. }), "{far}");
        assert!(two.predict("embed", 64.0, Range::Any).is_ok());
        assert_eq!(fit(&[], 1), None);
        assert_eq!(fit(&[(0.0, 5.0), (3.0, 0.0)], 1), None);
    }

    /// Scenario: times that fall with size, and times in proportion to it.
    /// Guarantees: no coefficient is negative.
    #[test]
    fn no_time_is_negative() {
        let falling = fit(&[(1.0, 9.0), (2.0, 8.0), (4.0, 6.0), (8.0, 5.0)], 1).unwrap();
        assert_eq!(falling.per_item_ns, 0.0);
        assert!(falling.base_ns > 4.0 && falling.base_ns < 9.0);
        let steep = fit(&[(1.0, 1.0), (2.0, 4.0), (4.0, 16.0), (8.0, 64.0)], 1).unwrap();
        assert_eq!(steep.base_ns, 0.0);
    }

    #[test]
    fn a_fit_is_a_function_of_its_calls_and_seed() {
        assert_eq!(fit(&calls(&[2, 9], 40), 7), fit(&calls(&[2, 9], 40), 7));
    }
}
