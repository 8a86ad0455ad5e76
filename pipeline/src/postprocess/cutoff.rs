//! Leaves out what is not similar enough.

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query};
use crate::document::Hit;
use crate::error::PipelineError;

/// Lets through chunks of at least this cosine similarity to the question.
///
/// It looks at the search's similarity, never at a reranker's score: their scales have nothing in
/// common.
#[derive(Debug, Clone, Copy)]
pub struct SimilarityCutoff {
    /// Least similarity, -1 to 1.
    pub similarity_min: f64,
}

#[async_trait]
impl Postprocessor for SimilarityCutoff {
    fn name(&self) -> &str {
        "similarity_cutoff"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, _: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        Ok(self.cut(hits).into())
    }
}

impl SimilarityCutoff {
    fn cut(self, mut hits: Vec<Hit>) -> Vec<Hit> {
        hits.retain(|hit| hit.similarity >= self.similarity_min);
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    /// Scenario: chunks around the limit, one of them rated by a reranker of another scale.
    /// Guarantees: the search's similarity decides; the limit itself is let through; all may go.
    #[test]
    fn the_similarity_of_the_search_decides_whatever_a_reranker_said() {
        let with = |similarity, rerank_score| Hit { similarity, rerank_score, ..hit("a#0", "x") };
        let hits = vec![with(0.5, Some(0.1)), with(0.49, Some(9.0)), with(0.9, None)];
        let kept = SimilarityCutoff { similarity_min: 0.5 }.cut(hits.clone());
        let kept: Vec<f64> = kept.iter().map(|hit| hit.similarity).collect();
        assert_eq!(kept, [0.5, 0.9]);
        assert!(SimilarityCutoff { similarity_min: 1.0 }.cut(hits).is_empty());
    }
}
