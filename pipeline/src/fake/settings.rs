//! What the server pretends to be.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use retake_schemas::settings::LimitSettings;
use serde::{Deserialize, Serialize};

/// Settings of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeSettings {
    /// Where to listen: a loopback address, port 0 for any.
    pub listen: SocketAddr,
    /// How long answers take.
    pub latency: Latency,
    /// Share of requests that fail, 0 to 1.
    pub failure_rate: f64,
    /// How they fail; each is as likely as the others.
    pub failures: Vec<FailureKind>,
    /// Requests and tokens a minute, beyond which it answers 429; `concurrency` too.
    pub limits: LimitSettings,
    /// Width of embeddings when a request names none.
    pub dim: usize,
    /// Replies to prompts, the first that fits; without one the answer is made of the passages.
    pub replies: Vec<Reply>,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

impl Default for FakeSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Latency::default(),
            failure_rate: 0.0,
            failures: vec![FailureKind::Unavailable],
            limits: LimitSettings::default(),
            dim: 384,
            replies: Vec::new(),
            seed: 42,
        }
    }
}

/// How long answers take.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// From the request to the first token, or to the whole of an answer that has none.
    pub ttft: Duration,
    /// From one token to the next.
    pub inter_token: Duration,
    /// More for every thousand input tokens, before the first token.
    pub per_thousand_input: Duration,
    /// Spread around these: the standard deviation as a share of the mean, 0 for none. Times are
    /// log-normal, with the long tail that services have.
    pub jitter: f64,
}

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// 500.
    Internal,
    /// 503.
    Unavailable,
    /// 429 with `Retry-After`, whatever the limits are.
    RateLimited,
    /// 400, which no retry helps.
    BadRequest,
    /// The connection is closed without an answer.
    Reset,
    /// The answer stops in its middle.
    Cut,
    /// The answer is no JSON.
    Garbage,
    /// No answer comes, until the client gives up.
    Stall,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Internal,
        Self::Unavailable,
        Self::RateLimited,
        Self::BadRequest,
        Self::Reset,
        Self::Cut,
        Self::Garbage,
        Self::Stall,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "500",
            Self::Unavailable => "503",
            Self::RateLimited => "429",
            Self::BadRequest => "400",
            Self::Reset => "reset",
            Self::Cut => "cut",
            Self::Garbage => "garbage",
            Self::Stall => "stall",
        }
    }
}

impl FromStr for FailureKind {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            SettingError(format!("read failure {text:?}: expected one of {}", known.join(", ")))
        })
    }
}

/// A reply to every prompt that holds a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// What the prompt must hold.
    pub contains: String,
    /// What is answered.
    pub reply: String,
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(pub(crate) String);

impl FakeSettings {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), SettingError> {
        let refused = |reason: String| Err(SettingError(reason));
        if !self.listen.ip().is_loopback() {
            return refused(format!(
                "listen at {}: a fake server listens on loopback only, such as 127.0.0.1:8319",
                self.listen
            ));
        }
        if !(0.0..=1.0).contains(&self.failure_rate) {
            return refused(format!("use failure rate {}: must be from 0 to 1", self.failure_rate));
        }
        if self.failure_rate > 0.0 && self.failures.is_empty() {
            return refused("use failure rate: name at least one kind of failure".to_owned());
        }
        if !(0.0..=JITTER_MAX).contains(&self.latency.jitter) {
            return refused(format!("use jitter: must be from 0 to {JITTER_MAX}"));
        }
        if self.dim == 0 || self.dim > DIM_MAX {
            return refused(format!("use width of embeddings: must be from 1 to {DIM_MAX}"));
        }
        Ok(())
    }
}

/// Beyond it nearly all answers come at once and a few never.
const JITTER_MAX: f64 = 10.0;
/// Widest embedding; real ones end at 4,096.
pub(crate) const DIM_MAX: usize = 16_000;
