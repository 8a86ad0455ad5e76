//! One embedding call with its span: the same for a batch of chunks and for a question.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use retake_schemas::event::TokensSource;
use tracing::{Instrument as _, Span, field};

use crate::embed::{Embedder, Embeddings};
use crate::error::PipelineError;
use crate::trace::{Stage, stage_span};

/// The span of a call.
pub(crate) fn span(embedder: &dyn Embedder, parent: &Span, texts: usize) -> Span {
    stage_span!(
        parent: parent, "embed",
        "retake.stage" = "embed",
        "gen_ai.operation.name" = "embeddings",
        "gen_ai.provider.name" = embedder.provider(),
        "gen_ai.request.model" = embedder.model(),
        "gen_ai.embeddings.dimension.count" = field::Empty,
        "gen_ai.usage.input_tokens" = field::Empty,
        "retake.tokens.source" = field::Empty,
        "retake.batch.size" = texts,
        "retake.batch.index" = field::Empty,
        "retake.queue_ns" = field::Empty,
        "retake.embedding.count" = field::Empty,
        "retake.retries" = field::Empty,
    )
}

/// Makes a call inside its span. The result has exactly one vector per text.
///
/// # Errors
/// The embedder failed, panicked, or returned another number of vectors.
pub(crate) async fn embed(
    embedder: &dyn Embedder,
    texts: &[&str],
    span: Span,
) -> Result<Embeddings, PipelineError> {
    let stage = Stage::new(span.clone());
    // A panicking model costs this call, not the run.
    let call = AssertUnwindSafe(embedder.embed(texts)).catch_unwind();
    let result = match call.instrument(span).await {
        Ok(result) => result.and_then(|embeddings| checked(embeddings, texts, embedder.model())),
        Err(_) => Err(wrong(embedder.model(), "it panicked".to_owned())),
    };
    if let Ok(embeddings) = &result {
        record(stage.span(), embeddings);
    }
    stage.end(result)
}

fn record(span: &Span, embeddings: &Embeddings) {
    span.record("gen_ai.embeddings.dimension.count", embeddings.dim);
    span.record("retake.embedding.count", embeddings.vectors.len());
    span.record("retake.retries", embeddings.retries);
    if let Some(tokens) = embeddings.tokens {
        span.record("gen_ai.usage.input_tokens", tokens);
    }
    if embeddings.tokens_source != TokensSource::None {
        span.record("retake.tokens.source", embeddings.tokens_source.as_str());
    }
}

/// A model that returns more or fewer vectors than texts would shift them all.
fn checked(
    embeddings: Embeddings,
    texts: &[&str],
    model: &str,
) -> Result<Embeddings, PipelineError> {
    let (found, expected) = (embeddings.vectors.len(), texts.len());
    if found == expected {
        return Ok(embeddings);
    }
    Err(wrong(model, format!("it returned {found} vectors for {expected} texts")))
}

fn wrong(model: &str, reason: String) -> PipelineError {
    PipelineError::Model { model: model.to_owned(), reason }
}
