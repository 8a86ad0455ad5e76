//! What a streamed answer says, event by event.

use std::collections::BTreeMap;

use retake_recorder::Dispatcher;
use retake_schemas::SpanKey;
use serde_json::{Value as Json, json};

use crate::proxy::answer::{self, Answer, Output};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::sse::SseReader;
use crate::proxy::usage;

/// A streamed answer so far.
#[derive(Debug)]
pub(crate) struct Stream {
    endpoint: Endpoint,
    span: SpanKey,
    sse: SseReader,
    answer: Answer,
    choices: BTreeMap<u64, Choice>,
    /// Bytes of text kept.
    text_bytes: usize,
    /// The last event of a response, which repeats all of it.
    response: Option<Json>,
    error: Option<(Option<String>, String)>,
    is_done: bool,
    is_unread: bool,
}

/// One of the answers.
#[derive(Debug, Default)]
struct Choice {
    text: String,
    tool_calls: BTreeMap<u64, ToolCall>,
    finish_reason: Option<String>,
}

#[derive(Debug, Default)]
struct ToolCall {
    id: String,
    name: String,
    arguments: String,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) answer: Answer,
    /// The error that the service sent in it: type and message.
    pub(crate) error: Option<(Option<String>, String)>,
    pub(crate) is_unread: bool,
}

impl Stream {
    pub(crate) fn new(endpoint: Endpoint, span: SpanKey) -> Self {
        Self {
            endpoint,
            span,
            sse: SseReader::default(),
            answer: Answer::default(),
            choices: BTreeMap::new(),
            text_bytes: 0,
            response: None,
            error: None,
            is_done: false,
            is_unread: false,
        }
    }

