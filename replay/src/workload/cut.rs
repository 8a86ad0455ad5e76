//! Cutting a workload out of a recorded run: its root operations, with inputs and arrival times.

use std::collections::HashMap;

use retake_recorder::reader::ReadError;
use retake_recorder::{RunReader, Store};
use retake_schemas::event::Capture;
use retake_schemas::redaction::is_redacted;
use retake_schemas::tables::{PayloadRow, SpanRow};
use retake_schemas::{RunId, convention};
use serde_json::Value as Json;

use super::{Shape, Workload, calls};
use crate::target::{Operation, SourceLink};

/// Why no workload can be cut out of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The run has no operations that a replay could repeat.
    #[error(
        "cut workload: run {0} has no replayable operation; it needs calls of language models, \
         or root spans with the field `retake.operation` and their input in `input.value` \
         (of a program recorded from outside, root spans with any input: --operations requests)"
    )]
    NoOperations(RunId),
    /// The inputs were not kept.
    #[error(
        "cut workload: run {run_id} was recorded with capture {capture:?}, which does not keep \
         inputs ({missing} of {operations} are missing); record it again with --capture full"
    )]
    NotCaptured {
        /// The run.
        run_id: RunId,
        /// Its capture policy.
        capture: String,
        /// Operations without an input.
        missing: u64,
        /// Operations in all.
        operations: u64,
    },
    /// Inputs are not the original ones.
    #[error(
        "cut workload: run {run_id} was recorded with capture \"redacted\", and redaction changed \
         {redacted} of {operations} inputs, so a replay would ask something else; record it again \
         with --capture full"
    )]
    Redacted {
        /// The run.
        run_id: RunId,
        /// Operations whose input was changed.
        redacted: u64,
        /// Operations in all.
        operations: u64,
    },
    /// An input is not what the recorder wrote.
    #[error("cut workload: input of operation {span_id} of run {run_id} cannot be read: {reason}")]
    BadInput {
        /// The run.
        run_id: RunId,
        /// The root span.
        span_id: String,
        /// What is wrong.
        reason: String,
    },
}

/// What is repeated of a run whose program knows nothing of retake. One that does says itself what
/// its operations are, and then this decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Operations {
    /// Its calls of models, for a replay against another model.
    #[default]
    Calls,
    /// What it was asked: root spans with their input, for a replay of the program itself.
    Requests,
}

/// A workload of which not every input need be known, and when it began.
#[derive(Debug, Clone, PartialEq)]
pub struct CutShapes {
    /// The workload.
    pub workload: Workload,
    /// Start of its first operation, ns since the Unix epoch.
    pub first_unix_ns: i64,
    /// Operations whose input was not kept, or cannot be used.
    pub without_input: u64,
}

impl Workload {
    /// Cuts the workload out of a run, with every input.
    ///
    /// # Errors
    /// See [`WorkloadError`].
    pub fn cut(
        store: &Store,
        run_id: &RunId,
        operations: Operations,
    ) -> Result<Self, WorkloadError> {
        let cutting = Cutting::open(store, run_id, operations)?;
        let capture = cutting.reader.manifest().facts.capture;
        let missing = cutting.missing();
        if missing > 0 {
            return Err(WorkloadError::NotCaptured {
                run_id: run_id.clone(),
                capture: capture.as_str().to_owned(),
                missing,
                operations: cutting.roots.len() as u64,
            });
        }
        if capture == Capture::Redacted {
            refuse_redacted(run_id, &cutting.roots, &cutting.contents)?;
        }
        let mut operations = Vec::with_capacity(cutting.roots.len());
        for root in &cutting.roots {
            let operation = root.operation(&cutting.contents);
            operations.push(operation.map_err(|reason| WorkloadError::BadInput {
                run_id: run_id.clone(),
                span_id: root.span.span_id.clone(),
                reason,
            })?);
        }
        Ok(cutting.workload(operations))
    }

    /// Cuts the workload out of a run as far as it is known: an operation whose input was not kept,
    /// or was changed by redaction, has its shape alone.
    ///
    /// # Errors
    /// The run cannot be read, or has no operations.
    pub fn cut_shapes(
        store: &Store,
        run_id: &RunId,
        operations: Operations,
    ) -> Result<CutShapes, WorkloadError> {
        let cutting = Cutting::open(store, run_id, operations)?;
        let is_redacted_run = cutting.reader.manifest().facts.capture == Capture::Redacted;
        let mut without_input = 0;
        let mut operations = Vec::with_capacity(cutting.roots.len());
        for root in &cutting.roots {
            let is_changed = is_redacted_run && root.is_redacted(&cutting.contents);
            let whole = if is_changed { None } else { root.operation(&cutting.contents).ok() };
            operations.push(match whole {
                Some(operation) => operation,
                None => {
                    without_input += 1;
                    root.shape_only()
                }
            });
        }
        let first_unix_ns = cutting.first_unix_ns();
        Ok(CutShapes { workload: cutting.workload(operations), first_unix_ns, without_input })
    }
}

/// A run's operations before they are made into a workload.
struct Cutting {
    reader: RunReader,
    roots: Vec<Root>,
    contents: Contents,
}

type Contents = HashMap<String, PayloadRow>;

