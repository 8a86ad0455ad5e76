//! A workload: operations with their arrival times, inputs as far as they are known, and shapes.
//!
//! It is cut from a recorded run ([`Workload::cut`]) or imported from a public trace
//! ([`import`]), kept in one Parquet file ([`file`]), sampled by whole sessions and scaled
//! ([`reshape`]), summed up ([`stats`]), and replayed.
//!
//! Times are nanoseconds after the first operation. Operations stand in the order of their due
//! times; equal ones keep the order in which they were recorded.

pub mod file;
pub mod import;
pub mod reshape;
pub mod stats;

mod calls;
mod cut;
mod operation;

pub use cut::{CutShapes, Operations, WorkloadError};
pub use operation::{Part, PartRole, Shape};

use std::collections::BTreeSet;

use retake_schemas::{Digest, RunId};

use crate::target::Operation;

/// Operations in order of their due time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workload {
    /// The run it was cut from; `None` for one imported from a trace.
    pub source_run: Option<RunId>,
    /// The operations; `index` is their position.
    pub operations: Vec<Operation>,
    /// Largest step of which every recorded stamp is a multiple, ns: what the recording's clock
    /// could tell apart. 1 when it could tell everything.
    pub stamp_resolution_ns: i64,
    /// Where it came from, for people: a format's name, or `run`.
    pub origin: String,
}

/// A kind of operation that a workload does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("take operations of kind {kind:?}: there is none; the workload has {known}")]
pub struct NoSuchKind {
    /// As it was asked for.
    pub kind: String,
    /// Those it has.
    pub known: String,
}

impl Workload {
    /// Digest of kinds, inputs, due times, and shapes: equal for recordings of the same workload.
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
            operation.shape.hash_into(&mut hasher);
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The operations of these kinds alone; barriers and places of the others go with them.
    ///
    /// # Errors
    /// There is none of one of the kinds; says which there are.
    pub fn only(mut self, kinds: &[String]) -> Result<Self, NoSuchKind> {
        if let Some(kind) = kinds.iter().find(|kind| !self.has(kind)) {
            let known: BTreeSet<_> = self.operations.iter().map(|o| o.kind.as_str()).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(NoSuchKind { kind: kind.clone(), known });
        }
        self.operations.retain(|operation| kinds.contains(&operation.kind));
        let first_ns = self.operations.first().map_or(0, |operation| operation.due_ns);
        for operation in &mut self.operations {
            operation.due_ns -= first_ns;
        }
        self.settle();
        Ok(self)
    }

    /// Whether any operation is of this kind.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.operations.iter().any(|operation| operation.kind == kind)
    }

    /// From the first arrival to the last, ns.
    #[must_use]
    pub fn span_ns(&self) -> i64 {
        let due = |operation: Option<&Operation>| operation.map_or(0, |o| o.due_ns);
        due(self.operations.last()) - due(self.operations.first())
    }

    /// Puts the operations into their order and numbers them. `index` must say in which order
    /// they were recorded; links to parents follow.
    pub(crate) fn settle(&mut self) {
        self.operations.sort_by_key(|operation| (operation.due_ns, operation.index));
        let mut position = std::collections::HashMap::with_capacity(self.operations.len());
        for (operation, now) in self.operations.iter().zip(0u64..) {
            position.insert(operation.index, now);
        }
        for (operation, now) in self.operations.iter_mut().zip(0u64..) {
            operation.index = now;
            operation.shape.parent = operation.shape.parent.and_then(|p| position.get(&p).copied());
        }
    }
}
