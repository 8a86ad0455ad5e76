//! Copies of finished runs in a folder elsewhere or in object storage.
//!
//! A copy has the layout of a store, `runs/<run_id>/...`, with the same bytes, so that a later
//! retake or any engine that reads Parquet can read it in place. The manifest goes last, and a run
//! without one is not there for any reader. Nothing that is there is ever replaced by something
//! else, except a manifest by a newer revision of itself. Files are checked against their digests
//! on the way out and on the way in. Credentials come from the environment and are never shown.

mod error;
mod list;
mod location;
mod pull;
mod push;
mod redact;
mod transfer;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use retake_schemas::RunId;

pub use error::RemoteError;
pub use list::{Listing, list_entries};
pub use pull::Pulled;
pub use push::Pushed;
pub use redact::redact;
pub use transfer::TransferProgress;

/// A place that holds copies of runs.
#[derive(Debug, Clone)]
pub struct Remote {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The URL as it may be shown.
    url: String,
    /// Files above this size go up in parts of it.
    part_bytes: usize,
}

impl Remote {
    /// Opens the place a URL names: `file:///folder`, and in builds with the feature `cloud`
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Credentials and
    /// endpoints come from the variables the providers' own tools use.
    ///
    /// # Errors
    /// The URL is of no such form or holds credentials, this build lacks the backend, the folder
    /// is not there, or the environment's configuration is not usable.
    pub fn open(url: &str) -> Result<Self, RemoteError> {
        location::open(url, location::Folder::MustExist)
    }

    /// The same, for writing: a folder that is not there is made.
    ///
    /// # Errors
    /// As [`Remote::open`].
    pub fn create(url: &str) -> Result<Self, RemoteError> {
        location::open(url, location::Folder::IsMade)
    }

    /// A place in any object store, shown as `url`.
    #[must_use]
    pub fn with_objects(objects: Arc<dyn ObjectStore>, prefix: Path, url: &str) -> Self {
        Self { objects, prefix, url: redact(url), part_bytes: PART_BYTES }
    }

    /// The URL, without anything secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn runs(&self) -> Path {
        self.prefix.clone().join("runs")
    }

    fn path(&self, run_id: &RunId, file: &str) -> Path {
        self.runs().join(run_id.as_str()).join(file)
    }
}

/// S3 takes at most 10,000 parts, of at least 5 MiB: this allows files of 80 GB.
const PART_BYTES: usize = 8 << 20;

#[cfg(test)]
mod failing;
#[cfg(test)]
mod tests;
