//! Change points: points where there is no change, and changes without a point.

use super::rate;
use crate::stats::{ChangePointSearch, SplitMix64, normal};

fn series(parts: &[(usize, f64)], random: &mut SplitMix64) -> Vec<f64> {
    let mut values = Vec::new();
    for (count, level) in parts {
        values.extend((0..*count).map(|_| level * (0.03 * normal::draw(random)).exp()));
    }
    values
}

/// Scenario: 200 series of 60 runs with a noise of 3 % and no change.
/// Guarantees: at most 5 % of them have a change point.
#[test]
fn noise_has_no_change_points() {
    let mut random = SplitMix64::new(67);
    let mut points = 0;
    let false_points = rate("series of 60 without a change, with a point", 200, || {
        let found = ChangePointSearch::default().find(&series(&[(60, 1.0)], &mut random));
        points += found.len();
        !found.is_empty()
    });
    println!("    {points} points");
    assert!(false_points <= 0.05);
}

/// Scenario: 200 series of 20 runs and 20 more that are 10 % slower, with a noise of 3 %.
/// Guarantees: G1 - at least 95 % of the changes are found, most within one run, at most 5 % of
/// series have another point, and intervals contain the change in 95 %.
#[test]
fn planted_changes_are_found() {
    let mut random = SplitMix64::new(71);
    let (mut close, mut others, mut covered) = (0, 0, 0);
    let found = rate("+10 % after 20 of 40 runs, found", 200, || {
        let values = series(&[(20, 1.0), (20, 1.1)], &mut random);
        let points = ChangePointSearch::default().find(&values);
        let best = points.iter().min_by_key(|point| point.index.abs_diff(20));
        others += points.len().saturating_sub(1);
        let Some(point) = best else { return false };
        close += usize::from(point.index.abs_diff(20) <= 1);
        covered += usize::from(point.index_low <= 20 && 20 <= point.index_high);
        true
    });
    println!("    within one run {close}, in the interval {covered}, other points {others}");
    assert!(found >= 0.95 && close >= 180 && others <= 10 && covered >= 180);
}

/// Scenario: 200 series with a change of 5 %, hardly more than the noise of 3 %.
/// Guarantees: where it is found, the interval contains it in 95 %, but for chance.
#[test]
fn intervals_of_positions_contain_the_change() {
    let mut random = SplitMix64::new(73);
    let (mut covered, mut width, mut all) = (0, 0, 0);
    let found = rate("+5 % after 30 of 60 runs, found", 200, || {
        let values = series(&[(30, 1.0), (30, 1.05)], &mut random);
        let points = ChangePointSearch::default().find(&values);
        let Some(point) = points.first().filter(|_| points.len() == 1) else { return false };
        all += 1;
        covered += usize::from(point.index_low <= 30 && 30 <= point.index_high);
        width += point.index_high - point.index_low;
        true
    });
    println!("    in the interval {covered} of {all}, mean width {}", width / all);
    let share = covered as f64 / all as f64;
    assert!(found > 0.8 && share >= 0.95 - super::chance(0.95, all));
}

/// Scenario: 2,000 runs with three changes.
/// Guarantees: all are found, in well under a second.
#[test]
fn long_series_are_searched_quickly() {
    let mut random = SplitMix64::new(79);
    let parts = [(700, 1.0), (300, 1.03), (500, 1.0), (500, 0.95)];
    let values = series(&parts, &mut random);
    let start = std::time::Instant::now();
    let found = ChangePointSearch::default().find(&values);
    println!("2,000 runs: {:?}", start.elapsed());
    assert!(found.len() <= 4, "{found:?}");
    for planted in [700_usize, 1000, 1500] {
        let is_close = |place: usize| place.abs_diff(planted) <= 15;
        assert!(found.iter().any(|point| is_close(point.index)), "{found:?}");
    }
}
