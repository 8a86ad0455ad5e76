//! Counts per bucket, for as many buckets as are in use.

use std::collections::VecDeque;

use super::layout::bucket;

/// A window of buckets that grows both ways, up to [`WINDOW_MAX`]; then its low end gives way.
///
/// What falls below the window counts in its lowest bucket. The window's place depends on the
/// highest bucket alone, never on the order of values.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    /// The bucket of the first count.
    first: usize,
    counts: VecDeque<u64>,
}

impl Buckets {
    /// From counts whose first and last are not zero.
    pub(super) fn of_counts(first: usize, counts: Vec<u64>) -> Self {
        Self { first, counts: counts.into() }
    }

    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn counts(&self) -> &VecDeque<u64> {
        &self.counts
    }

    /// Each bucket in use with its count, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (self.first..).zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }

    #[inline]
    pub(super) fn insert(&mut self, value: i64) {
        let bucket = bucket(value);
        let place = bucket.wrapping_sub(self.first);
        match self.counts.get_mut(place) {
            Some(count) => *count = count.saturating_add(1),
            None => self.add(bucket, 1),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // The highest first, so that the window is where it stays.
        for (place, count) in other.counts.iter().enumerate().rev().filter(|(_, c)| **c > 0) {
            self.add(other.first + place, *count);
        }
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        while self.first + self.counts.len() <= bucket {
            self.counts.push_back(0);
            self.collapse();
        }
        while bucket < self.first && self.counts.len() < WINDOW_MAX {
            self.counts.push_front(0);
            self.first -= 1;
        }
        if let Some(slot) = self.counts.get_mut(bucket.saturating_sub(self.first)) {
            *slot = slot.saturating_add(count);
        }
    }

    /// Counts the lowest bucket in the next one, if there is one too many.
    fn collapse(&mut self) {
        if self.counts.len() > WINDOW_MAX {
            let lowest = self.counts.pop_front().unwrap_or(0);
            self.first += 1;
            if let Some(next) = self.counts.front_mut() {
                *next = next.saturating_add(lowest);
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>()
    }
}

/// 54 doublings: from 1 ns to half a year, before anything gives way.
pub(super) const WINDOW_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a value of 1 beside the largest there is, in either order.
    /// Guarantees: the window is bounded, the high end is kept, and the order does not matter.
    #[test]
    fn the_low_end_gives_way() {
        let orders = [[1, i64::MAX, 1 << 40, 2], [i64::MAX, 2, 1, 1 << 40]];
        let filled = orders.map(|values| {
            let mut buckets = Buckets::default();
            values.into_iter().for_each(|value| buckets.insert(value));
            assert!(buckets.counts.len() <= WINDOW_MAX);
            buckets.iter().collect::<Vec<_>>()
        });
        assert_eq!(filled[0], filled[1]);
        let lowest = bucket(i64::MAX) + 1 - WINDOW_MAX;
        assert_eq!(filled[0], [(lowest, 2), (bucket(1 << 40), 1), (bucket(i64::MAX), 1)]);
    }
}
