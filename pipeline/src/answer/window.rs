//! The model's context window, in tokens.
//!
//! A prompt that is too long is refused by one server, and cut without a word by another. So what
//! goes into a prompt is counted before it is sent, together with what the answer may take. Where
//! the model's own tokenizer is not known, a tenth of the window is left as a margin.

use retake_schemas::event::TokensSource;

use super::{ChatRequest, prompt};
use crate::document::Hit;
use crate::error::PipelineError;
use crate::tokens;
use crate::usage::estimate::Estimator;

/// A window, for prompts that leave room for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Tokens of prompt and answer together; nothing: no limit.
    tokens_max: Option<u64>,
    answer_tokens: u64,
    estimator: Estimator,
}

impl Window {
    /// The window of `model`: `context_window` tokens (0: no limit), of which an answer may take
    /// `answer_tokens`.
    #[must_use]
    pub fn new(model: &str, context_window: u32, answer_tokens: u32) -> Self {
        let estimator = Estimator::for_model(model);
        let given = u64::from(context_window);
        let sure = estimator.source() == TokensSource::Tokenizer;
        let tokens_max = if sure { given } else { given - given / MARGIN };
        Self {
            tokens_max: (given > 0).then_some(tokens_max),
            answer_tokens: u64::from(answer_tokens),
            estimator,
        }
    }

    /// Tokens of a request's messages.
    #[must_use]
    pub fn request_tokens(&self, request: &ChatRequest) -> u64 {
        let message = |content: &str| self.estimator.text(content).tokens + MESSAGE_TOKENS;
        request.messages.iter().map(|one| message(&one.content)).sum::<u64>() + PRIMING_TOKENS
    }

    /// Tokens left for passages beside `request`, which has none yet.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if next to nothing is left.
    pub fn room(&self, request: &ChatRequest) -> Result<u64, PipelineError> {
        let Some(tokens_max) = self.tokens_max else { return Ok(u64::MAX) };
        let prompt = self.request_tokens(request);
        let room = tokens_max.saturating_sub(prompt).saturating_sub(self.answer_tokens);
        if room >= ROOM_MIN {
            return Ok(room);
        }
        Err(PipelineError::Configuration(format!(
            "fit passages into synthesize.context_window: of {tokens_max} usable tokens the prompt \
             takes {prompt} and the answer up to {}; raise synthesize.context_window or lower \
             synthesize.max_tokens",
            self.answer_tokens
        )))
    }

    /// Tokens a passage takes in a prompt.
    #[must_use]
    pub fn passage_tokens(&self, hit: &Hit) -> u64 {
        self.estimator.text(&prompt::passage(NUMBER, hit)).tokens
    }

    /// Tokens of a text.
    #[must_use]
    pub fn text_tokens(&self, text: &str) -> u64 {
        self.estimator.text(text).tokens
    }

    /// The beginning of `text` that takes at most `room` tokens; nothing if that is not even one
    /// character.
    #[must_use]
    pub fn cut(&self, text: &str, room: u64) -> String {
        let (head, _) = self.split(text, room.max(1));
        if self.text_tokens(head) <= room { head.to_owned() } else { String::new() }
    }

    /// The passage, its text cut so that it takes at most `room` tokens.
    #[must_use]
    pub fn shortened(&self, hit: &Hit, room: u64) -> Hit {
        self.pieces(hit, room).into_iter().next().unwrap_or_else(|| hit.clone())
    }

    /// The passage in pieces of at most `room` tokens each, in order.
    #[must_use]
    pub fn pieces(&self, hit: &Hit, room: u64) -> Vec<Hit> {
        if self.passage_tokens(hit) <= room {
            return vec![hit.clone()];
        }
        let frame = self.passage_tokens(&with_text(hit, "", hit.chunk.start_char));
        // A token may differ where the text meets its frame, at either end.
        let per_piece = room.saturating_sub(frame + 2).max(1);
        let mut pieces = Vec::new();
        let mut start_char = hit.chunk.start_char;
        let mut rest = hit.chunk.text.as_str();
        while !rest.is_empty() {
            let (piece, after) = self.split(rest, per_piece);
            pieces.push(with_text(hit, piece, start_char));
            start_char += piece.chars().count() as u64;
            rest = after;
        }
        pieces
    }

    /// Passages in groups that fit `room` each, in order, as few as that allows. Passages that do
    /// not fit at all come in pieces.
    #[must_use]
    pub fn packed(&self, hits: &[Hit], room: u64) -> Vec<Vec<Hit>> {
        let mut groups: Vec<Vec<Hit>> = vec![Vec::new()];
        let mut left = room;
        for piece in hits.iter().flat_map(|hit| self.pieces(hit, room)) {
            let tokens = self.passage_tokens(&piece);
            let is_begun = groups.last().is_some_and(|group| !group.is_empty());
            if tokens > left && is_begun {
                groups.push(Vec::new());
                left = room;
            }
            left = left.saturating_sub(tokens);
            if let Some(group) = groups.last_mut() {
                group.push(piece);
            }
        }
        groups
    }

