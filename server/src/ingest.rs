//! What a receiver hands bodies to.

use std::time::Duration;

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metric data points.
    Metrics,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// The word used in paths and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// OTLP's own flavour of protobuf JSON.
    Json,
}

/// A body that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Spans, log records or data points that are durable now.
    pub accepted: u64,
    /// Those that were refused one by one; the sender must not send them again.
    pub rejected: u64,
    /// Why, for the sender's people. A message without rejections is a warning.
    pub message: String,
}

/// A body that was not taken: nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// It cannot be read; sending it again cannot help.
    Malformed(String),
    /// It is over a limit; sending it again cannot help.
    TooLarge(String),
    /// There is no room now.
    Busy {
        /// When to come again.
        retry_after: Duration,
    },
    /// Nothing can be taken now, such as when the disk is full.
    Unavailable(String),
}

/// Whether bodies can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// They can.
    Ready,
    /// They cannot, and why.
    Unready(String),
}

/// Takes bodies. Called on threads that may block, at most
/// [`Limits::ingests_max`](crate::Limits::ingests_max) of them at once.
pub trait Ingest: Send + Sync + 'static {
    /// Takes one whole, decompressed body; returns only when it is durable.
    ///
    /// A sender that heard no answer sends again, also after this returned `Ok`.
    ///
    /// # Errors
    /// Nothing of the body was written; see [`Refused`].
    fn ingest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Accepted, Refused>;

    /// Whether bodies can be taken. Called on the network's threads, so it must not block.
    fn health(&self) -> Health;
}