    /// Takes bytes as they came; says how many pieces of output they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> u32 {
        let mut sse = std::mem::take(&mut self.sse);
        let mut pieces = 0;
        sse.push(bytes, |payload| pieces += u32::from(self.event(payload)));
        self.sse = sse;
        pieces
    }

    /// Whether the service has said all it has to say. A client may leave then.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes the end of the stream.
    pub(crate) fn finish(mut self, dispatcher: &Dispatcher) -> Streamed {
        let mut sse = std::mem::take(&mut self.sse);
        sse.finish(|payload| {
            self.event(payload);
        });
        let is_unread = self.is_unread || sse.has_skipped;
        let (reasons, output) = match &self.response {
            Some(response) => answer::response_output(response),
            None => self.output(),
        };
        let mut answer = self.answer;
        answer::put_output(&mut answer.attributes, reasons, output, dispatcher);
        Streamed { answer, error: self.error, is_unread }
    }

    /// Whether the event is a piece of output.
    fn event(&mut self, payload: &[u8]) -> bool {
        if payload == b"[DONE]" {
            self.is_done = true;
            return false;
        }
        let Ok(json) = serde_json::from_slice::<Json>(payload) else {
            self.is_unread = true;
            return false;
        };
        if self.endpoint == Endpoint::Responses {
            return self.response_event(json);
        }
        if json.get("error").is_some_and(|error| !error.is_null()) {
            self.fail(&json);
        }
        self.names_and_counts(&json);
        let choices = json.get("choices").and_then(Json::as_array);
        // All of them, to the last: each keeps its own text.
        choices
            .into_iter()
            .flatten()
            .fold(false, |is_output, choice| self.choice(choice) | is_output)
    }

    fn names_and_counts(&mut self, json: &Json) {
        if self.answer.attributes.is_empty() {
            answer::put_names(&mut self.answer.attributes, json);
        }
        if let Some(usage) = usage::read(self.span, json) {
            self.answer.usage = Some(usage);
        }
    }

    fn fail(&mut self, json: &Json) {
        let (kind, message) = answer::error_of(json).unwrap_or((None, "it sent an error"));
        self.error = Some((kind.map(str::to_owned), message.to_owned()));
    }

    fn choice(&mut self, json: &Json) -> bool {
        let index = json.get("index").and_then(Json::as_u64).unwrap_or_default();
        if self.choices.len() >= CHOICES_MAX && !self.choices.contains_key(&index) {
            self.is_unread = true;
            return false;
        }
        let choice = self.choices.entry(index).or_default();
        if let Some(reason) = json.get("finish_reason").and_then(Json::as_str) {
            choice.finish_reason = Some(reason.to_owned());
        }
        let delta = json.get("delta").unwrap_or(json);
        let piece = |name: &str| delta.get(name).and_then(Json::as_str).unwrap_or_default();
        let text = [piece("content"), piece("text")].concat();
        let hidden =
            ["reasoning_content", "reasoning", "refusal"].iter().any(|n| !piece(n).is_empty());
        let calls = delta.get("tool_calls").and_then(Json::as_array).map(Vec::as_slice);
        let calls = calls.unwrap_or_default();
        self.text_bytes += text.len();
        if self.text_bytes > TEXT_BYTES_MAX {
            self.is_unread = true;
            return true;
        }
        choice.text.push_str(&text);
        for call in calls {
            let added = choice.tool_call(call);
            self.text_bytes += added;
        }
        !text.is_empty() || hidden || !calls.is_empty()
    }

    /// Why the model stopped, and what it wrote. What is streamed is kept as a whole answer is.
    fn output(&self) -> (Vec<String>, Option<Output>) {
        let reasons = self.choices.values().filter_map(|choice| choice.finish_reason.clone());
        let choices: Vec<_> = self.choices.values().collect();
        let output = match choices.as_slice() {
            [] => None,
            [choice] if choice.tool_calls.is_empty() => Some(("text/plain", choice.text.clone())),
            choices => {
                let messages: Vec<_> = choices.iter().map(|choice| choice.message()).collect();
                serde_json::to_string(&messages).ok().map(|text| ("application/json", text))
            }
        };
        (reasons.collect(), output)
    }

    fn response_event(&mut self, json: Json) -> bool {
        let kind = json.get("type").and_then(Json::as_str).unwrap_or_default();
        match kind {
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.is_done = true;
                let has_failed = kind == "response.failed";
                let Some(response) = json.get("response") else { return false };
                self.names_and_counts(response);
                if has_failed {
                    self.fail(response);
                }
                self.response = Some(response.clone());
                false
            }
            "error" => {
                self.fail(&json);
                false
            }
            _ if kind.ends_with(".delta") => {
                let delta = json.get("delta").and_then(Json::as_str).unwrap_or_default();
                if kind == "response.output_text.delta" {
                    // Kept in case the last event never comes.
                    self.choice(&json!({ "text": delta }));
                }
                !delta.is_empty()
            }
            _ => false,
        }
    }
}

impl Choice {
    /// Adds a piece of a call; says how many bytes.
    fn tool_call(&mut self, json: &Json) -> usize {
        let index = json.get("index").and_then(Json::as_u64).unwrap_or_default();
        if self.tool_calls.len() >= CHOICES_MAX && !self.tool_calls.contains_key(&index) {
            return 0;
        }
        let call = self.tool_calls.entry(index).or_default();
        let piece = |place: &str| json.pointer(place).and_then(Json::as_str).unwrap_or_default();
        call.id.push_str(piece("/id"));
        call.name.push_str(piece("/function/name"));
        call.arguments.push_str(piece("/function/arguments"));
        piece("/id").len() + piece("/function/name").len() + piece("/function/arguments").len()
    }

    /// The message as a whole answer would have it.
    fn message(&self) -> Json {
        let mut message = json!({ "role": "assistant", "content": self.text });
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.values().map(|ToolCall { id, name, arguments }| {
                let function = json!({ "name": name, "arguments": arguments });
                json!({ "id": id, "type": "function", "function": function })
            });
            message["tool_calls"] = calls.collect();
        }
        message
    }
}

/// More answers to one question, or calls in one answer, than any service gives.
const CHOICES_MAX: usize = 128;
/// What a recorder keeps of one content.
const TEXT_BYTES_MAX: usize = 4 << 20;
