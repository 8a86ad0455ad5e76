//! Recorded answers, played back as they arrived.
//!
//! A replay that asks a model nothing still has to spend the model's time, or every queue behind
//! it would look faster than it was. Each piece comes at its recorded offset, measured from the
//! start of the call, so that being late once does not make the rest late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use retake_replay::cassette::{Cassette, CassetteMiss, MissCause, RecordedAnswer, RecordedFailure};
use retake_replay::timer;
use retake_schemas::Digest;
use retake_schemas::event::TokensSource;

use super::{AnswerEnd, AnswerPart, ChatRequest, Llm, canonical};
use crate::error::PipelineError;

/// A model that answers from a cassette, under the names of the model it stands for.
#[derive(Clone)]
pub struct RecordedLlm {
    cassette: Arc<dyn Cassette>,
    provider: String,
    model: String,
}

impl std::fmt::Debug for RecordedLlm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordedLlm")
            .field("provider", &self.provider)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl RecordedLlm {
    /// Answers from `cassette` in place of `model` of `provider`.
    #[must_use]
    pub fn new(cassette: Arc<dyn Cassette>, provider: &str, model: &str) -> Self {
        Self { cassette, provider: provider.to_owned(), model: model.to_owned() }
    }

    /// Gives this one answer, to the one request it was recorded for.
    #[must_use]
    pub(crate) fn of_answer(answer: RecordedAnswer, provider: &str, model: &str) -> Self {
        Self::new(Arc::new(Single(Mutex::new(Some(answer)))), provider, model)
    }

    /// The failure that was recorded, as one of the service that this stands for: whoever acts on
    /// its class does as then.
    fn failure(&self, recorded: &RecordedFailure) -> PipelineError {
        // The message of the error that it was; the one that it becomes begins in the same way.
        let message = recorded.message.as_str();
        let is_ours = message.starts_with("call ") || message.starts_with("run model ");
        let reason = message.split_once(": ").filter(|_| is_ours).map_or(message, |(_, rest)| rest);
        let reason = reason.to_owned();
        let status = match recorded.error_type.as_str() {
            "rate_limited" => Some(429),
            "service_unavailable" => Some(503),
            "service" => None,
            _ => return PipelineError::Model { model: self.model.clone(), reason },
        };
        PipelineError::Service { service: self.provider.clone(), status, reason }
    }

    fn end(&self, recorded: &RecordedAnswer) -> AnswerEnd {
        let counted = recorded.input_tokens.is_some() || recorded.output_tokens.is_some();
        AnswerEnd {
            input_tokens: recorded.input_tokens,
            output_tokens: recorded.output_tokens,
            tokens_source: if counted { recorded.tokens_source } else { TokensSource::None },
            model: Some(self.model.clone()),
            ..AnswerEnd::default()
        }
    }
}

/// An answer that was taken out of a cassette already.
struct Single(Mutex<Option<RecordedAnswer>>);

impl Cassette for Single {
    fn take(&self, request: &str) -> Result<RecordedAnswer, CassetteMiss> {
        let request = Digest::of(request.as_bytes());
        let miss = CassetteMiss { request, cause: MissCause::UsedUp { recorded: 1 } };
        self.0.lock().take().ok_or(miss)
    }
}

#[async_trait]
impl Llm for RecordedLlm {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn model(&self) -> &str {
        &self.model
    }

    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let start = Instant::now();
        let recorded = self.cassette.take(&canonical(request))?;
        let said = schedule(&recorded).into_iter().map(|(offset_ns, part)| (offset_ns, Ok(part)));
        let end = match &recorded.failure {
            None => Ok(AnswerPart::End(self.end(&recorded))),
            Some(failure) => Err(self.failure(failure)),
        };
        let schedule: Vec<_> = said.chain([(recorded.duration_ns, end)]).collect();
        let parts = stream::iter(schedule).then(move |(offset_ns, part)| async move {
            let offset = Duration::from_nanos(u64::try_from(offset_ns).unwrap_or_default());
            // A time too far to be told is a damaged recording; it is not waited for.
            if let Some(due) = start.checked_add(offset) {
                timer::sleep_until(due).await;
            }
            part
        });
        Ok(parts.boxed())
    }
}

/// What comes when. The recording has the text as a whole, so each arrival gets its share of the
/// characters by its share of the tokens.
fn schedule(recorded: &RecordedAnswer) -> Vec<(i64, AnswerPart)> {
    let tokens: u64 = recorded.arrivals.iter().map(|(_, count)| u64::from(*count)).sum();
    if tokens == 0 {
        return unscheduled(recorded);
    }
    let chars = recorded.text.chars().count() as u64;
    let mut rest = recorded.text.as_str();
    let (mut tokens_done, mut chars_done) = (0_u64, 0_u64);
    let mut schedule = Vec::with_capacity(recorded.arrivals.len());
    for (offset_ns, count) in &recorded.arrivals {
        tokens_done += u64::from(*count);
        let until = share(chars, tokens_done, tokens);
        let (text, after) = split_chars(rest, until.saturating_sub(chars_done));
        rest = after;
        chars_done = until;
        schedule.push((*offset_ns, AnswerPart::Text { text: text.to_owned(), tokens: *count }));
    }
    schedule
}

/// Without arrivals the text came as one, at the end.
fn unscheduled(recorded: &RecordedAnswer) -> Vec<(i64, AnswerPart)> {
    if recorded.text.is_empty() {
        return Vec::new();
    }
    let tokens = recorded.output_tokens.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
    let text = recorded.text.clone();
    vec![(recorded.duration_ns, AnswerPart::Text { text, tokens })]
}

