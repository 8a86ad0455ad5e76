//! The spans and events of a query, with their fields.
//!
//! Names are those of `retake_schemas::convention` and of the conventions in `mapping.toml`.

use retake_schemas::convention::{TARGET_DOCUMENT, TARGET_TOKEN};
use retake_schemas::event::TokensSource;
use tracing::{Span, field};

use super::{AskOptions, Quality, QueryInput};
use crate::answer::{AnswerEnd, ChatRequest, canonical};
use crate::document::Hit;
use crate::error::PipelineError;
use crate::trace::stage_span;

/// The root.
pub(super) fn query(question: &str, options: &AskOptions) -> Result<Span, PipelineError> {
    let input = QueryInput { question: question.to_owned() };
    let input = serde_json::to_string(&input)
        .map_err(|error| PipelineError::Configuration(format!("record question: {error}")))?;
    let source = options.source.as_ref();
    Ok(stage_span!(
        parent: &Span::current(), "query",
        "retake.kind" = "chain",
        "retake.stage" = "query",
        "retake.operation" = "query",
        "input.value" = input,
        "output.value" = field::Empty,
        "retake.request_id" = options.request_id,
        "retake.source.run_id" = source.map(|link| field::display(&link.run_id)),
        "retake.source.trace_id" = source.map(|link| field::display(&link.trace_id)),
        "retake.source.span_id" = source.map(|link| field::display(&link.span_id)),
        "retake.due_unix_ns" = options.due_unix_ns,
        "retake.quality.hit" = field::Empty,
        "retake.quality.recall" = field::Empty,
        "retake.quality.mrr" = field::Empty,
        "retake.quality.answer_match" = field::Empty,
    ))
}

/// Records what an evaluation found.
pub(super) fn record_quality(span: &Span, quality: &Quality) {
    if let Some(hit) = quality.hit {
        span.record("retake.quality.hit", hit);
    }
    if let Some(recall) = quality.recall {
        span.record("retake.quality.recall", recall);
    }
    if let Some(mrr) = quality.mrr {
        span.record("retake.quality.mrr", mrr);
    }
    if let Some(answer_match) = quality.answer_match {
        span.record("retake.quality.answer_match", answer_match);
    }
}

/// The search.
pub(super) fn retrieve(system: &'static str, top_k: usize, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "retrieve",
        "retake.stage" = "retrieve",
        "gen_ai.operation.name" = "retrieval",
        "gen_ai.retrieval.top_k" = top_k,
        "db.system.name" = system,
        "retake.document.count" = field::Empty,
    )
}

/// The chunks that were found.
pub(super) fn retrieved(span: &Span, hits: &[Hit]) {
    for (rank, hit) in hits.iter().enumerate() {
        let chunk = &hit.chunk;
        tracing::info!(
            target: TARGET_DOCUMENT, parent: span,
            role = "retrieved", rank, id = chunk.id, score = hit.similarity,
            source = chunk.document_id, start_char = chunk.start_char,
            end_char = chunk.end_char, content = chunk.text,
        );
    }
}

/// The reranking.
pub(super) fn rerank(model: &str, top_k: usize, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "rerank",
        "retake.stage" = "rerank",
        "gen_ai.operation.name" = "rerank",
        "gen_ai.request.model" = model,
        "reranker.top_k" = top_k,
        "retake.document.count" = field::Empty,
    )
}

/// The chunks that were kept; their texts stand with the search that found them.
pub(super) fn reranked(span: &Span, hits: &[Hit]) {
    for (rank, hit) in hits.iter().enumerate() {
        let chunk = &hit.chunk;
        tracing::info!(
            target: TARGET_DOCUMENT, parent: span,
            role = "rerank_output", rank, id = chunk.id,
            score = hit.rerank_score.unwrap_or(hit.similarity),
            source = chunk.document_id, start_char = chunk.start_char,
            end_char = chunk.end_char,
        );
    }
}

/// The prompt and its answer.
pub(super) fn synthesize(parent: &Span) -> Span {
    stage_span!(
        parent: parent, "synthesize",
        "retake.kind" = "chain",
        "retake.stage" = "synthesize",
    )
}

/// The model call.
pub(super) fn llm(
    provider: &str,
    request: &ChatRequest,
    source: Option<&'static str>,
    parent: &Span,
) -> Span {
    stage_span!(
        parent: parent, "llm",
        "retake.stage" = "llm",
        "gen_ai.operation.name" = "chat",
        "gen_ai.provider.name" = provider,
        "gen_ai.request.model" = request.model,
        "gen_ai.request.stream" = request.stream,
        "gen_ai.request.temperature" = request.temperature,
        "gen_ai.request.max_tokens" = request.max_tokens,
        "gen_ai.input.messages" = canonical(request),
        "gen_ai.output.messages" = field::Empty,
        "gen_ai.usage.input_tokens" = field::Empty,
        "gen_ai.usage.output_tokens" = field::Empty,
        "gen_ai.usage.cache_read.input_tokens" = field::Empty,
        "gen_ai.usage.reasoning.output_tokens" = field::Empty,
        "gen_ai.response.model" = field::Empty,
        "gen_ai.response.finish_reasons" = field::Empty,
        "retake.tokens.source" = field::Empty,
        "retake.retries" = field::Empty,
        "retake.stage_source" = source,
    )
}

/// An arrival of output tokens.
pub(super) fn token(span: &Span, index: u32, count: u32) {
    tracing::info!(target: TARGET_TOKEN, parent: span, index, count);
}

/// Records what is known at the end of an answer.
pub(super) fn record_end(span: &Span, end: &AnswerEnd) {
    let counts = [
        ("gen_ai.usage.input_tokens", end.input_tokens),
        ("gen_ai.usage.output_tokens", end.output_tokens),
        ("gen_ai.usage.cache_read.input_tokens", end.cache_read_tokens),
        ("gen_ai.usage.reasoning.output_tokens", end.reasoning_tokens),
    ];
    for (name, count) in counts {
        if let Some(count) = count {
            span.record(name, count);
        }
    }
    if let Some(model) = &end.model {
        span.record("gen_ai.response.model", model.as_str());
    }
    if let Some(reason) = &end.finish_reason {
        span.record("gen_ai.response.finish_reasons", reason.as_str());
    }
    if end.tokens_source != TokensSource::None {
        span.record("retake.tokens.source", end.tokens_source.as_str());
    }
    span.record("retake.retries", end.retries);
}
