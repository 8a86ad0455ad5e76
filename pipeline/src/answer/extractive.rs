//! The extractive model: answers with sentences of the passages, deterministic and offline.
//!
//! It scores each sentence by the words it shares with the question, rare words more, and returns
//! the best ones in their original order. It cannot say what no passage says.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use retake_schemas::event::TokensSource;

use super::prompt::{self, Parsed};
use super::{AnswerEnd, AnswerPart, ChatRequest, Llm};
use crate::error::PipelineError;
use crate::tokens::{self, Piece};
use crate::words;

/// The extractive model.
#[derive(Debug, Clone)]
pub struct ExtractiveLlm {
    sentences_max: usize,
}

impl ExtractiveLlm {
    /// A model that answers with at most `sentences_max` sentences, and at least one.
    #[must_use]
    pub fn new(sentences_max: usize) -> Self {
        Self { sentences_max: sentences_max.max(1) }
    }

    /// The whole answer to a prompt.
    fn text(&self, prompt: &Parsed) -> String {
        let question: BTreeSet<String> =
            words::meaningful_words(&prompt.question).into_iter().collect();
        // A draft is what the passages before these said about the question.
        let draft = prompt.draft.iter().filter(|draft| draft.as_str() != NOT_KNOWN);
        let passages: Vec<&str> = draft.chain(&prompt.passages).map(String::as_str).collect();
        let sentences = candidates(&passages);
        let rarity = rarities(&sentences, &question);
        let mut scored: Vec<(f64, usize)> = sentences
            .iter()
            .enumerate()
            .map(|(position, sentence)| (score(sentence, &rarity), position))
            .filter(|(score, _)| *score > 0.0)
            .collect();
        // Equal scores: the better passage, then the earlier sentence, which is position order.
        scored.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        let best = scored.first().map_or(0.0, |(score, _)| *score);
        scored.retain(|(score, _)| *score >= best * SCORE_SHARE_MIN);
        scored.truncate(self.sentences_max);
        scored.sort_by_key(|(_, position)| *position);
        let chosen: Vec<&str> = scored
            .iter()
            .filter_map(|(_, position)| sentences.get(*position))
            .map(|sentence| sentence.text.as_str())
            .collect();
        if chosen.is_empty() { NOT_KNOWN.to_owned() } else { chosen.join(" ") }
    }
}

#[async_trait]
impl Llm for ExtractiveLlm {
    fn provider(&self) -> &str {
        "retake"
    }

    fn model(&self) -> &str {
        MODEL
    }

    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let text = self.text(&prompt::parse(request));
        let (pieces, finish_reason) = limited(tokens::pieces(&text), request.max_tokens);
        let output: u32 = pieces.iter().map(|piece| piece.tokens).sum();
        let input: usize =
            request.messages.iter().map(|message| tokens::count(&message.content)).sum();
        let end = AnswerPart::End(AnswerEnd {
            input_tokens: i64::try_from(input).ok(),
            output_tokens: Some(i64::from(output)),
            tokens_source: TokensSource::Tokenizer,
            finish_reason: Some(finish_reason.to_owned()),
            model: Some(MODEL.to_owned()),
            ..AnswerEnd::default()
        });
        let arrivals = if request.stream { pieces } else { vec![joined(pieces)] };
        let parts = arrivals
            .into_iter()
            .map(|piece| AnswerPart::Text { text: piece.text, tokens: piece.tokens })
            .chain([end]);
        Ok(stream::iter(parts.map(Ok).collect::<Vec<_>>()).boxed())
    }
}

/// A sentence that may be part of an answer.
struct Sentence {
    text: String,
    words: BTreeSet<String>,
    passage: usize,
}

/// The sentences of all passages, best passage first. Overlapping chunks share sentences; each is
/// taken once.
fn candidates(passages: &[&str]) -> Vec<Sentence> {
    let mut seen = BTreeSet::new();
    let mut sentences = Vec::new();
    for (passage, text) in passages.iter().enumerate() {
        for range in words::sentences(text) {
            let raw = text.get(range).unwrap_or_default();
            // A heading names what is told below it, and tells nothing.
            if raw.starts_with('#') {
                continue;
            }
            let sentence = readable(raw);
            if !sentence.is_empty() && seen.insert(sentence.clone()) {
                let words = words::meaningful_words(&sentence).into_iter().collect();
                sentences.push(Sentence { text: sentence, words, passage });
            }
        }
    }
    sentences
}

/// A sentence on one line, without list marks, of bounded length.
fn readable(raw: &str) -> String {
    let bare = raw.trim_start_matches(|c: char| c.is_whitespace() || "-*+>|".contains(c));
    let mut line = String::new();
    let mut count = 0;
    for word in bare.split_whitespace() {
        count += word.chars().count() + 1;
        if count > SENTENCE_CHARS_MAX {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// How much each word of the question tells: the fewer sentences have it, the more.
fn rarities<'q>(sentences: &[Sentence], question: &'q BTreeSet<String>) -> BTreeMap<&'q str, f64> {
    #[expect(clippy::cast_precision_loss, reason = "a prompt has nowhere near 2^52 sentences")]
    let rarity = |word: &'q String| {
        let having = sentences.iter().filter(|sentence| sentence.words.contains(word)).count();
        let (having, all) = (having as f64, sentences.len() as f64);
        (word.as_str(), (1.0 + (all - having + 0.5) / (having + 0.5)).ln())
    };
    question.iter().map(rarity).collect()
}

