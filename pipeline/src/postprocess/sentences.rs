//! Of each chunk, the sentences that are about the question.
//!
//! Shorter prompts cost less and distract less; what is left out is chosen by the same model that
//! found the chunk.

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query, cosine};
use crate::document::{Chunk, Hit};
use crate::embed_call;
use crate::error::PipelineError;
use crate::tokens;
use crate::words::sentences;

/// Keeps the sentences most similar to the question, in the order they stand in.
///
/// Of every chunk at least one is kept, unless none is similar enough; then the chunk is left out.
/// A chunk of one sentence is not looked at.
#[derive(Debug, Clone, Copy)]
pub struct SentenceFilter {
    /// Share of the sentences to keep, 0 to 1, rounded up.
    pub share: f64,
    /// Least similarity of a sentence, -1 to 1.
    pub similarity_min: f64,
    /// Sentences in one call of the model.
    pub batch_size: usize,
}

#[async_trait]
impl Postprocessor for SentenceFilter {
    fn name(&self) -> &str {
        "sentences"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let parts: Vec<Vec<std::ops::Range<usize>>> =
            hits.iter().map(|hit| sentences(&hit.chunk.text)).collect();
        let texts: Vec<&str> = hits
            .iter()
            .zip(&parts)
            .filter(|(_, parts)| parts.len() > 1)
            .flat_map(|(hit, parts)| {
                parts.iter().filter_map(|part| hit.chunk.text.get(part.clone()))
            })
            .collect();
        let mut similarities = Vec::with_capacity(texts.len());
        for batch in texts.chunks(self.batch_size.max(1)) {
            let span = embed_call::span(query.embedder, query.span, batch.len());
            let embeddings = embed_call::embed(query.embedder, batch, span).await?;
            similarities
                .extend(embeddings.vectors.iter().map(|vector| cosine(query.vector, vector)));
        }
        let mut similarities = similarities.into_iter();
        let mut kept = Vec::with_capacity(hits.len());
        for (hit, parts) in hits.iter().zip(&parts) {
            if parts.len() <= 1 {
                kept.push(hit.clone());
                continue;
            }
            let scored: Vec<f64> = similarities.by_ref().take(parts.len()).collect();
            let chosen = self.chosen(&scored);
            if !chosen.is_empty() {
                kept.push(shortened(hit, parts, &chosen));
            }
        }
        Ok(kept.into())
    }
}

impl SentenceFilter {
    /// The positions that stay, in order.
    fn chosen(&self, similarities: &[f64]) -> Vec<usize> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a small count"
        )]
        let most = (self.share * similarities.len() as f64).ceil().max(1.0) as usize;
        let mut order: Vec<(usize, f64)> = similarities.iter().copied().enumerate().collect();
        // Stable, so of equal ones the earlier stays.
        order.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let mut chosen: Vec<usize> = order
            .into_iter()
            .take(most)
            .filter(|(_, similarity)| *similarity >= self.similarity_min)
            .map(|(position, _)| position)
            .collect();
        chosen.sort_unstable();
        chosen
    }
}

/// The chunk with the chosen sentences only. Its offsets reach from the first of them to the last;
/// where some are left out between two, an ellipsis says so.
fn shortened(hit: &Hit, parts: &[std::ops::Range<usize>], chosen: &[usize]) -> Hit {
    let whole = &hit.chunk.text;
    let mut text = String::new();
    let mut last: Option<usize> = None;
    for position in chosen {
        let Some(part) = parts.get(*position) else { continue };
        if let Some(last) = last {
            let follows = last + 1 == *position;
            text.push_str(if follows { " " } else { ELLIPSIS });
        }
        text.push_str(whole.get(part.clone()).unwrap_or_default());
        last = Some(*position);
    }
    let chars = |bytes: usize| whole.get(..bytes).unwrap_or_default().chars().count() as u64;
    let first = chosen.first().and_then(|at| parts.get(*at)).map_or(0, |part| part.start);
    let end = chosen.last().and_then(|at| parts.get(*at)).map_or(whole.len(), |part| part.end);
    let start_char = hit.chunk.start_char + chars(first);
    let end_char = hit.chunk.start_char + chars(end);
    let tokens = u32::try_from(tokens::count(&text)).unwrap_or(u32::MAX);
    let chunk = Chunk { text, start_char, end_char, tokens, ..hit.chunk.clone() };
    Hit { chunk, ..hit.clone() }
}

const ELLIPSIS: &str = " \u{2026} ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    const FILTER: SentenceFilter =
        SentenceFilter { share: 0.5, similarity_min: -1.0, batch_size: 8 };

    /// Guarantees: half of an odd number is rounded up, order stays, equal ones keep the earlier.
    #[test]
    fn the_best_sentences_stay_in_their_order() {
        assert_eq!(FILTER.chosen(&[0.1, 0.9, 0.5]), [1, 2]);
        assert_eq!(FILTER.chosen(&[0.5, 0.5, 0.5, 0.5]), [0, 1]);
        assert_eq!(
            SentenceFilter { share: 0.0, ..FILTER }.chosen(&[0.1, 0.2]),
            [1],
            "at least one"
        );
        assert_eq!(SentenceFilter { share: 1.0, ..FILTER }.chosen(&[0.2, 0.1]), [0, 1]);
        let strict = SentenceFilter { similarity_min: 0.6, ..FILTER };
        assert_eq!(strict.chosen(&[0.1, 0.9, 0.5]), [1]);
        assert!(strict.chosen(&[0.1, 0.2]).is_empty(), "LlamaIndex raises an error here");
    }

    /// Guarantees: offsets count characters of the document, not bytes; what is left out is marked.
    #[test]
    fn a_shortened_chunk_says_where_it_stands() {
        let text = "Z\u{fc}rich ist gro\u{df}. Das ist egal. Bern ist klein.";
        let mut chunk = hit("a#0", text);
        chunk.chunk.start_char = 100;
        let parts = sentences(text);
        assert_eq!(parts.len(), 3);
        let short = shortened(&chunk, &parts, &[0, 2]);
        assert_eq!(short.chunk.text, "Z\u{fc}rich ist gro\u{df}. \u{2026} Bern ist klein.");
        assert_eq!((short.chunk.start_char, short.chunk.end_char), (100, 146));
        let last = shortened(&chunk, &parts, &[2]);
        assert_eq!((last.chunk.text.as_str(), last.chunk.start_char), ("Bern ist klein.", 131));
        assert_eq!(last.similarity, 0.5);
    }
}
