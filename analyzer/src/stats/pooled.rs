//! Two samples sorted together, equal values in one group: all that rank statistics need.

/// How many values of each side share one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tied {
    pub(super) base: u64,
    pub(super) candidate: u64,
}

impl Tied {
    fn size(self) -> f64 {
        self.base as f64 + self.candidate as f64
    }
}

/// Two samples as groups of equal values, in ascending order of value.
#[derive(Debug)]
pub(super) struct Pooled(Vec<Tied>);

impl Pooled {
    /// Of two samples. A value that is not a number has no rank and is left out.
    pub(super) fn of_values(base: &[f64], candidate: &[f64]) -> Self {
        let sides = base
            .iter()
            .map(|value| (*value, Tied { base: 1, candidate: 0 }))
            .chain(candidate.iter().map(|value| (*value, Tied { base: 0, candidate: 1 })));
        let mut sorted: Vec<(f64, Tied)> = sides.filter(|(value, _)| !value.is_nan()).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        // By `==`, so that -0.0 and 0.0 are equal as they are everywhere else.
        Self(
            sorted
                .chunk_by(|a, b| a.0 == b.0)
                .map(|tied| total(tied.iter().map(|t| t.1)))
                .collect(),
        )
    }

    /// Of groups already sorted by what they stand for.
    pub(super) fn of_groups(groups: Vec<Tied>) -> Self {
        Self(groups)
    }

    pub(super) fn groups(&self) -> &[Tied] {
        &self.0
    }

    /// How many values each side has: base, candidate.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let Tied { base, candidate } = total(self.0.iter().copied());
        (base, candidate)
    }

    /// Mann and Whitney's U: the pairs in which the candidate's value is greater, and half of
    /// those in which both are equal. `None` when a side is empty.
    pub(super) fn candidate_greater(&self) -> Option<f64> {
        let (base, candidate) = self.sizes();
        let mut below: u64 = 0;
        let mut doubled: u128 = 0;
        for tied in &self.0 {
            let beaten = 2 * u128::from(below) + u128::from(tied.base);
            doubled = doubled.saturating_add(u128::from(tied.candidate).saturating_mul(beaten));
            below = below.saturating_add(tied.base);
        }
        (base > 0 && candidate > 0).then(|| doubled as f64 / 2.0)
    }

    /// The sum of t^3 - t over groups of t equal values.
    pub(super) fn tie_term(&self) -> f64 {
        self.0.iter().map(|tied| tied.size().powi(3) - tied.size()).sum()
    }

    /// Each value's mid-rank times two (so that it is whole), in ascending order.
    pub(super) fn doubled_ranks(&self) -> Vec<usize> {
        let mut ranks = Vec::new();
        for tied in &self.0 {
            let size = usize::try_from(tied.base + tied.candidate).unwrap_or(usize::MAX);
            // Positions first..=last, counted from 1, share the rank (first + last) / 2.
            let doubled = 2 * ranks.len() + 1 + size;
            ranks.extend(std::iter::repeat_n(doubled, size));
        }
        ranks
    }
}

fn total(groups: impl Iterator<Item = Tied>) -> Tied {
    groups.fold(Tied { base: 0, candidate: 0 }, |sum, tied| Tied {
        base: sum.base.saturating_add(tied.base),
        candidate: sum.candidate.saturating_add(tied.candidate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_group_and_a_rank() {
        let pooled = Pooled::of_values(&[1.0, f64::NAN, 3.0, 0.0], &[3.0, 5.0, -0.0]);
        assert_eq!(pooled.sizes(), (3, 3));
        assert_eq!(pooled.doubled_ranks(), [3, 3, 6, 9, 9, 12]);
        assert_eq!(pooled.tie_term(), 12.0);
        // 3 beats 0 and 1 and ties with 3, 5 beats three, 0 ties with 0.
        assert_eq!(pooled.candidate_greater(), Some(2.5 + 3.0 + 0.5));
        assert_eq!(Pooled::of_values(&[], &[1.0]).candidate_greater(), None);
    }
}
