//! What a request asks for.

use retake_recorder::Dispatcher;
use retake_recorder::capture::CapturePolicy;
use retake_schemas::event::Retrieved;
use retake_schemas::{Attributes, SpanKey, Value, convention};
use serde_json::Value as Json;

use crate::proxy::document;
use crate::proxy::endpoint::Endpoint;

/// What is recorded of a request.
#[derive(Debug, Default)]
pub(crate) struct Question {
    pub(crate) attributes: Attributes,
    pub(crate) documents: Option<Retrieved>,
}

/// Reads a request's body; `None` if it is no JSON object.
pub(crate) fn read(
    endpoint: Endpoint,
    span: SpanKey,
    body: &[u8],
    dispatcher: &Dispatcher,
) -> Option<Question> {
    let json: Json = serde_json::from_slice(body).ok().filter(Json::is_object)?;
    let mut question = Question::default();
    let attributes = &mut question.attributes;
    for (name, places) in PLAIN {
        let found = places.iter().find_map(|place| value(json.get(place)?));
        attributes.extend(found.map(|value| ((*name).into(), value)));
    }
    if let Some((name, media_type, text)) = content(endpoint, &json)
        && let Some(digest) = dispatcher.keep_content(media_type, &text)
    {
        attributes.push((name.into(), CapturePolicy::reference(digest)));
    }
    match endpoint {
        Endpoint::Embeddings => {
            let count = json.get("input").map(input_count);
            let count = count.map(|count| (convention::BATCH_SIZE.into(), Value::from(count)));
            attributes.extend(count);
        }
        Endpoint::Rerank => question.documents = document::given(span, &json, dispatcher),
        Endpoint::Chat | Endpoint::Completions | Endpoint::Responses => {}
    }
    Some(question)
}

/// The texts of a request: the attribute, the media type, and the texts themselves.
fn content(endpoint: Endpoint, json: &Json) -> Option<(&'static str, &'static str, String)> {
    let (name, content) = match endpoint {
        Endpoint::Chat => ("gen_ai.input.messages", json.get("messages")?),
        Endpoint::Completions => ("input.value", json.get("prompt")?),
        Endpoint::Embeddings => ("input.value", json.get("input")?),
        Endpoint::Rerank => ("input.value", json.get("query")?),
        Endpoint::Responses => {
            let input = json.get("input")?;
            let Some(instructions) = json.get("instructions").filter(|i| !i.is_null()) else {
                return Some(text("gen_ai.input.messages", input));
            };
            let both = serde_json::json!({ "instructions": instructions, "input": input });
            return Some(text("gen_ai.input.messages", &both));
        }
    };
    Some(text(name, content))
}

fn text(name: &'static str, content: &Json) -> (&'static str, &'static str, String) {
    match content {
        Json::String(text) => (name, "text/plain", text.clone()),
        content => (name, "application/json", content.to_string()),
    }
}

/// How many texts are embedded: the input is one, a list of them, or one as a list of tokens.
fn input_count(input: &Json) -> u64 {
    match input {
        Json::Array(items) if items.first().is_some_and(Json::is_number) => 1,
        Json::Array(items) => items.len() as u64,
        _ => 1,
    }
}

/// A value that is no content.
fn value(json: &Json) -> Option<Value> {
    match json {
        Json::Bool(value) => Some(Value::Bool(*value)),
        Json::Number(number) => {
            number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Float))
        }
        Json::String(text) => {
            let (text, _) = retake_recorder::capture::cut(text, NAME_BYTES_MAX);
            Some(Value::Str(text.to_owned()))
        }
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Settings of a call: the attribute, and the names in a request, the first of which wins.
const PLAIN: [(&str, &[&str]); 13] = [
    ("gen_ai.request.model", &["model"]),
    ("gen_ai.request.stream", &["stream"]),
    ("gen_ai.request.temperature", &["temperature"]),
    ("gen_ai.request.max_tokens", &["max_completion_tokens", "max_output_tokens", "max_tokens"]),
    ("gen_ai.request.top_p", &["top_p"]),
    ("gen_ai.request.top_k", &["top_k"]),
    ("gen_ai.request.seed", &["seed"]),
    ("gen_ai.request.choice.count", &["n"]),
    ("gen_ai.request.frequency_penalty", &["frequency_penalty"]),
    ("gen_ai.request.presence_penalty", &["presence_penalty"]),
    ("gen_ai.request.reasoning.level", &["reasoning_effort"]),
    ("gen_ai.request.embedding.dimensions", &["dimensions"]),
    ("reranker.top_k", &["top_n"]),
];
/// Longest name of a model; a text in its place is not one.
const NAME_BYTES_MAX: usize = 256;