impl Cutting {
    fn open(store: &Store, run_id: &RunId, operations: Operations) -> Result<Self, WorkloadError> {
        let reader = RunReader::open(store, run_id)?;
        let mut spans = reader.rows::<SpanRow>()?;
        // Equal stamps keep the order of their span ids, which one recorder counts upwards.
        spans.sort_by(|a, b| (a.start_unix_ns, &a.span_id).cmp(&(b.start_unix_ns, &b.span_id)));
        let mut roots: Vec<Root> = Vec::new();
        for span in spans.iter().filter(|span| span.parent_span_id.is_none()) {
            let kind = operation_kind(span);
            roots.extend(kind.map(|kind| Root {
                span: span.clone(),
                call: calls::Call::of_replayed(&kind),
                kind,
            }));
        }
        if roots.is_empty() {
            roots = match operations {
                Operations::Calls => calls::of(spans),
                Operations::Requests => requests(spans),
            };
        }
        if roots.is_empty() {
            return Err(WorkloadError::NoOperations(run_id.clone()));
        }
        let contents = contents(&reader)?;
        Ok(Self { reader, roots, contents })
    }

    fn missing(&self) -> u64 {
        let is_missing = |root: &&Root| {
            root.span.input_ref.as_ref().is_none_or(|r| !self.contents.contains_key(r))
        };
        self.roots.iter().filter(is_missing).count() as u64
    }

    fn first_unix_ns(&self) -> i64 {
        self.roots.first().map_or(0, |root| root.span.start_unix_ns)
    }

    fn workload(&self, mut operations: Vec<Operation>) -> Workload {
        let first_unix_ns = self.first_unix_ns();
        for ((operation, root), index) in operations.iter_mut().zip(&self.roots).zip(0..) {
            operation.index = index;
            operation.due_ns = root.span.start_unix_ns - first_unix_ns;
        }
        let mut workload = Workload {
            source_run: Some(self.reader.run_id().clone()),
            operations,
            stamp_resolution_ns: 1,
            origin: "run".to_owned(),
        };
        super::import::link_sessions(&mut workload);
        workload
    }
}

/// A span that is an operation.
pub(super) struct Root {
    pub(super) span: SpanRow,
    pub(super) kind: String,
    /// How a call of a model is repeated; `None` for any other operation.
    pub(super) call: Option<calls::Call>,
}

impl Root {
    /// The operation with its input; its place in the workload is the caller's. `Err` says what is
    /// wrong with the input.
    fn operation(&self, contents: &Contents) -> Result<Operation, String> {
        let payload = self.span.input_ref.as_ref().and_then(|digest| contents.get(digest));
        let text = payload.and_then(|p| p.content.as_deref()).unwrap_or_default();
        if payload.is_some_and(|p| p.truncated) {
            return Err("it was cut at record.payload_bytes_max; raise the limit".to_owned());
        }
        let input = match &self.call {
            Some(call) => call.request(&self.span, text)?,
            None if payload.is_none() => return Err("it was not kept".to_owned()),
            // Instrumentations record a question as it is, and arguments as JSON.
            None => serde_json::from_str(text)
                .ok()
                .filter(|json: &Json| json.is_object() || json.is_array())
                .unwrap_or_else(|| text.into()),
        };
        Ok(Operation { input, ..self.shape_only() })
    }

    /// The operation without its input.
    fn shape_only(&self) -> Operation {
        let span = &self.span;
        let ids = (span.run_id.parse(), span.trace_id.parse(), span.span_id.parse());
        let source = match ids {
            (Ok(run_id), Ok(trace_id), Ok(span_id)) => {
                Some(SourceLink { run_id, trace_id, span_id })
            }
            // Ids that the recorder wrote are ids.
            _ => None,
        };
        Operation {
            source,
            is_barrier: self.kind == "ingest",
            kind: self.kind.clone(),
            recorded_duration_ns: span.duration_ns,
            shape: match &self.call {
                Some(call) => call.shape(span),
                None => Shape { session: span.session_id.clone(), ..Shape::default() },
            },
            ..Operation::default()
        }
    }

    fn is_redacted(&self, contents: &Contents) -> bool {
        let payload = self.span.input_ref.as_ref().and_then(|digest| contents.get(digest));
        payload.and_then(|payload| payload.content.as_deref()).is_some_and(is_redacted)
    }
}

/// What a program was asked: its root spans that have an input, by the names it gave them.
fn requests(spans: Vec<SpanRow>) -> Vec<Root> {
    let is_request = |span: &SpanRow| span.parent_span_id.is_none() && span.input_ref.is_some();
    let root = |span: SpanRow| Root { kind: span.name.clone(), call: None, span };
    spans.into_iter().filter(is_request).map(root).collect()
}

fn operation_kind(span: &SpanRow) -> Option<String> {
    let attributes: Json = serde_json::from_str(span.attributes.as_deref()?).ok()?;
    attributes.get(convention::OPERATION_KIND)?.as_str().map(str::to_owned)
}

/// A redacted run is replayed only when nothing was taken out of any input.
fn refuse_redacted(
    run_id: &RunId,
    roots: &[Root],
    contents: &Contents,
) -> Result<(), WorkloadError> {
    let redacted = roots.iter().filter(|root| root.is_redacted(contents)).count() as u64;
    if redacted == 0 {
        return Ok(());
    }
    Err(WorkloadError::Redacted {
        run_id: run_id.clone(),
        redacted,
        operations: roots.len() as u64,
    })
}

fn contents(reader: &RunReader) -> Result<Contents, WorkloadError> {
    Ok(reader
        .rows::<PayloadRow>()?
        .into_iter()
        .filter(|payload| payload.content.is_some())
        .map(|payload| (payload.digest.clone(), payload))
        .collect())
}
