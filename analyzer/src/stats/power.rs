//! What a comparison could have found: the smallest effect that so many runs resolve, and how
//! many runs a given effect takes.
//!
//! Effects and spreads are on the scale of natural logarithms: 0.095 is 10 % more.

use super::mann_whitney::rank_sum_runs_min;
use super::normal;
use super::seeded::SplitMix64;
use super::two_sample::differences_outside;

/// The effect that the two-sided rank-sum test finds in 80 % of cases, with `runs` runs a side
/// whose logarithms vary by the standard deviation `run_sd`.
///
/// Up to [`SIMULATED_RUNS_MAX`] runs a side the exact test is simulated with normal noise, the
/// same draws each time; above, the formula of the normal approximation (Lehmann 1975, section
/// 2.4) with the test's efficiency of 3 / pi. `None` when so few runs cannot reach `alpha` at all
/// (three, for 0.05), or `run_sd` is not a number from zero.
#[must_use]
pub fn smallest_effect(run_sd: f64, runs: usize, alpha: f64) -> Option<f64> {
    let sds = effect_in_sds(runs, alpha)?;
    (run_sd >= 0.0).then_some(sds * run_sd).filter(|effect| effect.is_finite())
}

/// The fewest runs a side that resolve an `effect` of either sign in 80 % of cases, never fewer
/// than can reach `alpha`. `None` when [`RUNS_MAX`] are not enough, or the effect is zero or any
/// number is not one.
#[must_use]
pub fn runs_needed(run_sd: f64, effect: f64, alpha: f64) -> Option<usize> {
    let resolves = |runs: usize| {
        smallest_effect(run_sd, runs, alpha).is_some_and(|smallest| smallest <= effect.abs())
    };
    let fewest = rank_sum_runs_min(alpha).filter(|_| effect != 0.0)?;
    let (mut enough, mut too_few) = (fewest, fewest - 1);
    while !resolves(enough) {
        too_few = enough;
        enough *= 2;
        if too_few > RUNS_MAX {
            return None;
        }
    }
    while enough - too_few > 1 {
        let middle = usize::midpoint(enough, too_few);
        if resolves(middle) { enough = middle } else { too_few = middle }
    }
    (enough <= RUNS_MAX).then_some(enough)
}

/// The smallest effect in units of the run-to-run standard deviation.
fn effect_in_sds(runs: usize, alpha: f64) -> Option<f64> {
    rank_sum_runs_min(alpha).filter(|fewest| runs >= *fewest && alpha < 1.0)?;
    if runs > SIMULATED_RUNS_MAX {
        let sds = normal::quantile(1.0 - alpha / 2.0) + normal::quantile(POWER);
        return Some(sds * (2.0 / runs as f64 * std::f64::consts::PI / 3.0).sqrt());
    }
    let outside = differences_outside(runs, runs, 1.0 - alpha)?;
    let mut random = SplitMix64::new(SEED);
    let mut shifts: Vec<f64> =
        (0..SIMULATIONS).filter_map(|_| shift_found(runs, outside, &mut random)).collect();
    let index = (SIMULATIONS as f64 * POWER) as usize;
    shifts.sort_by(f64::total_cmp);
    shifts.get(index).copied()
}

/// The shift from which on the test rejects for one draw of the noise.
///
/// With a shift d, U counts the pairs with candidate + d > base, so it reaches a critical value
/// as soon as d exceeds as many of the differences base - candidate.
fn shift_found(runs: usize, outside: usize, random: &mut SplitMix64) -> Option<f64> {
    let base: Vec<f64> = (0..runs).map(|_| normal::draw(random)).collect();
    let candidate: Vec<f64> = (0..runs).map(|_| normal::draw(random)).collect();
    let mut differences: Vec<f64> =
        base.iter().flat_map(|b| candidate.iter().map(move |c| b - c)).collect();
    let index = (runs * runs).checked_sub(outside + 1)?;
    let (_, shift, _) = differences.select_nth_unstable_by(index, f64::total_cmp);
    Some(*shift)
}

const POWER: f64 = 0.8;
/// The smallest effect is then right to 2 %, in a few milliseconds.
const SIMULATIONS: usize = 2_000;
/// Beyond, simulation and formula differ by less than the simulation's own error.
const SIMULATED_RUNS_MAX: usize = 20;
/// Nobody runs more.
const RUNS_MAX: usize = 10_000;
const SEED: u64 = 0x90e4_57a7_1571_c500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_runs_resolve_nothing() {
        assert_eq!(smallest_effect(0.03, 3, 0.05), None);
        assert_eq!(smallest_effect(0.03, 4, 0.01), None);
        assert!(smallest_effect(0.03, 4, 0.05).is_some());
        assert_eq!(smallest_effect(f64::NAN, 8, 0.05), None);
        assert_eq!(smallest_effect(-1.0, 8, 0.05), None);
        assert_eq!(smallest_effect(0.03, 8, f64::NAN), None);
        assert_eq!(smallest_effect(0.03, 8, 1.0), None);
        assert_eq!(smallest_effect(0.0, 8, 0.05), Some(0.0));
    }

    #[test]
    fn more_runs_resolve_less() {
        let effects: Vec<f64> =
            [4, 5, 6, 8, 12, 20, 21, 30, 60, 1000].map(|k| effect_in_sds(k, 0.05).unwrap()).into();
        assert!(effects.is_sorted_by(|a, b| a > b), "{effects:?}");
        // Four against four must not overlap at all: the gap has a mean of 2.06 and a standard
        // deviation of 0.99 in units of the noise's.
        assert!((2.75..3.0).contains(&effects[0]), "{effects:?}");
    }

    #[test]
    fn runs_needed_are_the_fewest_that_resolve() {
        for (sd, effect) in [(0.03, 0.2), (0.03, 0.05), (0.05, 0.03), (0.1, -0.06)] {
            let runs = runs_needed(sd, effect, 0.05).unwrap();
            assert!(smallest_effect(sd, runs, 0.05).unwrap() <= f64::abs(effect));
            let fewer = smallest_effect(sd, runs - 1, 0.05);
            assert!(fewer.is_none_or(|smallest| smallest > f64::abs(effect)), "{runs}");
        }
        assert_eq!(runs_needed(0.001, 0.5, 0.05), Some(4));
        assert_eq!(runs_needed(0.001, 0.5, 0.01), Some(5));
        assert_eq!(runs_needed(0.03, 0.0, 0.05), None);
        assert_eq!(runs_needed(0.03, 1e-6, 0.05), None);
        assert_eq!(runs_needed(0.03, f64::NAN, 0.05), None);
        assert_eq!(runs_needed(0.03, 0.1, 0.0), None);
    }
}
