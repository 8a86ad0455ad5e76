//! Recorded outside answers, keyed by the digest of the request.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use retake_recorder::RunReader;
use retake_recorder::reader::ReadError;
use retake_schemas::Digest;
use retake_schemas::event::{Capture, TokensSource};
use retake_schemas::redaction::is_redacted;
use retake_schemas::tables::{PayloadRow, SpanRow, TokenRow};
use serde::Serialize;

/// A recorded answer of a language model.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedAnswer {
    /// The whole text.
    pub text: String,
    /// Arrivals of output tokens: ns after the call began, and how many came together.
    pub arrivals: Vec<(i64, u32)>,
    /// From the start of the call to its end, ns.
    pub duration_ns: i64,
    /// Input tokens, if the recording has them.
    pub input_tokens: Option<i64>,
    /// Output tokens, if the recording has them.
    pub output_tokens: Option<i64>,
    /// Who counted them.
    pub tokens_source: TokensSource,
}

/// A request that was not recorded, or more often asked than recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "find recorded answer: no unused recording of request {request}; \
     a changed setting changed the request (replay with --llm live, or --on-miss live)"
)]
pub struct CassetteMiss {
    /// Digest of the request.
    pub request: Digest,
}

/// What happens to a request that the recording does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMiss {
    /// The operation fails.
    #[default]
    Fail,
    /// The model is called, and the span says so.
    Live,
}

/// How often recorded answers were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CassetteUse {
    /// Requests that the recording answered.
    pub recorded: u64,
    /// Requests that it did not know.
    pub missed: u64,
}

/// Hands out recorded answers. Each recording is used once, first in, first out per request, so
/// that the same prompt asked twice gets its two answers in order.
pub trait Cassette: Send + Sync {
    /// Takes the next recorded answer to the request whose canonical text has this digest.
    ///
    /// # Errors
    /// Nothing (left) for this request: never falls back to a live call.
    fn take(&self, request: &Digest) -> Result<RecordedAnswer, CassetteMiss>;

    /// What a target does about a miss. Only [`OnMiss::Live`] lets it call the model.
    fn on_miss(&self) -> OnMiss {
        OnMiss::Fail
    }
}

/// The recorded answers of one run.
#[derive(Debug, Default)]
pub struct RunCassette {
    answers: Mutex<HashMap<Digest, VecDeque<RecordedAnswer>>>,
    recorded: u64,
    on_miss: OnMiss,
    used: AtomicU64,
    missed: AtomicU64,
}

impl RunCassette {
    /// Loads the answers of every language-model call whose request and answer were kept.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn load(reader: &RunReader) -> Result<Self, ReadError> {
        let is_redacted_run = reader.manifest().facts.capture == Capture::Redacted;
        let contents: HashMap<String, String> = reader
            .rows::<PayloadRow>()?
            .into_iter()
            .filter(|payload| !payload.truncated)
            .filter_map(|payload| Some((payload.digest, payload.content?)))
            // An answer with something taken out is not what the model said.
            .filter(|(_, text)| !(is_redacted_run && is_redacted(text)))
            .collect();
        let mut arrivals: HashMap<(String, String), Vec<(i64, u32)>> = HashMap::new();
        for token in reader.rows::<TokenRow>()? {
            let count = u32::try_from(token.token_count).unwrap_or(u32::MAX);
            let arrival = (token.time_unix_ns, count);
            arrivals.entry((token.trace_id, token.span_id)).or_default().push(arrival);
        }
        let mut calls: Vec<SpanRow> = reader.rows::<SpanRow>()?;
        calls.retain(|span| span.kind == "llm" && span.status == "ok");
        calls.sort_by_key(|span| span.start_unix_ns);
        let mut cassette = Self::default();
        let answers = cassette.answers.get_mut();
        for call in calls {
            let key = call.input_ref.as_deref().and_then(|text| text.parse().ok());
            let text = call.output_ref.as_ref().and_then(|digest| contents.get(digest));
            let (Some(key), Some(text)) = (key, text) else { continue };
            let mut arrivals = arrivals.remove(&(call.trace_id, call.span_id)).unwrap_or_default();
            arrivals.sort_unstable();
            for (time, _) in &mut arrivals {
                *time -= call.start_unix_ns;
            }
            answers.entry(key).or_default().push_back(RecordedAnswer {
                text: text.clone(),
                arrivals,
                duration_ns: call.duration_ns,
                input_tokens: call.input_tokens,
                output_tokens: call.output_tokens,
                tokens_source: TokensSource::parse(&call.tokens_source).unwrap_or_default(),
            });
            cassette.recorded += 1;
        }
        Ok(cassette)
    }

    /// The same, with another answer to misses.
    #[must_use]
    pub fn with_on_miss(mut self, on_miss: OnMiss) -> Self {
        self.on_miss = on_miss;
        self
    }

    /// How often it answered so far.
    #[must_use]
    pub fn uses(&self) -> CassetteUse {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CassetteUse { recorded: read(&self.used), missed: read(&self.missed) }
    }

    /// Answers loaded.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded
    }
}

impl Cassette for RunCassette {
    fn take(&self, request: &Digest) -> Result<RecordedAnswer, CassetteMiss> {
        let answer = self.answers.lock().get_mut(request).and_then(VecDeque::pop_front);
        let counter = if answer.is_some() { &self.used } else { &self.missed };
        counter.fetch_add(1, Ordering::Relaxed);
        answer.ok_or(CassetteMiss { request: *request })
    }

    fn on_miss(&self) -> OnMiss {
        self.on_miss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the same prompt was asked twice and answered differently.
    /// Guarantees: R3 - answers come back in order, each once; then a miss, never a live call.
    #[test]
    fn equal_requests_get_their_answers_in_order() {
        let key = Digest::of(b"request");
        let answer = |text: &str| RecordedAnswer {
            text: text.to_owned(),
            arrivals: Vec::new(),
            duration_ns: 1,
            input_tokens: None,
            output_tokens: None,
            tokens_source: TokensSource::None,
        };
        let cassette = RunCassette {
            answers: Mutex::new(HashMap::from([(key, [answer("a"), answer("b")].into())])),
            recorded: 2,
            ..RunCassette::default()
        };
        assert_eq!(cassette.take(&key).map(|a| a.text), Ok("a".to_owned()));
        assert_eq!(cassette.take(&key).map(|a| a.text), Ok("b".to_owned()));
        assert_eq!(cassette.take(&key), Err(CassetteMiss { request: key }));
        assert!(cassette.take(&Digest::of(b"other")).is_err());
        assert_eq!(cassette.uses(), CassetteUse { recorded: 2, missed: 2 });
        assert_eq!(cassette.on_miss(), OnMiss::Fail, "unless it is asked for");
    }
}
