//! Token counts: what a provider reports, in whatever spelling, and what a call will cost before
//! it is made.
//!
//! A count of 0 is a count, and a count that is absent stays absent: nothing here replaces a
//! provider's 0 by an estimate. Cached input is part of the input and reasoning is part of the
//! output, as OpenTelemetry counts them; providers that report them beside are added up to that.
//!
//! Running totals, their reset, and budgets are `retake_recorder`'s (`count_tokens`): it hears the
//! spans of this pipeline as it hears those of any other application.

pub mod estimate;

use serde_json::Value as Json;

/// Token counts as a provider gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input: Option<i64>,
    /// Output tokens, those of reasoning included.
    pub output: Option<i64>,
    /// Input tokens read from the provider's cache.
    pub cache_read: Option<i64>,
    /// Input tokens written to the provider's cache.
    pub cache_write: Option<i64>,
    /// Output tokens spent on reasoning.
    pub reasoning: Option<i64>,
}

impl Usage {
    /// Reads the counts of a response, of one event of a stream, or of a bare `usage` object;
    /// nothing if it counts neither input nor output.
    ///
    /// Known are the spellings of OpenAI (chat completions and responses), Azure, vLLM, Mistral,
    /// DeepSeek, Anthropic, Gemini and Vertex (JSON and Python), Cohere (v1 and v2), Bedrock
    /// (Converse and InvokeModel), Ollama, llama.cpp, watsonx, and LangChain's `usage_metadata`.
    #[must_use]
    pub fn read(json: &Json) -> Option<Self> {
        PLACES
            .iter()
            .filter_map(|place| json.pointer(place))
            .chain([json])
            .find_map(Self::read_object)
    }

    /// Reads the object that holds the counts.
    fn read_object(json: &Json) -> Option<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| count(json.pointer(name)?));
        let own_input = first(INPUT);
        let cache_read = first(CACHE_READ);
        let cache_write = first(CACHE_WRITE);
        let thoughts = first(REASONING_BESIDE);
        let own_output = first(OUTPUT);
        let total = first(TOTAL);
        // Anthropic and Bedrock count cached input beside the input.
        let is_beside = CACHED_BESIDE.iter().any(|name| json.pointer(name).is_some());
        let cached = if is_beside { [cache_read, cache_write] } else { [None, None] };
        let input = own_input.map(|input| plus(input, &cached));
        // Gemini counts its thoughts beside the candidates, and leaves out what is 0.
        let output = match (own_output, thoughts) {
            (Some(output), thoughts) => Some(plus(output, &[thoughts])),
            (None, Some(thoughts)) => Some(thoughts),
            (None, None) => None,
        };
        // An embedding has no output, so its total is its input.
        let input = input.or_else(|| total.filter(|_| output.is_none()));
        (input.is_some() || output.is_some()).then_some(Self {
            input,
            output,
            cache_read,
            cache_write,
            reasoning: first(REASONING).or(thoughts),
        })
    }

    /// Takes over what a later event of the same answer counts; the rest stays. Anthropic counts
    /// input in the first event and output in the last, others count all so far in every one.
    #[must_use]
    pub fn updated_by(self, later: Self) -> Self {
        Self {
            input: later.input.or(self.input),
            output: later.output.or(self.output),
            cache_read: later.cache_read.or(self.cache_read),
            cache_write: later.cache_write.or(self.cache_write),
            reasoning: later.reasoning.or(self.reasoning),
        }
    }
}

/// A count: a whole number, not negative. JSON from Python at times writes `9.0`.
fn count(json: &Json) -> Option<i64> {
    let whole = |value: f64| value.fract() == 0.0 && (0.0..=9.0e15).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    let from_float = || json.as_f64().filter(|value| whole(*value)).map(|value| value as i64);
    json.as_i64().or_else(from_float).filter(|count| *count >= 0)
}

fn plus(count: i64, more: &[Option<i64>]) -> i64 {
    more.iter().flatten().fold(count, |sum, more| sum.saturating_add(*more))
}

/// Where the counts stand in a response; else they stand at its top.
const PLACES: &[&str] = &[
    "/usage",
    "/usageMetadata",
    "/usage_metadata",
    "/response/usage",
    "/message/usage",
    "/meta",
    "/amazon-bedrock-invocationMetrics",
    "/results/0",
    "/metadata/usage",
];
const INPUT: &[&str] = &[
    "/prompt_tokens",
    "/input_tokens",
    "/inputTokens",
    "/promptTokenCount",
    "/prompt_token_count",
    "/tokens/input_tokens",
    "/billed_units/input_tokens",
    "/inputTokenCount",
    "/input_token_count",
    "/prompt_eval_count",
    "/tokens_evaluated",
];
const OUTPUT: &[&str] = &[
    "/completion_tokens",
    "/output_tokens",
    "/outputTokens",
    "/candidatesTokenCount",
    "/candidates_token_count",
    "/tokens/output_tokens",
    "/billed_units/output_tokens",
    "/outputTokenCount",
    "/generated_token_count",
    "/eval_count",
    "/tokens_predicted",
];
const TOTAL: &[&str] = &["/total_tokens", "/totalTokens", "/totalTokenCount", "/total_token_count"];
const CACHE_READ: &[&str] = &[
    "/prompt_tokens_details/cached_tokens",
    "/input_tokens_details/cached_tokens",
    "/input_token_details/cache_read",
    "/cache_read_input_tokens",
    "/cacheReadInputTokens",
    "/cacheReadInputTokenCount",
    "/cachedContentTokenCount",
    "/cached_content_token_count",
    "/prompt_cache_hit_tokens",
    "/cached_tokens",
];
const CACHE_WRITE: &[&str] = &[
    "/prompt_tokens_details/cache_write_tokens",
    "/input_token_details/cache_creation",
    "/cache_creation_input_tokens",
    "/cacheWriteInputTokens",
    "/cacheWriteInputTokenCount",
];
/// Spellings of providers that do not count cached input as input.
const CACHED_BESIDE: &[&str] = &[
    "/cache_read_input_tokens",
    "/cache_creation_input_tokens",
    "/cacheReadInputTokens",
    "/cacheWriteInputTokens",
    "/cacheReadInputTokenCount",
    "/cacheWriteInputTokenCount",
];
const REASONING: &[&str] = &[
    "/completion_tokens_details/reasoning_tokens",
    "/output_tokens_details/reasoning_tokens",
    "/output_token_details/reasoning",
    "/reasoning_tokens",
];
/// Spellings of providers that do not count reasoning as output.
const REASONING_BESIDE: &[&str] = &["/thoughtsTokenCount", "/thoughts_token_count"];

#[cfg(test)]
mod tests;
