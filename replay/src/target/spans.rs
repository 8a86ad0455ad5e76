//! The span of a replayed call: it links to what it repeats, and can itself be replayed.

use retake_schemas::convention::TARGET_TOKEN;
use retake_schemas::event::TokensSource;
use serde_json::Value as Json;
use tracing::{Span, field};

use super::answer::Answer;
use super::{CallEnd, Operation, OperationContext, TargetError};

/// What is sent, and where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// What a replay of the replay needs to send it again.
    pub(super) input: &'a str,
    /// The request's body.
    pub(super) body: &'a Json,
    pub(super) route: &'a str,
    pub(super) host: &'a str,
}

/// Kind, stage and name of the span of an operation of this kind.
pub(crate) fn words(kind: &str) -> (&'static str, &str, &str) {
    match kind {
        "chat" => ("llm", "llm", "chat"),
        "text_completion" => ("llm", "llm", "text_completion"),
        "embeddings" => ("embedding", "embed", "embeddings"),
        "rerank" => ("reranker", "rerank", "rerank"),
        other => ("chain", other, other),
    }
}

/// The span of an operation that is one call.
pub(super) fn call(operation: &Operation, context: &OperationContext, sent: Sent<'_>) -> Span {
    let (source, shape) = (operation.source.as_ref(), &operation.shape);
    let Sent { input, body, route, host } = sent;
    let (kind, stage, name) = words(&operation.kind);
    tracing::info_span!(
        parent: None,
        "replay",
        "otel.name" = name,
        "retake.kind" = kind,
        "retake.stage" = stage,
        "retake.operation" = operation.kind,
        "input.value" = input,
        "output.value" = field::Empty,
        "gen_ai.operation.name" = name,
        "gen_ai.request.model" = body.get("model").and_then(Json::as_str),
        "gen_ai.request.stream" = body.get("stream").and_then(Json::as_bool),
        "gen_ai.request.temperature" = body.get("temperature").and_then(Json::as_f64),
        "gen_ai.request.max_tokens" = body.get("max_tokens").and_then(Json::as_u64),
        "gen_ai.conversation.id" = shape.session.as_deref(),
        "server.address" = host,
        "http.route" = route,
        "gen_ai.response.model" = field::Empty,
        "gen_ai.response.finish_reasons" = field::Empty,
        "gen_ai.usage.input_tokens" = field::Empty,
        "gen_ai.usage.output_tokens" = field::Empty,
        "gen_ai.usage.cache_read.input_tokens" = field::Empty,
        "retake.tokens.source" = field::Empty,
        "retake.source.run_id" = source.map(|link| field::display(&link.run_id)),
        "retake.source.trace_id" = source.map(|link| field::display(&link.trace_id)),
        "retake.source.span_id" = source.map(|link| field::display(&link.span_id)),
        "retake.due_unix_ns" = context.due_unix_ns,
        "retake.stage_source" = "live",
        "error.type" = field::Empty,
        "otel.status_code" = field::Empty,
        "otel.status_description" = field::Empty,
        "retake.cancelled" = field::Empty,
    )
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    span: Span,
    pieces: u32,
}

impl Call {
    pub(super) fn new(span: Span) -> Self {
        Self { span, pieces: 0 }
    }

    /// The request is about to be written.
    pub(super) fn sent(&self) {
        tracing::debug!(parent: &self.span, "sent");
    }

    /// Pieces of output came, now.
    pub(super) fn tokens(&mut self, count: u32) {
        if count > 0 {
            tracing::info!(target: TARGET_TOKEN, parent: &self.span, index = self.pieces, count);
            self.pieces = self.pieces.saturating_add(count);
        }
    }

    pub(super) fn answered(&self, answer: &Answer) {
        let span = &self.span;
        if !answer.text.is_empty() {
            span.record("output.value", answer.text.as_str());
        }
        let has_counts = answer.input_tokens.is_some() || answer.output_tokens.is_some();
        let count = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
        let end = CallEnd {
            model: answer.model.as_deref(),
            finish_reason: answer.finish_reason.as_deref(),
            input_tokens: count(answer.input_tokens),
            output_tokens: count(answer.output_tokens),
            cache_read_tokens: count(answer.cached_tokens),
            reasoning_tokens: None,
            tokens_source: if has_counts { TokensSource::Provider } else { TokensSource::None },
        };
        end.record(span);
    }

    pub(super) fn end(&self, outcome: &Result<(), TargetError>) {
        match outcome {
            Ok(()) => {}
            Err(TargetError::Cancelled) => {
                self.span.record("retake.cancelled", true);
            }
            Err(error) => {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("error.type", error.error_type());
                self.span.record("otel.status_description", error.to_string());
            }
        }
    }
}
