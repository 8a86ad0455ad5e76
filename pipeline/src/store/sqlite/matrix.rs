//! The vectors of a collection in memory, for searches that read no page of the file.
//!
//! A matrix belongs to one revision of its collection and is never changed: when the collection
//! is, by whatever process, the next search finds another revision and does not use it.

use std::collections::HashSet;

use crate::store::Revision;

/// All vectors of a collection, one row after the other.
#[derive(Debug)]
pub(super) struct Matrix {
    /// What it was loaded from.
    pub(super) revision: Revision,
    dim: usize,
    values: Vec<f32>,
    /// 1 / length of each row; 0 for one without a direction.
    scales: Vec<f32>,
    /// Where each row's chunk is in the file.
    places: Vec<i64>,
    /// Id of each row's chunk, which settles the order of equals.
    ids: Vec<Box<str>>,
}

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Near {
    /// Where its chunk is in the file.
    pub(super) place: i64,
    /// Cosine similarity; 0 for a vector without a direction.
    pub(super) similarity: f64,
}

impl Matrix {
    /// An empty matrix with room for `rows`.
    pub(super) fn new(revision: Revision, dim: usize, rows: usize) -> Self {
        Self {
            revision,
            dim,
            values: Vec::with_capacity(rows.saturating_mul(dim)),
            scales: Vec::with_capacity(rows),
            places: Vec::with_capacity(rows),
            ids: Vec::with_capacity(rows),
        }
    }

    /// Adds a row; `false` if it has another width, which only a damaged file can hold.
    pub(super) fn push(&mut self, place: i64, id: String, bytes: &[u8]) -> bool {
        let (numbers, rest) = bytes.as_chunks::<4>();
        if numbers.len() != self.dim || !rest.is_empty() {
            return false;
        }
        let start = self.values.len();
        self.values.extend(numbers.iter().map(|number| f32::from_le_bytes(*number)));
        let row = self.values.get(start..).unwrap_or_default();
        self.scales.push(scale(row));
        self.places.push(place);
        self.ids.push(id.into_boxed_str());
        true
    }

    /// The `top_k` rows most similar to `query`, best first, equals in order of id; of all rows, or
    /// of those whose chunks are among the given places.
    pub(super) fn nearest(
        &self,
        query: &[f32],
        top_k: usize,
        among: Option<&HashSet<i64>>,
    ) -> Vec<Near> {
        let query_scale = scale(query);
        if self.dim == 0 || top_k == 0 {
            return Vec::new();
        }
        let similarity = |(row, scale): (&[f32], &f32)| {
            let similarity = dot(row, query) * scale * query_scale;
            // A product of scales that overflows has no direction either.
            if similarity.is_finite() { similarity } else { 0.0 }
        };
        let rows = self.values.chunks_exact(self.dim).zip(&self.scales);
        let mut near: Vec<(f32, usize)> = match among {
            None => rows.map(similarity).zip(0..).collect(),
            Some(among) => rows
                .zip(self.places.iter().zip(0..))
                .filter(|(_, (place, _))| among.contains(place))
                .map(|(row, (_, number))| (similarity(row), number))
                .collect(),
        };
        let order = |one: &(f32, usize), other: &(f32, usize)| {
            let by_similarity = other.0.total_cmp(&one.0);
            by_similarity.then_with(|| self.ids.get(one.1).cmp(&self.ids.get(other.1)))
        };
        if near.len() > top_k {
            near.select_nth_unstable_by(top_k - 1, order);
            near.truncate(top_k);
        }
        near.sort_unstable_by(order);
        near.into_iter()
            .filter_map(|(similarity, row)| {
                let similarity = f64::from(similarity).clamp(-1.0, 1.0);
                Some(Near { place: *self.places.get(row)?, similarity })
            })
            .collect()
    }
}

/// 1 / length; 0 for a vector without a direction. In f64, so that no square overflows.
fn scale(vector: &[f32]) -> f32 {
    let square: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "no more precise than the vector")]
    let scale = square.sqrt().recip() as f32;
    if scale.is_finite() { scale } else { 0.0 }
}

