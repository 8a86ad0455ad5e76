//! Segments too long for every shuffle to be searched value by value.

use crate::stats::median;

/// Up to this many values every shuffle is searched value by value, which takes time in proportion
/// for each of some thousand shuffles.
pub(super) const EXACT_MAX: usize = 1_000;

/// The medians of as many values in a row each, at most [`BINS_MAX`]. They are as exchangeable as
/// the values if nothing changed, so a test by shuffling them holds its level. The first few values
/// are left out where the division leaves some over: a bin of fewer values would vary more.
pub(super) fn binned(values: &[f64]) -> Vec<f64> {
    let width = values.len().div_ceil(BINS_MAX).max(1);
    let left_over = values.len() % width;
    values.get(left_over..).unwrap_or_default().chunks_exact(width).filter_map(median).collect()
}

/// The last values `before` a change and the first `after` it, `count` of each at most.
pub(super) fn nearest<'a>(
    before: &'a [f64],
    after: &'a [f64],
    count: usize,
) -> (&'a [f64], &'a [f64]) {
    let near_before = before.get(before.len().saturating_sub(count)..).unwrap_or_default();
    (near_before, after.get(..count).unwrap_or(after))
}

/// A level of five bins is the shortest a search of bins sees: a fiftieth of the segment.
const BINS_MAX: usize = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_of_one_size_and_end_with_the_segment() {
        let values: Vec<f64> = (0..1_203).map(f64::from).collect();
        let bins = binned(&values);
        assert_eq!((bins.len(), bins[0], bins[239]), (240, 5.0, 1_200.0));
        let bins = binned(&values[..500]);
        assert_eq!((bins.len(), bins[0], bins[249]), (250, 0.5, 498.5));
        assert_eq!(binned(&values[..3]), [0.0, 1.0, 2.0]);
        assert!(binned(&[]).is_empty());
    }

    #[test]
    fn the_nearest_values_are_those_beside_the_change() {
        let (before, after) = ([1.0, 2.0, 3.0], [4.0, 5.0]);
        assert_eq!(nearest(&before, &after, 2), (&[2.0, 3.0][..], &[4.0, 5.0][..]));
        assert_eq!(nearest(&before, &after, 9), (&before[..], &after[..]));
    }
}
