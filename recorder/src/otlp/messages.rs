//! Prompts and answers that come as log events of their own, one per message.
//!
//! Before `gen_ai.client.inference.operation.details`, the GenAI conventions put each message of a
//! call into a log event (`gen_ai.user.message`, `gen_ai.choice`), and the instrumentations that
//! most programs have installed still do. Put together they are the input and the output of their
//! span, in the form that the conventions have for them now (`gen_ai.input.messages`).

use std::collections::{HashMap, VecDeque};

use retake_schemas::SpanKey;
use serde_json::{Map, Value as Json, json};

use super::model::AnyValue;

/// A message, and whether the model was given it or gave it.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    is_output: bool,
    json: Json,
}

/// What the log event of this name and body says; `None` when it is no message.
pub(super) fn message(event_name: &str, body: &AnyValue<'_>) -> Option<Message> {
    let kind = event_name.strip_prefix("gen_ai.")?;
    let is_output = kind == "choice";
    let role = match kind {
        "choice" => "assistant",
        _ => kind.strip_suffix(".message").filter(|role| ROLES.contains(role))?,
    };
    let mut body = match body {
        AnyValue::Map(_) => body.to_json(),
        AnyValue::Text(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!({ "content": text }))
        }
        _ => return None,
    };
    let finish_reason = body.get_mut("finish_reason").map(Json::take);
    // A choice has its message one level down, and before that its tool calls beside it.
    let mut said = match body.get_mut("message").map(Json::take) {
        Some(message) if message.is_object() => message,
        Some(Json::String(text)) => json!({ "content": text }),
        _ => body.clone(),
    };
    if let (Json::Object(said), Some(calls)) = (&mut said, body.get_mut("tool_calls")) {
        said.entry("tool_calls").or_insert_with(|| calls.take());
    }
    let role = said.get("role").and_then(Json::as_str).unwrap_or(role).to_owned();
    let mut json = Map::new();
    json.insert("role".to_owned(), role.clone().into());
    json.insert("parts".to_owned(), parts(&said, &role).into());
    if let Some(reason) = finish_reason.filter(Json::is_string) {
        json.insert("finish_reason".to_owned(), reason);
    }
    Some(Message { is_output, json: json.into() })
}

/// The parts of a message: what it says, and the tools it calls.
fn parts(said: &Json, role: &str) -> Vec<Json> {
    let mut parts = Vec::new();
    let content = said.get("content").filter(|content| !content.is_null());
    match content {
        Some(result) if role == "tool" => parts.push(json!({
            "type": "tool_call_response",
            "id": said.get("id").or_else(|| said.get("tool_call_id")),
            "response": result,
        })),
        Some(Json::Array(several)) => parts.extend(several.iter().map(|part| match part {
            Json::String(text) => json!({ "type": "text", "content": text }),
            other => other.clone(),
        })),
        Some(content) => parts.push(json!({ "type": "text", "content": content })),
        None => {}
    }
    let calls = said.get("tool_calls").and_then(Json::as_array);
    parts.extend(calls.into_iter().flatten().map(|call| {
        let function = call.get("function").unwrap_or(call);
        json!({
            "type": "tool_call",
            "id": call.get("id"),
            "name": function.get("name"),
            "arguments": function.get("arguments"),
        })
    }));
    parts
}

/// Messages by the span they belong to, for as long as more may come. Bounded: the span heard of
/// first is forgotten first, and keeps what it was told.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    spans: HashMap<SpanKey, Said>,
    order: VecDeque<SpanKey>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Said {
    input: Vec<Json>,
    output: Vec<Json>,
    bytes: usize,
    is_changed: bool,
}

impl Conversations {
    /// Adds a message that took `bytes` on the wire or in memory.
    pub(super) fn add(&mut self, span: SpanKey, message: Message, bytes: usize) {
        let said = self.spans.entry(span).or_insert_with(|| {
            self.order.push_back(span);
            Said::default()
        });
        let side = if message.is_output { &mut said.output } else { &mut said.input };
        side.push(message.json);
        said.bytes += bytes;
        said.is_changed = true;
        self.bytes += bytes;
    }

