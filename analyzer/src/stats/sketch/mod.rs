//! A quantile sketch of latencies: small, mergeable, and within half a percent.
//!
//! Up to [`EXACT_MAX`] values it holds the values themselves, and every answer is exact. Beyond,
//! it counts them in buckets of relative width 1 % (in the manner of DDSketch: Masson, Rim and
//! Lee 2019), so that a year of runs can be compared from a few kilobytes a run. The state depends
//! on which values there were, never on their order or on how they were merged.
//!
//! Values are whole numbers from zero (nanoseconds, tokens); a negative one counts as zero.

mod buckets;
mod bytes;
mod compare;
mod layout;

use self::buckets::Buckets;

pub use bytes::SketchError;
pub use compare::{sketch_cliffs_delta, sketch_rank_sum};

/// Counts, sum, extremes and quantiles of many values.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    /// All values, in any order.
    Exact(Vec<i64>),
    Counted {
        zeros: u64,
        buckets: Buckets,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Sketch {
    /// A sketch of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one value; a negative one as zero.
    #[inline]
    pub fn insert(&mut self, value: i64) {
        let value = value.max(0);
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count = self.count.saturating_add(1);
        // 2^64 values of up to 2^63 just fit.
        self.sum = self.sum.saturating_add(i128::from(value));
        match &mut self.content {
            Content::Counted { buckets, .. } if value > 0 => buckets.insert(value),
            Content::Counted { zeros, .. } => *zeros = zeros.saturating_add(1),
            Content::Exact(values) if values.len() < EXACT_MAX => values.push(value),
            Content::Exact(_) => {
                self.count_in_buckets();
                self.insert_counted(value);
            }
        }
    }

    /// Counts every value of `other`, as if each had been inserted here.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        if self.count > EXACT_MAX as u64 {
            self.count_in_buckets();
        }
        match (&mut self.content, &other.content) {
            (Content::Exact(values), Content::Exact(more)) => values.extend(more),
            (Content::Counted { zeros, buckets }, Content::Counted { zeros: z, buckets: b }) => {
                *zeros = zeros.saturating_add(*z);
                buckets.merge(b);
            }
            (_, Content::Exact(more)) => more.iter().for_each(|value| self.insert_counted(*value)),
            // More than the exact limit in one is more in both, so this side counts already.
            (Content::Exact(_), Content::Counted { .. }) => {}
        }
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, exactly.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.sum
    }

    /// Their mean; `None` of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The smallest, exactly; `None` of nothing.
    #[must_use]
    pub fn min(&self) -> Option<i64> {
        (self.count > 0).then_some(self.min)
    }

    /// The largest, exactly; `None` of nothing.
    #[must_use]
    pub fn max(&self) -> Option<i64> {
        (self.count > 0).then_some(self.max)
    }

    /// Whether every answer is exact: there were at most 1,024 values.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.content, Content::Exact(_))
    }

    /// Quantile `q` by nearest rank: the smallest value such that at least the share `q` of all
    /// values is not above it. `None` of nothing, or unless `q` is from 0 to 1.
    ///
    /// Exact while the sketch is (up to 2^53), as are both extremes always; otherwise within
    /// 0.5 % of that value. (Below the lowest bucket, where the smallest values are only counted
    /// when the largest is 10^16 times theirs, that bucket's value.)
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let mut answer = self.quantiles(&[q]);
        answer.pop().flatten()
    }

    /// The same for several quantiles at once, in the order asked for: values are sorted once.
    #[must_use]
    pub fn quantiles(&self, shares: &[f64]) -> Vec<Option<f64>> {
        let groups = self.groups();
        let of = |q: f64| {
            if self.count == 0 || !(0.0..=1.0).contains(&q) {
                return None;
            }
            let rank = self.rank_of_share(q);
            if rank == 1 {
                return Some(self.min as f64);
            }
            if rank == self.count {
                return Some(self.max as f64);
            }
            let mut below = 0_u64;
            let found = groups.iter().find(|(_, count)| {
                below = below.saturating_add(*count);
                below >= rank
            });
            found.map(|(value, _)| value.clamp(self.min as f64, self.max as f64))
        };
        shares.iter().map(|q| of(*q)).collect()
    }

    /// How many values are at most `x`, exactly while the sketch is; otherwise between the
    /// numbers of those at most 0.99 `x` and at most 1.0101 `x`, and 0 or all beyond the
    /// extremes.
    #[must_use]
    pub fn rank(&self, x: f64) -> u64 {
        if x >= self.max as f64 {
            return self.count;
        }
        if x.is_nan() || x < self.min as f64 {
            return 0;
        }
        match &self.content {
            Content::Exact(values) => {
                values.iter().filter(|value| **value as f64 <= x).count() as u64
            }
            Content::Counted { zeros, buckets } => {
                let inside = buckets.iter().map(|(bucket, count)| {
                    let (low, high) = layout::bounds(bucket);
                    let share = ((x - low) / (high - low)).clamp(0.0, 1.0);
                    (count as f64 * share).round() as u64
                });
                inside.fold(*zeros, u64::saturating_add)
            }
        }
    }

    /// The share of values at most `x`, from 0 to 1; see [`Sketch::rank`]. `None` of nothing.
    #[must_use]
    pub fn cdf(&self, x: f64) -> Option<f64> {
        (self.count > 0).then(|| self.rank(x) as f64 / self.count as f64)
    }

    /// Bytes of memory this sketch holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let held = match &self.content {
            Content::Exact(values) => values.capacity() * size_of::<i64>(),
            Content::Counted { buckets, .. } => buckets.memory_bytes(),
        };
        size_of::<Self>() + held
    }

    /// Values, or what stands for those of a bucket, each with their number; ascending.
    fn groups(&self) -> Vec<(f64, u64)> {
        match &self.content {
            Content::Exact(_) => self.sorted().into_iter().map(|value| (value as f64, 1)).collect(),
            Content::Counted { zeros, buckets } => {
                let zeros = Some((0.0, *zeros)).filter(|(_, count)| *count > 0);
                let counted = buckets.iter().map(|(bucket, count)| (layout::middle(bucket), count));
                zeros.into_iter().chain(counted).collect()
            }
        }
    }

    /// The values, while they are held.
    fn sorted(&self) -> Vec<i64> {
        let mut values = match &self.content {
            Content::Exact(values) => values.clone(),
            Content::Counted { .. } => Vec::new(),
        };
        values.sort_unstable();
        values
    }

    /// The nearest rank from 1. A share of 0.07 of 100 is 7.000000000000001 in floats: what
    /// rounding adds must not move the rank.
    fn rank_of_share(&self, q: f64) -> u64 {
        let exact = q * self.count as f64;
        ((exact * (1.0 - 4.0 * f64::EPSILON)).ceil() as u64).clamp(1, self.count.max(1))
    }

    /// Counts the values that were held so far in buckets from now on.
    fn count_in_buckets(&mut self) {
        if let Content::Exact(values) = &mut self.content {
            let mut values = std::mem::take(values);
            // Sorted downwards the window grows at one end only.
            values.sort_unstable_by(|a, b| b.cmp(a));
            self.content = Content::Counted { zeros: 0, buckets: Buckets::default() };
            values.into_iter().for_each(|value| self.insert_counted(value));
        }
    }

    fn insert_counted(&mut self, value: i64) {
        match &mut self.content {
            Content::Counted { buckets, .. } if value > 0 => buckets.insert(value),
            Content::Counted { zeros, .. } => *zeros = zeros.saturating_add(1),
            Content::Exact(_) => {}
        }
    }
}

/// Most stages of most runs have fewer spans; eight kilobytes while in memory.
const EXACT_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
