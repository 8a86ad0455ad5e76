//! What a whole answer says.

use std::fmt;

use retake_recorder::Dispatcher;
use retake_recorder::capture::CapturePolicy;
use retake_schemas::event::{Retrieved, Usage};
use retake_schemas::{Attributes, SpanKey, Value, convention};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::proxy::document;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::usage;

/// What is recorded of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) attributes: Attributes,
    pub(crate) usage: Option<Usage>,
    pub(crate) documents: Option<Retrieved>,
}

/// What a model wrote: its media type and itself.
pub(crate) type Output = (&'static str, String);

/// Reads the body of a successful answer; `None` if it is not what the interface says.
pub(crate) fn read(
    endpoint: Endpoint,
    span: SpanKey,
    body: &[u8],
    dispatcher: &Dispatcher,
) -> Option<Answer> {
    if endpoint == Endpoint::Embeddings {
        return read_embeddings(span, body);
    }
    let json: Json = serde_json::from_slice(body).ok().filter(Json::is_object)?;
    let mut answer = Answer { usage: usage::read(span, &json), ..Answer::default() };
    put_names(&mut answer.attributes, &json);
    let (reasons, output) = match endpoint {
        Endpoint::Chat => (finish_reasons(&json), chat_output(&json)),
        Endpoint::Completions => (finish_reasons(&json), completion_output(&json)),
        Endpoint::Responses => response_output(&json),
        Endpoint::Embeddings => (Vec::new(), None),
        Endpoint::Rerank => {
            answer.documents = document::kept(span, &json, dispatcher);
            let count = answer.documents.as_ref().map(|found| found.documents.len() as u64);
            let count = count.map(|c| ("retake.document.count".into(), Value::from(c)));
            answer.attributes.extend(count);
            (Vec::new(), None)
        }
    };
    put_output(&mut answer.attributes, reasons, output, dispatcher);
    Some(answer)
}

/// The model that answered, and the answer's id.
pub(crate) fn put_names(attributes: &mut Attributes, json: &Json) {
    for (name, place) in [("gen_ai.response.model", "model"), ("gen_ai.response.id", "id")] {
        if let Some(text) = json.get(place).and_then(Json::as_str).filter(|text| !text.is_empty()) {
            let (text, _) = retake_recorder::capture::cut(text, NAME_BYTES_MAX);
            attributes.push((name.into(), Value::Str(text.to_owned())));
        }
    }
}

/// Why the model stopped, and what it wrote.
pub(crate) fn put_output(
    attributes: &mut Attributes,
    reasons: Vec<String>,
    output: Option<Output>,
    dispatcher: &Dispatcher,
) {
    if !reasons.is_empty() {
        let reasons = reasons.into_iter().map(Value::Str).collect();
        attributes.push(("gen_ai.response.finish_reasons".into(), Value::List(reasons)));
    }
    if let Some((media_type, text)) = output
        && let Some(digest) = dispatcher.keep_content(media_type, &text)
    {
        attributes.push(("gen_ai.output.messages".into(), CapturePolicy::reference(digest)));
    }
}

fn choices(json: &Json) -> &[Json] {
    let choices = json.get("choices").and_then(Json::as_array);
    choices.map(|choices| choices.get(..CHOICES_MAX).unwrap_or(choices)).unwrap_or_default()
}

fn finish_reasons(json: &Json) -> Vec<String> {
    let reasons = choices(json).iter().filter_map(|choice| choice.get("finish_reason")?.as_str());
    reasons.map(str::to_owned).collect()
}

/// The text, if that is all there is; otherwise the messages as they are.
fn chat_output(json: &Json) -> Option<Output> {
    let messages: Vec<_> =
        choices(json).iter().filter_map(|choice| choice.get("message")).collect();
    match messages.as_slice() {
        [] => None,
        [message] if message.get("tool_calls").is_none_or(Json::is_null) => {
            Some(("text/plain", message.get("content")?.as_str()?.to_owned()))
        }
        messages => Some(("application/json", serde_json::to_string(messages).ok()?)),
    }
}

fn completion_output(json: &Json) -> Option<Output> {
    let texts: Vec<_> =
        choices(json).iter().filter_map(|choice| choice.get("text")?.as_str()).collect();
    match texts.as_slice() {
        [] => None,
        [text] => Some(("text/plain", (*text).to_owned())),
        texts => Some(("application/json", serde_json::to_string(texts).ok()?)),
    }
}

/// A response has one end, and items instead of choices.
pub(crate) fn response_output(json: &Json) -> (Vec<String>, Option<Output>) {
    let reason = json.pointer("/incomplete_details/reason").or_else(|| json.get("status"));
    let reasons = reason.and_then(Json::as_str).map(str::to_owned).into_iter().collect();
    let items = json.get("output").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_message = |item: &&Json| item.get("type").and_then(Json::as_str) == Some("message");
    let is_hidden = |item: &&Json| item.get("type").and_then(Json::as_str) == Some("reasoning");
    let output = if items.is_empty() {
        None
    } else if items.iter().all(|item| is_message(&item) || is_hidden(&item)) {
        let parts = items.iter().filter_map(|item| item.get("content")?.as_array()).flatten();
        let text: String = parts.filter_map(|part| part.get("text")?.as_str()).collect();
        Some(("text/plain", text))
    } else {
        serde_json::to_string(items).ok().map(|items| ("application/json", items))
    };
    (reasons, output)
}

/// The message of an error's body, and its type, as services spell them.
pub(crate) fn error_of(json: &Json) -> Option<(Option<&str>, &str)> {
    let messages = ["/error/message", "/error", "/message", "/detail"];
    let message = messages.iter().find_map(|place| json.pointer(place)?.as_str())?;
    let types = ["/error/type", "/error/code", "/type"];
    Some((types.iter().find_map(|place| json.pointer(place)?.as_str()), message))
}

/// Vectors are counted while they are skipped: a batch of them is megabytes of numbers.
#[derive(Deserialize)]
struct Embeddings {
    #[serde(default)]
    data: Vec<Embedding>,
    #[serde(default)]
    model: Json,
    #[serde(default)]
    id: Json,
    #[serde(default)]
    usage: Json,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    embedding: Dimensions,
}

/// How many numbers a vector has.
#[derive(Default)]
struct Dimensions(u64);

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or 32-bit floats in base64")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Dimensions, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Dimensions(count))
            }

            fn visit_str<E>(self, base64: &str) -> Result<Dimensions, E> {
                let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
                let bytes = (base64.len() - padding) * 3 / 4;
                Ok(Dimensions((bytes / 4) as u64))
            }
        }
        deserializer.deserialize_any(Counting)
    }
}

