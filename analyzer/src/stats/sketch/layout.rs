//! Which bucket a value belongs to: about logarithmic, in whole numbers only.
//!
//! A bucket is a doubling (the position of the highest bit) and one of 75 parts of it. Parts are
//! equal in s (4 - s) / 3, where the value is 2^e (1 + s): the quadratic interpolation of the
//! logarithm of Masson, Rim and Lee (2019, DDSketch, section 2.3 and its implementations). Its
//! derivative by the logarithm is never below 4/3, so no bucket is wider than 0.75 / 75 on a
//! logarithmic scale, and the middle is within tanh(0.005) < 0.5 % of every value. True
//! logarithms would need 70 parts; this needs no logarithm, and gives the same bucket on every
//! machine.

/// The bucket of a value above zero; for smaller ones that of 1.
pub(super) fn bucket(value: i64) -> usize {
    let value = u64::try_from(value).unwrap_or(1).max(1);
    let doubling = 63 - value.leading_zeros();
    // s in units of 2^-31: the bits after the highest.
    let s = (value << value.leading_zeros() << 1) >> (64 - FRACTION_BITS);
    // s (4 - s), below 3 * 2^62; eight bits fewer leave room for a factor of 25.
    let curved = s * ((4 << FRACTION_BITS) - s);
    let part = ((curved >> 8) * (PARTS / 3)) >> (2 * FRACTION_BITS - 8);
    // At most 62 * 75 + 74.
    (u64::from(doubling) * PARTS + part) as usize
}

/// The least and the greatest real number of a bucket, but for rounding: [low, high).
pub(super) fn bounds(bucket: usize) -> (f64, f64) {
    let border = |bucket: usize| {
        let doubling = (bucket as u64 / PARTS) as i32;
        let part = (bucket as u64 % PARTS) as f64;
        // The inverse of s (4 - s) / 3; square roots are the same on every machine.
        let s = 2.0 - (4.0 - 3.0 * part / PARTS as f64).sqrt();
        2.0_f64.powi(doubling) * (1.0 + s)
    };
    (border(bucket), border(bucket + 1))
}

/// What stands for all values of a bucket: equally far from both ends, relative to them.
pub(super) fn middle(bucket: usize) -> f64 {
    let (low, high) = bounds(bucket);
    2.0 * low * high / (low + high)
}

/// Buckets from that of 1 to that of `i64::MAX`.
pub(super) const BUCKETS: usize = 63 * PARTS as usize;
const PARTS: u64 = 75;
const FRACTION_BITS: u32 = 31;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_begin_at_one_and_end_at_the_largest_number() {
        assert_eq!(bucket(1), 0);
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(-5), 0);
        assert_eq!(bucket(2), PARTS as usize);
        assert_eq!(bucket(i64::MAX), BUCKETS - 1);
        assert_eq!(bounds(0).0, 1.0);
        assert_eq!(bounds(BUCKETS - 1).1, 2.0_f64.powi(63));
    }

    #[test]
    fn every_bucket_is_narrow_enough() {
        for bucket in 0..BUCKETS {
            let (low, high) = bounds(bucket);
            assert!(low < high && (high - low) / (high + low) < 0.005, "{bucket}");
        }
    }

    proptest! {
        /// Scenario: any two values.
        /// Guarantees: a larger value is never in a lower bucket, and the middle of a bucket is
        /// within 0.5 % of its values.
        #[test]
        fn buckets_keep_the_order_and_the_size(bits in 0_u32..63, a: u64, b: u64) {
            let cut = |x: u64| ((x >> 1) >> (62 - bits)).max(1) as i64;
            let (a, b) = (cut(a), cut(b));
            prop_assert!(a >= b || bucket(a) <= bucket(b));
            let error = (middle(bucket(a)) / a as f64 - 1.0).abs();
            prop_assert!(error <= 0.005, "{} {}", a, error);
        }
    }
}
