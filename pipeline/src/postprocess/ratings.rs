//! Reads what a language model said about passages: `Doc: 3, Relevance: 7`, a line each, or JSON.
//!
//! A rating is a number together with its passage, or it is nothing: a line that is not understood
//! says nothing about any other, and a passage that is not there is nobody's. What could not
//! be used is counted by reason.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::synthesize::structured::unfenced;

/// Why a line, or an object, gave no rating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unreadable {
    /// It does not have the form.
    Malformed,
    /// No passage has that number; they count from 1.
    OutOfRange,
    /// The passage was rated before; the first rating stays.
    Duplicate,
    /// The rating is no number from 0 to 10.
    BadRating,
}

impl Unreadable {
    /// The word used in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OutOfRange => "out_of_range",
            Self::Duplicate => "duplicate",
            Self::BadRating => "bad_rating",
        }
    }
}

/// What a reply said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ratings {
    /// The rating of each passage, 0 to 10, in the order of the passages; nothing for those it did
    /// not rate.
    pub by_passage: Vec<Option<f64>>,
    /// Lines that could not be used, by reason.
    pub unreadable: BTreeMap<Unreadable, u64>,
}

/// Reads the ratings of `passages` passages. Blank lines are nothing; any other line is a rating or
/// is counted.
#[must_use]
pub fn read_ratings(reply: &str, passages: usize) -> Ratings {
    let mut ratings = Ratings { by_passage: vec![None; passages], unreadable: BTreeMap::new() };
    for line in reply.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Err(reason) = read_line(line, &mut ratings.by_passage) {
            *ratings.unreadable.entry(reason).or_default() += 1;
        }
    }
    ratings
}

/// The form of ratings as JSON.
#[must_use]
pub(super) fn ratings_schema() -> Json {
    json!({
        "type": "object",
        "properties": {
            "ratings": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "passage": { "type": "integer" },
                        "relevance": { "type": "number" },
                    },
                    "required": ["passage", "relevance"],
                    "additionalProperties": false,
                },
            },
        },
        "required": ["ratings"],
        "additionalProperties": false,
    })
}

/// Reads the ratings of `passages` passages as JSON, each for itself: one that is wrong costs no
/// other. What is no list of ratings at all is counted once.
#[must_use]
pub fn read_json_ratings(reply: &str, passages: usize) -> Ratings {
    let mut ratings = Ratings { by_passage: vec![None; passages], unreadable: BTreeMap::new() };
    let json: Option<Json> = serde_json::from_str(unfenced(reply.trim())).ok();
    let Some(rated) = json.as_ref().and_then(|json| json.get("ratings")?.as_array()) else {
        ratings.unreadable.insert(Unreadable::Malformed, 1);
        return ratings;
    };
    for one in rated {
        if let Err(reason) = read_object(one, &mut ratings.by_passage) {
            *ratings.unreadable.entry(reason).or_default() += 1;
        }
    }
    ratings
}

fn read_object(one: &Json, by_passage: &mut [Option<f64>]) -> Result<(), Unreadable> {
    let passage = one.get("passage").filter(|passage| passage.is_number());
    let passage = passage.ok_or(Unreadable::Malformed)?;
    let relevance = one.get("relevance").ok_or(Unreadable::Malformed)?;
    let number = passage.as_u64().and_then(|number| usize::try_from(number).ok());
    put(number, relevance.as_f64(), by_passage)
}

fn read_line(line: &str, by_passage: &mut [Option<f64>]) -> Result<(), Unreadable> {
    let (number, rating) = split(line).ok_or(Unreadable::Malformed)?;
    // Digits only: `-1` and `+1` are no numbers of passages, and neither is 1e3.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unreadable::Malformed);
    }
    let rating = rating.strip_suffix("/10").unwrap_or(rating).trim_end();
    let is_plain = rating.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    put(number.parse().ok(), rating.parse().ok().filter(|_| is_plain), by_passage)
}

/// Puts a rating in its place, if there is one and it is free. Passages count from 1.
fn put(
    number: Option<usize>,
    rating: Option<f64>,
    by_passage: &mut [Option<f64>],
) -> Result<(), Unreadable> {
    let index = number.and_then(|number| number.checked_sub(1));
    let place = index.and_then(|index| by_passage.get_mut(index)).ok_or(Unreadable::OutOfRange)?;
    let rating = rating.ok_or(Unreadable::BadRating)?;
    if !(0.0..=RATING_MAX).contains(&rating) {
        return Err(Unreadable::BadRating);
    }
    if place.is_some() {
        return Err(Unreadable::Duplicate);
    }
    *place = Some(rating);
    Ok(())
}

/// The two values of `Doc: N, Relevance: R`, in any case, with any blanks, as a list item or not.
fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches(['-', '*', '\u{2022}']).trim();
    let line = line.strip_suffix('.').unwrap_or(line);
    let (passage, rating) = line.split_once(',')?;
    Some((value(passage, "doc")?, value(rating, "relevance")?))
}

fn value<'l>(text: &'l str, name: &str) -> Option<&'l str> {
    let (before, value) = text.split_once(':')?;
    before.trim().eq_ignore_ascii_case(name).then_some(value.trim())
}