fn score(sentence: &Sentence, rarity: &BTreeMap<&str, f64>) -> f64 {
    let shared: f64 = rarity
        .iter()
        .filter(|(word, _)| sentence.words.contains(**word))
        .map(|(_, rarity)| rarity)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "both are small counts")]
    let (length, passage) = (sentence.words.len() as f64, sentence.passage as f64);
    // Long sentences share words by chance; the search's order breaks near ties.
    shared / (1.0 + length / SENTENCE_WORDS_USUAL) / (1.0 + passage * PASSAGE_DISCOUNT)
}

/// Cuts the answer at the output limit.
fn limited(pieces: Vec<Piece>, tokens_max: u32) -> (Vec<Piece>, &'static str) {
    let all = pieces.len();
    let mut total = 0_u32;
    let kept: Vec<Piece> = pieces
        .into_iter()
        .take_while(|piece| {
            total = total.saturating_add(piece.tokens);
            total <= tokens_max
        })
        .collect();
    let finish_reason = if kept.len() < all { "length" } else { "stop" };
    (kept, finish_reason)
}

fn joined(pieces: Vec<Piece>) -> Piece {
    let tokens = pieces.iter().map(|piece| piece.tokens).sum();
    Piece { text: pieces.into_iter().map(|piece| piece.text).collect(), tokens }
}

/// Name of the model; another number when it would answer differently.
pub const MODEL: &str = "extractive-1";
/// The answer when no sentence shares a word with the question.
pub const NOT_KNOWN: &str = "I do not know from the given documents.";

/// Longest sentence of an answer, characters: a table or a listing without a full stop is one.
const SENTENCE_CHARS_MAX: usize = 600;
/// Sentences that score less than this share of the best one only dilute the answer.
const SCORE_SHARE_MIN: f64 = 0.5;
/// Words with a meaning in a usual sentence: up to here length is hardly held against it.
const SENTENCE_WORDS_USUAL: f64 = 24.0;
/// What each place further down the search's order costs.
const PASSAGE_DISCOUNT: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::request;

    const PASSAGES: [&str; 3] = [
        "## Retries\n\nFailed requests are retried three times. Each retry waits twice as long as \
         the one before. The office is closed on Sundays.",
        "Sessions expire after ten minutes. Expired sessions are removed by a background job.",
        "Failed requests are retried three times. Naïve 🦀 crabs are retried never.",
    ];

    async fn parts(request: &ChatRequest, sentences_max: usize) -> Vec<AnswerPart> {
        let stream = ExtractiveLlm::new(sentences_max).answer(request).await.expect("answer");
        stream.map(|part| part.expect("part")).collect().await
    }

    fn split(parts: Vec<AnswerPart>) -> (String, u32, usize, AnswerEnd) {
        let (mut text, mut tokens, mut arrivals) = (String::new(), 0, 0);
        let mut ends = Vec::new();
        for part in parts {
            match part {
                AnswerPart::Text { text: piece, tokens: count } => {
                    assert!(ends.is_empty(), "text after the end");
                    text.push_str(&piece);
                    tokens += count;
                    arrivals += 1;
                }
                AnswerPart::End(end) => ends.push(end),
            }
        }
        (text, tokens, arrivals, ends.pop().expect("an end"))
    }

    /// Scenario: a question whose answer is one sentence of several passages.
    /// Guarantees: that sentence, streamed token by token, counted by the tokenizer.
    #[tokio::test]
    async fn the_answer_is_the_sentence_that_answers() {
        let request = request("How many times is a failed request retried?", &PASSAGES);
        let (text, tokens, arrivals, end) = split(parts(&request, 1).await);
        assert_eq!(text, "Failed requests are retried three times.");
        assert!(arrivals > 3, "streamed in {arrivals} pieces");
        assert_eq!(end.output_tokens, Some(i64::from(tokens)));
        assert_eq!(tokens as usize, tokens::count(&text));
        assert_eq!(end.tokens_source, TokensSource::Tokenizer);
        assert_eq!(end.finish_reason.as_deref(), Some("stop"));
        assert_eq!(parts(&request, 1).await, parts(&request, 1).await);
    }

    #[tokio::test]
    async fn sentences_keep_their_order_and_are_not_repeated() {
        let request =
            request("What happens to expired sessions and when do sessions expire?", &PASSAGES);
        let (text, ..) = split(parts(&request, 3).await);
        assert_eq!(
            text,
            "Sessions expire after ten minutes. Expired sessions are removed by a background job."
        );
    }

    #[tokio::test]
    async fn nothing_in_common_is_not_known() {
        for passages in [&PASSAGES[..], &[]] {
            let (text, ..) = split(parts(&request("Who painted Guernica?", passages), 3).await);
            assert_eq!(text, NOT_KNOWN);
        }
    }

    #[tokio::test]
    async fn the_output_limit_and_the_plain_form_are_honoured() {
        let mut request = request("Are naïve 🦀 crabs retried never?", &PASSAGES);
        request.stream = false;
        let (whole, tokens, arrivals, _) = split(parts(&request, 1).await);
        assert_eq!((whole.as_str(), arrivals), ("Naïve 🦀 crabs are retried never.", 1));
        request.max_tokens = tokens - 2;
        let (cut, fewer, _, end) = split(parts(&request, 1).await);
        assert!(whole.starts_with(&cut) && fewer <= request.max_tokens);
        assert_eq!(end.finish_reason.as_deref(), Some("length"));
    }
}
