//! Where chunks and vectors are kept.
//!
//! A document enters a store with all its chunks in one transaction, or not at all; its digest is
//! written in the same transaction, so "seen" always means "committed".

pub mod postgres;
pub mod sqlite;

mod filter;
mod open;
mod sqlite_vec;
mod text;
mod vector;

use std::collections::HashMap;

use async_trait::async_trait;
use retake_schemas::Digest;
use retake_schemas::settings::Filter;

pub use self::open::open;

use crate::document::{Chunk, Format, Hit};
use crate::error::PipelineError;

/// A document with its vectors, ready to be committed.
#[derive(Debug, Clone)]
pub struct EmbeddedDocument {
    /// Stable id.
    pub id: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Path it was read from.
    pub path: String,
    /// Format it was read as, where that is known.
    pub kind: Option<Format>,
    /// When it was last changed, ms since 1970, where that is known.
    pub modified_ms: Option<i64>,
    /// Its chunks with their vectors, in order.
    pub chunks: Vec<(Chunk, Vec<f32>)>,
}

/// What a collection is made of; a collection refuses vectors of another model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionSpec {
    /// Name.
    pub name: String,
    /// Model of its vectors.
    pub model: String,
    /// Dimensions of its vectors.
    pub dim: usize,
    /// Fingerprint of the chunking (settings and text extraction): a document is unchanged only
    /// if its digest and this are.
    pub chunking: String,
}

/// A row of a database: name, model, width, and chunking.
impl From<(String, String, i64, String)> for CollectionSpec {
    fn from((name, model, dim, chunking): (String, String, i64, String)) -> Self {
        Self { name, model, dim: usize::try_from(dim).unwrap_or_default(), chunking }
    }
}

/// A document as it is kept, to be put into another store.
#[derive(Debug, Clone)]
pub struct KeptDocument {
    /// The document, with its chunks and vectors.
    pub document: EmbeddedDocument,
    /// Fingerprint of the chunking it was cut by.
    pub chunking: String,
}

/// A document of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDocument {
    /// Stable id.
    pub id: String,
    /// Path it was read from.
    pub path: String,
}

/// A state of a collection, drawn at random by the database when it changes. A counter would come
/// back to the same number after a collection is dropped and made again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl Revision {
    /// The revision that a database names so.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name: 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many chunks are wanted, and which may be found.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'f> {
    /// The most.
    pub top_k: usize,
    /// What has to hold of them.
    pub filter: Option<&'f Filter>,
}

impl Wanted<'_> {
    /// The best of all.
    #[must_use]
    pub const fn of_all(top_k: usize) -> Self {
        Self { top_k, filter: None }
    }
}

/// A chunk with words that were searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct TextHit {
    /// The chunk.
    pub chunk: Chunk,
    /// Okapi BM25 with `k1` 1.2 and `b` 0.75, over the whole collection.
    pub score: f64,
}

/// Counts of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Documents.
    pub documents: u64,
    /// Chunks.
    pub chunks: u64,
}

