//! Maximal marginal relevance: chunks that say what the question asks and others have not said.
//!
//! Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and
//! producing summaries", SIGIR 1998.

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query};
use crate::document::Hit;
use crate::error::PipelineError;

/// Chooses one chunk after the other by `lambda * similarity to the question - (1 - lambda) *
/// largest similarity to a chunk chosen before`. All similarities are cosines.
#[derive(Debug, Clone, Copy)]
pub struct Mmr {
    /// 1: the question only; 0: difference only.
    pub lambda: f64,
}

#[async_trait]
impl Postprocessor for Mmr {
    fn name(&self) -> &str {
        "mmr"
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let ids: Vec<String> = hits.iter().map(|hit| hit.chunk.id.clone()).collect();
        let mut by_id = query.store.vectors(&ids).await?;
        let vectors: Vec<Option<Vec<f32>>> = ids.iter().map(|id| by_id.remove(id)).collect();
        let vectors: Vec<&[f32]> =
            vectors.iter().map(|vector| vector.as_deref().unwrap_or_default()).collect();
        let chosen = maximal_marginal_relevance(query.vector, &vectors, self.lambda, query.keep);
        let mut hits: Vec<Option<Hit>> = hits.into_iter().map(Some).collect();
        let kept = chosen.into_iter().filter_map(|(position, score)| {
            let hit = hits.get_mut(position)?.take()?;
            Some(Hit { rerank_score: Some(score), ..hit })
        });
        Ok(kept.collect::<Vec<Hit>>().into())
    }
}

/// Positions in the order they are chosen, each with its marginal relevance, at most `keep`. Of
/// equal ones the earlier is chosen. A vector of another width is similar to nothing.
#[must_use]
pub fn maximal_marginal_relevance(
    query: &[f32],
    vectors: &[&[f32]],
    lambda: f64,
    keep: usize,
) -> Vec<(usize, f64)> {
    let relevance: Vec<f64> = vectors.iter().map(|vector| cosine(query, vector)).collect();
    // Largest similarity to a chosen one; none is chosen yet, and then nothing is taken off.
    let mut likeness: Vec<Option<f64>> = vec![None; vectors.len()];
    let mut open: Vec<usize> = (0..vectors.len()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < keep && !open.is_empty() {
        let score = |position: usize| {
            let relevance = relevance.get(position).copied().unwrap_or_default();
            let likeness = likeness.get(position).copied().flatten().unwrap_or_default();
            lambda * relevance - (1.0 - lambda) * likeness
        };
        let best = open.iter().enumerate().fold(None, |best, (place, position)| {
            let score = score(*position);
            match best {
                Some((_, _, high)) if score <= high => best,
                _ => Some((place, *position, score)),
            }
        });
        let Some((place, position, score)) = best else { break };
        open.remove(place);
        chosen.push((position, score));
        let vector = vectors.get(position).copied().unwrap_or_default();
        for other in &open {
            let with = cosine(vector, vectors.get(*other).copied().unwrap_or_default());
            if let Some(likeness) = likeness.get_mut(*other) {
                *likeness = Some(likeness.map_or(with, |before| before.max(with)));
            }
        }
    }
    chosen
}

/// Cosine similarity; 0 for vectors without a direction or of different widths.
pub(crate) fn cosine(one: &[f32], other: &[f32]) -> f64 {
    if one.len() != other.len() {
        return 0.0;
    }
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    if lengths > 0.0 { (dot(one, other) / lengths).clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [f32; 2] = [1.0, 0.0];
    const VECTORS: [&[f32]; 4] = [&[1.0, 0.1], &[1.0, 0.11], &[0.8, -0.6], &[0.0, 1.0]];

    fn chosen(lambda: f64, keep: usize) -> Vec<usize> {
        let chosen = maximal_marginal_relevance(&QUERY, &VECTORS, lambda, keep);
        chosen.into_iter().map(|(position, _)| position).collect()
    }

    /// Scenario: two chunks say nearly the same, a third says something else about the question.
    /// Guarantees: with lambda 1 the order is the search's; below it the copy comes after what is
    /// new; nothing comes twice.
    #[test]
    fn a_near_copy_comes_after_what_is_new() {
        assert_eq!(chosen(1.0, 4), [0, 1, 2, 3]);
        assert_eq!(chosen(0.5, 2), [0, 2]);
        let all = chosen(0.3, 9);
        assert_eq!(all.len(), 4);
        assert!((0..4).all(|position| all.contains(&position)));
    }

    /// Scenario: the score of the second choice, worked out by hand.
    #[test]
    fn the_score_is_that_of_the_paper() {
        let chosen = maximal_marginal_relevance(&QUERY, &VECTORS, 0.5, 2);
        let likeness = (0.8 - 0.06) / 1.01_f64.sqrt();
        assert!((chosen[1].1 - (0.5 * 0.8 - 0.5 * likeness)).abs() < 1e-6, "{chosen:?}");
    }

    #[test]
    fn odd_vectors_are_similar_to_nothing() {
        let odd: [&[f32]; 3] = [&[], &[0.0, 0.0], &[1.0, 0.0]];
        let order = maximal_marginal_relevance(&QUERY, &odd, 0.7, 3);
        assert_eq!(order[0].0, 2);
        assert!(order.iter().all(|(_, score)| score.is_finite()));
        assert!(maximal_marginal_relevance(&QUERY, &[], 0.5, 3).is_empty());
    }
}
