//! Successive halving: few repeats for all settings, more for the better half, and so on
//! (Jamieson and Talwalkar, 2016).
//!
//! The saving costs nothing certain: a setting that no one else beats in everything is kept as long
//! as there is room, whatever its place in the first objective.

use super::objective::Better;
use super::pareto;

/// How many settings take part in each round, each of two blocks, until `repeats` blocks are done by
/// those that are left. One number when nothing is to be halved.
#[must_use]
pub fn rounds(points: usize, repeats: usize) -> Vec<usize> {
    let mut sizes = vec![points];
    let mut left = points;
    while left > LEFT_MIN {
        left = left.div_ceil(2).max(LEFT_MIN);
        sizes.push(left);
    }
    // The last ones are measured as often as was asked for.
    let done = 2 * sizes.len();
    let more = repeats.saturating_sub(done).div_ceil(2);
    sizes.extend(std::iter::repeat_n(left, more));
    sizes
}

/// The best `keep` settings: by the number of settings that beat them in everything (none, first),
/// then by the first objective. `values` has a row for each setting; a setting without a value in
/// the first objective comes last.
#[must_use]
pub fn survivors(values: &[Vec<f64>], better: &[Better], keep: usize) -> Vec<usize> {
    let beaten = pareto::beaten_by(values, better);
    let mut order: Vec<usize> = (0..values.len()).collect();
    let first = |point: usize| values.get(point).and_then(|row| row.first()).copied();
    let rank = |point: usize| {
        let value = first(point).unwrap_or(f64::NAN);
        let cost = if better.first() == Some(&Better::Higher) { -value } else { value };
        if cost.is_nan() { f64::INFINITY } else { cost }
    };
    order.sort_by(|a, b| {
        let key =
            |point: usize| (rank(point).is_infinite(), beaten.get(point).copied().unwrap_or(0));
        key(*a).cmp(&key(*b)).then(rank(*a).total_cmp(&rank(*b))).then(a.cmp(b))
    });
    order.truncate(keep);
    order.sort_unstable();
    order
}

/// So few settings are measured to the end.
const LEFT_MIN: usize = 4;
/// From here on a grid is halved unless it is asked otherwise.
pub const HALVED_FROM: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_halve_and_then_repeat() {
        assert_eq!(rounds(4, 4), [4, 4]);
        assert_eq!(rounds(16, 4), [16, 8, 4]);
        assert_eq!(rounds(16, 10), [16, 8, 4, 4, 4]);
        assert_eq!(rounds(9, 2), [9, 5, 4]);
    }

    /// Scenario: one setting is best in the first objective, another in the second, one is beaten in
    /// both, one was never measured.
    #[test]
    fn who_is_best_in_anything_stays() {
        use Better::{Higher, Lower};
        let values =
            vec![vec![10.0, 5.0], vec![9.0, 6.0], vec![3.0, 1.0], vec![f64::NAN, f64::NAN]];
        assert_eq!(survivors(&values, &[Higher, Lower], 2), [0, 2]);
        assert_eq!(survivors(&values, &[Higher, Lower], 3), [0, 1, 2]);
        assert_eq!(survivors(&values, &[Lower, Lower], 1), [2]);
        assert_eq!(survivors(&values, &[Lower, Lower], 9), [0, 1, 2, 3]);
    }
}