    /// The longest beginning of `text` of at most `tokens` tokens, at a blank if there is one, and
    /// the rest. The beginning is never empty.
    fn split<'t>(&self, text: &'t str, tokens: u64) -> (&'t str, &'t str) {
        if self.estimator.text(text).tokens <= tokens {
            return (text, "");
        }
        let mut end = prefix_bytes(text, tokens);
        loop {
            let head = text.get(..end).unwrap_or(text);
            let at_blank = head.rfind(char::is_whitespace).filter(|at| *at * 2 > head.len());
            let cut = at_blank.map_or(end, |at| {
                at + head.get(at..).and_then(|c| c.chars().next()).map_or(1, char::len_utf8)
            });
            let (head, after) = text.split_at_checked(cut).unwrap_or((text, ""));
            if self.estimator.text(head).tokens <= tokens || head.chars().nth(1).is_none() {
                return (head, after);
            }
            // Another tokenizer than the one that found the prefix.
            end = floor(text, cut * 9 / 10);
        }
    }
}

/// Bytes of the first `tokens` tokens by cl100k, whole characters only, at least one.
fn prefix_bytes(text: &str, tokens: u64) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    let mut left = tokens;
    let mut bytes = 0;
    // No token is longer than this, so no more of the text has to be looked at.
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    let looked_at = floor(text, tokens.saturating_mul(TOKEN_BYTES_MAX).min(text.len()));
    for piece in tokens::pieces(text.get(..looked_at).unwrap_or(text)) {
        let cost = u64::from(piece.tokens);
        if cost > left {
            break;
        }
        left -= cost;
        bytes += piece.text.len();
    }
    bytes.max(first)
}

/// The character boundary at or before `at`, but after the first character.
fn floor(text: &str, at: usize) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    text.floor_char_boundary(at).max(first)
}

fn with_text(hit: &Hit, text: &str, start_char: u64) -> Hit {
    let mut piece = hit.clone();
    piece.chunk.text = text.to_owned();
    piece.chunk.start_char = start_char;
    piece.chunk.end_char = start_char + text.chars().count() as u64;
    piece
}

/// One part in so many of the window is left when another tokenizer counts than the model's own.
const MARGIN: u64 = 10;
/// What OpenAI's models take for a message beside its content, its role included.
const MESSAGE_TOKENS: u64 = 4;
/// What an answer is primed with.
const PRIMING_TOKENS: u64 = 3;
/// With less than this beside the question there is nothing to answer from.
const ROOM_MIN: u64 = 64;
/// A number as wide as any that a passage will have.
const NUMBER: usize = 1_000;
/// The longest token of cl100k is 128 blanks.
const TOKEN_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::{hit, request};

    fn window(tokens: u32) -> Window {
        Window::new("gpt-4", tokens, 100)
    }

    fn long(id: &str, words: usize) -> Hit {
        let text: Vec<String> = (0..words).map(|n| format!("word{n} naïve🦀")).collect();
        hit(id, &text.join(" "))
    }

    /// Scenario: passages of all lengths, models with and without a known tokenizer.
    /// Guarantees: no group takes more than its room; joined, the pieces are the passages; places
    /// in the document go on where the piece before ended.
    #[test]
    fn groups_fit_and_nothing_is_lost() {
        for model in ["gpt-4", "gpt-4o", "llama-3"] {
            let window = Window::new(model, 2_000, 100);
            let hits = [long("a#0", 10), long("b#0", 400), long("c#0", 1), long("d#0", 90)];
            for room in [70, 200, 1_000, u64::MAX] {
                let groups = window.packed(&hits, room);
                for group in &groups {
                    let tokens: u64 = group.iter().map(|hit| window.passage_tokens(hit)).sum();
                    assert!(tokens <= room, "{model}: {tokens} of {room}");
                }
                let pieces: Vec<&Hit> = groups.iter().flatten().collect();
                let joined: String = pieces.iter().map(|hit| hit.chunk.text.as_str()).collect();
                let whole: String = hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
                assert_eq!(joined, whole);
                for (before, after) in pieces.iter().zip(pieces.iter().skip(1)) {
                    let is_same = before.chunk.id == after.chunk.id;
                    assert!(!is_same || before.chunk.end_char == after.chunk.start_char);
                }
            }
        }
        assert_eq!(window(0).packed(&[], 100), [Vec::<Hit>::new()]);
    }

    #[test]
    fn a_window_without_room_says_what_to_do() {
        let prompt = request("How long?", &[]);
        assert!(window(400).room(&prompt).unwrap() < 300);
        assert_eq!(window(0).room(&prompt).unwrap(), u64::MAX);
        let error = window(180).room(&prompt).unwrap_err().to_string();
        assert!(error.contains("raise synthesize.context_window"), "{error}");
    }

    /// Scenario: no blanks, characters of several bytes, less room than one takes.
    /// Guarantees: it ends, and cuts between characters.
    #[test]
    fn what_has_no_blanks_is_cut_between_characters() {
        let text = "🦀".repeat(50);
        let pieces = window(0).pieces(&hit("a#0", &text), 1);
        assert_eq!(pieces.len(), 50);
        assert!(pieces.iter().all(|piece| piece.chunk.text == "🦀"));
    }
}
