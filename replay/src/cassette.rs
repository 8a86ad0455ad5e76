//! Recorded outside answers, keyed by the digest of the request.

use retake_schemas::Digest;

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
}

/// A request that was not recorded, or more often asked than recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "find recorded answer: no unused recording of request {request}; \
     a changed setting changed the request (replay the llm stage live instead)"
)]
pub struct CassetteMiss {
    /// Digest of the request.
    pub request: Digest,
}

/// Hands out recorded answers. Each recording is used once, first in, first out per request, so
/// that the same prompt asked twice gets its two answers in order.
pub trait Cassette: Send + Sync {
    /// Takes the next recorded answer to the request whose canonical text has this digest.
    ///
    /// # Errors
    /// Nothing (left) for this request: never falls back to a live call.
    fn take(&self, request: &Digest) -> Result<RecordedAnswer, CassetteMiss>;
}
