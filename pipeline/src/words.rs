//! Words and sentences of a text, the same way for every lexical part of the pipeline: the
//! hashing embedder, the BM25 reranker, and the extractive model.
//!
//! It is deliberately small and frozen: vectors in a store depend on it, so a change here needs a
//! new model name in `embed::hashing`.

use std::ops::Range;

/// A word of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'t> {
    /// Lower case, reduced to a crude stem.
    pub stem: &'t str,
    /// Whether it says little about what a text is about.
    pub is_stop_word: bool,
}

/// Calls `visit` with each word of `text`.
///
/// A word is a run of letters and digits. Scripts written without spaces give one word per
/// character, so that pairs of words still mean something in them.
pub fn for_each_word(text: &str, mut visit: impl FnMut(Word<'_>)) {
    let mut word = String::new();
    for c in text.chars() {
        if is_unspaced_script(c) {
            emit(&mut word, &mut visit);
            word.push(c);
            emit(&mut word, &mut visit);
        } else if c.is_alphanumeric() {
            if word.len() >= WORD_BYTES_MAX {
                emit(&mut word, &mut visit);
            }
            word.extend(c.to_lowercase());
        } else if !is_apostrophe(c) {
            emit(&mut word, &mut visit);
        }
    }
    emit(&mut word, &mut visit);
}

/// The stems of the words that say what `text` is about, in order.
#[must_use]
pub fn meaningful_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for_each_word(text, |word| {
        if !word.is_stop_word {
            words.push(word.stem.to_owned());
        }
    });
    words
}

/// Byte ranges of the sentences of `text`, without the white space around them.
///
/// A blank line, a list item, a heading, and a table row end a sentence too. Abbreviations are
/// recognised only by the small letter after them, which is right often enough for choosing.
#[must_use]
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = at + c.len_utf8();
        let next = chars.peek().map(|(_, next)| *next);
        let ends = match c {
            '。' | '！' | '？' => true,
            '.' | '!' | '?' => next.is_none_or(char::is_whitespace) && !continues(text, end),
            '\n' => starts_block(text.get(end..).unwrap_or_default()) || heading(text, start, at),
            _ => false,
        };
        if ends {
            push_trimmed(text, start..end, &mut found);
            start = end;
        }
    }
    push_trimmed(text, start..text.len(), &mut found);
    found
}

fn emit(word: &mut String, visit: &mut impl FnMut(Word<'_>)) {
    if !word.is_empty() {
        let is_stop_word = STOP_WORDS.binary_search(&word.as_str()).is_ok();
        stem(word);
        visit(Word { stem: word, is_stop_word });
        word.clear();
    }
}

/// Removes the commonest English endings, so that `settings` meets `setting` and `retried` meets
/// `retry`. Wrong stems do no harm as long as they are the same in question and passage.
fn stem(word: &mut String) {
    if word.len() < STEM_BYTES_MIN || !word.is_ascii() {
        return;
    }
    let plural = match word.as_str() {
        w if w.ends_with("ies") => replace_end(word, 3, "y"),
        w if ["sses", "ches", "shes", "xes"].iter().any(|end| w.ends_with(end)) => {
            replace_end(word, 2, "")
        }
        w if w.ends_with('s') && !w.ends_with("ss") && !w.ends_with("us") => {
            replace_end(word, 1, "")
        }
        _ => false,
    };
    let longer = word.len() > STEM_BYTES_MIN;
    let verbal = match word.as_str() {
        w if longer && w.ends_with("ied") => replace_end(word, 3, "y"),
        w if longer && w.ends_with("ing") => replace_end(word, 3, ""),
        w if longer && w.ends_with("ed") => replace_end(word, 2, ""),
        _ => false,
    };
    // "stored", "storing", and "store" end up the same only without the silent e.
    if word.len() >= STEM_BYTES_MIN && word.ends_with('e') {
        replace_end(word, 1, "");
    }
    if plural || verbal {
        undouble(word);
    }
}

fn replace_end(word: &mut String, bytes: usize, end: &str) -> bool {
    word.truncate(word.len().saturating_sub(bytes));
    word.push_str(end);
    true
}

/// `stopped` lost its ending and is `stopp` now; `stop` it shall be.
fn undouble(word: &mut String) {
    let mut tail = word.bytes().rev();
    let (last, before) = (tail.next(), tail.next());
    if last == before && last.is_some_and(|b| !b"lsz0123456789".contains(&b)) && word.len() > 3 {
        word.truncate(word.len() - 1);
    }
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2019}')
}

