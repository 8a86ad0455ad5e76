//! The JSON of chat completions: what is sent, and what is read of what comes back.
//!
//! Fields that nobody needs are not read, so that servers may add and leave out what they like.
//! Token counts have several spellings; a count of 0 is a count.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::answer::{AnswerEnd, Message};

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

/// Token counts as a provider gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    pub(super) input: Option<i64>,
    pub(super) output: Option<i64>,
    pub(super) cache_read: Option<i64>,
    pub(super) reasoning: Option<i64>,
}

impl Usage {
    /// Reads a `usage` object, or nothing if it counts neither input nor output.
    pub(super) fn read(json: &Json) -> Option<Self> {
        let first = |places: &[&str]| {
            places
                .iter()
                .find_map(|place| json.pointer(place)?.as_i64())
                .filter(|count| *count >= 0)
        };
        let usage = Self {
            input: first(&["/prompt_tokens", "/input_tokens"]),
            output: first(&["/completion_tokens", "/output_tokens"]),
            cache_read: first(&[
                "/prompt_tokens_details/cached_tokens",
                "/input_tokens_details/cached_tokens",
                "/cache_read_input_tokens",
                "/prompt_cache_hit_tokens",
            ]),
            reasoning: first(&[
                "/completion_tokens_details/reasoning_tokens",
                "/output_tokens_details/reasoning_tokens",
            ]),
        };
        (usage.input.is_some() || usage.output.is_some()).then_some(usage)
    }

    /// Puts the counts into the end of an answer.
    pub(super) fn fill(self, end: &mut AnswerEnd) {
        end.input_tokens = self.input;
        end.output_tokens = self.output;
        end.cache_read_tokens = self.cache_read;
        end.reasoning_tokens = self.reasoning;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: the spellings of OpenAI's two interfaces, Anthropic, and `DeepSeek`.
    /// Guarantees: all are read, zero stays zero, and absent stays absent.
    #[test]
    fn usage_is_read_in_all_spellings() {
        let usage = |input, output, cache_read, reasoning| {
            Some(Usage { input, output, cache_read, reasoning })
        };
        for (json, expected) in [
            (
                json!({"prompt_tokens": 9, "completion_tokens": 4,
                       "prompt_tokens_details": {"cached_tokens": 0},
                       "completion_tokens_details": {"reasoning_tokens": 3}}),
                usage(Some(9), Some(4), Some(0), Some(3)),
            ),
            (
                json!({"input_tokens": 9, "output_tokens": 0, "cache_read_input_tokens": 8}),
                usage(Some(9), Some(0), Some(8), None),
            ),
            (
                json!({"prompt_tokens": 9, "prompt_tokens_details": null}),
                usage(Some(9), None, None, None),
            ),
            (json!({"prompt_tokens": "9", "completion_tokens": -1}), None),
            (json!({}), None),
            (json!(null), None),
        ] {
            assert_eq!(Usage::read(&json), expected, "{json}");
        }
    }
}
