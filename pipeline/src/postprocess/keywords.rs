//! Leaves out chunks by the words they have.

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query};
use crate::document::Hit;
use crate::error::PipelineError;
use crate::words::for_each_word;

/// Lets through chunks with one of the wanted words or phrases, and with none of the unwanted.
///
/// Words are compared whole, in any case and by their stem, as every lexical part of the pipeline
/// compares them: `cat` is found in `Cats` and not in `concatenate`. A phrase is its words, one
/// right after the other.
#[derive(Debug, Clone, Default)]
pub struct KeywordFilter {
    required: Vec<Vec<String>>,
    excluded: Vec<Vec<String>>,
}

impl KeywordFilter {
    /// A filter by words and phrases. One without any word, such as `"!"`, is in no chunk.
    #[must_use]
    pub fn new(required: &[String], excluded: &[String]) -> Self {
        let stems = |phrases: &[String]| phrases.iter().map(|phrase| stems(phrase)).collect();
        Self { required: stems(required), excluded: stems(excluded) }
    }

    fn lets_through(&self, hit: &Hit) -> bool {
        let words = stems(&hit.chunk.text);
        let has = |phrases: &[Vec<String>]| phrases.iter().any(|phrase| contains(&words, phrase));
        (self.required.is_empty() || has(&self.required)) && !has(&self.excluded)
    }
}

fn stems(text: &str) -> Vec<String> {
    let mut stems = Vec::new();
    for_each_word(text, |word| stems.push(word.stem.to_owned()));
    stems
}

fn contains(words: &[String], phrase: &[String]) -> bool {
    !phrase.is_empty() && words.windows(phrase.len()).any(|window| window == phrase)
}

#[async_trait]
impl Postprocessor for KeywordFilter {
    fn name(&self) -> &str {
        "keywords"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, _: &Query<'_>, mut hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        hits.retain(|hit| self.lets_through(hit));
        Ok(hits.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    fn kept(required: &[&str], excluded: &[&str]) -> Vec<&'static str> {
        const TEXTS: [&str; 4] = [
            "The cats of the Lighthouse.",
            "How to concatenate files; the keeper of the light.",
            "A light house, not a house of light.",
            "Nothing of the kind.",
        ];
        let owned =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filter = KeywordFilter::new(&owned(required), &owned(excluded));
        TEXTS.into_iter().filter(|text| filter.lets_through(&hit("a#0", text))).collect()
    }

    /// Scenario: words that stand inside others, in another case, in the plural; phrases.
    /// Guarantees: whole words count, whatever their case; one of the wanted is enough, one of the
    /// unwanted too much; without any, everything passes.
    #[test]
    fn a_word_inside_another_is_not_that_word() {
        let ids = |texts: Vec<&'static str>| -> Vec<&'static str> {
            texts.into_iter().map(|text| &text[..5]).collect()
        };
        assert_eq!(ids(kept(&["CAT"], &[])), ["The c"]);
        assert_eq!(ids(kept(&["light"], &[])), ["How t", "A lig"]);
        assert_eq!(ids(kept(&["light house"], &[])), ["A lig"]);
        assert_eq!(ids(kept(&["cat", "kind"], &[])), ["The c", "Nothi"]);
        assert_eq!(ids(kept(&["light"], &["keeper"])), ["A lig"]);
        assert_eq!(ids(kept(&[], &["house of light"])), ["The c", "How t", "Nothi"]);
        assert_eq!(kept(&[], &[]).len(), 4);
        assert!(kept(&["!"], &[]).is_empty(), "what is no word is nowhere");
        assert_eq!(kept(&[], &["!"]).len(), 4);
    }
}