/// Keeps vectors and finds the nearest.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// Database system for `db.system.name`: `sqlite`, `postgresql`.
    fn system(&self) -> &'static str;

    /// Makes the collection, or checks that it was made of the same model.
    ///
    /// # Errors
    /// [`PipelineError::ModelMismatch`], or the database failed.
    async fn open_collection(&self, spec: &CollectionSpec) -> Result<(), PipelineError>;

    /// Opens the collection for reading, and makes nothing; `false` when there is none.
    ///
    /// # Errors
    /// [`PipelineError::ModelMismatch`], or the database failed.
    async fn open_existing(&self, spec: &CollectionSpec) -> Result<bool, PipelineError>;

    /// The digests under which documents are committed with the collection's present chunking, by
    /// their ids; those that are not are left out.
    ///
    /// # Errors
    /// The database failed.
    async fn committed_digests(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, Digest>, PipelineError>;

    /// The digest under which a document is committed with the collection's present chunking.
    ///
    /// # Errors
    /// The database failed.
    async fn committed_digest(&self, document_id: &str) -> Result<Option<Digest>, PipelineError> {
        let id = document_id.to_owned();
        Ok(self.committed_digests(std::slice::from_ref(&id)).await?.remove(&id))
    }

    /// Whether content of this digest is committed with the collection's present chunking, under
    /// whatever id.
    ///
    /// # Errors
    /// The database failed.
    async fn holds_content(&self, digest: &Digest) -> Result<bool, PipelineError>;

    /// All documents, in order of id.
    ///
    /// # Errors
    /// The database failed.
    async fn documents(&self) -> Result<Vec<HeldDocument>, PipelineError>;

    /// Deletes documents with their chunks and vectors, in one transaction. Ids that are not there
    /// are left alone.
    ///
    /// # Errors
    /// The database failed; then nothing has changed.
    async fn delete_documents(&self, ids: &[String]) -> Result<(), PipelineError>;

    /// Commits documents, replacing earlier versions, in one transaction.
    ///
    /// # Errors
    /// The database failed; then nothing has changed.
    async fn commit(&self, documents: &[EmbeddedDocument]) -> Result<(), PipelineError>;

    /// The chunks most similar to `vector`, best first; equal similarities in order of id. As many as
    /// are wanted, if so many may be found at all.
    ///
    /// # Errors
    /// The database failed, or `vector` has another width.
    async fn search_within(
        &self,
        vector: &[f32],
        wanted: Wanted<'_>,
    ) -> Result<Vec<Hit>, PipelineError>;

    /// The `top_k` chunks of all most similar to `vector`.
    ///
    /// # Errors
    /// As [`VectorStore::search_within`].
    async fn search(&self, vector: &[f32], top_k: usize) -> Result<Vec<Hit>, PipelineError> {
        self.search_within(vector, Wanted::of_all(top_k)).await
    }

    /// Has the collection a text index from now on: it is made if it is not there, and every later
    /// commit keeps it.
    ///
    /// # Errors
    /// The database failed.
    async fn index_words(&self) -> Result<(), PipelineError>;

    /// The chunks that say most with words of `text`, best first; equal scores in order of id. One
    /// word in common is enough to be found; a text without any meaningful word finds nothing. Makes
    /// the text index if it is not there.
    ///
    /// # Errors
    /// The database failed.
    async fn search_text_within(
        &self,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Result<Vec<TextHit>, PipelineError>;

    /// The `top_k` chunks of all that say most with words of `text`.
    ///
    /// # Errors
    /// As [`VectorStore::search_text_within`].
    async fn search_text(&self, text: &str, top_k: usize) -> Result<Vec<TextHit>, PipelineError> {
        self.search_text_within(text, Wanted::of_all(top_k)).await
    }

    /// The vectors of chunks by their ids; those that are not there are left out.
    ///
    /// # Errors
    /// The database failed.
    async fn vectors(
        &self,
        chunk_ids: &[String],
    ) -> Result<HashMap<String, Vec<f32>>, PipelineError>;

    /// Chunks by their ids; those that are not there are left out.
    ///
    /// # Errors
    /// The database failed.
    async fn chunks(&self, chunk_ids: &[String]) -> Result<HashMap<String, Chunk>, PipelineError>;

    /// When documents were last changed, ms since 1970, by their ids; those of which that is not
    /// known are left out.
    ///
    /// # Errors
    /// The database failed.
    async fn modified_ms(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, i64>, PipelineError>;

    /// Names what the collection holds: it changes in the transaction in which a document is added,
    /// changed or deleted, and is never what it was before. To read it takes the same time however
    /// many documents there are.
    ///
    /// # Errors
    /// The database failed.
    async fn revision(&self) -> Result<Revision, PipelineError>;

    /// All collections, in order of name. None needs to be open.
    ///
    /// # Errors
    /// The database failed.
    async fn collections(&self) -> Result<Vec<CollectionSpec>, PipelineError>;

    /// At most `limit` documents with their vectors, in order of id, after the id `after`.
    ///
    /// # Errors
    /// The database failed.
    async fn read_documents(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeptDocument>, PipelineError>;

    /// Gives the open collection the name and the revision; one that had the name is deleted. One
    /// transaction: nobody ever sees half of either. Others that have the deleted one open must open
    /// it again.
    ///
    /// # Errors
    /// The database failed; then nothing has changed.
    async fn take_name(&self, name: &str, revision: &Revision) -> Result<(), PipelineError>;

    /// Makes searches fast after a load (builds or refreshes an index where there is one).
    ///
    /// # Errors
    /// The database failed.
    async fn finish_load(&self) -> Result<(), PipelineError>;

    /// Counts.
    ///
    /// # Errors
    /// The database failed.
    async fn stats(&self) -> Result<StoreStats, PipelineError>;

    /// Drops the collection with everything in it.
    ///
    /// # Errors
    /// The database failed.
    async fn drop_collection(&self) -> Result<(), PipelineError>;
}
