//! What a request will count, before it is made.
//!
//! The rules are those OpenAI publishes for its own models
//! (<https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>): a message takes
//! three tokens beside its role and content, an answer is primed with three more, and tools are
//! written out with fixed costs per function, parameter, and choice. For models of others it is an
//! estimate, and says so.

use retake_schemas::event::TokensSource;
use serde_json::Value as Json;

use crate::tokens::Encoding;

/// Tokens of something that has not been sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// How many.
    pub tokens: u64,
    /// [`TokensSource::Tokenizer`] when the model's own tokenizer counted, else
    /// [`TokensSource::Estimate`].
    pub source: TokensSource,
}

/// Counts for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimator {
    encoding: Encoding,
    source: TokensSource,
}

impl Estimator {
    /// The estimator of `model`: by its own tokenizer if that is known, else by one of its size.
    #[must_use]
    pub fn for_model(model: &str) -> Self {
        match Encoding::of_model(model) {
            Some(encoding) => Self { encoding, source: TokensSource::Tokenizer },
            None => Self { encoding: Encoding::Cl100k, source: TokensSource::Estimate },
        }
    }

    /// Who counts.
    #[must_use]
    pub const fn source(self) -> TokensSource {
        self.source
    }

    /// A plain text.
    #[must_use]
    pub fn text(self, text: &str) -> Estimate {
        self.estimate(self.count(text))
    }

    /// Messages and tools of a chat request, in OpenAI's JSON.
    ///
    /// Parts of a message that are no text (pictures, sound) are not counted: what they cost
    /// depends on the model, and a made-up figure would hide that.
    #[must_use]
    pub fn chat(self, messages: &[Json], tools: &[Json]) -> Estimate {
        let messages: u64 = messages.iter().map(|message| self.message(message)).sum();
        self.estimate(messages + PRIMING_TOKENS + self.tools(tools))
    }

    fn message(self, message: &Json) -> u64 {
        let text = |name: &str| message.get(name).and_then(Json::as_str);
        let mut tokens = MESSAGE_TOKENS;
        tokens += text("role").map_or(0, |role| self.count(role));
        tokens += text("name").map_or(0, |name| self.count(name) + NAME_TOKENS);
        tokens += message.get("content").map_or(0, |content| self.content(content));
        let calls = message.get("tool_calls").and_then(Json::as_array).into_iter().flatten();
        let functions = calls.filter_map(|call| call.get("function"));
        // The form before tools: one function call in the message itself.
        let functions = functions.chain(message.get("function_call"));
        tokens + functions.map(|function| self.call(function)).sum::<u64>()
    }

    fn content(self, content: &Json) -> u64 {
        match content {
            Json::String(text) => self.count(text),
            Json::Array(parts) => parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Json::as_str))
                .map(|text| self.count(text))
                .sum(),
            _ => 0,
        }
    }

    fn call(self, function: &Json) -> u64 {
        let text = |name: &str| function.get(name).and_then(Json::as_str).unwrap_or_default();
        CALL_TOKENS + self.count(text("name")) + self.count(text("arguments"))
    }

    fn tools(self, tools: &[Json]) -> u64 {
        let functions: Vec<&Json> =
            tools.iter().map(|tool| tool.get("function").unwrap_or(tool)).collect();
        if functions.is_empty() {
            return 0;
        }
        functions.into_iter().map(|function| self.function(function)).sum::<u64>()
            + TOOLS_END_TOKENS
    }

    fn function(self, function: &Json) -> u64 {
        let text = |json: &Json, name: &str| {
            json.get(name)
                .and_then(Json::as_str)
                .unwrap_or_default()
                .trim_end_matches('.')
                .to_owned()
        };
        let line = format!("{}:{}", text(function, "name"), text(function, "description"));
        let init = if self.encoding == Encoding::O200k { 7 } else { 10 };
        let mut tokens = init + self.count(&line);
        let properties = function.pointer("/parameters/properties").and_then(Json::as_object);
        let Some(properties) = properties.filter(|properties| !properties.is_empty()) else {
            return tokens;
        };
        tokens += PROPERTIES_TOKENS;
        for (name, property) in properties {
            tokens += PROPERTY_TOKENS;
            let choices = property.get("enum").and_then(Json::as_array).into_iter().flatten();
            let choices: Vec<u64> = choices
                .map(|choice| choice.as_str().map_or(0, |text| self.count(text)) + CHOICE_TOKENS)
                .collect();
            if !choices.is_empty() {
                tokens =
                    (tokens + choices.iter().sum::<u64>()).saturating_sub(CHOICES_SAVED_TOKENS);
            }
            let kind = text(property, "type");
            tokens += self.count(&format!("{name}:{kind}:{}", text(property, "description")));
        }
        tokens
    }

    fn count(self, text: &str) -> u64 {
        self.encoding.count(text) as u64
    }

    const fn estimate(self, tokens: u64) -> Estimate {
        Estimate { tokens, source: self.source }
    }
}

