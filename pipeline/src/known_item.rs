//! Known-item questions: for a corpus nobody has written questions for, ask for sentences that
//! are in it.
//!
//! The classic way to judge a search without judges (Azzopardi and de Rijke, "Automatic
//! construction of known-item finding test beds", SIGIR 2006): draw a sentence, keep its most
//! telling words, and ask for them. Deterministic: the same documents give the same questions.

use std::collections::HashMap;

use crate::document::Document;
use crate::words::{meaningful_words, sentences};

/// Up to `count` questions, spread evenly over the documents. Fewer when the documents hold fewer
/// sentences that say something.
#[must_use]
pub fn known_item_questions(documents: &[Document], count: usize) -> Vec<String> {
    let mut candidates: Vec<Vec<String>> = Vec::new();
    let mut document_frequency: HashMap<String, usize> = HashMap::new();
    for document in documents {
        let mut seen = std::collections::HashSet::new();
        for range in sentences(&document.text) {
            let Some(sentence) = document.text.get(range) else { continue };
            let telling = telling_words(sentence);
            for word in &telling {
                if seen.insert(word.clone()) {
                    *document_frequency.entry(word.clone()).or_default() += 1;
                }
            }
            let is_prose = !sentence.contains(['|', '`', '{', '<']);
            if is_prose && (SENTENCE_WORDS_MIN..=SENTENCE_WORDS_MAX).contains(&telling.len()) {
                candidates.push(telling);
            }
        }
    }
    spread(candidates.len(), count)
        .filter_map(|index| candidates.get(index))
        .map(|telling| question(telling, &document_frequency))
        .collect()
}

/// The words of a sentence that say what it is about, as they are written.
fn telling_words(sentence: &str) -> Vec<String> {
    sentence
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() >= WORD_BYTES_MIN && !meaningful_words(word).is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Asks for a sentence by its rarest words, in the order they stand in.
fn question(telling: &[String], document_frequency: &HashMap<String, usize>) -> String {
    let frequency = |word: &String| document_frequency.get(word).copied().unwrap_or(0);
    let mut rarest: Vec<usize> = (0..telling.len()).collect();
    rarest.sort_by_key(|index| (telling.get(*index).map(frequency), *index));
    rarest.truncate(QUESTION_WORDS);
    rarest.sort_unstable();
    let chosen: Vec<&str> =
        rarest.iter().filter_map(|index| telling.get(*index)).map(String::as_str).collect();
    format!("What is said about {}?", chosen.join(" "))
}

/// Up to `count` positions below `length`, evenly apart.
fn spread(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(length);
    (0..count).map(move |n| n * length / count.max(1))
}

/// Shorter words tell little.
const WORD_BYTES_MIN: usize = 4;
/// A sentence of fewer telling words could be anywhere.
const SENTENCE_WORDS_MIN: usize = 5;
/// A longer one is a list or a table.
const SENTENCE_WORDS_MAX: usize = 25;
/// As many words as a person would type.
const QUESTION_WORDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Format;
    use retake_schemas::Digest;

    fn document(text: &str) -> Document {
        Document {
            id: "a.md".to_owned(),
            path: "a.md".into(),
            format: Format::Markdown,
            text: text.to_owned(),
            digest: Digest::of(text.as_bytes()),
            bytes: text.len() as u64,
            modified_ms: None,
        }
    }

    #[test]
    fn questions_ask_for_sentences_by_their_telling_words() {
        let text =
            "The journal keeps every acknowledged event until segments replace it. Short one.";
        let questions = known_item_questions(&[document(text)], 10);
        assert_eq!(questions.len(), 1);
        assert!(questions[0].contains("journal"), "{questions:?}");
        assert_eq!(questions, known_item_questions(&[document(text)], 10));
    }

    #[test]
    fn a_corpus_without_sentences_gives_no_questions() {
        assert_eq!(known_item_questions(&[document("a | b | c")], 5), Vec::<String>::new());
        assert_eq!(known_item_questions(&[], 5), Vec::<String>::new());
    }
}