fn is_unspaced_script(c: char) -> bool {
    matches!(c,
        '\u{0E00}'..='\u{0EFF}' // Thai, Lao
        | '\u{3040}'..='\u{30FF}' // Hiragana, Katakana
        | '\u{3400}'..='\u{9FFF}' // Han
        | '\u{F900}'..='\u{FAFF}' // Han, compatibility
        | '\u{20000}'..='\u{3FFFF}') // Han, supplementary
}

/// Whether the text after a full stop goes on in the same sentence, as after `e.g.`.
fn continues(text: &str, end: usize) -> bool {
    let rest = text.get(end..).unwrap_or_default();
    let blank_line = rest.trim_start_matches([' ', '\t', '\r']).starts_with("\n\n");
    !blank_line && rest.trim_start().starts_with(char::is_lowercase)
}

/// Whether a line that begins here is a block of its own.
fn starts_block(rest: &str) -> bool {
    let line = rest.trim_start_matches([' ', '\t', '\r']);
    line.starts_with(['\n', '#', '|', '>'])
        || ["- ", "* ", "+ ", "```"].iter().any(|mark| line.starts_with(mark))
        || line
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix(['.', ')'])
            .is_some_and(|item| {
                item.starts_with(' ') && line.starts_with(|c: char| c.is_ascii_digit())
            })
}

fn heading(text: &str, start: usize, end: usize) -> bool {
    text.get(start..end).is_some_and(|line| line.trim_start().starts_with('#'))
}

fn push_trimmed(text: &str, range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let Some(raw) = text.get(range.clone()) else { return };
    let trimmed = raw.trim();
    if !trimmed.is_empty() {
        let start = range.start + (raw.len() - raw.trim_start().len());
        found.push(start..start + trimmed.len());
    }
}

/// Longest word, bytes: base64 and the like come in pieces instead of one huge key.
const WORD_BYTES_MAX: usize = 64;
/// Shorter words keep their ending: `is`, `was` and `ring` are not plurals or gerunds.
const STEM_BYTES_MIN: usize = 4;

/// English words without meaning of their own, without apostrophes, sorted.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be",
    "because", "been", "before", "being", "but", "by", "can", "cant", "could", "did", "do", "does",
    "doesnt", "doing", "dont", "each", "for", "from", "get", "gets", "give", "given", "gives",
    "had", "has", "have", "having", "he", "her", "here", "hers", "his", "how", "i", "if", "in",
    "into", "is", "isnt", "it", "its", "may", "me", "more", "most", "much", "must", "my", "no",
    "not", "of", "off", "on", "once", "one", "only", "or", "other", "our", "out", "over", "own",
    "per", "s", "shall", "she", "should", "so", "some", "such", "t", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "to", "too", "under", "up",
    "us", "use", "used", "uses", "using", "very", "was", "we", "were", "what", "whats", "when",
    "where", "which", "while", "who", "whom", "whose", "why", "will", "with", "would", "you",
    "your",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the list is extended by hand.
    /// Guarantees: binary search keeps working.
    #[test]
    fn stop_words_are_sorted() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn stop_words_are_left_out_whatever_their_ending() {
        let text = "What does the store do before it has been given these, and where is this used?";
        assert_eq!(meaningful_words(text), ["stor"]);
        assert!(meaningful_words("Don't you?").is_empty());
    }

    #[test]
    fn forms_of_a_word_meet() {
        for (one, other) in [
            ("settings", "setting"),
            ("retries", "retry"),
            ("retried", "retry"),
            ("stored", "store"),
            ("storing", "stores"),
            ("stopped", "stops"),
            ("caches", "cached"),
            ("logged", "logs"),
            ("The café's", "the cafés"),
        ] {
            assert_eq!(meaningful_words(one), meaningful_words(other), "{one} and {other}");
        }
    }

    #[test]
    fn unspaced_scripts_give_one_word_per_character() {
        assert_eq!(meaningful_words("東京 tower"), ["東", "京", "tower"]);
    }

    #[test]
    fn sentences_end_where_a_reader_would_end_them() {
        let text = "# Title\nOne, e.g. this one.  Two!\nstill two?\n\nThree\n- item a\n- item b. ";
        let found: Vec<_> = sentences(text).into_iter().map(|r| &text[r]).collect();
        assert_eq!(
            found,
            [
                "# Title",
                "One, e.g. this one.",
                "Two!\nstill two?",
                "Three",
                "- item a",
                "- item b."
            ]
        );
    }
}
