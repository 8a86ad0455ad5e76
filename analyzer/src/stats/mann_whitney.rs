//! The rank-sum test of Wilcoxon (1945), and Mann and Whitney (1947): do two independent samples
//! come from the same distribution?
//!
//! Its unit is whatever the values are one of. For a verdict on a change that is the run:
//! requests of one run share its noise, and tested one by one they cry wolf half of the time.

use super::normal::upper_tail;
use super::pooled::Pooled;

/// The outcome of a rank-sum test of a candidate against a base.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankSum {
    /// Mann and Whitney's U: the pairs (one value of either side) in which the candidate's is
    /// greater, and half of those in which both are equal.
    pub pairs_greater: f64,
    /// Probability of a U at least as far from the middle, if the sides do not differ: twice the
    /// smaller tail, at most 1.
    pub p_two_sided: f64,
    /// Probability of a U at least as large, if the sides do not differ.
    pub p_greater: f64,
    /// Whether the probabilities are counted, not approximated.
    pub is_exact: bool,
}

/// Tests whether `candidate` differs from `base`, in any unit; `None` when a side is empty.
///
/// Values that are not numbers are left out. Up to [`EXACT_VALUES_MAX`] values the distribution
/// is counted given the mid-ranks that occurred, so ties are exact too (Lehmann 1975, section
/// 1.4); above, the normal approximation with corrections for ties and continuity (section 1.5).
/// Where all values are equal, both probabilities are 1.
#[must_use]
pub fn rank_sum(base: &[f64], candidate: &[f64]) -> Option<RankSum> {
    rank_sum_of(&Pooled::of_values(base, candidate))
}

/// The smallest two-sided p-value that `runs` values against as many can give: 2 / C(2k, k), of
/// the two orders in which the sides do not overlap. 1 for 0 runs.
#[must_use]
pub fn rank_sum_p_floor(runs: usize) -> f64 {
    // C(2k, k) is the product of (k + i) / i.
    let orders: f64 = (1..=runs).map(|i| (runs + i) as f64 / i as f64).product();
    (2.0 / orders).min(1.0)
}

/// The fewest runs a side with which the two-sided rank-sum test can reach `alpha`: 4 for 0.05.
/// `None` unless `alpha` is above zero.
#[must_use]
pub fn rank_sum_runs_min(alpha: f64) -> Option<usize> {
    // The floor reaches 0 before 600 runs, so every positive alpha has an answer.
    (1..=600).find(|runs| alpha > 0.0 && rank_sum_p_floor(*runs) <= alpha)
}

pub(super) fn rank_sum_of(pooled: &Pooled) -> Option<RankSum> {
    let pairs_greater = pooled.candidate_greater()?;
    let (base, candidate) = pooled.sizes();
    let is_exact = base.saturating_add(candidate) <= EXACT_VALUES_MAX as u64;
    let tails = if is_exact { counted(pooled) } else { approximated(pooled, pairs_greater) };
    Some(RankSum {
        pairs_greater,
        p_two_sided: (2.0 * tails.greater.min(tails.less)).min(1.0),
        p_greater: tails.greater.min(1.0),
        is_exact,
    })
}

/// In how many ways `size` of `ranks` sum to each number.
///
/// A count may exceed what a float holds exactly; all terms are positive, so each keeps fifteen
/// digits.
pub(super) fn subset_sums(ranks: &[usize], size: usize) -> Vec<f64> {
    let most: usize = ranks.iter().rev().take(size).sum();
    let mut by_size = vec![vec![0.0; most + 1]; size + 1];
    if let Some(empty) = by_size.first_mut().and_then(|sums| sums.first_mut()) {
        *empty = 1.0;
    }
    for rank in ranks {
        // From the largest subsets down, so that no rank is taken twice.
        for taken in (1..=size).rev() {
            let (smaller, larger) = by_size.split_at_mut(taken);
            if let (Some(from), Some(to)) = (smaller.last(), larger.first_mut()) {
                for (slot, count) in to.iter_mut().skip(*rank).zip(from) {
                    *slot += count;
                }
            }
        }
    }
    by_size.pop().unwrap_or_default()
}

/// Probabilities of a U at least as large, and at most as large.
struct Tails {
    greater: f64,
    less: f64,
}

fn counted(pooled: &Pooled) -> Tails {
    let ranks = pooled.doubled_ranks();
    let (base, candidate) = pooled.sizes();
    // The smaller side has fewer subsets to count; its sum decides that of the other.
    let is_candidate = candidate <= base;
    let (mut observed, mut first_rank, mut size) = (0_usize, 1_usize, 0_usize);
    for tied in pooled.groups() {
        let all = usize::try_from(tied.base + tied.candidate).unwrap_or(0);
        let of_side = if is_candidate { tied.candidate } else { tied.base };
        let of_side = usize::try_from(of_side).unwrap_or(0);
        observed += of_side * (2 * first_rank + all - 1);
        first_rank += all;
        size += of_side;
    }
    let counts = subset_sums(&ranks, size);
    let all: f64 = counts.iter().sum();
    let below = counts.iter().take(observed + 1).sum::<f64>() / all;
    let above = counts.iter().skip(observed).sum::<f64>() / all;
    if is_candidate {
        Tails { greater: above, less: below }
    } else {
        Tails { greater: below, less: above }
    }
}

