//! Tests of reading token counts.

use serde_json::json;

use super::*;

fn usage(
    input: Option<i64>,
    output: Option<i64>,
    cache_read: Option<i64>,
    reasoning: Option<i64>,
) -> Option<Usage> {
    Some(Usage { input, output, cache_read, cache_write: None, reasoning })
}

/// Scenario: a response of each provider, as their references show it.
/// Guarantees: all spellings are read; cached input is in the input and reasoning in the output;
/// absent stays absent.
#[test]
fn every_provider_s_spelling_is_read() {
    for (name, json, expected) in [
        (
            "OpenAI chat",
            json!({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
                "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 3}}}),
            usage(Some(9), Some(4), Some(8), Some(3)),
        ),
        (
            "OpenAI responses, last event",
            json!({"type": "response.completed", "response": {"usage": {"input_tokens": 36,
                "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 123}}}),
            usage(Some(36), Some(87), Some(0), Some(64)),
        ),
        (
            "DeepSeek",
            json!({"usage": {"prompt_tokens": 20, "completion_tokens": 5,
                "prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 4}}),
            usage(Some(20), Some(5), Some(16), None),
        ),
        (
            "Gemini",
            json!({"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20,
                "thoughtsTokenCount": 30, "cachedContentTokenCount": 40, "totalTokenCount": 150}}),
            usage(Some(100), Some(50), Some(40), Some(30)),
        ),
        (
            "Gemini in Python",
            json!({"usage_metadata": {"prompt_token_count": 7, "candidates_token_count": 2}}),
            usage(Some(7), Some(2), None, None),
        ),
        (
            "Ollama",
            json!({"model": "m", "done": true, "prompt_eval_count": 26, "eval_count": 259}),
            usage(Some(26), Some(259), None, None),
        ),
        (
            "Cohere 1",
            json!({"meta": {"billed_units": {"input_tokens": 5, "output_tokens": 6},
                "tokens": {"input_tokens": 71, "output_tokens": 8}}}),
            usage(Some(71), Some(8), None, None),
        ),
        (
            "Cohere 2",
            json!({"usage": {"billed_units": {"input_tokens": 5, "output_tokens": 6},
                "tokens": {"input_tokens": 71, "output_tokens": 8}}}),
            usage(Some(71), Some(8), None, None),
        ),
        (
            "Bedrock Converse",
            json!({"usage": {"inputTokens": 30, "outputTokens": 628, "totalTokens": 658}}),
            usage(Some(30), Some(628), None, None),
        ),
        (
            "Bedrock InvokeModel",
            json!({"amazon-bedrock-invocationMetrics": {"inputTokenCount": 8,
                "outputTokenCount": 14, "invocationLatency": 442}}),
            usage(Some(8), Some(14), None, None),
        ),
        (
            "llama.cpp",
            json!({"content": "x", "tokens_evaluated": 12, "tokens_predicted": 3}),
            usage(Some(12), Some(3), None, None),
        ),
        (
            "watsonx",
            json!({"results": [{"generated_text": "x", "input_token_count": 4,
                "generated_token_count": 9}]}),
            usage(Some(4), Some(9), None, None),
        ),
        (
            "LangChain",
            json!({"usage_metadata": {"input_tokens": 350, "output_tokens": 240,
                "total_tokens": 590, "input_token_details": {"cache_read": 100},
                "output_token_details": {"reasoning": 200}}}),
            usage(Some(350), Some(240), Some(100), Some(200)),
        ),
        ("embeddings", json!({"usage": {"total_tokens": 7}}), usage(Some(7), None, None, None)),
        (
            "bare, as floats",
            json!({"prompt_tokens": 9.0, "completion_tokens": 4.0}),
            usage(Some(9), Some(4), None, None),
        ),
    ] {
        assert_eq!(Usage::read(&json), expected, "{name}");
    }
}

/// Scenario: LlamaIndex replaces a provider's 0 by an estimate of the text.
/// Guarantees: a true 0 is kept; what is no count is absent.
#[test]
fn a_true_zero_is_kept() {
    let empty = json!({"usage": {"prompt_tokens": 0, "completion_tokens": 0}});
    assert_eq!(Usage::read(&empty), usage(Some(0), Some(0), None, None));
    let filtered = json!({"usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 0}});
    assert_eq!(Usage::read(&filtered), usage(Some(12), Some(0), None, None));
    for none in [
        json!({}),
        json!(null),
        json!([1]),
        json!({"usage": null}),
        json!({"usage": {"prompt_tokens": "9", "completion_tokens": -1}}),
        json!({"usage": {"prompt_tokens": 0.5, "completion_tokens": 1e300}}),
        json!({"usage": {"prompt_tokens": 18_446_744_073_709_551_615_u64}}),
    ] {
        assert_eq!(Usage::read(&none), None, "{none}");
    }
}

/// Scenario: Anthropic counts cached input beside the input, and in two events of a stream.
/// Guarantees: the input holds all of it once, and the parts of both events are kept.
#[test]
fn anthropic_s_cached_input_is_part_of_the_input() {
    let start = json!({"type": "message_start", "message": {"usage": {"input_tokens": 21,
        "cache_creation_input_tokens": 188, "cache_read_input_tokens": 0, "output_tokens": 1}}});
    let delta = json!({"type": "message_delta", "usage": {"output_tokens": 393}});
    let start = Usage::read(&start).unwrap();
    assert_eq!((start.input, start.cache_read, start.cache_write), (Some(209), Some(0), Some(188)));
    let all = start.updated_by(Usage::read(&delta).unwrap());
    assert_eq!((all.input, all.output), (Some(209), Some(393)));
    let bedrock = json!({"usage": {"inputTokens": 10, "outputTokens": 2, "cacheReadInputTokens": 5,
        "cacheWriteInputTokens": 0}});
    assert_eq!(Usage::read(&bedrock).unwrap().input, Some(15));
}
