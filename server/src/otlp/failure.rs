//! Why a body was not taken, and what that is called in HTTP and in gRPC.

use std::time::Duration;

use hyper::StatusCode;

use crate::ingest::Refused;
use crate::net::body::ReadError;
use crate::net::budget::Full;
use crate::otlp::inflate::InflateError;

/// A body that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// For metrics; one of a few words.
    pub(crate) cause: &'static str,
    /// When to come again, if that may help.
    pub(crate) retry_after: Option<Duration>,
}

/// Kinds of failure. Clients act by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    TooLarge,
    UnknownFormat,
    UnknownMethod,
    Unauthenticated,
    Forbidden,
    TimedOut,
    Busy,
    Unavailable,
    Internal,
}

impl Kind {
    pub(crate) const fn http(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownFormat => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnknownMethod => StatusCode::NOT_FOUND,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `google.rpc.Code`.
    pub(crate) const fn grpc(self) -> u16 {
        match self {
            Self::Malformed => 3,
            Self::TimedOut => 4,
            Self::Forbidden => 7,
            // Exporters tell "come again" from "too large" by the `RetryInfo` of the former.
            Self::TooLarge | Self::Busy => 8,
            Self::UnknownFormat | Self::UnknownMethod => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, cause: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause, retry_after: None }
    }

    pub(crate) fn busy(cause: &'static str, message: &str) -> Self {
        let retry_after = Some(RETRY_AFTER);
        Self { retry_after, ..Self::new(Kind::Busy, cause, message) }
    }

    pub(crate) fn unavailable(cause: &'static str, message: impl Into<String>) -> Self {
        let retry_after = Some(RETRY_AFTER);
        Self { retry_after, ..Self::new(Kind::Unavailable, cause, message) }
    }

    pub(crate) fn full(full: Full, bytes_max: usize) -> Self {
        match full {
            Full::TooLarge => Self::new(
                Kind::TooLarge,
                "too_large",
                format!("the body has more than {bytes_max} bytes, as sent or decompressed"),
            ),
            Full::Busy => Self::busy("bodies", "too many bytes of bodies are in progress"),
        }
    }

    pub(crate) fn unread(error: &ReadError, bytes_max: usize) -> Self {
        match error {
            ReadError::Full(full) => Self::full(*full, bytes_max),
            ReadError::Idle => Self::new(Kind::TimedOut, "slow", "nothing more of the body came"),
            ReadError::Slow => Self::new(Kind::TimedOut, "slow", "the body took too long"),
            ReadError::Crumbled => {
                Self::new(Kind::TooLarge, "too_large", "the body came in too many parts")
            }
            ReadError::Broken => {
                Self::new(Kind::Malformed, "malformed", "the body ended before its end")
            }
        }
    }

    pub(crate) fn not_inflated(error: InflateError, coding: &str, bytes_max: usize) -> Self {
        match error {
            InflateError::Full(full) => Self::full(full, bytes_max),
            InflateError::Broken => {
                Self::new(Kind::Malformed, "malformed", format!("the body is not whole {coding}"))
            }
        }
    }

    /// Whole seconds to wait, at least one: `Retry-After` knows no less.
    pub(crate) fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after
            .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
            .map(|s| s.max(1))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(message) => Self::new(Kind::Malformed, "malformed", message),
            Refused::TooLarge(message) => Self::new(Kind::TooLarge, "too_large", message),
            Refused::Busy { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(Kind::Busy, "ingest", "there is no room now")
            },
            Refused::Unavailable(message) => Self::unavailable("unavailable", message),
        }
    }
}

/// A queue of this machine is empty again within this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
