//! The words that text indexes hold, the same for every database.
//!
//! Words are those of [`crate::words`], not a database's own: a search finds the same in SQLite and
//! in PostgreSQL, whatever language the server was set up for, and nothing a user types can be an
//! operator of a query language, because a word is letters and digits only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::words;

/// What a text index keeps of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexedText {
    words: Vec<String>,
}

impl IndexedText {
    /// The words of `text` that say what it is about. Of a text that is longer than any chunk
    /// should be, the beginning.
    pub(super) fn of(text: &str) -> Self {
        let mut bytes = 0;
        let mut words = words::meaningful_words(text);
        let mut fits = |word: &String| {
            bytes += word.len() + WORD_OVERHEAD_BYTES;
            bytes <= INDEXED_BYTES_MAX
        };
        let kept = words.iter().take_while(|word| fits(word)).count();
        words.truncate(kept);
        Self { words }
    }

    /// How many words it has, repeated ones counted again.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The words in their order, with blanks between.
    pub(super) fn joined(&self) -> String {
        self.words.join(" ")
    }

    /// How often each word stands in it, in order of word.
    pub(super) fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for word in &self.words {
            *counts.entry(word.as_str()).or_default() += 1;
        }
        counts
    }
}

/// The distinct words that a search for `text` looks for, in order of word; none for a text that
/// says nothing, such as one of stop words only.
pub(super) fn searched_words(text: &str) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    for word in words::meaningful_words(text) {
        if wanted.len() == SEARCHED_WORDS_MAX {
            break;
        }
        wanted.insert(word);
    }
    wanted
}

/// PostgreSQL holds less than 1 MiB of words and positions in one `tsvector`.
const INDEXED_BYTES_MAX: usize = 512 << 10;
/// What a position takes there, rounded up.
const WORD_OVERHEAD_BYTES: usize = 4;
/// A question has a dozen; of a whole page asked as a question, the beginning is enough.
const SEARCHED_WORDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: nothing of a query language is left of a question, and one without meaning asks
    /// for nothing.
    #[test]
    fn operators_and_quotes_are_no_words() {
        for nothing in ["", " \n", "who is the what?", "\"\" '' * ( ) ^ - + : & | ! ~ \\ %%"] {
            assert!(searched_words(nothing).is_empty(), "{nothing:?}");
        }
        let words = searched_words("\"sealed' OR col:segment* NEAR(x, y) -'; DROP TABLE x");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(words, ["col", "drop", "near", "seal", "segment", "tabl", "x", "y"]);
        let many = (0..1000).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        assert_eq!(searched_words(&many).len(), SEARCHED_WORDS_MAX);
    }

    #[test]
    fn a_text_of_any_length_fits_the_index() {
        let text = IndexedText::of("Stored, storing and stored; the sea");
        assert_eq!((text.len(), text.joined().as_str()), (4, "stor stor stor sea"));
        assert_eq!(text.counts().into_iter().collect::<Vec<_>>(), [("sea", 1), ("stor", 3)]);
        let long = (0..200_000).map(|number| format!("word{number}")).collect::<Vec<_>>().join(" ");
        let words = IndexedText::of(&long);
        assert!(words.len() > 30_000 && words.joined().len() <= INDEXED_BYTES_MAX);
    }
}
