//! Why a run cannot be copied.

use retake_schemas::RunId;

use super::redact;
use crate::store::StoreError;

/// Why a run cannot be copied to or from another place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The local store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The URL cannot be used.
    #[error("use {url}: {reason}")]
    Url {
        /// The URL, without anything secret.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The place refused or could not be reached.
    #[error("{action} {what}: {reason}")]
    Objects {
        /// What was tried, such as `upload`.
        action: &'static str,
        /// To or from what.
        what: String,
        /// Why not, without anything secret.
        reason: String,
    },
    /// The run has not ended.
    #[error("push run {0}: it has not ended; `retake recover` repairs one whose process died")]
    NotClosed(RunId),
    /// There is no complete copy of the run.
    #[error(
        "find run {run_id} at {url}: there is no complete copy; `retake runs --store {url}` lists what is there"
    )]
    NoRun {
        /// The run.
        run_id: RunId,
        /// Where.
        url: String,
    },
    /// A file is not what was sealed.
    #[error("read {file} of run {run_id} {place}: {reason}; nothing of it was used")]
    Damaged {
        /// The run.
        run_id: RunId,
        /// The file.
        file: String,
        /// `in the store`, or where else.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else is already there.
    #[error("copy {file} of run {run_id}: {reason}")]
    Conflict {
        /// The run.
        run_id: RunId,
        /// The file.
        file: String,
        /// What is there, and what to do.
        reason: String,
    },
}

impl RemoteError {
    pub(super) fn objects(
        action: &'static str,
        what: &object_store::path::Path,
    ) -> impl FnOnce(object_store::Error) -> Self {
        let what = what.to_string();
        move |error| Self::Objects { action, what, reason: with_causes(&error) }
    }
}

/// An error with what lies behind it, once each, without anything secret.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    redact(&text)
}
