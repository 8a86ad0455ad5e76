//! OpenTelemetry in: bodies of OTLP requests become events of a run.
//!
//! Protobuf and OTLP/JSON are read into the same borrowed messages, inside a budget, and
//! translated span by span. Nothing of a body is recorded before all of it was read, so a body that
//! is refused leaves nothing behind. What each convention's names mean is the attribute mapping of
//! `retake_schemas`.
//!
//! An exporter that got no answer sends its batch again. Within the last
//! [`IntakeSettings::window`] spans of a run, one that was taken already changes nothing.

mod collector;
mod contents;
mod documents;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod import;
mod intake;
mod json;
mod logs;
mod messages;
mod metrics;
mod model;
mod proto;
mod rules;
mod span;
#[cfg(test)]
mod tests;
mod window;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use retake_schemas::event::TokensSource;

pub(crate) use window::Window;

pub use collector::{CollectError, Collector, CollectorSettings, OpenRun};
pub use import::{ImportError, ImportLimits, Imported, import};
pub use intake::{Intake, IntakeCounts, IntakeSettings, Taken};

/// Which of OTLP's services a body is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// `ExportTraceServiceRequest`, or `TracesData`.
    Traces,
    /// `ExportLogsServiceRequest`, or `LogsData`.
    Logs,
    /// `ExportMetricsServiceRequest`, or `MetricsData`.
    Metrics,
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// Protocol Buffers.
    Protobuf,
    /// proto3's JSON with OTLP's exceptions (ids in hex).
    Json,
}

/// A body that is not taken. Nothing of it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not what its encoding says.
    #[error("not an OTLP request: {0}")]
    Malformed(Cow<'static, str>),
    /// It holds more than may be made of one body.
    #[error("too many spans, attributes or values in one request; send smaller batches")]
    TooLarge,
    /// Values are nested deeper than any exporter nests them.
    #[error("values are nested more than {} deep", model::DEPTH_MAX)]
    TooDeep,
}

/// Counts the tokens of a text for a model (`model`, `text`), and says whether that is the model's
/// own count ([`TokensSource::Tokenizer`]) or an [estimate](TokensSource::Estimate). For calls whose
/// instrumentation states none.
pub type CountTokens = Arc<dyn Fn(&str, &str) -> (u64, TokensSource) + Send + Sync>;

/// Attribute names of an application's own, and the known names they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    known: BTreeMap<String, String>,
}

impl Aliases {
    /// Names as found to names of the attribute mapping.
    #[must_use]
    pub fn new(known: BTreeMap<String, String>) -> Self {
        Self { known }
    }

    fn resolve<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.known.get(name) {
            Some(known) => Cow::Owned(known.clone()),
            None => Cow::Borrowed(name),
        }
    }
}
