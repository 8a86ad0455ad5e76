//! Numbers nobody measured: none, one, many equal, infinite, not a number, too large to add.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_numbers() -> impl Strategy<Value = Vec<f64>> {
    let odd = prop::sample::select(vec![
        0.0,
        -0.0,
        1.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN_POSITIVE,
    ]);
    let number = prop_oneof![any::<f64>(), odd, -3.0..3.0];
    prop_oneof![vec(number.clone(), 0..12), vec(number, 0..120), vec(0.5_f64..0.6, 100..120)]
}

fn is_probability(p: f64) -> bool {
    0.0 < p && p <= 1.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Scenario: samples of any numbers, of any sizes.
    /// Guarantees: no test of two samples panics, and each p-value is one.
    #[test]
    fn tests_of_two_samples_take_any_numbers(base in any_numbers(), candidate in any_numbers()) {
        if let Some(found) = rank_sum(&base, &candidate) {
            prop_assert!(is_probability(found.p_two_sided), "{:?}", found);
            prop_assert!(is_probability(found.p_greater), "{:?}", found);
        }
        if let Some(found) = permutation(&base, &candidate, 1) {
            prop_assert!(is_probability(found.p_two_sided), "{:?}", found);
            prop_assert!(is_probability(found.p_greater), "{:?}", found);
        }
        if let Some(found) = cliffs_delta(&base, &candidate) {
            prop_assert!((-1.0..=1.0).contains(&found.delta), "{:?}", found);
        }
    }

    /// Scenario: the same for estimates with an interval.
    /// Guarantees: no panic, and an interval contains its estimate.
    #[test]
    fn intervals_take_any_numbers(
        base in any_numbers(),
        candidate in any_numbers(),
        level: f64,
        q in 0.0..1.0,
    ) {
        let _ = two_sample_shift(&base, &candidate, level);
        if let Some(Shift { interval, .. }) = two_sample_shift(&base, &candidate, 0.95) {
            prop_assert!(interval.low <= interval.estimate && interval.estimate <= interval.high);
        }
        let repeats = [base.clone(), candidate.clone()];
        let _ = paired_replays(&repeats, &repeats[1..], 1);
        let _ = paired_replays(&repeats, &repeats, 1);
        if let Some(found) = quantile_ratio(&base, &candidate, q, 1) {
            let interval = found.within_runs();
            prop_assert!(interval.low <= interval.estimate && interval.estimate <= interval.high);
        }
        let _ = RunSpread::of_history(&base, SpreadPrior { sd: level, weight: q });
    }

    /// Scenario: the same for a series of runs.
    /// Guarantees: no panic, and positions are in order and within the series.
    #[test]
    fn series_take_any_numbers(series in any_numbers(), last in 0_usize..40, number: f64) {
        let points = ChangePointSearch::default().find(&series);
        prop_assert!(points.is_sorted_by(|a, b| a.index < b.index));
        for point in &points {
            prop_assert!(is_probability(point.p));
            prop_assert!(point.index_low <= point.index && point.index <= point.index_high);
            prop_assert!(point.index_high < series.len());
        }
        if let Some(found) = recent_shift(&series, last, 1) {
            prop_assert!(is_probability(found.p) && found.index < series.len());
        }
        let _ = (rank_sum_runs_min(number), EffectSize::of(number));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Scenario: any numbers asked about power.
    /// Guarantees: no panic, and no fewer runs than can decide.
    #[test]
    fn power_takes_any_numbers(sd: f64, effect: f64, alpha in -0.1..1.1, runs in 0_usize..40) {
        let _ = smallest_effect(sd, runs, alpha);
        if let Some(runs) = runs_needed(sd, effect, alpha) {
            prop_assert!(rank_sum_p_floor(runs) <= alpha);
        }
    }
}