/// The best rating.
pub(super) const RATING_MAX: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> (Vec<Option<f64>>, Vec<(&'static str, u64)>) {
        let ratings = read_ratings(reply, 3);
        let unreadable = ratings.unreadable.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        (ratings.by_passage, unreadable)
    }

    /// Scenario: the reply that makes LlamaIndex take the last node (`nodes[-1]`).
    /// Guarantees: it selects nothing; the same for numbers beyond the end.
    #[test]
    fn doc_0_selects_nothing() {
        let (ratings, unreadable) = read(
            "Doc: 0, Relevance: 9\nDoc: 4, Relevance: 9\nDoc: 99999999999999999999, Relevance: 1",
        );
        assert_eq!(ratings, [None, None, None]);
        assert_eq!(unreadable, [("out_of_range", 3)]);
    }

    /// Scenario: a word in place of one rating, which shifts all later scores of LlamaIndex.
    /// Guarantees: the other ratings stay with their passages.
    #[test]
    fn a_word_for_a_rating_shifts_no_other() {
        let (ratings, unreadable) =
            read("Doc: 1, Relevance: high\nDoc: 2, Relevance: 7\nDoc: 3, Relevance: 2");
        assert_eq!(ratings, [None, Some(7.0), Some(2.0)]);
        assert_eq!(unreadable, [("bad_rating", 1)]);
    }

    /// Scenario: ratings with decimals, which LlamaIndex reads as 0.
    #[test]
    fn a_rating_of_0_85_is_0_85() {
        let (ratings, unreadable) = read(
            "doc : 3 , relevance : 0.85\n- Doc: 1, Relevance: 10/10.\n\n* DOC: 2, Relevance: 6.",
        );
        assert_eq!(ratings, [Some(10.0), Some(6.0), Some(0.85)]);
        assert!(unreadable.is_empty(), "{unreadable:?}");
    }

    #[test]
    fn a_passage_is_rated_once() {
        let (ratings, unreadable) = read("Doc: 2, Relevance: 3\nDoc: 2, Relevance: 9");
        assert_eq!(ratings, [None, Some(3.0), None]);
        assert_eq!(unreadable, [("duplicate", 1)]);
    }

    /// Scenario: everything a model might say instead.
    /// Guarantees: no rating, no panic, every line counted.
    #[test]
    fn what_is_no_rating_is_counted_and_never_a_panic() {
        for (line, expected) in [
            ("Here are the ratings:", "malformed"),
            ("Doc 1 Relevance 7", "malformed"),
            ("Doc: one, Relevance: 7", "malformed"),
            ("Doc: -1, Relevance: 7", "malformed"),
            ("Doc: , Relevance: 7", "malformed"),
            ("Relevance: 7, Doc: 1", "malformed"),
            ("Doc: 1, Relevance: 7, Doc: 2, Relevance: 3", "bad_rating"),
            ("Doc: 1, Relevance: ", "bad_rating"),
            ("Doc: 1, Relevance: NaN", "bad_rating"),
            ("Doc: 1, Relevance: inf", "bad_rating"),
            ("Doc: 1, Relevance: -3", "bad_rating"),
            ("Doc: 1, Relevance: 11", "bad_rating"),
            ("Doc: 1, Relevance: 1e1", "bad_rating"),
            ("Doc: ١, Relevance: 7", "malformed"),
            ("\u{0},:,:", "malformed"),
        ] {
            assert_eq!(read(line), (vec![None, None, None], vec![(expected, 1)]), "{line:?}");
        }
        assert_eq!(read_ratings("Doc: 1, Relevance: 5", 0).by_passage, []);
    }

    fn read_json(reply: &str) -> (Vec<Option<f64>>, Vec<(&'static str, u64)>) {
        let ratings = read_json_ratings(reply, 3);
        let unreadable = ratings.unreadable.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        (ratings.by_passage, unreadable)
    }

    /// Scenario: JSON with a passage 0, one beyond the end, a word for a rating, one rated twice.
    /// Guarantees: each rating stands or falls for itself, as with lines.
    #[test]
    fn a_wrong_object_costs_no_other_its_rating() {
        let reply = r#"```json
            {"ratings": [{"passage": 0, "relevance": 9}, {"passage": 3, "relevance": 0.85},
             {"passage": 1, "relevance": "high"}, {"passage": 3, "relevance": 9},
             {"passage": 4, "relevance": 9}, {"passage": 2, "relevance": 11}, 7, {"passage": 1}]}
            ```"#;
        let (ratings, unreadable) = read_json(reply);
        assert_eq!(ratings, [None, None, Some(0.85)]);
        assert_eq!(
            unreadable,
            [("malformed", 2), ("out_of_range", 2), ("duplicate", 1), ("bad_rating", 2)]
        );
        for reply in ["", "Doc: 1, Relevance: 7", "[]", r#"{"ratings": 3}"#, r#"{"ratings": [{"#] {
            assert_eq!(read_json(reply), (vec![None; 3], vec![("malformed", 1)]), "{reply}");
        }
        assert_eq!(read_json(r#"{"ratings": []}"#), (vec![None; 3], vec![]));
        assert!(crate::synthesize::structured::supported(&ratings_schema()).is_ok());
    }
}
