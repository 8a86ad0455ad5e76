//! Prompts to answers, as a stream of pieces.

pub mod extractive;
pub mod openai;
pub mod prompt;
pub mod recorded;
#[cfg(test)]
pub(crate) mod scripted;
pub mod window;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{RagSettings, SynthesizeProvider};
use serde::{Deserialize, Serialize};

use crate::error::PipelineError;

/// A request to a language model. Its JSON text is canonical: fields in this order, nothing left out
/// but a schema that is not asked for, no secret. Its BLAKE3 digest is the key of the recorded answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// Provider-neutral model name.
    pub model: String,
    /// The messages.
    pub messages: Vec<Message>,
    /// Sampling temperature.
    pub temperature: f64,
    /// Output limit, tokens.
    pub max_tokens: u32,
    /// Seed, for models that take one.
    pub seed: u64,
    /// Whether to stream.
    pub stream: bool,
    /// JSON Schema that the answer has to satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_schema: Option<serde_json::Value>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A part of an answer as it arrives.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerPart {
    /// Text, and how many tokens it is (one network chunk may hold several).
    Text {
        /// The text.
        text: String,
        /// Tokens in it; 0 when the arrival carries text that completes an earlier token.
        tokens: u32,
    },
    /// The end: counts and the reason.
    End(AnswerEnd),
}

/// What is known at the end of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnswerEnd {
    /// Input tokens.
    pub input_tokens: Option<i64>,
    /// Output tokens.
    pub output_tokens: Option<i64>,
    /// Input tokens the provider read from its cache.
    pub cache_read_tokens: Option<i64>,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: Option<i64>,
    /// Who counted.
    pub tokens_source: TokensSource,
    /// Why it ended: `stop`, `length`, …
    pub finish_reason: Option<String>,
    /// Model that answered, if the provider says.
    pub model: Option<String>,
    /// Attempts after the first.
    pub retries: u32,
}

/// Answers requests.
#[async_trait]
pub trait Llm: Send + Sync {
    /// Provider name for `gen_ai.provider.name`.
    fn provider(&self) -> &str;

    /// Model name for `gen_ai.request.model`.
    fn model(&self) -> &str;

    /// Starts an answer. The stream ends after [`AnswerPart::End`] or an error.
    ///
    /// # Errors
    /// The service could not be reached or refused, after retries where a retry can help.
    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError>;
}

/// The canonical text of a request: what its recorded answer is found by, through its digest.
#[must_use]
pub fn canonical(request: &ChatRequest) -> String {
    // Serializing text and numbers fails for no request; a temperature that is not a number
    // becomes null, the same every time.
    serde_json::to_string(request).unwrap_or_default()
}

/// The model the settings ask for.
///
/// # Errors
/// [`PipelineError::Configuration`] for settings that cannot work.
pub fn from_settings(settings: &RagSettings) -> Result<Arc<dyn Llm>, PipelineError> {
    let RagSettings { synthesize: settings, limits, .. } = settings;
    Ok(match settings.provider {
        SynthesizeProvider::Extractive => {
            Arc::new(extractive::ExtractiveLlm::new(settings.max_sentences))
        }
        SynthesizeProvider::Openai => Arc::new(openai::OpenaiLlm::new(settings, limits)?),
    })
}
