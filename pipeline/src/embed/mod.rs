//! Text to vectors.

use async_trait::async_trait;
use retake_schemas::event::TokensSource;

use crate::error::PipelineError;

/// Vectors of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Dimensions of each vector.
    pub dim: usize,
    /// One vector per text, in order, each of length 1 (L2).
    pub vectors: Vec<Vec<f32>>,
    /// Input tokens of the call.
    pub tokens: Option<u64>,
    /// Who counted them.
    pub tokens_source: TokensSource,
    /// Attempts after the first.
    pub retries: u32,
}

/// Makes vectors of texts.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Provider name for `gen_ai.provider.name`: `retake`, `openai`, …
    fn provider(&self) -> &str;

    /// Model name for `gen_ai.request.model`. Vectors of different names are never mixed.
    fn model(&self) -> &str;

    /// Dimensions of its vectors, when they are known without a call.
    fn dim(&self) -> Option<usize>;

    /// Embeds a batch.
    ///
    /// # Errors
    /// The service or the model failed, after retries where a retry can help.
    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError>;
}
