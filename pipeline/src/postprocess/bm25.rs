//! Reranking by words.

use async_trait::async_trait;
use bm25::{EmbedderBuilder, Scorer, Tokenizer};

use super::{Postprocessor, Processed, Query};
use crate::document::Hit;
use crate::error::PipelineError;
use crate::words;

/// BM25 over the candidates: finds exact names and rare words that vectors blur.
///
/// Rarity is measured within the candidates, so scores of different queries do not compare.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bm25Reranker;

#[async_trait]
impl Postprocessor for Bm25Reranker {
    fn name(&self) -> &str {
        "bm25"
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        Ok(Self::rank(query.text, hits, query.keep).into())
    }
}

impl Bm25Reranker {
    /// Orders `hits` for `query` and keeps the best `keep`. The score goes to `rerank_score`; the
    /// similarity of the search stays as it is.
    fn rank(query: &str, hits: Vec<Hit>, keep: usize) -> Vec<Hit> {
        let texts: Vec<&str> = hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
        let embedder =
            EmbedderBuilder::<u64, Words>::with_tokenizer_and_fit_to_corpus(Words, &texts).build();
        let mut scorer = Scorer::new();
        for (position, text) in texts.iter().enumerate() {
            scorer.upsert(&position, embedder.embed(text));
        }
        let query = embedder.embed(query);
        let mut scored: Vec<(f64, Hit)> = hits
            .into_iter()
            .enumerate()
            .map(|(position, hit)| {
                (f64::from(scorer.score(&position, &query).unwrap_or_default()), hit)
            })
            .collect();
        // Ties keep the search's order; the id settles what is left, so that no run differs.
        scored.sort_by(|(one_score, one), (other_score, other)| {
            other_score
                .total_cmp(one_score)
                .then(other.similarity.total_cmp(&one.similarity))
                .then_with(|| one.chunk.id.cmp(&other.chunk.id))
        });
        scored.truncate(keep);
        let ranked = |(score, hit)| Hit { rerank_score: Some(score), ..hit };
        scored.into_iter().map(ranked).collect()
    }
}

/// The pipeline's words, as BM25 counts them.
#[derive(Debug, Clone, Copy)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        words::meaningful_words(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    fn hits() -> Vec<Hit> {
        let mut hits = vec![
            hit("a#0", "General advice about configuration and settings."),
            hit("b#0", "The setting RETAKE_STORE names the folder of the store."),
            hit("c#0", "Nothing in common."),
            hit("b#1", "Nothing in common."),
        ];
        for (hit, similarity) in hits.iter_mut().zip([0.9, 0.5, 0.3, 0.3]) {
            hit.similarity = similarity;
        }
        hits
    }

    /// Scenario: the chunk with the very name asked for is only second by similarity.
    /// Guarantees: it comes first; both scores are kept; ties are settled the same every time.
    #[test]
    fn exact_names_win_and_both_scores_stay() {
        let ranked = Bm25Reranker::rank("what is RETAKE_STORE?", hits(), 4);
        let ids: Vec<&str> = ranked.iter().map(|hit| hit.chunk.id.as_str()).collect();
        assert_eq!(ids, ["b#0", "a#0", "b#1", "c#0"]);
        assert_eq!(ranked[0].similarity, 0.5);
        assert!(ranked[0].rerank_score > ranked[1].rerank_score);
        assert_eq!(ranked[2].rerank_score, Some(0.0));
        let again = Bm25Reranker::rank("what is RETAKE_STORE?", hits(), 4);
        assert_eq!(again, ranked);
    }

    #[test]
    fn only_the_best_are_kept() {
        assert_eq!(Bm25Reranker::rank("store", hits(), 1).len(), 1);
        assert!(Bm25Reranker::rank("store", vec![], 3).is_empty());
        assert_eq!(Bm25Reranker::rank("", hits(), 9).len(), 4);
    }
}
