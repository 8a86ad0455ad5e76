//! In which order settings are measured.
//!
//! A machine warms up, throttles, and is shared. Whoever measures all repeats of one setting and
//! then all of the next compares hours of the day. Here every block holds every setting once, and
//! every second block is the one before it backwards (ABBA), so that a drift that is a straight line
//! over the two adds the same to every setting.

use crate::rng::Rng;

/// The order of settings `0..count` in a block: at random, and backwards in every second one.
#[must_use]
pub fn block(count: usize, number: usize, seed: u64) -> Vec<usize> {
    let pair = (number / 2) as u64;
    let mut order: Vec<usize> = (0..count).collect();
    Rng::new(seed ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15)).shuffle(&mut order);
    if number % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a machine that gets slower in a straight line.
    /// Guarantees: over each pair of blocks every setting is harmed by exactly the same amount; pairs
    /// differ in their order; the same seed gives the same order.
    #[test]
    fn a_straight_drift_harms_all_alike() {
        for count in [2, 3, 7] {
            for pair in 0..5 {
                let mut harm = vec![0; count];
                let both = [block(count, 2 * pair, 9), block(count, 2 * pair + 1, 9)].concat();
                for (time, setting) in both.iter().enumerate() {
                    harm[*setting] += time;
                }
                assert!(harm.iter().all(|sum| *sum == harm[0]), "{harm:?}");
            }
        }
        assert_ne!(block(7, 0, 9), block(7, 2, 9));
        assert_eq!(block(7, 3, 9), block(7, 3, 9));
    }
}
