//! Where a receiver's bodies go: into runs.

use std::sync::Arc;
use std::time::Duration;

use retake_recorder::otlp::{self, CollectError, Collector, DecodeError, Intake, Taken};

use crate::ingest::{Accepted, Encoding, Health, Ingest, Refused, Signal};

/// Bodies of many services, into a run each.
#[derive(Debug)]
pub struct Collecting {
    collector: Arc<Collector>,
}

impl Collecting {
    /// Hands bodies to `collector`.
    #[must_use]
    pub fn new(collector: Arc<Collector>) -> Self {
        Self { collector }
    }
}

impl Ingest for Collecting {
    fn ingest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Accepted, Refused> {
        match self.collector.take(signal.into(), encoding.into(), body) {
            Ok(taken) => accepted(&taken),
            Err(CollectError::Decode(error)) => Err(refused(error)),
            Err(error) => Err(Refused::Unavailable(error.to_string())),
        }
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// Bodies of one program, into one run.
#[derive(Debug)]
pub struct IntoRun {
    intake: Arc<Intake>,
}

impl IntoRun {
    /// Hands bodies to `intake`.
    #[must_use]
    pub fn new(intake: Arc<Intake>) -> Self {
        Self { intake }
    }
}

impl Ingest for IntoRun {
    fn ingest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Accepted, Refused> {
        let taken = self.intake.take(signal.into(), encoding.into(), body).map_err(refused)?;
        accepted(&taken)
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// A body of which something found no room is not acknowledged: when it comes again, what was
/// taken of it is known.
fn accepted(taken: &Taken) -> Result<Accepted, Refused> {
    if taken.dropped > 0 {
        return Err(Refused::Busy { retry_after: RETRY_AFTER });
    }
    let message = if taken.rejected > 0 {
        format!(
            "{} spans have no usable ids: a trace id of 16 bytes and a span id of 8, not all zero",
            taken.rejected
        )
    } else {
        String::new()
    };
    Ok(Accepted { accepted: taken.accepted + taken.repeated, rejected: taken.rejected, message })
}

fn refused(error: DecodeError) -> Refused {
    match error {
        DecodeError::TooLarge => Refused::TooLarge(error.to_string()),
        error => Refused::Malformed(error.to_string()),
    }
}

impl From<Signal> for otlp::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Traces => Self::Traces,
            Signal::Logs => Self::Logs,
            Signal::Metrics => Self::Metrics,
        }
    }
}

impl From<Encoding> for otlp::Encoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Protobuf => Self::Protobuf,
            Encoding::Json => Self::Json,
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
