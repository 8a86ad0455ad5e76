//! The energy statistic of a split, for all splits of a segment at once.

use crate::stats::median;

/// One value of a segment, with what does not depend on the order of the values.
#[derive(Debug, Clone, Copy)]
struct Observation {
    value: f64,
    /// Its place in ascending order, from 0.
    rank: usize,
    /// The sum of distances to all others.
    distances: f64,
}

/// The best split of a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Split {
    /// How many values come before it.
    pub(super) at: usize,
    /// The scaled energy distance of the two parts.
    pub(super) statistic: f64,
}

/// A segment whose values can be put in another order without computing distances anew.
#[derive(Debug)]
pub(super) struct Segment {
    observations: Vec<Observation>,
    /// The sum of distances over all pairs.
    total: f64,
    earlier: Earlier,
    /// The sum of distances within the first 0, 1, 2, ... values.
    within_first: Vec<f64>,
    /// For each position, the sum of distances within the values from it to the one at hand.
    within_since: Vec<f64>,
}

impl Segment {
    pub(super) fn new(values: &[f64]) -> Self {
        // Distances do not depend on the origin, and near zero they lose no digits: equal values
        // are then exactly at no distance.
        let origin = median(values).unwrap_or(0.0);
        let values: Vec<f64> = values.iter().map(|value| value - origin).collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        let value_at = |index: usize| values.get(index).copied().unwrap_or(0.0);
        order.sort_by(|a, b| value_at(*a).total_cmp(&value_at(*b)));
        let sum: f64 = values.iter().sum();
        let count = values.len() as f64;
        let nothing = Observation { value: 0.0, rank: 0, distances: 0.0 };
        let mut observations = vec![nothing; values.len()];
        let mut below = 0.0;
        for (rank, index) in order.into_iter().enumerate() {
            let value = value_at(index);
            let lower = rank as f64;
            let distances = value * lower - below + (sum - below) - value * (count - lower);
            below += value;
            if let Some(slot) = observations.get_mut(index) {
                *slot = Observation { value, rank, distances };
            }
        }
        let total = observations.iter().map(|one| one.distances).sum::<f64>() / 2.0;
        let earlier = Earlier::new(values.len());
        Self { observations, total, earlier, within_first: Vec::new(), within_since: Vec::new() }
    }

    /// The order in which [`Segment::shuffle`] left the values is what the next search sees.
    pub(super) fn shuffle(&mut self, random: &mut crate::stats::SplitMix64) {
        random.shuffle(&mut self.observations, usize::MAX);
    }

    /// The split with the largest statistic that leaves `shortest` values on either side; `None`
    /// when there is no such split. Parts have at least two values, whatever `shortest` says.
    pub(super) fn best_split(&mut self, shortest: usize) -> Option<Split> {
        self.earlier.clear();
        self.within_first.clear();
        self.within_first.push(0.0);
        let (all, shortest) = (self.observations.len(), shortest.max(2));
        let (mut within_left, mut rows, mut best) = (0.0, 0.0, None::<Split>);
        for (position, one) in self.observations.iter().enumerate() {
            within_left += self.earlier.distances_to(*one);
            rows += one.distances;
            self.earlier.add(*one);
            self.within_first.push(within_left);
            let (left, right) = (position + 1, all - position - 1);
            if left < shortest || right < shortest {
                continue;
            }
            // Rows of the left part count pairs inside it twice and pairs across once.
            let across = rows - 2.0 * within_left;
            let within_right = self.total - within_left - across;
            let statistic = energy(left, right, [within_left, within_right, across]);
            if best.is_none_or(|best| statistic > best.statistic) {
                best = Some(Split { at: left, statistic });
            }
        }
        best
    }

    /// The same, but the second part may end before the segment does: up to [`PASSING_MAX`] values
    /// after the split. A level that is soon left again would drown in what comes after it.
    ///
    /// In O(n [`PASSING_MAX`]) more: a value adds its distances to sums that start at each of the
    /// values before it. The statistic is that of [`energy`], without its divisions.
    pub(super) fn best_split_of_part(&mut self, shortest: usize) -> Option<Split> {
        let mut best = self.best_split(shortest)?;
        let shortest = shortest.max(2);
        self.within_since.clear();
        self.within_since.resize(self.observations.len(), 0.0);
        for (end, one) in self.observations.iter().enumerate() {
            let within_all = self.within_first.get(end + 1).copied().unwrap_or(0.0);
            let scale = 2.0 / (end as f64 + 1.0);
            let first = end.saturating_sub(PASSING_MAX - 1).max(shortest);
            let near = self.observations.get(first..end).unwrap_or_default();
            let since = self.within_since.get_mut(first..end).unwrap_or_default();
            let before = self.within_first.get(first..end).unwrap_or_default();
            let starts = near.iter().zip(since).zip(before).enumerate().rev();
            let mut distances = 0.0;
            for (((offset, ((other, within_right), within_left)), inverse), right) in
                starts.zip(&INVERSES).zip(2..)
            {
                distances += (one.value - other.value).abs();
                *within_right += distances;
                if right < shortest {
                    continue;
                }
                let left = (first + offset) as f64;
                let across = within_all - *within_left - *within_right;
                let left_part = *within_left * right as f64 / (left - 1.0);
                let right_part = *within_right * left * inverse;
                let statistic = scale * (across - left_part - right_part);
                if statistic > best.statistic {
                    best = Split { at: first + offset, statistic };
                }
            }
        }
        Some(best)
    }
}

