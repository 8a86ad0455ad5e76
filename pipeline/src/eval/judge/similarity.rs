//! How near an answer is to a right one, by their vectors.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::Span;

use super::{Evaluator, Judgement, Subject};
use crate::embed::Embedder;
use crate::embed_call;
use crate::error::PipelineError;
use crate::postprocess::cosine;

/// Cosine similarity of the answer's vector to that of the reference. It asks no model: it cannot
/// tell a right answer from one that says the opposite in the same words.
#[derive(Clone)]
pub struct SemanticSimilarity {
    embedder: Arc<dyn Embedder>,
    similarity_min: f64,
}

impl std::fmt::Debug for SemanticSimilarity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SemanticSimilarity")
            .field("similarity_min", &self.similarity_min)
            .finish_non_exhaustive()
    }
}

impl SemanticSimilarity {
    /// An evaluator by `embedder`; `similarity_min` passes.
    #[must_use]
    pub fn new(embedder: Arc<dyn Embedder>, similarity_min: f64) -> Self {
        Self { embedder, similarity_min }
    }
}

#[async_trait]
impl Evaluator for SemanticSimilarity {
    fn name(&self) -> &str {
        "semantic_similarity"
    }

    async fn evaluate(&self, subject: &Subject, span: &Span) -> Result<Judgement, PipelineError> {
        let Some(reference) = &subject.reference else {
            return Ok(Judgement::not_applicable("it has no right answer"));
        };
        let embedder = self.embedder.as_ref();
        let call = embed_call::span(embedder, span, 2);
        let texts = [subject.response.as_str(), reference.as_str()];
        let embeddings = embed_call::embed(embedder, &texts, call).await?;
        let [one, other] = embeddings.vectors.as_slice() else {
            return Ok(Judgement::invalid("there are not two vectors"));
        };
        let similarity = cosine(one, other);
        Ok(Judgement::scored(similarity, similarity >= self.similarity_min, String::new()))
    }
}
