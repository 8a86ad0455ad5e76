//! Token counts for everything that has no count of its own: by cl100k, or, for a model of OpenAI,
//! by its own tokenizer ([`Encoding`]).
//!
//! For our own local models cl100k is exact by definition (`tokenizer`), as is a model's own
//! tokenizer; for any other model whose provider gave no usage it is an `estimate`. The caller says
//! which.

use std::cell::RefCell;
use std::collections::HashMap;

use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};
use tiktoken_rs::{
    CoreBPE, Rank, cl100k_base_singleton, o200k_base_singleton, p50k_base_singleton,
    r50k_base_singleton,
};

/// A tokenizer of OpenAI's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// GPT-2 and its contemporaries.
    R50k,
    /// Codex and `text-davinci-003`.
    P50k,
    /// GPT-3.5, GPT-4, and the embedding models.
    Cl100k,
    /// GPT-4o and everything after.
    O200k,
}

impl Encoding {
    /// The tokenizer of a model, if it is one of OpenAI's. Models behind other names, such as those
    /// of a proxy (`openai/gpt-4o`), are known too.
    #[must_use]
    pub fn of_model(model: &str) -> Option<Self> {
        let name = model.rsplit('/').next().unwrap_or(model);
        Some(match get_tokenizer(name)? {
            Tokenizer::Cl100kBase => Self::Cl100k,
            Tokenizer::O200kBase | Tokenizer::O200kHarmony => Self::O200k,
            Tokenizer::P50kBase | Tokenizer::P50kEdit => Self::P50k,
            Tokenizer::R50kBase | Tokenizer::Gpt2 => Self::R50k,
        })
    }

    /// Counts the tokens of `text`.
    #[must_use]
    pub fn count(self, text: &str) -> usize {
        let bpe = match self {
            Self::Cl100k => return count(text),
            Self::O200k => o200k_base_singleton(),
            Self::P50k => p50k_base_singleton(),
            Self::R50k => r50k_base_singleton(),
        };
        // These join more across letters than cl100k; no pattern of theirs goes from something
        // visible to a blank.
        let is_cut = |before: char, c: char| c == ' ' && !before.is_whitespace();
        cut_segments(text, is_cut).map(|segment| bpe.encode_ordinary(segment).len()).sum()
    }
}

/// A piece of text that holds whole characters, and how many tokens it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Tokens in it; more than one when a character spans several.
    pub tokens: u32,
}

/// Reads the vocabulary now, which takes tens of milliseconds: else the first text that is counted
/// would take the blame for it.
pub(crate) fn prepare() {
    tokenizer();
}

/// Counts the tokens of `text`.
#[must_use]
pub fn count(text: &str) -> usize {
    segments(text).map(count_segment).sum()
}

/// Counts the tokens of `text` exactly up to `tokens_max`; a larger result only says "more".
///
/// A splitter asks about the whole rest of a document just to learn that it is too much; this
/// stops as soon as that is known.
pub(crate) fn count_up_to(text: &str, tokens_max: usize) -> usize {
    let mut total = 0;
    for segment in segments(text) {
        total += count_segment(segment);
        if total > tokens_max {
            break;
        }
    }
    total
}

/// Cuts `text` into its tokens, joining those that are only a part of a character.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    let mut tokens = 0;
    for token in segments(text).flat_map(|segment| tokenizer().encode_ordinary(segment)) {
        bytes.extend(token_bytes(token));
        tokens += 1;
        if let Ok(whole) = std::str::from_utf8(&bytes) {
            pieces.push(Piece { text: whole.to_owned(), tokens });
            bytes.clear();
            tokens = 0;
        }
    }
    pieces
}

fn token_bytes(token: Rank) -> Vec<u8> {
    // A token the tokenizer has just made is always known to it.
    tokenizer().decode_bytes(&[token]).unwrap_or_default()
}

/// The tokenizer, built on first use: its 100,000 entries take tens of milliseconds.
fn tokenizer() -> &'static CoreBPE {
    cl100k_base_singleton()
}

/// Cuts `text` where the tokenizer cuts anyway, whatever stands around.
///
/// The tokens of the segments are then the tokens of the text. Only a segment longer than
/// [`SEGMENT_BYTES_MAX`] is cut elsewhere, and its count may be a token or two off.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    cut_segments(text, is_cut_between)
}

/// Cuts `text` wherever `is_cut` says so of two neighbours.
fn cut_segments(text: &str, is_cut: fn(char, char) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (segment, after) =
            rest.split_at_checked(segment_end(rest, is_cut)).unwrap_or((rest, ""));
        rest = after;
        Some(segment)
    })
}

