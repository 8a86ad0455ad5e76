//! The JSON of chat completions: what is sent, and what is read of what comes back.
//!
//! Fields that nobody needs are not read, so that servers may add and leave out what they like.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::answer::Message;

/// A request body.
#[derive(Serialize)]
pub(super) struct Request<'r> {
    pub(super) model: &'r str,
    pub(super) messages: &'r [Message],
    pub(super) temperature: f64,
    pub(super) max_tokens: u32,
    pub(super) seed: u64,
    pub(super) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_format: Option<ResponseFormat<'r>>,
}

/// Asks for an answer of a certain form, as OpenAI, vLLM, llama.cpp and Ollama understand it.
#[derive(Serialize)]
pub(super) struct ResponseFormat<'r> {
    r#type: &'static str,
    json_schema: JsonSchema<'r>,
}

#[derive(Serialize)]
struct JsonSchema<'r> {
    name: &'static str,
    schema: &'r Json,
}

impl<'r> ResponseFormat<'r> {
    /// The form of a schema. Not `strict`: servers refuse schemas for that which they understand
    /// otherwise, and answers are checked here anyway.
    pub(super) fn of(schema: &'r Json) -> Self {
        Self { r#type: "json_schema", json_schema: JsonSchema { name: "answer", schema } }
    }
}

/// Asks for token counts at the end of a stream; without it most servers give none.
#[derive(Serialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

/// A whole answer, or one event of a streamed one.
#[derive(Deserialize)]
pub(super) struct Completion {
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) choices: Vec<Choice>,
    #[serde(default)]
    pub(super) usage: Option<Json>,
    #[serde(default)]
    pub(super) error: Option<Json>,
}

/// One of the answers; we ask for one.
#[derive(Deserialize)]
pub(super) struct Choice {
    /// In a whole answer.
    #[serde(default)]
    pub(super) message: Option<Content>,
    /// In an event.
    #[serde(default)]
    pub(super) delta: Option<Content>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

/// Text of an answer. Servers send `null` for an empty one.
#[derive(Deserialize)]
pub(super) struct Content {
    #[serde(default)]
    pub(super) content: Option<String>,
}
