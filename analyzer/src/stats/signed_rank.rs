//! Wilcoxon's signed-rank test: are paired differences centred on zero?

use super::normal::{Z_975, upper_tail};

/// Two-sided p-value of the hypothesis that `differences` are symmetric about zero.
///
/// Zeros say nothing about a direction and are left out, as Wilcoxon did. Up to
/// [`EXACT_PAIRS_MAX`] pairs the distribution is enumerated, given the ranks that occurred, so
/// ties are exact too; above, the normal approximation with corrections for ties and continuity.
#[must_use]
pub fn signed_rank_p(differences: &[f64]) -> f64 {
    let mut sorted: Vec<f64> =
        differences.iter().copied().filter(|d| *d != 0.0 && !d.is_nan()).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    if sorted.is_empty() {
        return 1.0;
    }
    let ranks = doubled_ranks(&sorted);
    let observed: usize =
        sorted.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let p = if sorted.len() <= EXACT_PAIRS_MAX {
        let counts = subset_sums(&ranks);
        let all: f64 = counts.iter().sum();
        let below: f64 = counts.iter().take(observed + 1).sum();
        let above: f64 = counts.iter().skip(observed).sum();
        2.0 * below.min(above) / all
    } else {
        approximate_p(&ranks, observed)
    };
    p.min(1.0)
}

/// How many of the lowest (and of the highest) Walsh averages of `pairs` differences lie outside
/// a 95 % confidence interval for the centre. `None` where even all of them give less than 95 %.
pub(super) fn walsh_outside(pairs: usize) -> Option<usize> {
    let n = pairs as f64;
    if pairs > EXACT_PAIRS_MAX {
        let spread = (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
        // Far above zero for every n this branch sees.
        return Some((n * (n + 1.0) / 4.0 - Z_975 * spread).floor() as usize);
    }
    let ranks: Vec<usize> = (1..=pairs).collect();
    let counts = subset_sums(&ranks);
    let all: f64 = counts.iter().sum();
    let mut below = 0.0;
    let within = counts.iter().take_while(|count| {
        below += **count;
        below / all <= 0.025
    });
    Some(within.count()).filter(|outside| *outside > 0).map(|outside| outside - 1)
}

/// Ranks of absolute values, times two so that shared ranks stay whole.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for tied in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        // Positions first..=last share the rank (first + last) / 2, counted from 1.
        let first = ranks.len() + 1;
        let last = ranks.len() + tied.len();
        ranks.extend(std::iter::repeat_n(first + last, tied.len()));
    }
    ranks
}

/// In how many ways a subset of `ranks` sums to each number.
fn subset_sums(ranks: &[usize]) -> Vec<f64> {
    let mut counts = vec![1.0];
    for rank in ranks {
        let mut next = counts.clone();
        next.resize(counts.len() + rank, 0.0);
        for (slot, count) in next.iter_mut().skip(*rank).zip(&counts) {
            *slot += count;
        }
        counts = next;
    }
    counts
}

fn approximate_p(doubled: &[usize], observed_doubled: usize) -> f64 {
    let n = doubled.len() as f64;
    let mean = n * (n + 1.0) / 4.0;
    let ties: f64 = doubled
        .chunk_by(|a, b| a == b)
        .map(|tied| {
            let t = tied.len() as f64;
            t * t * t - t
        })
        .sum();
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    let distance = ((observed_doubled as f64 / 2.0 - mean).abs() - 0.5).max(0.0);
    if variance > 0.0 { 2.0 * upper_tail(distance / variance.sqrt()) } else { 1.0 }
}

/// Up to this many pairs the distribution is enumerated; above, the normal approximation is off
/// by less than a hundredth of the p-value near 0.05.
pub(super) const EXACT_PAIRS_MAX: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_agree_with_counting_by_hand() {
        let all_positive: Vec<f64> = (1..=6).map(f64::from).collect();
        assert!((signed_rank_p(&all_positive) - 2.0 / 64.0).abs() < 1e-12);
        // Negative ranks are 1 and 8. Sets of distinct numbers up to 8 that sum to at most 9:
        // 1 + 1 + 1 + 2 + 2 + 3 + 4 + 5 + 6 + 7 = 32 of 256, on either side.
        let mixed = [1.1, 2.2, -0.3, 0.4, 1.5, -2.6, 0.7, 0.8];
        assert!((signed_rank_p(&mixed) - 0.25).abs() < 1e-12);
        assert_eq!(signed_rank_p(&[0.0, 0.0]), 1.0);
        assert_eq!(signed_rank_p(&[]), 1.0);
    }

    /// Scenario: every assignment of signs to eight ranks, two of them shared.
    /// Guarantees: the p-value is the share of assignments at least as extreme.
    #[test]
    fn the_exact_distribution_is_the_enumeration() {
        let sizes = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 5.0, 6.0];
        let ranks = [1.0, 2.5, 2.5, 4.0, 5.0, 6.5, 6.5, 8.0];
        let sum =
            |signs: u32| -> f64 { (0..8).filter(|i| signs >> i & 1 == 1).map(|i| ranks[i]).sum() };
        for signs in [0_u32, 0b1, 0b1010_1010, 0b1111_0111, 0b0011_1111] {
            let observed = sum(signs);
            let share = |extreme: &dyn Fn(f64) -> bool| {
                (0..256).filter(|s| extreme(sum(*s))).count() as f64 / 256.0
            };
            let expected =
                (2.0 * share(&|w| w <= observed).min(share(&|w| w >= observed))).min(1.0);
            let differences: Vec<f64> = sizes
                .iter()
                .enumerate()
                .map(|(i, size)| if signs >> i & 1 == 1 { *size } else { -size })
                .collect();
            assert!((signed_rank_p(&differences) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn the_approximation_continues_the_enumeration() {
        let differences: Vec<f64> =
            (1..=26).map(|i| if i % 3 == 0 { -f64::from(i) } else { f64::from(i) }).collect();
        let exact = signed_rank_p(&differences[..25]);
        let sorted: Vec<f64> = differences[..25].to_vec();
        let ranks = doubled_ranks(&sorted);
        let observed =
            sorted.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
        assert!((approximate_p(&ranks, observed) - exact).abs() < 0.004);
    }

    #[test]
    fn six_pairs_are_the_fewest_that_can_decide() {
        assert_eq!(walsh_outside(5), None);
        assert_eq!(walsh_outside(6), Some(0));
        assert_eq!(walsh_outside(10), Some(8));
        assert_eq!(walsh_outside(25), Some(89));
        // Table value for n = 30 is 137 of 465.
        assert!((135..=138).contains(&walsh_outside(30).unwrap()));
    }
}