/// Marks around every message.
const MESSAGE_TOKENS: u64 = 3;
/// A name beside the role.
const NAME_TOKENS: u64 = 1;
/// Every answer begins with these.
const PRIMING_TOKENS: u64 = 3;
/// Marks around a call of a function.
const CALL_TOKENS: u64 = 3;
/// Marks around the parameters of a function.
const PROPERTIES_TOKENS: u64 = 3;
/// Marks around one parameter.
const PROPERTY_TOKENS: u64 = 3;
/// Marks around one choice of a parameter.
const CHOICE_TOKENS: u64 = 3;
/// What a list of choices saves.
const CHOICES_SAVED_TOKENS: u64 = 3;
/// End of the tools.
const TOOLS_END_TOKENS: u64 = 12;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: the example messages of OpenAI's cookbook, with the counts its API answered.
    /// Guarantees: the estimate is what the service counts.
    #[test]
    fn messages_count_what_the_service_counts() {
        let system =
            |name: &str, content: &str| json!({"role": "system", "name": name, "content": content});
        let messages = [
            json!({"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."}),
            system("example_user", "New synergies will help drive top-line growth."),
            system("example_assistant", "Things working well together will increase revenue."),
            system(
                "example_user",
                "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
            ),
            system(
                "example_assistant",
                "Let's talk later when we're less busy about how to do better.",
            ),
            json!({"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."}),
        ];
        for (model, expected) in [("gpt-3.5-turbo", 129), ("gpt-4", 129), ("gpt-4o", 124)] {
            let estimate = Estimator::for_model(model).chat(&messages, &[]);
            let expected = Estimate { tokens: expected, source: TokensSource::Tokenizer };
            assert_eq!(estimate, expected, "{model}");
        }
    }

    /// Scenario: the example tool of OpenAI's cookbook, with the counts its API answered.
    /// Guarantees: tools are counted before the call.
    #[test]
    fn tools_count_what_the_service_counts() {
        let tools = [json!({"type": "function", "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {"type": "object", "properties": {
                "location": {"type": "string",
                    "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {"type": "string", "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"]}},
                "required": ["location"]}}})];
        let messages = [
            json!({"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."}),
            json!({"role": "user", "content": "What's the weather like in San Francisco?"}),
        ];
        for (model, expected) in [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101)] {
            let estimate = Estimator::for_model(model).chat(&messages, &tools);
            assert_eq!(estimate.tokens, expected, "{model}");
        }
    }

    /// Scenario: the same request to a model whose tokenizer is not known.
    /// Guarantees: it is counted, and the count says that it is an estimate.
    #[test]
    fn a_count_by_another_tokenizer_says_so() {
        let estimator = Estimator::for_model("mistral-large");
        assert_eq!(estimator.text("hello world").source, TokensSource::Estimate);
        let own = Estimator::for_model("gpt-4o-mini").text("hello world");
        assert_eq!(own, Estimate { tokens: 2, source: TokensSource::Tokenizer });
    }

    #[test]
    fn calls_of_functions_are_counted_with_their_arguments() {
        let estimator = Estimator::for_model("gpt-4o");
        let plain = [json!({"role": "assistant", "content": null})];
        let calling = [json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}}]})];
        let parts = [json!({"role": "user", "content": [{"type": "text", "text": "hello world"},
            {"type": "image_url", "image_url": {"url": "data:"}}]})];
        let tokens = |messages: &[Json]| estimator.chat(messages, &[]).tokens;
        assert!(tokens(&calling) > tokens(&plain) + 5);
        assert_eq!(tokens(&parts), 3 + 3 + 1 + 2);
    }
}
