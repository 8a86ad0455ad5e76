//! One call of a language model with its span: the same for an answer, a rating and a judgement.
//!
//! The span ends when the answer has arrived, not when the stream is handed over; dropped in
//! between, it says `retake.cancelled`.

use std::time::Instant;

use futures::StreamExt as _;
use retake_replay::cassette::Cassette;
use retake_replay::target::CallEnd;
use retake_schemas::convention::TARGET_TOKEN;
use retake_schemas::event::TokensSource;
use tracing::{Instrument as _, Span, field};

use crate::answer::recorded::RecordedLlm;
use crate::answer::{AnswerEnd, AnswerPart, ChatRequest, Llm, canonical};
use crate::error::PipelineError;
use crate::trace::{Stage, stage_span};

/// Hears the pieces of an answer as they arrive.
pub type OnPart<'a> = &'a mut (dyn FnMut(&str) + Send);

/// A model, and what a replay says about it.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// The model.
    pub(crate) llm: &'a dyn Llm,
    /// `live` or `recorded` in a replay.
    pub(crate) source: Option<&'static str>,
    /// Answers to requests that are still what they were; all others the model gets.
    pub(crate) cutoff: Option<&'a dyn Cassette>,
}

/// What the model gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Completion {
    /// The whole text.
    pub(crate) text: String,
    /// When its first piece came.
    pub(crate) first_piece: Option<Instant>,
    /// Counts and the reason of its end.
    pub(crate) end: AnswerEnd,
}

impl Caller<'_> {
    /// Calls the model in a span under `parent`.
    ///
    /// # Errors
    /// The model failed, or its answer stopped before its end.
    pub(crate) async fn complete(
        self,
        request: &ChatRequest,
        parent: &Span,
        on_part: OnPart<'_>,
    ) -> Result<Completion, PipelineError> {
        let recorded = self.recorded(request);
        let caller = match &recorded {
            Some(llm) => Caller { llm, source: Some("recorded"), cutoff: None },
            None => self,
        };
        let stage = Stage::new(span(caller.llm.provider(), request, caller.source, parent));
        let span = stage.span().clone();
        let result = caller.stream(request, on_part, &span).instrument(span.clone()).await;
        if let Ok(completion) = &result {
            span.record("gen_ai.output.messages", completion.text.as_str());
            record_end(&span, &completion.end);
        }
        stage.end(result)
    }

    /// The recorded answer to a request that is still what it was.
    fn recorded(&self, request: &ChatRequest) -> Option<RecordedLlm> {
        let answer = self.cutoff?.take(&canonical(request)).ok()?;
        Some(RecordedLlm::of_answer(answer, self.llm.provider(), self.llm.model()))
    }

    async fn stream(
        self,
        request: &ChatRequest,
        on_part: OnPart<'_>,
        span: &Span,
    ) -> Result<Completion, PipelineError> {
        let mut parts = self.llm.answer(request).await?;
        let mut completion = Completion::default();
        let mut index = 0;
        while let Some(part) = parts.next().await {
            match part? {
                AnswerPart::Text { text, tokens } => {
                    completion.first_piece.get_or_insert_with(Instant::now);
                    // Text that only completes an earlier token is no arrival of its own.
                    if tokens > 0 {
                        tracing::info!(
                            target: TARGET_TOKEN, parent: span, index, count = tokens,
                        );
                    }
                    index += tokens;
                    on_part(&text);
                    completion.text.push_str(&text);
                }
                AnswerPart::End(end) => {
                    completion.end = end;
                    return Ok(completion);
                }
            }
        }
        Err(PipelineError::Model {
            model: request.model.clone(),
            reason: "the answer stopped before its end".to_owned(),
        })
    }
}

/// What several calls came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spent {
    /// Calls that ended.
    pub(crate) calls: u64,
    /// Input tokens of all calls that were counted.
    pub(crate) input_tokens: Option<i64>,
    /// Output tokens of all calls that were counted.
    pub(crate) output_tokens: Option<i64>,
    /// Part of the input that the provider read from its cache.
    pub(crate) cache_read_tokens: Option<i64>,
    /// Part of the output spent on reasoning.
    pub(crate) reasoning_tokens: Option<i64>,
    /// Who counted: the least sure of all.
    pub(crate) tokens_source: TokensSource,
}

impl Spent {
    /// Adds a call.
    pub(crate) fn add(&mut self, end: &AnswerEnd) {
        let plus = |sum: Option<i64>, more: Option<i64>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            (sum, more) => sum.or(more),
        };
        self.input_tokens = plus(self.input_tokens, end.input_tokens);
        self.output_tokens = plus(self.output_tokens, end.output_tokens);
        self.cache_read_tokens = plus(self.cache_read_tokens, end.cache_read_tokens);
        self.reasoning_tokens = plus(self.reasoning_tokens, end.reasoning_tokens);
        self.tokens_source = match self.calls {
            0 => end.tokens_source,
            _ => less_sure(self.tokens_source, end.tokens_source),
        };
        self.calls += 1;
    }

    /// Adds what others spent.
    pub(crate) fn add_all(&mut self, other: &Self) {
        if other.calls == 0 {
            return;
        }
        let calls = self.calls;
        self.add(&AnswerEnd {
            input_tokens: other.input_tokens,
            output_tokens: other.output_tokens,
            cache_read_tokens: other.cache_read_tokens,
            reasoning_tokens: other.reasoning_tokens,
            tokens_source: other.tokens_source,
            ..AnswerEnd::default()
        });
        self.calls = calls + other.calls;
    }
}

fn less_sure(one: TokensSource, other: TokensSource) -> TokensSource {
    let sureness = |source: TokensSource| match source {
        TokensSource::Provider => 3,
        TokensSource::Tokenizer => 2,
        TokensSource::Estimate => 1,
        TokensSource::None => 0,
    };
    if sureness(other) < sureness(one) { other } else { one }
}

fn span(
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

/// Records what is known at the end of an answer.
fn record_end(span: &Span, end: &AnswerEnd) {
    CallEnd {
        model: end.model.as_deref(),
        finish_reason: end.finish_reason.as_deref(),
        input_tokens: end.input_tokens,
        output_tokens: end.output_tokens,
        cache_read_tokens: end.cache_read_tokens,
        reasoning_tokens: end.reasoning_tokens,
        tokens_source: end.tokens_source,
    }
    .record(span);
    span.record("retake.retries", end.retries);
}
