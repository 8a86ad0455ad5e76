//! A run in scope, and which of its files are known to be what was sealed.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use retake_recorder::{RunReader, SealedFile, Store};
use retake_schemas::tables::TableName;
use retake_schemas::{Digest, RunId};

use crate::error::AnalyzeError;

/// One run in scope.
#[derive(Debug)]
pub(crate) struct RunSource {
    reader: RunReader,
}

impl RunSource {
    pub(crate) fn open(store: &Store, run_id: &RunId) -> Result<Self, AnalyzeError> {
        let reader =
            RunReader::open(store, run_id).map_err(|error| AnalyzeError::run(run_id, error))?;
        Ok(Self { reader })
    }

    pub(crate) fn reader(&self) -> &RunReader {
        &self.reader
    }

    /// Rows of the table that are not sealed yet, unless there are none.
    pub(crate) fn tail(&self, table: TableName) -> Option<RecordBatch> {
        Some(self.reader.tail(table)).filter(|batch| batch.num_rows() > 0)
    }
}

/// A file whose digest this process has seen to be right. One that was written to since is
/// another seal and is checked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Seal {
    path: PathBuf,
    digest: Digest,
    modified: Option<SystemTime>,
}

impl Seal {
    /// That of a file which was opened as `file`.
    pub(super) fn of(sealed: &SealedFile, file: &File) -> Self {
        Self {
            path: sealed.path().to_owned(),
            digest: sealed.segment().blake3,
            modified: file.metadata().and_then(|facts| facts.modified()).ok(),
        }
    }

    /// Whether it was seen to be right.
    pub(super) fn is_known(&self) -> bool {
        known().contains(self)
    }

    /// It was seen to be right just now.
    pub(super) fn remember(self) {
        known().insert(self);
    }
}

/// A shell or a server opens the same runs again and again; reading each file twice per question
/// would double the cost of every question.
fn known() -> std::sync::MutexGuard<'static, HashSet<Seal>> {
    static KNOWN: LazyLock<Mutex<HashSet<Seal>>> = LazyLock::new(Mutex::default);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