fn read_embeddings(span: SpanKey, body: &[u8]) -> Option<Answer> {
    let found: Embeddings = serde_json::from_slice(body).ok()?;
    let Embeddings { data, model, id, usage } = found;
    let rest = serde_json::json!({ "model": model, "id": id, "usage": usage });
    let mut answer = Answer { usage: usage::read(span, &rest), ..Answer::default() };
    put_names(&mut answer.attributes, &rest);
    let count = Value::from(data.len() as u64);
    answer.attributes.push((convention::EMBEDDING_COUNT.into(), count));
    if let Some(Embedding { embedding: Dimensions(dimensions) }) = data.first() {
        let name = "gen_ai.embeddings.dimension.count";
        answer.attributes.push((name.into(), Value::from(*dimensions)));
    }
    Some(answer)
}

/// More answers to one question than any service gives.
const CHOICES_MAX: usize = 128;
/// Longest name of a model.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dimensions(embedding: &Json) -> u64 {
        let body = json!({"data": [{"embedding": embedding}]}).to_string();
        let found: Embeddings = serde_json::from_str(&body).unwrap();
        found.data[0].embedding.0
    }

    /// Scenario: vectors as lists, and as base64 of different paddings.
    /// Guarantees: the dimension is right without decoding them.
    #[test]
    fn dimensions_are_counted_in_both_spellings() {
        use base64::Engine as _;
        assert_eq!(dimensions(&json!([0.5, 1, -2e-3])), 3);
        assert_eq!(dimensions(&json!([])), 0);
        for count in 1..7usize {
            let bytes = vec![7u8; count * 4];
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            assert_eq!(dimensions(&json!(text)), count as u64);
        }
    }

    #[test]
    fn errors_are_read_in_all_spellings() {
        for (json, expected) in [
            (json!({"error": {"message": "m", "type": "t"}}), Some((Some("t"), "m"))),
            (json!({"error": {"message": "m", "code": "c"}}), Some((Some("c"), "m"))),
            (json!({"error": "m"}), Some((None, "m"))),
            (json!({"message": "m", "type": "t"}), Some((Some("t"), "m"))),
            (json!({"detail": "m"}), Some((None, "m"))),
            (json!({"detail": [1]}), None),
            (json!("m"), None),
        ] {
            assert_eq!(error_of(&json), expected, "{json}");
        }
    }

    /// Scenario: responses of texts, of calls of tools, cut ones and empty ones.
    /// Guarantees: the output is the text where that is all there is.
    #[test]
    fn outputs_of_responses_are_read() {
        let message =
            |text| json!({"type": "message", "content": [{"type": "output_text", "text": text}]});
        let call = json!({"type": "function_call", "name": "f", "arguments": "{}"});
        let read = |json: Json| response_output(&json);
        let text = Some(("text/plain", "ab".to_owned()));
        let both = json!({"status": "completed", "output": [{"type": "reasoning"}, message("a"), message("b")]});
        assert_eq!(read(both), (vec!["completed".to_owned()], text));
        let cut =
            json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}});
        assert_eq!(read(cut), (vec!["max_output_tokens".to_owned()], None));
        let (_, called) = read(json!({"output": [message("a"), call]}));
        assert_eq!(called.map(|(media_type, _)| media_type), Some("application/json"));
    }
}
