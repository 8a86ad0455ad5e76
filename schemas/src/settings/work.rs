//! `[rag.limits]`, `[rag.ingest]` and `[rag.cache]`: how the pipeline goes about its work.

use serde::{Deserialize, Serialize};

/// What each model service allows. Embedding and answering by one host share its limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Requests a minute; 0: no limit.
    pub requests_per_minute: u64,
    /// Tokens a minute, input and output; 0: no limit.
    pub tokens_per_minute: u64,
    /// Requests at the same time; 0: no limit.
    pub concurrency: usize,
}

/// What becomes of documents that are seen again, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum DocumentStrategy {
    /// A document that changed takes the place of its earlier version.
    #[default]
    Upserts,
    /// A document whose content is in the collection, under whatever id, is left out.
    DuplicatesOnly,
    /// As `upserts`; documents that are no longer under the roots are deleted.
    UpsertsAndDelete,
}

/// Settings of an ingest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// `upserts`, `duplicates_only` or `upserts_and_delete`.
    pub strategy: DocumentStrategy,
}

/// Settings of the cache of vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// Whether vectors are kept and found by the text they were made of. Off by default: a replay
    /// and a benchmark must see the work done.
    pub enabled: bool,
    /// Largest size of the cache, bytes; the vectors used longest ago go first.
    pub bytes_max: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { enabled: false, bytes_max: 1 << 30 }
    }
}
