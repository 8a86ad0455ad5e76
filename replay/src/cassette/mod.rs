//! Recorded outside answers, keyed by the digest of the request.

mod nearest;

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use retake_recorder::RunReader;
use retake_recorder::reader::ReadError;
use retake_schemas::Digest;
use retake_schemas::event::{Capture, TokensSource};
use retake_schemas::redaction::is_redacted;
use retake_schemas::tables::{PayloadRow, SpanRow, TokenRow};
use serde::Serialize;

use self::nearest::Known;
pub use self::nearest::Nearest;

/// A recorded answer of a language model.
#[derive(Debug, Clone, PartialEq, Default)]
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
    /// Set when the call failed, after what it had said by then.
    pub failure: Option<RecordedFailure>,
}

/// How a recorded call failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordedFailure {
    /// Class of the error.
    pub error_type: String,
    /// Its text.
    pub message: String,
}

/// A request that has no recorded answer (left).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("find recorded answer to request {request}: {cause}")]
pub struct CassetteMiss {
    /// Digest of the request.
    pub request: Digest,
    /// Why there is none.
    pub cause: MissCause,
}

/// Why a request has no recorded answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissCause {
    /// It was never asked.
    NotRecorded {
        /// What was asked that is most like it; `None` when nothing was recorded at all.
        nearest: Option<Nearest>,
    },
    /// It was asked less often.
    UsedUp {
        /// How often it was.
        recorded: usize,
    },
}

impl std::fmt::Display for MissCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRecorded { nearest: None } => f.write_str("nothing was recorded"),
            Self::NotRecorded { nearest: Some(nearest) } => write!(
                f,
                "{nearest}; a changed setting changed the request (replay with --llm live, or \
                 --on-miss live)"
            ),
            Self::UsedUp { recorded } => write!(
                f,
                "it was recorded {recorded} times and is asked more often (--on-repeat last or \
                 cycle uses its answers again)"
            ),
        }
    }
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

/// What happens when a request is asked more often than it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRepeat {
    /// That is a miss: each answer is used once, in the order of the recording.
    #[default]
    Fifo,
    /// The last answer again.
    Last,
    /// All of them again, from the first.
    Cycle,
}

/// How often recorded answers were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CassetteUse {
    /// Requests that the recording answered.
    pub recorded: u64,
    /// Of these, how many got an answer that was used before ([`OnRepeat`]).
    pub repeated: u64,
    /// Requests without an answer.
    pub missed: u64,
    /// Of these, how many were never recorded.
    pub not_recorded: u64,
    /// Of these, how many were recorded, but less often.
    pub used_up: u64,
}

/// Hands out recorded answers, so that the same prompt asked twice gets its two answers in order.
pub trait Cassette: Send + Sync {
    /// Takes the next recorded answer to the request with this canonical text.
    ///
    /// # Errors
    /// Nothing (left) for this request: never falls back to a live call.
    fn take(&self, request: &str) -> Result<RecordedAnswer, CassetteMiss>;

    /// What a target does about a miss. Only [`OnMiss::Live`] lets it call the model.
    fn on_miss(&self) -> OnMiss {
        OnMiss::Fail
    }
}

/// The recorded answers of one run.
#[derive(Debug, Default)]
pub struct RunCassette {
    tapes: Mutex<HashMap<Digest, Tape>>,
    /// Texts of the requests, where they were kept: only a miss needs them.
    requests: HashMap<Digest, String>,
    known: OnceLock<Known>,
    recorded: u64,
    on_miss: OnMiss,
    on_repeat: OnRepeat,
    uses: Mutex<CassetteUse>,
}

/// Whether a recording answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Audit {
    /// Calls of language models that ended, well or not.
    pub calls: u64,
    /// Of these, how many have their request and what came of it.
    pub kept: u64,
    /// Of these, how many did not get what was recorded when they were asked again, in order.
    pub wrong: u64,
}

/// The answers to one request, in the order of the recording.
#[derive(Debug, Default)]
struct Tape {
    answers: Vec<RecordedAnswer>,
    /// How often it was asked for.
    taken: usize,
}