/// Matteson and James (2014), equations 5 and 6 with exponent 1: the mean distance across, twice,
/// less the mean distances within, scaled by n m / (n + m). Takes sums over pairs, of parts of at
/// least two values.
fn energy(left: usize, right: usize, [within_left, within_right, across]: [f64; 3]) -> f64 {
    let (n, m) = (left as f64, right as f64);
    let within = within_left * m / (n - 1.0) + within_right * n / (m - 1.0);
    2.0 * (across - within) / (n + m)
}

/// The values seen so far, by rank: Fenwick's tree (1994) of their number and sum.
#[derive(Debug)]
struct Earlier {
    tree: Vec<(f64, f64)>,
    count: f64,
    sum: f64,
}

impl Earlier {
    fn new(size: usize) -> Self {
        Self { tree: vec![(0.0, 0.0); size + 1], count: 0.0, sum: 0.0 }
    }

    fn clear(&mut self) {
        self.tree.fill((0.0, 0.0));
        (self.count, self.sum) = (0.0, 0.0);
    }

    fn add(&mut self, one: Observation) {
        let mut node = one.rank + 1;
        while let Some((count, sum)) = self.tree.get_mut(node) {
            *count += 1.0;
            *sum += one.value;
            node += node & node.wrapping_neg();
        }
        self.count += 1.0;
        self.sum += one.value;
    }

    /// The sum of distances from `one` to every value seen so far.
    fn distances_to(&self, one: Observation) -> f64 {
        let (mut lower_count, mut lower_sum) = (0.0, 0.0);
        let mut node = one.rank;
        while node > 0 {
            let (count, sum) = self.tree.get(node).copied().unwrap_or_default();
            lower_count += count;
            lower_sum += sum;
            node &= node - 1;
        }
        let lower = one.value * lower_count - lower_sum;
        let higher = (self.sum - lower_sum) - one.value * (self.count - lower_count);
        lower + higher
    }
}

/// Long enough for a level to be found by itself; bounds the time of a search.
const PASSING_MAX: usize = 64;
/// 1, 1/2, 1/3, ...
const INVERSES: [f64; PASSING_MAX] = {
    let mut inverses = [1.0; PASSING_MAX];
    let mut index = 0;
    while index < PASSING_MAX {
        inverses[index] = 1.0 / (index as f64 + 1.0);
        index += 1;
    }
    inverses
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix64;

    /// The definition, by looking at every pair.
    fn by_definition(values: &[f64], at: usize) -> f64 {
        let (left, right) = values.split_at(at);
        let mean = |a: &[f64], b: &[f64], pairs: f64| {
            a.iter().flat_map(|x| b.iter().map(move |y| (x - y).abs())).sum::<f64>() / pairs
        };
        let (n, m) = (left.len() as f64, right.len() as f64);
        // Sums over ordered pairs, so twice the number of pairs.
        let distance = 2.0 * mean(left, right, n * m)
            - mean(left, left, n * (n - 1.0))
            - mean(right, right, m * (m - 1.0));
        n * m / (n + m) * distance
    }

    #[test]
    fn every_split_has_the_statistic_of_the_definition() {
        let mut random = SplitMix64::new(11);
        for count in [4, 10, 37, 64] {
            // Rounded, so that some are equal.
            let values: Vec<f64> =
                (0..count).map(|i| (random.unit() * 20.0).round() + f64::from(i / 20)).collect();
            let expected = (2..=count as usize - 2)
                .map(|at| Split { at, statistic: by_definition(&values, at) })
                .reduce(
                    |best, split| {
                        if split.statistic > best.statistic + 1e-9 { split } else { best }
                    },
                )
                .unwrap();
            let mut segment = Segment::new(&values);
            let found = segment.best_split(2).unwrap();
            assert!((found.statistic - expected.statistic).abs() < 1e-9, "{found:?} {expected:?}");
            assert_eq!(Some(found), segment.best_split(2));
        }
    }

    #[test]
    fn every_part_has_the_statistic_of_the_definition() {
        let mut random = SplitMix64::new(13);
        for count in [4, 10, 37, PASSING_MAX + 20] {
            let values: Vec<f64> = (0..count).map(|_| (random.unit() * 20.0).round()).collect();
            let parts = (4..=count).flat_map(|end| (2..=end - 2).map(move |at| (at, end)));
            let allowed = parts.filter(|(at, end)| end - at <= PASSING_MAX || *end == count);
            let expected = allowed
                .map(|(at, end)| by_definition(&values[..end], at))
                .fold(f64::NEG_INFINITY, f64::max);
            let found = Segment::new(&values).best_split_of_part(2).unwrap();
            assert!((found.statistic - expected).abs() < 1e-9, "{found:?} {expected}");
        }
    }

    #[test]
    fn too_short_a_segment_has_no_split() {
        assert_eq!(Segment::new(&[]).best_split(5), None);
        assert_eq!(Segment::new(&[1.0; 9]).best_split(5), None);
        assert_eq!(Segment::new(&[1.0; 10]).best_split(5).unwrap().at, 5);
    }

    #[test]
    fn the_best_split_is_that_of_the_definition_in_another_program() {
        #[derive(serde::Deserialize)]
        struct Case {
            series: Vec<f64>,
            shortest: usize,
            at: usize,
            statistic: f64,
        }
        let text = include_str!("../facts/energy.json");
        for case in crate::stats::facts::cases::<Case>(text) {
            let found = Segment::new(&case.series).best_split(case.shortest).unwrap();
            assert_eq!(found.at, case.at);
            assert!((found.statistic - case.statistic).abs() < 1e-9, "{found:?}");
        }
    }
}