fn approximated(pooled: &Pooled, pairs_greater: f64) -> Tails {
    let (base, candidate) = pooled.sizes();
    let (base, candidate) = (base as f64, candidate as f64);
    let all = base + candidate;
    let ties = pooled.tie_term() / (all * (all - 1.0));
    let variance = base * candidate / 12.0 * (all + 1.0 - ties);
    if variance <= 0.0 {
        return Tails { greater: 1.0, less: 1.0 };
    }
    let distance = pairs_greater - base * candidate / 2.0;
    let tail = |away: f64| upper_tail((away - 0.5) / variance.sqrt());
    Tails { greater: tail(distance), less: tail(-distance) }
}

/// Up to this many values of both sides the distribution is counted: a few milliseconds. Above,
/// the approximation is off by less than a hundredth of the p-value near 0.05.
pub(super) const EXACT_VALUES_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_agree_with_counting_by_hand() {
        let apart = rank_sum(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]).unwrap();
        assert_eq!(apart.pairs_greater, 16.0);
        assert!((apart.p_two_sided - 2.0 / 70.0).abs() < 1e-12);
        assert!((apart.p_greater - 1.0 / 70.0).abs() < 1e-12);
        assert!(apart.is_exact);
        let swapped = rank_sum(&[5.0, 6.0, 7.0, 8.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(swapped.pairs_greater, 0.0);
        assert_eq!(swapped.p_greater, 1.0);
        assert_eq!(swapped.p_two_sided, apart.p_two_sided);
    }

    /// Scenario: nothing on a side, only values that are not numbers, or only equal values.
    /// Guarantees: no panic, and no difference where none can be told.
    #[test]
    fn degenerate_samples_decide_nothing() {
        assert_eq!(rank_sum(&[], &[1.0]), None);
        assert_eq!(rank_sum(&[f64::NAN], &[1.0]), None);
        for count in [1, 5, 200] {
            let found = rank_sum(&vec![2.0; count], &vec![2.0; count]).unwrap();
            assert_eq!((found.p_two_sided, found.p_greater), (1.0, 1.0));
        }
    }

    /// Scenario: every assignment of nine values with ties to sides of three and six.
    /// Guarantees: the p-values are shares of assignments at least as extreme.
    #[test]
    fn the_exact_distribution_is_the_enumeration() {
        let values = [1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 4.0, 5.0, 6.0];
        let split = |chosen: u32| -> (Vec<f64>, Vec<f64>) {
            let side = |is_chosen: u32| {
                (0..9).filter(|i| chosen >> i & 1 == is_chosen).map(|i| values[i]).collect()
            };
            (side(0), side(1))
        };
        let all: Vec<u32> = (0_u32..512).filter(|chosen| chosen.count_ones() == 3).collect();
        let greater = |chosen: u32| {
            let (base, candidate) = split(chosen);
            Pooled::of_values(&base, &candidate).candidate_greater().unwrap()
        };
        for chosen in all.iter().copied().step_by(5) {
            let observed = greater(chosen);
            let share = |is_extreme: &dyn Fn(f64) -> bool| {
                all.iter().filter(|c| is_extreme(greater(**c))).count() as f64 / all.len() as f64
            };
            let (above, below) = (share(&|u| u >= observed), share(&|u| u <= observed));
            let (base, candidate) = split(chosen);
            let found = rank_sum(&base, &candidate).unwrap();
            assert!((found.p_greater - above).abs() < 1e-12);
            assert!((found.p_two_sided - (2.0 * above.min(below)).min(1.0)).abs() < 1e-12);
            let swapped = rank_sum(&candidate, &base).unwrap();
            assert!((swapped.p_greater - below).abs() < 1e-12);
        }
    }

    #[test]
    fn the_approximation_continues_the_count() {
        let base: Vec<f64> = (0..30).map(|i| f64::from(i * 7 % 31)).collect();
        let candidate: Vec<f64> = (0..30).map(|i| f64::from(i * 11 % 31) + 5.0).collect();
        let pooled = Pooled::of_values(&base, &candidate);
        let exact = rank_sum(&base, &candidate).unwrap();
        let tails = approximated(&pooled, exact.pairs_greater);
        assert!(exact.is_exact && exact.p_greater < 0.2);
        assert!((tails.greater - exact.p_greater).abs() < 0.001, "{exact:?}");
    }

    #[test]
    fn four_runs_are_the_fewest_that_can_decide() {
        assert!((rank_sum_p_floor(3) - 0.1).abs() < 1e-12);
        assert!((rank_sum_p_floor(4) - 2.0 / 70.0).abs() < 1e-12);
        assert!((rank_sum_p_floor(5) - 2.0 / 252.0).abs() < 1e-12);
        assert_eq!((rank_sum_p_floor(0), rank_sum_p_floor(1)), (1.0, 1.0));
        assert_eq!(rank_sum_runs_min(0.05), Some(4));
        assert_eq!(rank_sum_runs_min(0.01), Some(5));
        assert_eq!(rank_sum_runs_min(1.0), Some(1));
        assert_eq!(rank_sum_runs_min(f64::MIN_POSITIVE), Some(515));
        assert_eq!(rank_sum_runs_min(0.0), None);
        assert_eq!(rank_sum_runs_min(f64::NAN), None);
    }
}
