//! Prompts for traces that have none: as long as the recorded ones, and sharing what they shared.
//!
//! Every word of the list is one token with its space in OpenAI's vocabularies and in most others,
//! so a prompt has as many tokens as it has words, whatever model reads it. The words of a part are
//! drawn by its role and id alone: equal ids are equal text, and equal prefix blocks an equal prefix,
//! so that a prefix cache hits where it did.

use serde_json::{Value as Json, json};

use crate::rng::Rng;
use crate::target::Operation;
use crate::workload::{Part, PartRole};

/// A chat request of the operation's shape, streamed, with the recorded length as its limit. The
/// model is the recorded one, or left to the target's settings.
pub(crate) fn chat(operation: &Operation) -> Json {
    let shape = &operation.shape;
    let (mut system, mut user) = (String::new(), String::new());
    let mut tokens = 0;
    for (part, place) in shape.parts.iter().zip(0..) {
        let text = if part.role == PartRole::System { &mut system } else { &mut user };
        tokens += u64::from(part.tokens.unwrap_or(0));
        words(text, seed(operation, *part, place), part.tokens.unwrap_or(0).into());
    }
    // What no part explains is the request's own.
    let rest = shape.tokens_in.unwrap_or(1).saturating_sub(tokens);
    let own = Part { role: PartRole::User, id: None, tokens: None };
    let at_least = u64::from(user.is_empty());
    words(&mut user, seed(operation, own, u64::MAX), rest.max(at_least));
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": user }));
    let mut body = json!({
        "messages": messages,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    if let Some(body) = body.as_object_mut() {
        if let Some(tokens) = shape.tokens_out {
            body.insert("max_tokens".to_owned(), tokens.max(1).into());
        }
        if let Some(model) = &shape.model {
            body.insert("model".to_owned(), model.as_str().into());
        }
    }
    body
}

/// Equal for parts that are the same text.
fn seed(operation: &Operation, part: Part, place: u64) -> u64 {
    let own = (operation.index << 20).wrapping_add(place);
    let (kind, id) = match part.id {
        Some(id) => (part.role as u64 + 1, id),
        None => (0, own),
    };
    let mut rng = Rng::new(id ^ kind << 56);
    rng.next()
}

fn words(text: &mut String, seed: u64, count: u64) {
    let mut rng = Rng::new(seed);
    for _ in 0..count.min(WORDS_MAX) {
        text.push(' ');
        let at = rng.below(WORDS.len() as u64) as usize;
        text.push_str(WORDS.get(at).copied().unwrap_or("the"));
    }
}

/// A prompt is no longer than this; no model reads more.
const WORDS_MAX: u64 = 16 << 20;
/// Common words, each one token.
const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "in", "is", "for", "that", "with", "on", "as", "are", "this", "by",
    "be", "from", "or", "at", "an", "was", "not", "have", "it", "can", "will", "one", "all", "has",
    "more", "time", "use", "new", "when", "people", "may", "first", "other", "about", "what",
    "which", "work", "year", "day", "data", "over", "up", "out", "so", "only", "some", "into",
    "two", "than", "most", "been", "home", "world", "life", "part", "place", "case", "system",
    "water", "name",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Shape;

    fn prompt(index: u64, blocks: &[u64], tokens_in: u64) -> String {
        let part =
            |id: &u64| Part { role: PartRole::PrefixBlock, id: Some(*id), tokens: Some(512) };
        let operation = Operation {
            index,
            shape: Shape {
                tokens_in: Some(tokens_in),
                tokens_out: Some(7),
                parts: blocks.iter().map(part).collect(),
                ..Shape::default()
            },
            ..Operation::default()
        };
        let body = chat(&operation);
        assert_eq!(body["max_tokens"], 7);
        body["messages"][0]["content"].as_str().unwrap().to_owned()
    }

    /// Scenario: two requests of a trace without texts share two blocks of their prompts.
    /// Guarantees: prompts have the recorded lengths; they share exactly the shared prefix; the
    /// same operation has the same prompt every time.
    #[test]
    fn prompts_have_the_recorded_length_and_share_what_was_shared() {
        let (one, other) = (prompt(0, &[1, 2, 3], 1600), prompt(1, &[1, 2, 9], 1600));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!((words(&one).len(), words(&other).len()), (1600, 1600));
        let shared = words(&one).iter().zip(&words(&other)).take_while(|(a, b)| a == b).count();
        assert!((1024..1030).contains(&shared), "{shared}");
        assert_eq!(one, prompt(0, &[1, 2, 3], 1600));
        assert_eq!(words(&prompt(3, &[], 40)).len(), 40);
        assert_ne!(prompt(3, &[], 40), prompt(4, &[], 40));
    }
}
