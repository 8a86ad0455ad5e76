//! Why a run cannot be compacted.

use std::path::PathBuf;

use retake_schemas::RunId;

use crate::store::StoreError;

/// Why a run cannot be compacted. It is then as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The store, the run or its lock.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run has a journal that nobody has sealed.
    #[error("compact run {0}: it was never finished; `retake recover` repairs it")]
    Unfinished(RunId),
    /// A segment is not what was sealed.
    #[error("compact run {run_id}: {file}: {reason}; `retake verify {run_id}` lists all damage")]
    Damaged {
        /// The run.
        run_id: RunId,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Parquet cannot be read or written.
    #[error("merge into {}: {source}", path.display())]
    Parquet {
        /// The new file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: parquet::errors::ParquetError,
    },
}
