//! Tests of a few runs a side.

use super::{chance, rate, runs};
use crate::stats::{SplitMix64, permutation, rank_sum, smallest_effect};

const TRIALS: usize = 2000;

/// Scenario: 2,000 comparisons of 4, 5, and 8 runs with as many of the same kind, with outliers.
/// Guarantees: G1 - at most 5 % have a p-value of at most 0.05, but for chance.
#[test]
fn rank_sums_seldom_cry_wolf() {
    let mut random = SplitMix64::new(41);
    for count in [4, 5, 8] {
        let alarms = rate(&format!("rank sum, {count} runs, false alarms"), TRIALS, || {
            let (base, candidate) = (runs(count, 0.0, &mut random), runs(count, 0.0, &mut random));
            rank_sum(&base, &candidate).unwrap().p_two_sided <= 0.05
        });
        assert!(alarms <= 0.05 + chance(0.05, TRIALS));
    }
}

/// Scenario: the same for the permutation test, and for relabellings drawn at random.
/// Guarantees: G1 - at most 5 % have a p-value of at most 0.05, but for chance.
#[test]
fn permutations_seldom_cry_wolf() {
    let mut random = SplitMix64::new(43);
    for (count, trials) in [(4, TRIALS), (5, TRIALS), (8, TRIALS), (12, 200)] {
        let alarms = rate(&format!("permutation, {count} runs, false alarms"), trials, || {
            let (base, candidate) = (runs(count, 0.0, &mut random), runs(count, 0.0, &mut random));
            let seed = random.next_u64();
            permutation(&base, &candidate, seed).unwrap().p_two_sided <= 0.05
        });
        assert!(alarms <= 0.05 + chance(0.05, trials));
    }
}

/// Scenario: the effect said to be the smallest that 4, 8, and 16 runs resolve, planted.
/// Guarantees: it is found in 80 % of comparisons, but for chance.
#[test]
fn the_smallest_effect_is_found_as_often_as_said() {
    let mut random = SplitMix64::new(47);
    for count in [4, 8, 16] {
        let effect = smallest_effect(0.03, count, 0.05).unwrap();
        let found = rate(&format!("{count} runs, {effect:.4} planted, found"), TRIALS, || {
            let mut side = |shift: f64| -> Vec<f64> {
                (0..count).map(|_| shift + 0.03 * crate::stats::normal::draw(&mut random)).collect()
            };
            let (base, candidate) = (side(0.0), side(effect));
            let test = rank_sum(&base, &candidate).unwrap();
            test.p_two_sided <= 0.05 && test.p_greater < 0.5
        });
        assert!((found - 0.8).abs() <= 0.02 + chance(0.8, TRIALS));
    }
}
