//! Scores of retrieval and answer.
//!
//! Retrieval is scored by characters, not by chunks, so that settings with other chunk sizes can
//! be compared: a reference is a place in a document, and a chunk covers a part of it or not.

use std::collections::BTreeMap;

use super::{Question, Reference};
use crate::document::{Chunk, Hit};
use crate::query::{Answer, Quality};

/// Scores an answer; what nothing is known about is `None`.
pub(super) fn quality(question: &Question, answer: &Answer) -> Quality {
    let mut quality = Quality::default();
    if !question.references.is_empty() {
        let rank = first_hit(&question.references, &answer.hits);
        quality.hit = Some(rank.is_some());
        quality.mrr = Some(rank.map_or(0.0, |rank| 1.0 / (rank as f64 + 1.0)));
        quality.recall = Some(recall(&question.references, &answer.hits));
    }
    quality.answer_match = answer_match(question, &answer.text);
    quality
}

/// Whether a text contains an accepted answer, if one is known.
pub(super) fn answer_match(question: &Question, text: &str) -> Option<bool> {
    (!question.answers.is_empty()).then(|| matches(text, &question.answers))
}

fn first_hit(references: &[Reference], hits: &[Hit]) -> Option<usize> {
    let overlaps = |hit: &Hit| {
        references.iter().any(|reference| {
            is_of(reference.document.as_deref(), &hit.chunk)
                && hit.chunk.start_char < reference.end_char
                && reference.start_char < hit.chunk.end_char
        })
    };
    hits.iter().position(overlaps)
}

/// Covered characters of all references by all hits, each character counted once.
fn recall(references: &[Reference], hits: &[Hit]) -> f64 {
    let mut by_document: BTreeMap<Option<&str>, Vec<Span>> = BTreeMap::new();
    for reference in references {
        let span = (reference.start_char, reference.end_char);
        by_document.entry(reference.document.as_deref()).or_default().push(span);
    }
    let (mut covered, mut wanted) = (0, 0);
    for (document, spans) in by_document {
        let wanted_spans = merged(spans);
        let of_document = hits.iter().map(|hit| &hit.chunk).filter(|chunk| is_of(document, chunk));
        let found = merged(of_document.map(|chunk| (chunk.start_char, chunk.end_char)).collect());
        wanted += length(&wanted_spans);
        covered += wanted_spans.iter().map(|span| overlap(*span, &found)).sum::<u64>();
    }
    if wanted == 0 { 0.0 } else { covered as f64 / wanted as f64 }
}

/// Whether a reference to `document` may mean the document of `chunk`. Data sets name documents
/// by their stem (`state_of_the_union`), we by their path.
pub(super) fn is_of(document: Option<&str>, chunk: &Chunk) -> bool {
    let Some(document) = document else { return true };
    let path = std::path::Path::new(&chunk.document_id);
    chunk.document_id == document
        || path.file_name().is_some_and(|name| name == document)
        || path.file_stem().is_some_and(|stem| stem == document)
}

/// Start and end of a piece of text.
type Span = (u64, u64);

fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => merged.push(span),
        }
    }
    merged
}

fn length(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.1.saturating_sub(span.0)).sum()
}

fn overlap(span: Span, with: &[Span]) -> u64 {
    with.iter().map(|other| span.1.min(other.1).saturating_sub(span.0.max(other.0))).sum()
}

fn matches(text: &str, answers: &[String]) -> bool {
    let text = normalized(text);
    answers.iter().map(|answer| normalized(answer)).any(|answer| text.contains(&answer))
}

/// Words in lower case with one blank around each: "Paris." is in "(paris)", "art" not in "party".
fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |joined, word| joined + word + " ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::eval) fn reference(
        document: Option<&str>,
        start_char: u64,
        end_char: u64,
    ) -> Reference {
        Reference { document: document.map(ToOwned::to_owned), start_char, end_char }
    }

    pub(in crate::eval) fn hit(document_id: &str, start_char: u64, end_char: u64) -> Hit {
        let chunk = Chunk {
            id: format!("{document_id}#{start_char}"),
            document_id: document_id.to_owned(),
            ordinal: 0,
            text: String::new(),
            start_char,
            end_char,
            tokens: 0,
        };
        Hit::new(chunk, 0.0)
    }

    #[test]
    fn characters_are_counted_once() {
        let references = [reference(Some("a"), 0, 10), reference(Some("a"), 5, 20)];
        let hits = [hit("x/a.md", 15, 40), hit("x/a.md", 10, 18), hit("b.md", 0, 20)];
        assert_eq!(recall(&references, &hits), 0.5);
        assert_eq!(first_hit(&references, &hits), Some(0));
        assert_eq!(first_hit(&references, &hits[2..]), None);
        assert_eq!(recall(&[reference(None, 0, 20)], &hits), 1.0);
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let references = [reference(Some("a.md"), 10, 20)];
        assert_eq!(first_hit(&references, &[hit("a.md", 0, 10), hit("a.md", 20, 30)]), None);
        assert_eq!(recall(&references, &[hit("a.md", 0, 10)]), 0.0);
    }

    #[test]
    fn answers_match_by_whole_words() {
        let accepted = |answer: &str| [answer.to_owned()];
        assert!(matches("It is (PARIS), of course.", &accepted("Paris.")));
        assert!(matches("The état of things", &accepted("ÉTAT of")));
        assert!(!matches("a party", &accepted("art")));
    }
}