/// `whole * part / all` without overflow.
fn share(whole: u64, part: u64, all: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(whole)
}

fn split_chars(text: &str, count: u64) -> (&str, &str) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let at = text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    text.split_at_checked(at).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::request;

    struct One {
        key: Digest,
        answer: Mutex<Option<RecordedAnswer>>,
    }

    impl Cassette for One {
        fn take(&self, request: &str) -> Result<RecordedAnswer, CassetteMiss> {
            let request = Digest::of(request.as_bytes());
            let miss = CassetteMiss { request, cause: MissCause::NotRecorded { nearest: None } };
            if request == self.key { self.answer.lock().take().ok_or(miss) } else { Err(miss) }
        }
    }

    fn recorded(text: &str, arrivals: &[(i64, u32)], duration_ns: i64) -> RecordedAnswer {
        RecordedAnswer {
            text: text.to_owned(),
            arrivals: arrivals.to_vec(),
            duration_ns,
            input_tokens: Some(0),
            output_tokens: Some(5),
            tokens_source: TokensSource::Provider,
            failure: None,
        }
    }

    fn llm(request: &ChatRequest, answer: RecordedAnswer) -> RecordedLlm {
        let key = Digest::of(canonical(request).as_bytes());
        let cassette = One { key, answer: Mutex::new(Some(answer)) };
        RecordedLlm::new(Arc::new(cassette), "openai", "m")
    }

    /// Scenario: five tokens in three arrivals, text of several bytes per character.
    /// Guarantees: no piece is early, pieces join to the text, the end comes at its time.
    #[tokio::test]
    async fn pieces_arrive_at_their_recorded_times() {
        let request = request("q", &["p"]);
        let ms = 1_000_000;
        let arrivals = [(20 * ms, 1), (60 * ms, 3), (60 * ms, 0), (80 * ms, 1)];
        let answer = recorded("né🦀東京.", &arrivals, 120 * ms);
        let start = std::time::Instant::now();
        let mut stream = llm(&request, answer).answer(&request).await.expect("answer");
        let (mut text, mut counts, mut end) = (String::new(), Vec::new(), None);
        let mut due = [20, 60, 60, 80, 120].into_iter();
        while let Some(part) = stream.next().await {
            let elapsed = start.elapsed();
            assert!(elapsed >= Duration::from_millis(due.next().expect("a part")), "{elapsed:?}");
            match part.expect("part") {
                AnswerPart::Text { text: piece, tokens } => {
                    text.push_str(&piece);
                    counts.push(tokens);
                }
                AnswerPart::End(it) => end = Some(it),
            }
        }
        assert_eq!((text.as_str(), counts.as_slice()), ("né🦀東京.", &[1, 3, 0, 1][..]));
        let end = end.expect("end");
        assert_eq!((end.input_tokens, end.output_tokens), (Some(0), Some(5)));
        assert_eq!(end.tokens_source, TokensSource::Provider);
    }

    /// Scenario: a setting changed the prompt, or the same request comes more often than recorded.
    /// Guarantees: a miss, never a made-up answer.
    #[tokio::test]
    async fn what_was_not_recorded_is_a_miss() {
        let request = request("q", &["p"]);
        let llm = llm(&request, recorded("a", &[(0, 1)], 0));
        let mut changed = request.clone();
        changed.temperature = 0.1;
        let error = llm.answer(&changed).await.err().expect("miss");
        assert_eq!(error.error_type(), "cassette_miss");
        assert!(llm.answer(&request).await.is_ok());
        assert_eq!(llm.answer(&request).await.err().expect("miss").error_type(), "cassette_miss");
    }

    /// Scenario: a service failed before it said anything, and in the middle of an answer.
    /// Guarantees: it fails again, as that error, after what it had said and when it had.
    #[tokio::test]
    async fn what_failed_fails_again() {
        let request = request("q", &["p"]);
        for (error_type, arrivals) in [("rate_limited", vec![]), ("model", vec![(1_000_000, 2)])] {
            let failure =
                RecordedFailure { error_type: error_type.to_owned(), message: "no".into() };
            let answer =
                RecordedAnswer { failure: Some(failure), ..recorded("", &arrivals, 30_000_000) };
            let start = std::time::Instant::now();
            let stream = llm(&request, answer).answer(&request).await.expect("a stream");
            let parts: Vec<_> = stream.collect().await;
            assert!(start.elapsed() >= Duration::from_millis(30));
            assert_eq!(parts.len(), arrivals.len() + 1);
            let error = parts.into_iter().next_back().expect("an end").expect_err("a failure");
            assert_eq!(error.error_type(), error_type);
        }
    }

    #[test]
    fn texts_without_arrivals_come_at_the_end() {
        assert_eq!(
            schedule(&recorded("abc", &[], 7)),
            [(7, AnswerPart::Text { text: "abc".to_owned(), tokens: 5 })]
        );
        assert_eq!(schedule(&recorded("", &[], 7)), []);
    }

    #[test]
    fn more_arrivals_than_characters_keep_their_times() {
        let schedule = schedule(&recorded("ab", &[(1, 1), (2, 1), (3, 1), (4, 1)], 9));
        assert_eq!(schedule.len(), 4);
    }

    /// Scenario: the canonical text is the key of recordings on disk.
    /// Guarantees: it does not change by accident.
    #[test]
    fn the_canonical_text_is_stable() {
        let mut request = request("q", &[]);
        request.messages.truncate(1);
        request.messages[0].content = "s".to_owned();
        assert_eq!(
            canonical(&request),
            r#"{"model":"extractive-1","messages":[{"role":"system","content":"s"}],"temperature":0.0,"max_tokens":512,"seed":42,"stream":true}"#
        );
    }
}
