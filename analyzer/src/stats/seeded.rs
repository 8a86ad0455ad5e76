//! Random numbers that stay the same over years.

/// Steele, Lea and Flood's SplitMix64.
///
/// The generators of `rand` may change with its version; a comparison asked for again must give
/// the same interval.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 when `bound` is. The bias of taking the high half of a product
    /// is below `bound` / 2^64.
    pub fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next_u64()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A number between 0 and 1, never either of them: one of 2^53 equally far apart.
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Brings a random choice of `chosen` values to the front, by the first steps of Fisher and
    /// Yates's shuffle.
    pub fn shuffle<T>(&mut self, values: &mut [T], chosen: usize) {
        for index in 0..chosen.min(values.len()) {
            let other = index + self.below(values.len() - index);
            values.swap(index, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the reference implementation's first numbers for seed 1234567.
    #[test]
    fn it_is_the_published_generator() {
        let mut numbers = SplitMix64::new(1_234_567);
        assert_eq!(numbers.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(numbers.next_u64(), 3_203_168_211_198_807_973);
        assert!((0..1000).all(|_| numbers.below(7) < 7));
        assert_eq!(numbers.below(0), 0);
        assert!((0..1000).map(|_| numbers.unit()).all(|u| 0.0 < u && u < 1.0));
    }

    #[test]
    fn a_shuffle_keeps_every_value() {
        let mut values: Vec<usize> = (0..50).collect();
        SplitMix64::new(1).shuffle(&mut values, usize::MAX);
        assert_ne!(values, (0..50).collect::<Vec<_>>());
        values.sort_unstable();
        assert_eq!(values, (0..50).collect::<Vec<_>>());
    }
}
