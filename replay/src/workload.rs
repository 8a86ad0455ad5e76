//! A workload: the root operations of a recorded run, with their inputs and arrival times.

use std::collections::HashMap;

use retake_recorder::reader::ReadError;
use retake_recorder::{RunReader, Store};
use retake_schemas::event::Capture;
use retake_schemas::redaction::is_redacted;
use retake_schemas::tables::{PayloadRow, SpanRow};
use retake_schemas::{Digest, RunId, convention};

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
        "cut workload: run {0} has no replayable operation; \
         a root span needs the field `retake.operation` and its input in `input.value`"
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

/// Operations in order of their due time.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The run it was cut from.
    pub source_run: RunId,
    /// The operations; `index` is their position.
    pub operations: Vec<Operation>,
}

impl Workload {
    /// Cuts the workload out of a run.
    ///
    /// # Errors
    /// See [`WorkloadError`].
    pub fn cut(store: &Store, run_id: &RunId) -> Result<Self, WorkloadError> {
        let reader = RunReader::open(store, run_id)?;
        let mut roots: Vec<(SpanRow, String)> = reader
            .rows::<SpanRow>()?
            .into_iter()
            .filter(|span| span.parent_span_id.is_none())
            .filter_map(|span| operation_kind(&span).map(|kind| (span, kind)))
            .collect();
        if roots.is_empty() {
            return Err(WorkloadError::NoOperations(run_id.clone()));
        }
        // Equal stamps keep the order of their span ids, which one recorder counts upwards.
        roots.sort_by(|(a, _), (b, _)| {
            (a.start_unix_ns, &a.span_id).cmp(&(b.start_unix_ns, &b.span_id))
        });
        let contents = contents(&reader)?;
        let missing = roots
            .iter()
            .filter(|(span, _)| span.input_ref.as_ref().is_none_or(|r| !contents.contains_key(r)))
            .count() as u64;
        if missing > 0 {
            return Err(WorkloadError::NotCaptured {
                run_id: run_id.clone(),
                capture: reader.manifest().facts.capture.as_str().to_owned(),
                missing,
                operations: roots.len() as u64,
            });
        }
        if reader.manifest().facts.capture == Capture::Redacted {
            refuse_redacted(run_id, &roots, &contents)?;
        }
        let first = roots.first().map_or(0, |(span, _)| span.start_unix_ns);
        let operations = roots
            .into_iter()
            .zip(0..)
            .map(|((span, kind), index)| {
                let (operation, source) = (operation(&span, kind, &contents), run_id.clone());
                let operation = operation.map_err(|reason| WorkloadError::BadInput {
                    run_id: source,
                    span_id: span.span_id.clone(),
                    reason,
                })?;
                Ok(Operation { index, due_ns: span.start_unix_ns - first, ..operation })
            })
            .collect::<Result<_, WorkloadError>>()?;
        Ok(Self { source_run: run_id.clone(), operations })
    }

    /// Digest of kinds, inputs and due times: equal for runs of the same workload.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for operation in &self.operations {
            for part in [operation.kind.as_str(), &operation.input.to_string()] {
                // Lengths before parts: {"ab","c"} and {"a","bc"} must differ.
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            hasher.update(&operation.due_ns.to_le_bytes());
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Whether any operation is of this kind.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.operations.iter().any(|operation| operation.kind == kind)
    }
}

fn operation_kind(span: &SpanRow) -> Option<String> {
    let attributes: serde_json::Value = serde_json::from_str(span.attributes.as_deref()?).ok()?;
    attributes.get(convention::OPERATION_KIND)?.as_str().map(str::to_owned)
}

/// A redacted run is replayed only when nothing was taken out of any input.
fn refuse_redacted(
    run_id: &RunId,
    roots: &[(SpanRow, String)],
    contents: &HashMap<String, PayloadRow>,
) -> Result<(), WorkloadError> {
    let input = |span: &SpanRow| contents.get(span.input_ref.as_ref()?)?.content.as_deref();
    let redacted = roots.iter().filter(|(span, _)| input(span).is_some_and(is_redacted)).count();
    if redacted == 0 {
        return Ok(());
    }
    Err(WorkloadError::Redacted {
        run_id: run_id.clone(),
        redacted: redacted as u64,
        operations: roots.len() as u64,
    })
}

fn contents(reader: &RunReader) -> Result<HashMap<String, PayloadRow>, WorkloadError> {
    Ok(reader
        .rows::<PayloadRow>()?
        .into_iter()
        .filter(|payload| payload.content.is_some())
        .map(|payload| (payload.digest.clone(), payload))
        .collect())
}

/// The operation of a root span; its place in the workload is the caller's. `Err` says what is
/// wrong with its input.
fn operation(
    span: &SpanRow,
    kind: String,
    contents: &HashMap<String, PayloadRow>,
) -> Result<Operation, String> {
    let payload = span.input_ref.as_ref().and_then(|digest| contents.get(digest));
    let text = payload.and_then(|p| p.content.as_deref()).unwrap_or_default();
    if payload.is_some_and(|p| p.truncated) {
        return Err("it was cut at record.payload_bytes_max; raise the limit".to_owned());
    }
    Ok(Operation {
        index: 0,
        is_barrier: kind == "ingest",
        kind,
        input: serde_json::from_str(text).map_err(|e| e.to_string())?,
        due_ns: 0,
        recorded_duration_ns: span.duration_ns,
        source: SourceLink {
            run_id: span.run_id.parse().map_err(|e| format!("{e}"))?,
            trace_id: span.trace_id.parse().map_err(|e| format!("{e}"))?,
            span_id: span.span_id.parse().map_err(|e| format!("{e}"))?,
        },
    })
}
