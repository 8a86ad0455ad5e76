//! What can go wrong, in classes that a caller can act on.

use std::path::PathBuf;

/// A failure of a stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A file or folder that is not there.
    #[error("open {}: no such file or folder", .0.display())]
    NotFound(PathBuf),
    /// A file that may not be read, or a disk that fails.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that is not text in a known format.
    #[error("read {}: {reason}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A save that is not as it was written.
    #[error("restore {}: {reason}", folder.display())]
    Damaged {
        /// The folder of the save.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings that cannot work, or need something that is not given.
    #[error("{0}")]
    Configuration(String),
    /// The vector store refused or failed.
    #[error("{action}: {reason}")]
    Store {
        /// What was tried, such as `search vectors`.
        action: &'static str,
        /// Why it failed, without secrets.
        reason: String,
    },
    /// Vectors of another width than the collection holds.
    #[error(
        "{action}: collection {collection:?} holds vectors of {expected} dimensions from model \
         {expected_model:?}, these have {found} from {found_model:?}; \
         ingest into another collection (--set vectors.collection=NAME) or embed with the same model"
    )]
    ModelMismatch {
        /// What was tried.
        action: &'static str,
        /// The collection.
        collection: String,
        /// Dimensions in it.
        expected: usize,
        /// Model that made them.
        expected_model: String,
        /// Dimensions given.
        found: usize,
        /// Model that made those.
        found_model: String,
    },
    /// A vector with NaN or infinity.
    #[error("{action}: the embedder returned a vector that is not finite for {item}")]
    NotFinite {
        /// What was tried.
        action: &'static str,
        /// Which text.
        item: String,
    },
    /// A model service failed.
    #[error("call {service}: {reason}")]
    Service {
        /// The service's host, never its key.
        service: String,
        /// HTTP status, if it answered.
        status: Option<u16>,
        /// Why it failed, without secrets.
        reason: String,
    },
    /// A local model failed.
    #[error("run model {model}: {reason}")]
    Model {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// A recorded answer was wanted that the recording does not have.
    #[error(transparent)]
    CassetteMiss(#[from] retake_replay::cassette::CassetteMiss),
    /// The user ended it.
    #[error("cancelled")]
    Cancelled,
}

impl PipelineError {
    /// The class recorded as `error.type`.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Io { .. } => "io",
            Self::NotText { .. } => "not_text",
            Self::Damaged { .. } => "damaged",
            Self::Configuration(_) => "configuration",
            Self::Store { .. } => "store",
            Self::ModelMismatch { .. } => "model_mismatch",
            Self::NotFinite { .. } => "not_finite",
            Self::Service { status: Some(429), .. } => "rate_limited",
            Self::Service { status: Some(500..), .. } => "service_unavailable",
            Self::Service { .. } => "service",
            Self::Model { .. } => "model",
            Self::CassetteMiss(_) => "cassette_miss",
            Self::Cancelled => "cancelled",
        }
    }
}
