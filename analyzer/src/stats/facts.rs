//! What other programs say, beside what we say. `scripts/stats-facts` writes the files.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::normal::{quantile, upper_tail};
use super::student::two_sided;
use super::*;

/// The cases of a file of facts.
pub(super) fn cases<T: DeserializeOwned>(text: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct Facts<T> {
        cases: Vec<T>,
    }
    let facts: Facts<T> = serde_json::from_str(text).unwrap();
    assert!(!facts.cases.is_empty());
    facts.cases
}

#[track_caller]
fn assert_close(found: f64, expected: f64, relative: f64) {
    let tolerance = relative * expected.abs() + 1e-12;
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[derive(Deserialize)]
struct TwoSamples {
    base: Vec<f64>,
    candidate: Vec<f64>,
    p_two_sided: Option<f64>,
    p_greater: Option<f64>,
    is_exact: Option<bool>,
    pairs_greater: Option<f64>,
    difference: Option<f64>,
    delta: Option<f64>,
    level: Option<f64>,
    estimate: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

#[test]
fn rank_sums_are_those_of_scipy() {
    for case in cases::<TwoSamples>(include_str!("facts/mann_whitney.json")) {
        let found = rank_sum(&case.base, &case.candidate).unwrap();
        assert_eq!(Some(found.is_exact), case.is_exact);
        assert_eq!(Some(found.pairs_greater), case.pairs_greater);
        let relative = if found.is_exact { 1e-11 } else { 1e-6 };
        assert_close(found.p_two_sided, case.p_two_sided.unwrap(), relative);
        assert_close(found.p_greater, case.p_greater.unwrap(), relative);
    }
}

#[test]
fn signed_ranks_are_those_of_scipy() {
    #[derive(Deserialize)]
    struct Case {
        differences: Vec<f64>,
        p_two_sided: f64,
    }
    for case in cases::<Case>(include_str!("facts/signed_rank.json")) {
        assert_close(signed_rank_p(&case.differences), case.p_two_sided, 1e-6);
    }
}

#[test]
fn shifts_and_their_intervals_are_those_of_the_definition() {
    for case in cases::<TwoSamples>(include_str!("facts/hodges_lehmann.json")) {
        let shift = two_sample_shift(&case.base, &case.candidate, case.level.unwrap()).unwrap();
        assert_close(shift.interval.estimate, case.estimate.unwrap(), 1e-12);
        assert_close(shift.interval.low, case.low.unwrap(), 1e-12);
        assert_close(shift.interval.high, case.high.unwrap(), 1e-12);
        assert_eq!(shift.is_decidable, case.base.len() > 3);
    }
}

#[test]
fn paired_shifts_and_their_intervals_are_those_of_the_definition() {
    #[derive(Deserialize)]
    struct Case {
        differences: Vec<f64>,
        estimate: f64,
        low: f64,
        high: f64,
    }
    for case in cases::<Case>(include_str!("facts/walsh.json")) {
        let interval = shift(&case.differences).unwrap().interval;
        assert_close(interval.estimate, case.estimate, 1e-12);
        assert_close(interval.low, case.low, 1e-12);
        assert_close(interval.high, case.high, 1e-12);
    }
}

#[test]
fn deltas_are_those_of_the_definition() {
    for case in cases::<TwoSamples>(include_str!("facts/cliffs_delta.json")) {
        let found = cliffs_delta(&case.base, &case.candidate).unwrap();
        assert_close(found.delta, case.delta.unwrap(), 1e-12);
    }
}

#[test]
fn permutations_are_those_of_scipy() {
    for case in cases::<TwoSamples>(include_str!("facts/permutation.json")) {
        let found = permutation(&case.base, &case.candidate, 1).unwrap();
        assert!(found.is_exact);
        assert_close(found.difference, case.difference.unwrap(), 1e-9);
        assert_close(found.p_greater, case.p_greater.unwrap(), 1e-12);
        assert_close(found.p_two_sided, case.p_two_sided.unwrap(), 1e-12);
    }
}

#[test]
fn tails_and_quantiles_are_those_of_scipy() {
    #[derive(Deserialize)]
    struct Case {
        of: String,
        at: f64,
        value: f64,
    }
    for case in cases::<Case>(include_str!("facts/tails.json")) {
        match case.of.as_str() {
            "normal_upper_tail" => assert_close(upper_tail(case.at), case.value, 2e-7),
            "normal_quantile" => assert_close(quantile(case.at), case.value, 1e-13),
            "student_975" => assert_close(two_sided(0.95, case.at), case.value, 1e-9),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn nearest_ranks_and_medians_are_those_of_numpy() {
    #[derive(Deserialize)]
    struct Case {
        values: Vec<i64>,
        percents: Vec<usize>,
        nearest_rank: Vec<i64>,
        median: f64,
    }
    for case in cases::<Case>(include_str!("facts/quantiles.json")) {
        let mut sketch = Sketch::new();
        case.values.iter().for_each(|value| sketch.insert(*value));
        for (percent, expected) in case.percents.iter().zip(&case.nearest_rank) {
            assert_eq!(nearest_rank(&case.values, *percent), *expected);
            assert_eq!(sketch.quantile(*percent as f64 / 100.0), Some(*expected as f64));
        }
        let values: Vec<f64> = case.values.iter().map(|value| *value as f64).collect();
        assert_eq!(median(&values), Some(case.median));
    }
}
