//! Models that cost nothing, so that what is measured is the pipeline around them.

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use retake_pipeline::answer::{AnswerEnd, AnswerPart, ChatRequest, Llm};
use retake_pipeline::embed::{Embedder, Embeddings};
use retake_pipeline::error::PipelineError;
use retake_schemas::event::TokensSource;

/// Gives every text the same vector.
#[derive(Debug)]
pub(crate) struct MockEmbedder {
    pub(crate) dim: usize,
}

#[async_trait]
impl Embedder for MockEmbedder {
    fn provider(&self) -> &str {
        "mock"
    }

    fn model(&self) -> &str {
        "mock"
    }

    fn dim(&self) -> Option<usize> {
        Some(self.dim)
    }

    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError> {
        Ok(Embeddings {
            dim: self.dim,
            vectors: vec![vec![0.5; self.dim]; texts.len()],
            tokens: None,
            tokens_source: TokensSource::None,
            retries: 0,
        })
    }
}

/// Says the same to every request.
#[derive(Debug)]
pub(crate) struct MockLlm;

#[async_trait]
impl Llm for MockLlm {
    fn provider(&self) -> &str {
        "mock"
    }

    fn model(&self) -> &str {
        "mock"
    }

    async fn answer(
        &self,
        _: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let text = AnswerPart::Text { text: "text ".repeat(64), tokens: 64 };
        let end = AnswerPart::End(AnswerEnd {
            input_tokens: Some(900),
            output_tokens: Some(64),
            tokens_source: TokensSource::Provider,
            ..AnswerEnd::default()
        });
        Ok(stream::iter([Ok(text), Ok(end)]).boxed())
    }
}
