//! Answers of an OpenAI-compatible service, streamed or whole.
//!
//! Each network event becomes a part as it arrives. A stream that stops before its end is an
//! error, not a short answer. Retries happen only before the first byte of an answer: what has
//! been handed on cannot be taken back.

mod sse;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{LimitSettings, SynthesizeSettings};

use self::sse::SseParser;
use self::wire::{Completion, Request, ResponseFormat, StreamOptions};
use super::{AnswerEnd, AnswerPart, ChatRequest, Llm};
use crate::error::PipelineError;
use crate::http::{Answered, Endpoint, Service};
use crate::usage::Usage;
use crate::usage::estimate::{Estimate, Estimator};
use crate::work::gate::Permit;

/// The HTTP model.
#[derive(Debug, Clone)]
pub struct OpenaiLlm {
    service: Arc<Service>,
    model: String,
}

impl OpenaiLlm {
    /// A model of the service in the settings. Calls nobody.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] for a URL or key that cannot work.
    pub fn new(
        settings: &SynthesizeSettings,
        limits: &LimitSettings,
    ) -> Result<Self, PipelineError> {
        let service = Service::new(&Endpoint {
            setting: "synthesize.url",
            url: settings.url.as_deref(),
            api_key_env: &settings.api_key_env,
            timeout: Duration::from_millis(settings.timeout_ms),
            limits,
        })?;
        let model = if settings.model.is_empty() { MODEL } else { &settings.model }.to_owned();
        Ok(Self { service: Arc::new(service), model })
    }

    /// A whole answer: one text, then the end.
    async fn whole(
        &self,
        mut answered: Answered,
        mut reader: Reader,
    ) -> Result<Vec<AnswerPart>, PipelineError> {
        let body = self.service.body(answered.response).await?;
        let text = std::str::from_utf8(&body)
            .map_err(|_| self.service.error(None, "its answer is not UTF-8"))?;
        let mut parts = reader.read(text)?;
        if reader.finish_reason.is_none() && reader.text.is_empty() {
            return Err(self.service.error(None, "its answer holds no choice"));
        }
        let end = reader.end();
        spent(&mut answered.permit, &end);
        // One text holds all of the output's tokens, except those of hidden reasoning.
        let visible = end.output_tokens.map(|all| all - end.reasoning_tokens.unwrap_or_default());
        for part in &mut parts {
            if let AnswerPart::Text { tokens, .. } = part {
                *tokens = visible.and_then(|count| u32::try_from(count).ok()).unwrap_or(*tokens);
            }
        }
        parts.push(AnswerPart::End(end));
        Ok(parts)
    }
}

#[async_trait]
impl Llm for OpenaiLlm {
    fn provider(&self) -> &str {
        "openai"
    }

    fn model(&self) -> &str {
        &self.model
    }

    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let body = Request {
            model: &request.model,
            messages: &request.messages,
            temperature: request.temperature,
            max_tokens: request.max_tokens,
            seed: request.seed,
            stream: request.stream,
            stream_options: request.stream.then_some(StreamOptions { include_usage: true }),
            response_format: request.response_schema.as_ref().map(ResponseFormat::of),
        };
        let expected = if self.service.limits_tokens() {
            // The provider sets aside what the answer may have at most.
            input_estimate(request).tokens + u64::from(request.max_tokens)
        } else {
            0
        };
        let answered = self.service.post("chat/completions", &body, expected).await?;
        let reader = Reader::new(Arc::clone(&self.service), request, answered.retries);
        if !request.stream {
            let parts = self.whole(answered, reader).await?;
            return Ok(stream::iter(parts.into_iter().map(Ok)).boxed());
        }
        let arriving = Arriving {
            bytes: answered.response.bytes_stream().map(|part| part.map(Vec::from)).boxed(),
            parser: SseParser::default(),
            reader,
            permit: answered.permit,
            ready: VecDeque::new(),
            failure: None,
            is_over: false,
        };
        let parts = stream::unfold(arriving, |mut arriving| async move {
            arriving.next().await.map(|part| (part, arriving))
        });
        Ok(parts.boxed())
    }
}

/// Makes parts of an answer from its JSON and keeps what its end needs.
struct Reader {
    service: Arc<Service>,
    request: ChatRequest,
    retries: u32,
    text: String,
    usage: Option<Usage>,
    finish_reason: Option<String>,
    model: Option<String>,
}

impl Reader {
    fn new(service: Arc<Service>, request: &ChatRequest, retries: u32) -> Self {
        Self {
            service,
            request: request.clone(),
            retries,
            text: String::new(),
            usage: None,
            finish_reason: None,
            model: None,
        }
    }

