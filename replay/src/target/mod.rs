//! What a replay drives: anything that can execute the operations of a workload.

mod answer;
mod ending;
mod program;
mod service;
mod settings;
mod spans;
mod sse;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use retake_schemas::{RunId, SpanId, TraceId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub(crate) use self::spans::words;

pub use self::ending::CallEnd;
pub use self::program::{ProgramError, ProgramTarget};
pub use self::service::{ServiceError, ServiceTarget};
pub use self::settings::{ServiceSettings, SettingError, pairs};
use crate::cassette::Cassette;
use crate::workload::Shape;

/// One root operation of a workload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Operation {
    /// Position in the workload, from 0, in order of due time.
    pub index: u64,
    /// What to do, in the target's words (`ingest`, `query`).
    pub kind: String,
    /// Its input, as the target recorded it; null when only its shape is known.
    pub input: serde_json::Value,
    /// When it was due in the source run, ns after the first operation.
    pub due_ns: i64,
    /// How long it took in the source run, ns; 0 when that is not known.
    pub recorded_duration_ns: i64,
    /// Whether later operations must wait until this one has ended (an ingest that later queries
    /// read from).
    pub is_barrier: bool,
    /// The operation it repeats; `None` for one out of a public trace.
    pub source: Option<SourceLink>,
    /// Lengths and its place in a session, as far as known.
    pub shape: Shape,
}

/// The recorded operation that a replayed one repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLink {
    /// Its run.
    pub run_id: RunId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its root span.
    pub span_id: SpanId,
}

/// What a target needs to know beside the operation.
#[derive(Clone)]
pub struct OperationContext {
    /// When the operation was due in this replay, ns since the Unix epoch.
    pub due_unix_ns: i64,
    /// Cancelled when the user ends the replay.
    pub cancellation: CancellationToken,
    /// Recorded LLM answers, when the LLM stage is `recorded`; a target must then make no live
    /// LLM call, unless it is [`Cassette::on_miss`] that lets it.
    pub cassette: Option<Arc<dyn Cassette>>,
    /// What the target made of the operation before it was due.
    pub prepared: Prepared,
}

/// What [`Target::prepare`] made, if it came to it in time.
#[derive(Clone, Default)]
pub struct Prepared(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Prepared {
    /// Something made beforehand.
    pub fn new<T: Send + 'static>(made: T) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(made)))))
    }

    /// Takes it out. `None` when there is nothing of this type, or no longer.
    #[must_use]
    pub fn take<T: 'static>(&self) -> Option<T> {
        self.0.lock().take()?.downcast().ok().map(|made| *made)
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Prepared").field(&self.0.lock().is_some()).finish()
    }
}

impl std::fmt::Debug for OperationContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperationContext")
            .field("due_unix_ns", &self.due_unix_ns)
            .field("cassette", &self.cassette.is_some())
            .finish_non_exhaustive()
    }
}

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The target tried and failed.
    #[error("{message}")]
    Failed {
        /// Class of the error, as recorded in `error_type`.
        error_type: String,
        /// Text of the error.
        message: String,
    },
    /// The target does not know how to do this kind of operation, or not with this input.
    #[error("{0}")]
    Refused(String),
    /// The replay was ended by the user.
    #[error("cancelled")]
    Cancelled,
}

impl TargetError {
    /// Class of the error, as recorded in `error_type`.
    #[must_use]
    pub fn error_type(&self) -> &str {
        match self {
            Self::Failed { error_type, .. } => error_type,
            Self::Refused(_) => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Executes operations. Implementations record themselves with `tracing`; the root span of an
/// operation carries the fields of `retake_schemas::convention` that link it to its source.
#[async_trait]
pub trait Target: Send + Sync {
    /// Name for messages and the run's settings.
    fn name(&self) -> &str;

    /// The settings in force, by dotted name, without secrets.
    fn settings(&self) -> BTreeMap<String, serde_json::Value>;

    /// Whether an operation mostly waits for others, as for a service's answer. Such operations are
    /// driven on one thread, where nothing stands between the moment they are due and the moment
    /// they begin. One that computes would hold up all others there.
    fn waits_on_io(&self) -> bool {
        false
    }

    /// Makes what can be made of an operation before it is due, such as the bytes to send, so that
    /// it neither delays this operation nor, where one thread drives them all, the next. Called on a
    /// thread of its own and shortly before, if there is the time: [`OperationContext::prepared`] has
    /// what it made, or nothing.
    fn prepare(&self, _operation: &Operation) -> Prepared {
        Prepared::default()
    }

    /// Executes one operation to its end.
    ///
    /// # Errors
    /// See [`TargetError`].
    async fn execute(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError>;
}
