//! What can go wrong in a benchmark, said so that the reader knows what to do.

use std::io;
use std::path::PathBuf;

/// Why a case or the whole benchmark could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The disk or the system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The scratch folder is memory: figures of a disk would be invented.
    #[error("use scratch folder {0}: it is on tmpfs; give one on a disk with --scratch DIR")]
    ScratchInMemory(PathBuf),
    /// The door is not compiled in.
    #[error("measure {0}: built without it; build with --features new-doors")]
    NotBuilt(&'static str),
    /// retake's recorder failed.
    #[error("record with retake: {0}")]
    Retake(String),
    /// A peer failed to start or to finish.
    #[error("run {peer}: {detail}")]
    Peer {
        /// Who.
        peer: &'static str,
        /// What it said.
        detail: String,
    },
    /// A child ended without a reading.
    #[error("measure {case} in a child process: {detail}; run the child alone to see more")]
    Child {
        /// Which case.
        case: String,
        /// What became of it.
        detail: String,
    },
    /// A histogram was asked for with impossible bounds.
    #[error("make a histogram of latencies: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// Figures could not be written as JSON, or read back.
    #[error("encode or decode a reading: {0}")]
    Json(#[from] serde_json::Error),
}

impl BenchError {
    /// Makes the error for `what` done to `path`.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Makes the error for anything `peer` says.
    pub(crate) fn peer<E: std::fmt::Display>(peer: &'static str) -> impl FnOnce(E) -> Self {
        move |detail| Self::Peer { peer, detail: detail.to_string() }
    }
}
