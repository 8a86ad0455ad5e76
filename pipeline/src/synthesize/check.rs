//! Whether an answer is in the style that was asked for.
//!
//! A check says what is wrong and changes nothing: the answer is given, recorded, and counted.

use std::collections::HashSet;

use retake_schemas::settings::AnswerStyle;
use serde::{Deserialize, Serialize};

use crate::answer::extractive::NOT_KNOWN;
use crate::document::Hit;
use crate::words;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    /// It has no text.
    Empty,
    /// It reached the output limit.
    Cut,
    /// An extractive one has words that stand in no passage.
    NotExtractive,
    /// An abstractive one is not brief.
    NotBrief,
    /// A verbose one is no explanation.
    NotVerbose,
}

impl Objection {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Cut => "cut",
            Self::NotExtractive => "not_extractive",
            Self::NotBrief => "not_brief",
            Self::NotVerbose => "not_verbose",
        }
    }
}

/// Checks an answer; the first objection, if there is one.
#[must_use]
pub fn check(
    style: AnswerStyle,
    text: &str,
    hits: &[Hit],
    finish_reason: Option<&str>,
) -> Option<Objection> {
    if text.trim().is_empty() {
        return Some(Objection::Empty);
    }
    if finish_reason == Some("length") {
        return Some(Objection::Cut);
    }
    // Saying that nothing is known is right in every style.
    if is_not_known(text) {
        return None;
    }
    let sentences = words::sentences(text).len();
    match style {
        AnswerStyle::Extractive => {
            (verbatim_share(text, hits) < VERBATIM_SHARE_MIN).then_some(Objection::NotExtractive)
        }
        AnswerStyle::Abstractive => {
            (sentences > BRIEF_SENTENCES_MAX).then_some(Objection::NotBrief)
        }
        AnswerStyle::Verbose => {
            (sentences < VERBOSE_SENTENCES_MIN).then_some(Objection::NotVerbose)
        }
    }
}

/// Whether an answer says that nothing is known.
#[must_use]
pub fn is_not_known(text: &str) -> bool {
    let lower = text.to_lowercase().replace('\u{2019}', "'");
    text.trim() == NOT_KNOWN || NOT_KNOWN_WORDS.iter().any(|words| lower.contains(words))
}

/// The share of an answer's words that stand in a passage as part of a run of three (all of them,
/// in an answer of fewer), 0 to 1. Case and punctuation do not matter, order does.
#[must_use]
pub fn verbatim_share(text: &str, hits: &[Hit]) -> f64 {
    let answer = plain_words(text);
    let run = RUN_WORDS.min(answer.len());
    if run == 0 {
        return 1.0;
    }
    let passages: Vec<Vec<String>> = hits.iter().map(|hit| plain_words(&hit.chunk.text)).collect();
    let known: HashSet<&[String]> =
        passages.iter().flat_map(|passage| passage.windows(run)).collect();
    let mut is_covered = vec![false; answer.len()];
    for (start, window) in answer.windows(run).enumerate() {
        if known.contains(window) {
            is_covered.iter_mut().skip(start).take(run).for_each(|covered| *covered = true);
        }
    }
    let covered = is_covered.iter().filter(|covered| **covered).count();
    covered as f64 / answer.len() as f64
}

fn plain_words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// Words that stand together before they count as copied: two meet by chance.
const RUN_WORDS: usize = 3;
/// A sentence of one or two words between others has no run of its own.
const VERBATIM_SHARE_MIN: f64 = 0.9;
/// More sentences than this are not brief.
const BRIEF_SENTENCES_MAX: usize = 4;
/// Fewer sentences than this explain nothing.
const VERBOSE_SENTENCES_MIN: usize = 2;
/// How models say it.
const NOT_KNOWN_WORDS: &[&str] = &[
    "i do not know",
    "i don't know",
    "do not hold the answer",
    "don't hold the answer",
    "do not contain the answer",
    "don't contain the answer",
    "not enough information",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    fn objection(style: AnswerStyle, text: &str) -> Option<&'static str> {
        let hits = [
            hit("a#0", "The keeper of *Skerryvore* was\nAlan Dunbar. He liked tea, and the sea."),
            hit("b#0", "- The tower is 48 metres high."),
        ];
        check(style, text, &hits, Some("stop")).map(Objection::as_str)
    }

    /// Scenario: copied sentences of two passages, and ones that only sound like them.
    /// Guarantees: an extractive answer holds the passages' words in their order, whatever the
    /// line breaks, marks and case.
    #[test]
    fn an_extractive_answer_has_no_words_of_its_own() {
        use AnswerStyle::Extractive;
        for copied in [
            "The keeper of Skerryvore was Alan Dunbar. The tower is 48 metres high.",
            "alan dunbar",
            "He liked tea",
            "I do not know.",
            NOT_KNOWN,
        ] {
            assert_eq!(objection(Extractive, copied), None, "{copied}");
        }
        for own in [
            "The keeper was called Alan.",
            "Dunbar Alan",
            "The keeper of Skerryvore was Alan Dunbar, who was born in Leith.",
            "Alan liked the tower of the sea.",
        ] {
            assert_eq!(objection(Extractive, own), Some("not_extractive"), "{own}");
        }
    }

    #[test]
    fn brief_is_short_and_verbose_is_not() {
        let long = "One. Two. Three. Four. Five.";
        assert_eq!(objection(AnswerStyle::Abstractive, long), Some("not_brief"));
        assert_eq!(objection(AnswerStyle::Abstractive, "One."), None);
        assert_eq!(objection(AnswerStyle::Verbose, "One."), Some("not_verbose"));
        assert_eq!(objection(AnswerStyle::Verbose, long), None);
        assert_eq!(objection(AnswerStyle::Verbose, "I don\u{2019}t know."), None);
    }

    #[test]
    fn nothing_and_half_an_answer_are_objected_to_in_every_style() {
        let style = AnswerStyle::Verbose;
        assert_eq!(check(style, " \n", &[], None), Some(Objection::Empty));
        assert_eq!(check(style, "One. Two", &[], Some("length")), Some(Objection::Cut));
    }
}
