//! The one way in which this crate takes quantiles.

/// The value at rank ceil(q*n) of a sorted list, a value that was really there; `None` for an empty
/// list.
#[must_use]
pub(crate) fn nearest_rank<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}
