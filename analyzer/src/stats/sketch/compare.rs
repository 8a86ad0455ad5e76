//! Two sketches compared by ranks. Values of one bucket count as equal.

use super::buckets::WINDOW_MAX;
use super::{Content, Sketch, layout};
use crate::stats::cliffs_delta::{CliffsDelta, cliffs_delta_of};
use crate::stats::mann_whitney::{RankSum, rank_sum_of};
use crate::stats::pooled::{Pooled, Tied};

/// The rank-sum test of two sketches; `None` when one is empty.
///
/// The same as [`crate::stats::rank_sum`] of the values while both are held exactly. Otherwise
/// values of one bucket are ties, which the variance accounts for. Mind the unit: the values of a
/// sketch are requests or spans, which share the noise of their run, so a small p says that two
/// runs differ, not that the program changed.
#[must_use]
pub fn sketch_rank_sum(base: &Sketch, candidate: &Sketch) -> Option<RankSum> {
    rank_sum_of(&pooled(base, candidate))
}

/// Cliff's delta of two sketches; `None` when one is empty. Exact while both are; otherwise pairs
/// from one bucket count as equal, which moves it by less than the share of such pairs.
#[must_use]
pub fn sketch_cliffs_delta(base: &Sketch, candidate: &Sketch) -> Option<CliffsDelta> {
    cliffs_delta_of(&pooled(base, candidate))
}

fn pooled(base: &Sketch, candidate: &Sketch) -> Pooled {
    let is_exact = base.is_exact() && candidate.is_exact();
    // Where one sketch has lost its low end, the other's is counted in the same bucket.
    let floor = base.floor().max(candidate.floor());
    let keyed = |sketch: &Sketch| -> Vec<(i64, u64)> {
        if is_exact {
            return sketch.sorted().into_iter().map(|value| (value, 1)).collect();
        }
        let of_bucket = |bucket: usize| bucket.max(floor) as i64 + 1;
        match &sketch.content {
            Content::Exact(_) => sketch
                .sorted()
                .into_iter()
                .map(|value| (if value > 0 { of_bucket(layout::bucket(value)) } else { 0 }, 1))
                .collect(),
            Content::Counted { zeros, buckets } => {
                let counted = buckets.iter().map(|(bucket, count)| (of_bucket(bucket), count));
                std::iter::once((0, *zeros)).chain(counted).collect()
            }
        }
    };
    let base = keyed(base).into_iter().map(|(key, base)| (key, Tied { base, candidate: 0 }));
    let candidate =
        keyed(candidate).into_iter().map(|(key, candidate)| (key, Tied { base: 0, candidate }));
    let mut sorted: Vec<(i64, Tied)> = base.chain(candidate).collect();
    sorted.sort_by_key(|(key, _)| *key);
    let groups = sorted.chunk_by(|a, b| a.0 == b.0).map(|tied| {
        tied.iter().fold(Tied { base: 0, candidate: 0 }, |sum, (_, one)| Tied {
            base: sum.base.saturating_add(one.base),
            candidate: sum.candidate.saturating_add(one.candidate),
        })
    });
    Pooled::of_groups(groups.collect())
}

impl Sketch {
    /// The lowest bucket, if values below it may be counted in it; else 0.
    fn floor(&self) -> usize {
        match &self.content {
            Content::Counted { buckets, .. } if buckets.counts().len() == WINDOW_MAX => {
                buckets.first()
            }
            _ => 0,
        }
    }
}