    /// Input and output, as JSON text, of the spans that got messages since the last call.
    pub(super) fn changed(&mut self) -> Vec<(SpanKey, Option<String>, Option<String>)> {
        let text = |side: &[Json]| {
            (!side.is_empty()).then(|| serde_json::to_string(side).unwrap_or_default())
        };
        let mut changed = Vec::new();
        for key in &self.order {
            let Some(said) = self.spans.get_mut(key).filter(|said| said.is_changed) else {
                continue;
            };
            said.is_changed = false;
            changed.push((*key, text(&said.input), text(&said.output)));
        }
        while (self.bytes > BYTES_MAX || self.order.len() > SPANS_MAX)
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.spans.remove(&oldest).map_or(0, |said| said.bytes);
        }
        changed
    }
}

/// What messages are kept as.
pub(super) const MEDIA_TYPE: &str = "application/json";
const ROLES: [&str; 5] = ["system", "user", "assistant", "tool", "developer"];
/// Messages held, so that one that comes in a later batch joins the others of its span.
const BYTES_MAX: usize = 8 << 20;
const SPANS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use retake_schemas::{SpanId, TraceId};

    use super::*;

    fn said(event_name: &str, body: &str) -> (bool, Json) {
        let message = message(event_name, &AnyValue::Text(body.into())).expect("a message");
        (message.is_output, message.json)
    }

    #[test]
    fn each_form_of_a_message_becomes_parts() {
        let text = json!([{"type": "text", "content": "why?"}]);
        assert_eq!(
            said("gen_ai.user.message", r#"{"content":"why?"}"#),
            (false, json!({"role": "user", "parts": text}))
        );
        assert_eq!(
            said("gen_ai.system.message", "why?"),
            (false, json!({"role": "system", "parts": text})),
            "a body that is no JSON is what was said"
        );
        assert_eq!(
            said("gen_ai.tool.message", r#"{"id":"c1","content":"12 C"}"#),
            (
                false,
                json!({"role": "tool", "parts": [
                    {"type": "tool_call_response", "id": "c1", "response": "12 C"}
                ]})
            )
        );
        let calls =
            r#"[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{}"}}]"#;
        let call = json!({"type": "tool_call", "id": "c1", "name": "weather", "arguments": "{}"});
        for body in [
            format!(
                r#"{{"index":0,"finish_reason":"tool_calls","message":{{"role":"assistant","tool_calls":{calls}}}}}"#
            ),
            format!(r#"{{"index":0,"finish_reason":"tool_calls","tool_calls":{calls}}}"#),
        ] {
            assert_eq!(
                said("gen_ai.choice", &body),
                (
                    true,
                    json!({"role": "assistant", "parts": [call], "finish_reason": "tool_calls"})
                )
            );
        }
    }

    #[test]
    fn other_events_are_no_messages() {
        let body = AnyValue::Text("x".into());
        for name in
            ["gen_ai.evaluation.result", "gen_ai.message", "user.message", "gen_ai..message"]
        {
            assert_eq!(message(name, &body), None, "{name}");
        }
        assert_eq!(message("gen_ai.user.message", &AnyValue::Empty), None);
    }

    /// Scenario: a conversation in two batches, then more of others than are held.
    #[test]
    fn later_messages_join_earlier_ones_while_there_is_room() {
        let span = |number| SpanKey {
            trace_id: TraceId::from_bytes([1; 16]),
            span_id: SpanId::from_bytes(u64::to_be_bytes(number)),
        };
        let word =
            |text: &str| message("gen_ai.user.message", &AnyValue::Text(text.to_owned().into()));
        let mut held = Conversations::default();
        held.add(span(1), word("a").expect("a message"), 10);
        let changed = held.changed();
        let [(key, Some(input), None)] = changed.as_slice() else { panic!("{changed:?}") };
        assert_eq!((*key, input.matches("content").count()), (span(1), 1));
        assert!(held.changed().is_empty(), "nothing came since");
        held.add(span(1), word("b").expect("a message"), 10);
        let changed = held.changed();
        assert_eq!(changed[0].1.as_ref().map(|text| text.matches("content").count()), Some(2));
        held.add(span(2), word("c").expect("a message"), BYTES_MAX);
        assert_eq!(held.changed().len(), 1, "told before it is forgotten");
        assert_eq!((held.spans.len(), held.bytes), (1, BYTES_MAX));
    }
}
