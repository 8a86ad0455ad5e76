//! The embedded store: one SQLite file, exact search.
//!
//! The file is in WAL mode, so readers and one writer of several processes work at the same time,
//! and a process killed in the middle of a commit leaves the state before it. Vectors are plain
//! BLOBs (f32, little endian). The second search of a revision of the collection loads them into
//! memory, and all that follow scan them there until the collection changes; the first, and those of
//! a collection too large for that, scan the file, where sqlite-vec computes the distances. There is no approximate index: a scan is always
//! right, and of 60,000 vectors of 384 dimensions it takes a few milliseconds.

mod file;
mod matrix;
mod rows;
mod saved;
mod search;
mod words;

use std::collections::HashMap;
use std::path::Path;

use async_trait::async_trait;
use retake_schemas::Digest;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use self::file::SqliteFile;
use super::{
    CollectionSpec, EmbeddedDocument, HeldDocument, KeptDocument, Revision, StoreStats, TextHit,
    VectorStore, Wanted,
};
use crate::document::{Chunk, Hit};
use crate::error::PipelineError;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore(SqliteFile);

impl SqliteStore {
    /// Prepares the store in `path`. The file is made by the first `open_collection`.
    ///
    /// # Errors
    /// SQLite refused the distance functions.
    pub fn new(path: &Path) -> Result<Self, PipelineError> {
        SqliteFile::new(path).map(Self)
    }
}

impl SqliteStore {
    /// Closes the file; all of it is in it then, and nothing in its log.
    ///
    /// # Errors
    /// See [`SqliteFile::close`].
    pub(crate) async fn close(&self) -> Result<(), PipelineError> {
        unseen(self.0.close()).await
    }
}

/// Hides the caller's span from sqlx. Its worker thread would keep a handle to it until after the
/// result is there, so that the span, and the root above it, could end in the wrong order.
async fn unseen<T>(work: impl Future<Output = T>) -> T {
    work.with_subscriber(NoSubscriber::default()).await
}

#[async_trait]
impl VectorStore for SqliteStore {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<(), PipelineError> {
        unseen(self.0.open_collection(spec)).await
    }

    async fn open_existing(&self, spec: &CollectionSpec) -> Result<bool, PipelineError> {
        unseen(self.0.open_existing(spec)).await
    }

    async fn committed_digests(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, Digest>, PipelineError> {
        unseen(self.0.committed_digests(document_ids)).await
    }

    async fn holds_content(&self, digest: &Digest) -> Result<bool, PipelineError> {
        unseen(self.0.holds_content(digest)).await
    }

    async fn documents(&self) -> Result<Vec<HeldDocument>, PipelineError> {
        unseen(self.0.documents()).await
    }

    async fn delete_documents(&self, ids: &[String]) -> Result<(), PipelineError> {
        unseen(self.0.delete_documents(ids)).await
    }

    async fn commit(&self, documents: &[EmbeddedDocument]) -> Result<(), PipelineError> {
        unseen(self.0.commit(documents)).await
    }

    async fn search_within(
        &self,
        vector: &[f32],
        wanted: Wanted<'_>,
    ) -> Result<Vec<Hit>, PipelineError> {
        unseen(self.0.search(vector, wanted)).await
    }

    async fn index_words(&self) -> Result<(), PipelineError> {
        unseen(self.0.index_words()).await
    }

    async fn search_text_within(
        &self,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Result<Vec<TextHit>, PipelineError> {
        unseen(self.0.search_text(text, wanted)).await
    }

    async fn vectors(
        &self,
        chunk_ids: &[String],
    ) -> Result<HashMap<String, Vec<f32>>, PipelineError> {
        unseen(self.0.vectors(chunk_ids)).await
    }

    async fn chunks(&self, chunk_ids: &[String]) -> Result<HashMap<String, Chunk>, PipelineError> {
        unseen(self.0.chunks(chunk_ids)).await
    }

    async fn modified_ms(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, i64>, PipelineError> {
        unseen(self.0.modified_ms(document_ids)).await
    }

    async fn revision(&self) -> Result<Revision, PipelineError> {
        unseen(self.0.revision()).await
    }

    async fn collections(&self) -> Result<Vec<CollectionSpec>, PipelineError> {
        unseen(self.0.collections()).await
    }

    async fn read_documents(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeptDocument>, PipelineError> {
        unseen(self.0.read_documents(after, limit)).await
    }

    async fn take_name(&self, name: &str, revision: &Revision) -> Result<(), PipelineError> {
        unseen(self.0.take_name(name, revision)).await
    }

    async fn finish_load(&self) -> Result<(), PipelineError> {
        unseen(self.0.finish_load()).await
    }

    async fn stats(&self) -> Result<StoreStats, PipelineError> {
        unseen(self.0.stats()).await
    }

    async fn drop_collection(&self) -> Result<(), PipelineError> {
        unseen(self.0.drop_collection()).await
    }
}