    /// Reads a whole answer or one event of it.
    fn read(&mut self, json: &str) -> Result<Vec<AnswerPart>, PipelineError> {
        let completion: Completion = serde_json::from_str(json).map_err(|error| {
            self.service.error(None, &format!("its answer is not understood: {error}"))
        })?;
        if completion.error.is_some_and(|error| !error.is_null()) {
            let message = self.service.message_of(json.as_bytes());
            let message = message.unwrap_or_else(|| "it gave no reason".to_owned());
            return Err(self.service.error(None, &format!("it failed while answering: {message}")));
        }
        // Servers that count in every event count all so far: the last one is right.
        self.usage = completion.usage.as_ref().and_then(Usage::read).or(self.usage);
        self.model = completion.model.or(self.model.take());
        let mut parts = Vec::new();
        if let Some(choice) = completion.choices.into_iter().next() {
            self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
            let content = choice.message.or(choice.delta).and_then(|content| content.content);
            if let Some(text) = content.filter(|text| !text.is_empty()) {
                self.text.push_str(&text);
                parts.push(AnswerPart::Text { text, tokens: 1 });
            }
        }
        if self.text.len() > ANSWER_BYTES_MAX {
            let reason = format!("its answer is longer than {ANSWER_BYTES_MAX} bytes");
            return Err(self.service.error(None, &reason));
        }
        Ok(parts)
    }

    fn end(&mut self) -> AnswerEnd {
        let mut end = AnswerEnd {
            tokens_source: TokensSource::Provider,
            finish_reason: self.finish_reason.take(),
            model: self.model.take(),
            retries: self.retries,
            ..AnswerEnd::default()
        };
        if let Some(usage) = self.usage {
            end.input_tokens = usage.input;
            end.output_tokens = usage.output;
            end.cache_read_tokens = usage.cache_read;
            end.reasoning_tokens = usage.reasoning;
        } else {
            let input = input_estimate(&self.request);
            let output = Estimator::for_model(&self.request.model).text(&self.text);
            end.input_tokens = i64::try_from(input.tokens).ok();
            end.output_tokens = i64::try_from(output.tokens).ok();
            end.tokens_source = input.source;
        }
        end
    }
}

/// What the messages of a request will count.
fn input_estimate(request: &ChatRequest) -> Estimate {
    let messages: Vec<serde_json::Value> = request
        .messages
        .iter()
        .map(|message| serde_json::json!({"role": message.role, "content": message.content}))
        .collect();
    Estimator::for_model(&request.model).chat(&messages, &[])
}

/// Corrects what the call was expected to take from the limit of tokens.
fn spent(permit: &mut Permit, end: &AnswerEnd) {
    let tokens = [end.input_tokens, end.output_tokens].into_iter().flatten().sum::<i64>();
    permit.spent(u64::try_from(tokens).unwrap_or_default());
}

/// A streamed answer on its way.
struct Arriving {
    bytes: BoxStream<'static, Result<Vec<u8>, reqwest::Error>>,
    parser: SseParser,
    reader: Reader,
    /// Its place among the concurrent calls.
    permit: Permit,
    /// Parts read and not handed out yet.
    ready: VecDeque<AnswerPart>,
    /// Why it broke off, handed out after what came before.
    failure: Option<PipelineError>,
    is_over: bool,
}

impl Arriving {
    async fn next(&mut self) -> Option<Result<AnswerPart, PipelineError>> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(Ok(part));
            }
            if self.is_over {
                return self.failure.take().map(Err);
            }
            let arrived = self.bytes.next().await;
            if let Err(error) = self.take(arrived) {
                self.failure = Some(error);
                self.is_over = true;
            }
        }
    }

    /// Takes bytes, or the end of them.
    fn take(
        &mut self,
        arrived: Option<Result<Vec<u8>, reqwest::Error>>,
    ) -> Result<(), PipelineError> {
        let service = Arc::clone(&self.reader.service);
        let odd = |error: sse::SseError| service.error(None, &error.to_string());
        let (payloads, is_last) = match arrived {
            Some(bytes) => {
                let bytes = bytes.map_err(|error| service.broken(error))?;
                (self.parser.push(&bytes).map_err(odd)?, false)
            }
            None => (self.parser.finish().map_err(odd)?.into_iter().collect(), true),
        };
        for payload in payloads {
            if payload.trim() == DONE {
                self.over();
                return Ok(());
            }
            self.ready.extend(self.reader.read(&payload)?);
        }
        if !is_last {
            return Ok(());
        }
        // Some servers close without a last word, but all say why the answer ends.
        if self.reader.finish_reason.is_none() {
            return Err(service.error(None, "its stream ended before the answer did"));
        }
        self.over();
        Ok(())
    }

    fn over(&mut self) {
        self.is_over = true;
        let end = self.reader.end();
        spent(&mut self.permit, &end);
        self.ready.push_back(AnswerPart::End(end));
    }
}

/// Model asked for when no setting names one.
const MODEL: &str = "gpt-4o-mini";
/// The last word of a stream.
const DONE: &str = "[DONE]";
/// Longest answer, bytes: a hundred times what the largest output limits allow.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests;