impl Tape {
    /// The answer that is next, and whether it was used before.
    fn next(&mut self, on_repeat: OnRepeat) -> Option<(RecordedAnswer, bool)> {
        let count = self.answers.len();
        let is_repeated = self.taken >= count;
        let place = match on_repeat {
            _ if !is_repeated => self.taken,
            OnRepeat::Fifo => return None,
            OnRepeat::Last => count.checked_sub(1)?,
            OnRepeat::Cycle => self.taken.checked_rem(count)?,
        };
        self.taken += 1;
        Some((self.answers.get(place)?.clone(), is_repeated))
    }
}

impl RunCassette {
    /// Loads the answers of every language-model call whose request and answer were kept, and the
    /// failures of those that had none.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn load(reader: &RunReader) -> Result<Self, ReadError> {
        let mut cassette = Self::default();
        cassette.fill(reader)?;
        Ok(cassette)
    }

    /// Loads a run into an empty cassette; gives the calls whose answers it has, in order, and how
    /// many there were.
    fn fill(&mut self, reader: &RunReader) -> Result<(Vec<SpanRow>, u64), ReadError> {
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
        calls.retain(is_answered);
        calls.sort_by_key(|span| span.start_unix_ns);
        let count = calls.len() as u64;
        let mut loaded = Vec::new();
        let tapes = self.tapes.get_mut();
        for call in calls {
            let Some(request) = call.input_ref.as_deref() else { continue };
            let Ok(key) = request.parse() else { continue };
            let failure = (call.status == "error").then(|| RecordedFailure {
                error_type: call.error_type.clone().unwrap_or_default(),
                message: call.error_message.clone().unwrap_or_default(),
            });
            let text = call.output_ref.as_ref().and_then(|digest| contents.get(digest)).cloned();
            if text.is_none() && failure.is_none() {
                continue;
            }
            let span = (call.trace_id.clone(), call.span_id.clone());
            let mut arrivals = arrivals.remove(&span).unwrap_or_default();
            arrivals.sort_unstable();
            for (time, _) in &mut arrivals {
                *time -= call.start_unix_ns;
            }
            if let Some(text) = contents.get(request) {
                self.requests.entry(key).or_insert_with(|| text.clone());
            }
            tapes.entry(key).or_default().answers.push(RecordedAnswer {
                text: text.unwrap_or_default(),
                arrivals,
                duration_ns: call.duration_ns,
                input_tokens: call.input_tokens,
                output_tokens: call.output_tokens,
                tokens_source: TokensSource::parse(&call.tokens_source).unwrap_or_default(),
                failure,
            });
            self.recorded += 1;
            loaded.push(call);
        }
        Ok((loaded, count))
    }

    /// Asks every recorded request again, in order, and compares what comes with what was recorded.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn audit(reader: &RunReader) -> Result<Audit, ReadError> {
        let mut cassette = Self::default();
        let (loaded, calls) = cassette.fill(reader)?;
        let mut audit = Audit { calls, ..Audit::default() };
        for call in loaded {
            let key = call.input_ref.as_deref().and_then(|text| text.parse().ok());
            let request = key.and_then(|key: Digest| cassette.requests.get(&key));
            let Some(request) = request else { continue };
            audit.kept += 1;
            let answer = cassette.take(request).ok();
            audit.wrong += u64::from(!answer.is_some_and(|answer| is_answer_of(&answer, &call)));
        }
        Ok(audit)
    }

    /// The same, with another answer to misses.
    #[must_use]
    pub fn with_on_miss(mut self, on_miss: OnMiss) -> Self {
        self.on_miss = on_miss;
        self
    }

    /// The same, with another answer to what is asked more often than recorded.
    #[must_use]
    pub fn with_on_repeat(mut self, on_repeat: OnRepeat) -> Self {
        self.on_repeat = on_repeat;
        self
    }

    /// How often it answered so far.
    #[must_use]
    pub fn uses(&self) -> CassetteUse {
        *self.uses.lock()
    }

    /// Answers loaded.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Why there is no answer (left).
    fn cause(&self, key: Digest, request: &str) -> MissCause {
        let recorded = self.tapes.lock().get(&key).map_or(0, |tape| tape.answers.len());
        if recorded > 0 {
            return MissCause::UsedUp { recorded };
        }
        let known = self.known.get_or_init(|| Known::of(&self.requests));
        MissCause::NotRecorded { nearest: known.nearest(request) }
    }
}

/// Whether a span is a call with an answer, or a failure. One that was given up has neither.
fn is_answered(span: &SpanRow) -> bool {
    span.kind == "llm" && matches!(span.status.as_str(), "ok" | "error")
}

