//! The spans and events of a query, with their fields.
//!
//! Names are those of `retake_schemas::convention` and of the conventions in `mapping.toml`.

use retake_schemas::convention::TARGET_DOCUMENT;
use retake_schemas::settings::{RetrieveMode, SynthesisMode};
use tracing::{Span, field};

use super::{AskOptions, Quality, QueryInput};
use crate::document::Hit;
use crate::error::PipelineError;
use crate::synthesize::Written;
use crate::synthesize::check::Objection;
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

/// The look for an answer that was given before.
pub(super) fn cache(parent: &Span) -> Span {
    stage_span!(
        parent: parent, "cache",
        "retake.kind" = "chain",
        "retake.stage" = "cache",
        "retake.cache_hit" = field::Empty,
        "retake.cache.similarity" = field::Empty,
    )
}

/// The question, made into something else to search for.
pub(super) fn transform(name: &str, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "transform",
        "retake.kind" = "chain",
        "retake.stage" = "transform",
        "retake.query.transform" = name,
    )
}

/// The search.
pub(super) fn retrieve(
    system: &'static str,
    mode: RetrieveMode,
    top_k: usize,
    parent: &Span,
) -> Span {
    stage_span!(
        parent: parent, "retrieve",
        "retake.stage" = "retrieve",
        "gen_ai.operation.name" = "retrieval",
        "gen_ai.retrieval.top_k" = top_k,
        "db.system.name" = system,
        "retake.retrieve.mode" = mode.as_str(),
        "retake.document.count" = field::Empty,
    )
}

/// The search of the nearest vectors within a hybrid one.
pub(super) fn retrieve_dense(system: &'static str, top_k: usize, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "retrieve_dense",
        "retake.stage" = "retrieve_dense",
        "gen_ai.operation.name" = "retrieval",
        "gen_ai.retrieval.top_k" = top_k,
        "db.system.name" = system,
        "retake.document.count" = field::Empty,
    )
}

/// The search of words within a hybrid one.
pub(super) fn retrieve_text(system: &'static str, top_k: usize, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "retrieve_text",
        "retake.stage" = "retrieve_text",
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
            role = "retrieved", rank, id = chunk.id, score = hit.search_score(),
            source = chunk.document_id, start_char = chunk.start_char,
            end_char = chunk.end_char, content = chunk.text,
        );
    }
}

/// The chunks that one search of a hybrid one found; their texts stand with the whole.
pub(super) fn retrieved_by_arm(span: &Span, hits: &[Hit]) {
    for (rank, hit) in hits.iter().enumerate() {
        let chunk = &hit.chunk;
        tracing::info!(
            target: TARGET_DOCUMENT, parent: span,
            role = "retrieved", rank, id = chunk.id, score = hit.search_score(),
            source = chunk.document_id, start_char = chunk.start_char,
            end_char = chunk.end_char,
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
        "retake.rerank.unrated" = field::Empty,
        "retake.rerank.unreadable" = field::Empty,
        "gen_ai.usage.input_tokens" = field::Empty,
        "retake.tokens.source" = field::Empty,
        "retake.retries" = field::Empty,
    )
}

/// A step that leaves out or orders, and chooses nothing.
pub(super) fn postprocess(name: &str, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "postprocess",
        "retake.kind" = "chain",
        "retake.stage" = "postprocess",
        "retake.postprocessor" = name,
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
            score = hit.rerank_score.unwrap_or_else(|| hit.search_score()),
            source = chunk.document_id, start_char = chunk.start_char,
            end_char = chunk.end_char,
        );
    }
}

/// The prompts and their answer.
pub(super) fn synthesize(mode: SynthesisMode, parent: &Span) -> Span {
    stage_span!(
        parent: parent, "synthesize",
        "retake.kind" = "chain",
        "retake.stage" = "synthesize",
        "retake.synthesize.mode" = mode.as_str(),
        "retake.synthesize.calls" = field::Empty,
        "retake.synthesize.passages_cut" = field::Empty,
        "retake.synthesize.objection" = field::Empty,
    )
}

/// Records how an answer was made, and what is wrong with it.
pub(super) fn record_written(span: &Span, written: &Written, objection: Option<Objection>) {
    span.record("retake.synthesize.calls", written.spent.calls);
    if written.passages_cut > 0 {
        span.record("retake.synthesize.passages_cut", written.passages_cut);
    }
    if let Some(objection) = objection {
        span.record("retake.synthesize.objection", objection.as_str());
    }
}
