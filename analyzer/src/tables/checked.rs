//! A run's files, none of which is handed out before its digest was checked.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use retake_recorder::reader::ReadError;
use retake_recorder::{RunReader, Store};
use retake_schemas::manifest::Segment;
use retake_schemas::tables::TableName;
use retake_schemas::{Digest, RunId};

use crate::error::{AnalyzeError, DamagedFile};

/// A sealed file that was checked.
#[derive(Debug, Clone)]
pub(super) struct CheckedFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

/// One run in scope.
#[derive(Debug)]
pub(crate) struct RunSource {
    reader: RunReader,
    folder: PathBuf,
}

impl RunSource {
    pub(crate) fn open(store: &Store, run_id: &RunId) -> Result<Self, AnalyzeError> {
        let reader =
            RunReader::open(store, run_id).map_err(|error| AnalyzeError::run(run_id, error))?;
        Ok(Self { reader, folder: store.run_dir(run_id) })
    }

    pub(crate) fn reader(&self) -> &RunReader {
        &self.reader
    }

    /// Rows of the table that are not sealed yet, unless there are none.
    pub(super) fn tail(&self, table: TableName) -> Option<RecordBatch> {
        Some(self.reader.tail(table)).filter(|batch| batch.num_rows() > 0)
    }

    /// The sealed files of a table. Reads every byte of files not seen before: may block.
    pub(super) fn checked_files(&self, table: TableName) -> Result<Vec<CheckedFile>, CheckError> {
        let seals: Vec<Seal> =
            self.reader.segments(table).map(|segment| self.seal(segment)).collect();
        if !seals.iter().all(|seal| known().contains(seal)) {
            self.reader.checked_files(table)?;
            known().extend(seals.iter().cloned());
        }
        let segments = self.reader.segments(table);
        Ok(segments
            .zip(seals)
            .map(|(segment, seal)| CheckedFile {
                path: seal.path,
                bytes: segment.bytes,
                rows: segment.rows,
            })
            .collect())
    }

    fn seal(&self, segment: &Segment) -> Seal {
        let path = self.folder.join(&segment.file);
        let modified = std::fs::metadata(&path).and_then(|facts| facts.modified()).ok();
        Seal { path, digest: segment.blake3, modified }
    }
}

/// Why files cannot be handed out.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Damaged(#[from] DamagedFile),
    #[error(transparent)]
    Read(ReadError),
}

impl From<ReadError> for CheckError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { run_id, file, reason } => {
                Self::Damaged(DamagedFile { run_id, file, reason })
            }
            other => Self::Read(other),
        }
    }
}

/// A file whose digest this process has seen to be right. One that was written to since is
/// another seal and is checked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seal {
    path: PathBuf,
    digest: Digest,
    modified: Option<SystemTime>,
}

/// A shell or a server opens the same runs again and again; reading each file twice per question
/// would double the cost of every question.
fn known() -> std::sync::MutexGuard<'static, HashSet<Seal>> {
    static KNOWN: LazyLock<Mutex<HashSet<Seal>>> = LazyLock::new(Mutex::default);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