fn is_answer_of(answer: &RecordedAnswer, call: &SpanRow) -> bool {
    let is_text_same = call
        .output_ref
        .as_ref()
        .is_none_or(|recorded| *recorded == Digest::of(answer.text.as_bytes()).to_string());
    is_text_same
        && answer.duration_ns == call.duration_ns
        && answer.failure.is_some() == (call.status == "error")
}

impl Cassette for RunCassette {
    fn take(&self, request: &str) -> Result<RecordedAnswer, CassetteMiss> {
        let key = Digest::of(request.as_bytes());
        let next = self.tapes.lock().get_mut(&key).and_then(|tape| tape.next(self.on_repeat));
        if let Some((answer, is_repeated)) = next {
            let mut uses = self.uses.lock();
            uses.recorded += 1;
            uses.repeated += u64::from(is_repeated);
            return Ok(answer);
        }
        let cause = self.cause(key, request);
        let mut uses = self.uses.lock();
        uses.missed += 1;
        match cause {
            MissCause::NotRecorded { .. } => uses.not_recorded += 1,
            MissCause::UsedUp { .. } => uses.used_up += 1,
        }
        Err(CassetteMiss { request: key, cause })
    }

    fn on_miss(&self) -> OnMiss {
        self.on_miss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> RecordedAnswer {
        RecordedAnswer { text: text.to_owned(), duration_ns: 1, ..RecordedAnswer::default() }
    }

    fn cassette(request: &str, answers: &[&str]) -> RunCassette {
        let tape = Tape { answers: answers.iter().map(|text| answer(text)).collect(), taken: 0 };
        RunCassette {
            tapes: Mutex::new(HashMap::from([(Digest::of(request.as_bytes()), tape)])),
            requests: HashMap::from([(Digest::of(request.as_bytes()), request.to_owned())]),
            recorded: answers.len() as u64,
            ..RunCassette::default()
        }
    }

    /// Scenario: REPLAY acceptance 6 - the same prompt was asked twice and answered differently; then
    /// it is asked a third time, and one with another temperature.
    /// Guarantees: R3 - answers come back in order, each once; then a miss that says why, counted by
    /// cause, and never a live call.
    #[test]
    fn equal_requests_get_their_answers_in_order() {
        let request = r#"{"model":"m","temperature":0.2}"#;
        let cassette = cassette(request, &["a", "b"]);
        assert_eq!(cassette.take(request).map(|a| a.text), Ok("a".to_owned()));
        assert_eq!(cassette.take(request).map(|a| a.text), Ok("b".to_owned()));
        let third = cassette.take(request).unwrap_err();
        assert_eq!(third.cause, MissCause::UsedUp { recorded: 2 });
        let other = cassette.take(r#"{"model":"m","temperature":0.3}"#).unwrap_err();
        let MissCause::NotRecorded { nearest: Some(nearest) } = &other.cause else {
            panic!("{other}")
        };
        assert_eq!((nearest.path.as_str(), nearest.request), ("/temperature", third.request));
        assert!(other.to_string().contains("/temperature"), "{other}");
        let expected =
            CassetteUse { recorded: 2, repeated: 0, missed: 2, not_recorded: 1, used_up: 1 };
        assert_eq!(cassette.uses(), expected);
        assert_eq!(cassette.on_miss(), OnMiss::Fail, "unless it is asked for");
    }

    /// Scenario: a workload that is replayed more often than it was recorded.
    /// Guarantees: answers are used again only as asked for, and that is counted.
    #[test]
    fn answers_are_used_again_as_asked_for() {
        for (on_repeat, expected) in
            [(OnRepeat::Last, ["a", "b", "b", "b"]), (OnRepeat::Cycle, ["a", "b", "a", "b"])]
        {
            let cassette = cassette("{}", &["a", "b"]).with_on_repeat(on_repeat);
            let texts: Vec<_> = (0..4).map(|_| cassette.take("{}").unwrap().text).collect();
            assert_eq!(texts, expected, "{on_repeat:?}");
            assert_eq!((cassette.uses().recorded, cassette.uses().repeated), (4, 2));
        }
        assert!(RunCassette::default().with_on_repeat(OnRepeat::Cycle).take("{}").is_err());
    }
}