/// The dot product, in as many sums as a processor adds at once: floating-point sums may not be
/// reordered by a compiler, so they are written in the order that is fast.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let (ones, one_rest) = one.as_chunks::<LANES>();
    let (others, other_rest) = other.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (one, other) in ones.iter().zip(others) {
        for ((sum, a), b) in sums.iter_mut().zip(one).zip(other) {
            *sum += a * b;
        }
    }
    let rest: f32 = one_rest.iter().zip(other_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Four times the four or eight numbers that one instruction multiplies, so that the next need not
/// wait for the sum of the last.
const LANES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(dim: usize, rows: &[(&str, Vec<f32>)]) -> Matrix {
        let mut matrix = Matrix::new(Revision::new("r"), dim, rows.len());
        for (place, (id, vector)) in rows.iter().enumerate() {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(matrix.push(place as i64, (*id).to_owned(), &bytes));
        }
        matrix
    }

    /// Pseudo-random vectors of several widths, also those that no chunk of lanes divides.
    fn vectors(dim: usize, count: usize) -> Vec<Vec<f32>> {
        let mut state = dim as u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| (0..dim).map(|_| next()).collect()).collect()
    }

    /// Guarantees: what is found is what a plain computation in f64 finds, for every width and
    /// number; equals stand in order of id.
    #[test]
    fn the_nearest_are_those_of_a_plain_computation() {
        for dim in [1, 3, 31, 32, 33, 384] {
            let all = vectors(dim, 200);
            let query = &vectors(dim + 1000, 1)[0][..dim];
            let ids: Vec<String> = (0..200).map(|n| format!("{:03}", (n * 7) % 200)).collect();
            let rows: Vec<(&str, Vec<f32>)> =
                ids.iter().map(String::as_str).zip(all.iter().cloned()).collect();
            let matrix = matrix(dim, &rows);
            let mut expected: Vec<(f64, &str)> = rows
                .iter()
                .map(|(id, vector)| (crate::postprocess::cosine(vector, query), *id))
                .collect();
            expected
                .sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
            for top_k in [1, 10, 200, 500] {
                let found = matrix.nearest(query, top_k, None);
                assert_eq!(found.len(), top_k.min(200));
                for (near, (similarity, _)) in found.iter().zip(&expected) {
                    assert!((near.similarity - similarity).abs() < 1e-5, "{dim} {top_k}");
                }
                let odd: HashSet<i64> = (0..100).map(|half| 2 * half + 1).collect();
                let among = matrix.nearest(query, top_k, Some(&odd));
                let of_all = matrix.nearest(query, 200, None);
                let wanted: Vec<Near> =
                    of_all.into_iter().filter(|near| near.place % 2 == 1).take(top_k).collect();
                assert_eq!(among, wanted);
            }
        }
    }

    #[test]
    fn vectors_without_direction_and_odd_ones_are_neither_near_nor_far() {
        let matrix = matrix(
            2,
            &[
                ("b", vec![0.0, 0.0]),
                ("a", vec![f32::MIN_POSITIVE / 4.0, 0.0]),
                ("far", vec![-1.0, 0.0]),
                ("near", vec![3e38, 0.0]),
            ],
        );
        let found = matrix.nearest(&[1.0, 0.0], 9, None);
        let places: Vec<i64> = found.iter().map(|near| near.place).collect();
        assert_eq!(places[0], 3);
        assert_eq!(*places.last().unwrap(), 2);
        assert!(found.iter().all(|near| near.similarity.is_finite()), "{found:?}");
        assert!(matrix.nearest(&[0.0, 0.0], 9, None).iter().all(|near| near.similarity == 0.0));
        assert!(matrix.nearest(&[1.0, 0.0], 0, None).is_empty());
        let mut empty = Matrix::new(Revision::new("r"), 2, 0);
        assert!(!empty.push(0, "x".to_owned(), &[0; 7]), "a damaged row");
        assert!(empty.nearest(&[1.0, 0.0], 3, None).is_empty());
    }
}