fn segment_end(text: &str, is_cut: fn(char, char) -> bool) -> usize {
    let mut chars = text.char_indices();
    let Some((_, mut before)) = chars.next() else { return 0 };
    for (at, c) in chars {
        if is_cut(before, c) || at + c.len_utf8() > SEGMENT_BYTES_MAX {
            return at;
        }
        before = c;
    }
    text.len()
}

/// Whether no pattern of the tokenizer spans these two neighbours:
/// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s...`
fn is_cut_between(before: char, c: char) -> bool {
    // A run of white space is cut by what follows it, so never right after it.
    if before.is_whitespace() {
        return false;
    }
    // No pattern goes on from something visible to a blank; figures stand alone; and nothing but
    // a letter follows a letter.
    c == ' '
        || before.is_numeric() != c.is_numeric()
        || (is_surely_letter(before) && !c.is_alphabetic())
}

/// A part of `\p{L}` that is told cheaply. `char::is_alphabetic` has marks that are no letters.
fn is_surely_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FA}')
}

/// Counts one segment. Most are a word with its blank, and most words come again and again.
fn count_segment(segment: &str) -> usize {
    if segment.len() > CACHED_BYTES_MAX {
        return tokenizer().encode_ordinary(segment).len();
    }
    COUNTS.with_borrow_mut(|counts| {
        if let Some(count) = counts.get(segment) {
            return *count;
        }
        let count = tokenizer().encode_ordinary(segment).len();
        if counts.len() >= CACHED_SEGMENTS_MAX {
            counts.clear();
        }
        counts.insert(segment.into(), count);
        count
    })
}

thread_local! {
    /// Counts of short segments seen by this thread.
    static COUNTS: RefCell<HashMap<Box<str>, usize>> = RefCell::new(HashMap::new());
}

/// Longest segment, bytes. The tokenizer's regular expression steps back over each blank of a run
/// and panics after a million steps; merging a run of letters costs more than its length.
const SEGMENT_BYTES_MAX: usize = 1 << 10;
/// Longest segment whose count is kept, bytes: a long word with its blank.
const CACHED_BYTES_MAX: usize = 24;
/// Segments kept per thread: the vocabulary of a large corpus, in some 4 MB.
const CACHED_SEGMENTS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_cl100k() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 2);
        assert_eq!(count("An apple a"), 3);
    }

    /// Scenario: texts of random pieces that stress every pattern of the tokenizer.
    /// Guarantees: counting by segments is counting.
    #[test]
    fn segments_have_the_tokens_of_the_whole() {
        const PIECES: &[&str] = &[
            " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "a", "word", "Don't", "I'll", "'",
            "1", "12345", "!?", "...", "é", "東京", "🦀", "e\u{301}", "_", "/*", "\u{b}",
            "\u{345}", "かな", "ー", "½",
        ];
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(PIECES[(state >> 33) as usize % PIECES.len()]);
            }
            let expected = tokenizer().encode_ordinary(&text).len();
            assert_eq!(count(&text), expected, "{text:?}");
            assert_eq!(count_up_to(&text, expected), expected, "{text:?}");
            assert!(count_up_to(&text, expected / 2) > expected / 2, "{text:?}");
        }
    }

    /// Scenario: texts of all scripts, by the tokenizers of other models.
    /// Guarantees: counting by segments is counting; each model is counted by its own.
    #[test]
    fn every_model_is_counted_by_its_own_tokenizer() {
        let text = "Don't stop: 12345 naïve 東京 🦀   tabs\tand\n\n  lines, weren't THEY?";
        for (model, bpe) in [
            ("gpt-4o-mini", o200k_base_singleton()),
            ("openai/gpt-4.1", o200k_base_singleton()),
            ("gpt-4", cl100k_base_singleton()),
            ("text-davinci-003", p50k_base_singleton()),
            ("davinci", r50k_base_singleton()),
        ] {
            let encoding = Encoding::of_model(model).expect(model);
            assert_eq!(encoding.count(text), bpe.encode_ordinary(text).len(), "{model}");
        }
        assert_eq!(Encoding::of_model("llama-3"), None);
        assert!(Encoding::O200k.count(&" ".repeat(2_000_000)) > 1_000);
    }

    #[test]
    fn pieces_are_whole_characters_and_add_up() {
        let text = "naïve 🦀🏳️‍🌈 東京 done";
        let pieces = pieces(text);
        let joined: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        let tokens: u32 = pieces.iter().map(|piece| piece.tokens).sum();
        assert_eq!(joined, text);
        assert_eq!(tokens as usize, count(text));
        assert!(pieces.iter().any(|piece| piece.tokens > 1));
    }

    /// Scenario: a file of two million blanks, as found in padded exports.
    /// Guarantees: the tokenizer neither panics nor stalls.
    #[test]
    fn a_long_run_of_blanks_is_counted() {
        let text = format!("{}x", " ".repeat(2_000_000));
        assert!(count(&text) > 1_000);
    }
}
