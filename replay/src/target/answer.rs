//! What a service answered: its text, its counts, its reason for ending, its error.

use serde_json::Value as Json;

use super::sse::Events;

/// An answer, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) model: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) cached_tokens: Option<u64>,
    /// Class and message of an error that came with status 200.
    pub(super) error: Option<(String, String)>,
}

impl Answer {
    /// An answer that came whole. What is no JSON of OpenAI's kind is kept as text.
    pub(super) fn of_body(body: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<Json>(body) else {
            return Self { text: cut(&String::from_utf8_lossy(body)), ..Self::default() };
        };
        let mut answer = Self::default();
        answer.take_facts(&json);
        let text = ["/choices/0/message/content", "/choices/0/text", "/output_text"]
            .iter()
            .find_map(|place| json.pointer(place)?.as_str());
        answer.text = match text {
            Some(text) => cut(text),
            // Vectors are results of an embedding, not texts anyone reads.
            None if json.pointer("/data/0/embedding").is_some() => String::new(),
            None => cut(&json.to_string()),
        };
        answer
    }

    fn take_facts(&mut self, json: &Json) {
        let usage = json.get("usage").or_else(|| json.pointer("/response/usage"));
        let count = |names: &[&str]| {
            let usage = usage?;
            names.iter().find_map(|name| usage.pointer(name)?.as_u64())
        };
        let newer = |old: &mut Option<u64>, new: Option<u64>| *old = new.or(*old);
        newer(&mut self.input_tokens, count(&["/prompt_tokens", "/input_tokens"]));
        newer(&mut self.output_tokens, count(&["/completion_tokens", "/output_tokens"]));
        newer(&mut self.cached_tokens, count(&["/prompt_tokens_details/cached_tokens"]));
        let text = |place: &str| json.pointer(place).and_then(Json::as_str).map(str::to_owned);
        if let Some(model) = text("/model") {
            self.model = Some(model);
        }
        if let Some(reason) = text("/choices/0/finish_reason") {
            self.finish_reason = Some(reason);
        }
        if let Some(error) = json.get("error").filter(|error| !error.is_null()) {
            let part = |name: &str| error.get(name).and_then(Json::as_str).map(str::to_owned);
            let kind = part("type").or_else(|| part("code")).unwrap_or_else(|| "error".to_owned());
            self.error = Some((kind, part("message").unwrap_or_else(|| cut(&error.to_string()))));
        }
    }
}

/// An answer as it comes, event by event.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    events: Events,
    answer: Answer,
    is_done: bool,
}

impl Streamed {
    /// Takes bytes, or the end; says how many pieces of output they complete.
    pub(super) fn push(&mut self, bytes: Option<&[u8]>) -> Result<u32, ()> {
        let Self { events, answer, is_done } = self;
        let mut pieces = 0;
        let work = |payload: &[u8]| {
            if payload == b"[DONE]" {
                *is_done = true;
            } else if let Ok(json) = serde_json::from_slice::<Json>(payload) {
                pieces += u32::from(take(answer, &json));
            }
        };
        let pushed = match bytes {
            Some(bytes) => events.push(bytes, work),
            None => events.finish(work),
        };
        pushed.map_err(|_| ())?;
        Ok(pieces)
    }

    /// The answer. One that ended without saying so was cut short.
    pub(super) fn finish(mut self) -> Answer {
        let is_whole = self.is_done || self.answer.finish_reason.is_some();
        if !is_whole && self.answer.error.is_none() {
            let message = "the stream ended before the answer did".to_owned();
            self.answer.error = Some(("broken".to_owned(), message));
        }
        self.answer
    }
}

/// Takes one event; says whether it is a piece of output.
fn take(answer: &mut Answer, json: &Json) -> bool {
    answer.take_facts(json);
    if json.get("type").and_then(Json::as_str) == Some("response.completed") {
        answer.finish_reason = Some("stop".to_owned());
    }
    let places = ["/choices/0/delta/content", "/choices/0/text", "/delta"];
    let text = places.iter().find_map(|place| json.pointer(place)?.as_str());
    // Reasoning and tool calls are output too, without being part of the text.
    let other = ["/choices/0/delta/reasoning_content", "/choices/0/delta/tool_calls"];
    let has_other = other.iter().any(|place| json.pointer(place).is_some_and(|v| !v.is_null()));
    let Some(text) = text.filter(|text| !text.is_empty()) else { return has_other };
    if answer.text.len() < TEXT_BYTES_MAX {
        answer.text.push_str(text);
    }
    true
}

/// A text, as much of it as is kept.
fn cut(text: &str) -> String {
    text.chars().take(TEXT_BYTES_MAX).collect()
}

/// Longest text kept of an answer; the recorder has a limit of its own below it.
const TEXT_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a stream with a role, two pieces, a reason, counts, and its end; one that breaks
    /// off; one with an error in it.
    /// Guarantees: pieces are counted as they come; what was cut short is an error, not an answer.
    #[test]
    fn a_stream_is_read_piece_by_piece() {
        let event = |json: &str| format!("data: {json}\n\n");
        let delta =
            |text: &str| event(&format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#));
        let mut streamed = Streamed::default();
        let mut pieces = Vec::new();
        for part in [
            event(r#"{"model":"m","choices":[{"delta":{"role":"assistant","content":""}}]}"#),
            delta("Hel"),
            delta("lo"),
            event(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#),
            event(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#),
            "data: [DONE]\n\n".to_owned(),
        ] {
            pieces.push(streamed.push(Some(part.as_bytes())).unwrap());
        }
        assert_eq!(pieces, [0, 1, 1, 0, 0, 0]);
        let answer = streamed.finish();
        assert_eq!((answer.text.as_str(), answer.error), ("Hello", None));
        assert_eq!((answer.input_tokens, answer.output_tokens), (Some(3), Some(2)));
        assert_eq!(answer.finish_reason.as_deref(), Some("stop"));

        let mut broken = Streamed::default();
        broken.push(Some(delta("Hel").as_bytes())).unwrap();
        broken.push(None).unwrap();
        assert_eq!(broken.finish().error.unwrap().0, "broken");
        let mut failing = Streamed::default();
        let error = event(r#"{"error":{"type":"server_error","message":"no"}}"#);
        failing.push(Some(error.as_bytes())).unwrap();
        assert_eq!(failing.finish().error, Some(("server_error".to_owned(), "no".to_owned())));
    }

    #[test]
    fn whole_answers_are_read_by_their_kind() {
        let chat = br#"{"model":"m","choices":[{"message":{"content":"hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#;
        let answer = Answer::of_body(chat);
        assert_eq!((answer.text.as_str(), answer.output_tokens), ("hi", Some(0)));
        assert_eq!(Answer::of_body(br#"{"data":[{"embedding":[0.5]}]}"#).text, "");
        assert_eq!(Answer::of_body(br#"{"answer":1}"#).text, r#"{"answer":1}"#);
        assert_eq!(Answer::of_body(b"plain").text, "plain");
    }
}
