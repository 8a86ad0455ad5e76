//! Token counts in the spellings of services.
//!
//! Cached input is part of the input, as OpenTelemetry counts it; Anthropic and Bedrock, which count
//! it beside the input, are added up to that.

use retake_schemas::SpanKey;
use retake_schemas::event::{TokensSource, Usage};
use serde_json::Value as Json;

/// The counts of an answer, or nothing if it has none.
pub(crate) fn read(span: SpanKey, json: &Json) -> Option<Usage> {
    let first = |places: &[&str]| {
        let counts = places.iter().filter_map(|place| json.pointer(place)?.as_i64());
        counts.into_iter().find(|count| *count >= 0)
    };
    let own_input = first(&[
        "/usage/prompt_tokens",
        "/usage/input_tokens",
        "/usage/inputTokens",
        "/meta/tokens/input_tokens",
        "/meta/billed_units/input_tokens",
    ]);
    let beside = [first(CACHE_READ_BESIDE), first(CACHE_WRITE_BESIDE)];
    let plus_cached =
        |input: i64| beside.iter().flatten().fold(input, |sum, cached| sum.saturating_add(*cached));
    let usage = Usage {
        span,
        source: TokensSource::Provider,
        input: own_input
            .map(plus_cached)
            .or_else(|| first(&["/usage/total_tokens"]).filter(|_| !has_output(json))),
        output: first(&["/usage/completion_tokens", "/usage/output_tokens", "/usage/outputTokens"]),
        cache_read: first(&[
            "/usage/prompt_tokens_details/cached_tokens",
            "/usage/input_tokens_details/cached_tokens",
            "/usage/prompt_cache_hit_tokens",
        ])
        .or(beside[0]),
        cache_write: first(&["/usage/prompt_tokens_details/cache_write_tokens"]).or(beside[1]),
        reasoning: first(&[
            "/usage/completion_tokens_details/reasoning_tokens",
            "/usage/output_tokens_details/reasoning_tokens",
        ]),
    };
    (usage.input.is_some() || usage.output.is_some()).then_some(usage)
}

/// Whether the answer counts output; if not, its total is its input.
fn has_output(json: &Json) -> bool {
    ["/usage/completion_tokens", "/usage/output_tokens", "/usage/outputTokens"]
        .iter()
        .any(|place| json.pointer(place).is_some_and(|count| !count.is_null()))
}

/// Spellings of services that do not count what they read from their cache as input.
const CACHE_READ_BESIDE: &[&str] = &[
    "/usage/cache_read_input_tokens",
    "/usage/cacheReadInputTokens",
    "/usage/cacheReadInputTokenCount",
];
/// The same of what they wrote to it.
const CACHE_WRITE_BESIDE: &[&str] = &[
    "/usage/cache_creation_input_tokens",
    "/usage/cacheWriteInputTokens",
    "/usage/cacheWriteInputTokenCount",
];

#[cfg(test)]
mod tests {
    use retake_schemas::{SpanId, TraceId};
    use serde_json::json;

    use super::*;

    /// Scenario: the spellings of two interfaces of OpenAI, of rerankers, and broken ones.
    /// Guarantees: zero stays zero, absent stays absent, and nothing is negative.
    #[test]
    fn counts_are_read_in_all_spellings() {
        let span = SpanKey { trace_id: TraceId::generate(), span_id: SpanId::from_u64(1) };
        for (json, expected) in [
            (
                json!({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
                       "prompt_tokens_details": {"cached_tokens": 0},
                       "completion_tokens_details": {"reasoning_tokens": 3}}}),
                Some((Some(9), Some(4), Some(0), Some(3))),
            ),
            (
                json!({"usage": {"input_tokens": 9, "output_tokens": 0,
                       "input_tokens_details": {"cached_tokens": 8}}}),
                Some((Some(9), Some(0), Some(8), None)),
            ),
            (json!({"usage": {"total_tokens": 7}}), Some((Some(7), None, None, None))),
            (
                json!({"usage": {"completion_tokens": 7, "total_tokens": 9}}),
                Some((None, Some(7), None, None)),
            ),
            (json!({"meta": {"tokens": {"input_tokens": 5}}}), Some((Some(5), None, None, None))),
            // Anthropic, Bedrock: what is cached stands beside the input, and is part of it here.
            (
                json!({"usage": {"input_tokens": 9, "output_tokens": 4,
                       "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}}),
                Some((Some(129), Some(4), Some(100), None)),
            ),
            (
                json!({"usage": {"inputTokens": 9, "outputTokens": 4, "totalTokens": 113,
                       "cacheReadInputTokens": 100, "cacheWriteInputTokens": 0}}),
                Some((Some(109), Some(4), Some(100), None)),
            ),
            (json!({"usage": {"prompt_tokens": "9", "completion_tokens": -1}}), None),
            (json!({"usage": null}), None),
            (json!([]), None),
        ] {
            let found = read(span, &json);
            let found = found.map(|u| (u.input, u.output, u.cache_read, u.reasoning));
            assert_eq!(found, expected, "{json}");
        }
    }
}
