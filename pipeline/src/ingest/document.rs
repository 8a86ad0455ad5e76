//! One document on its way: loading, the check whether it is new, and chunking.

use std::sync::Arc;

use retake_schemas::Digest;
use retake_schemas::settings::LoadSettings;
use tracing::{Instrument as _, Span, field};

use crate::chunk::Chunker;
use crate::document::{Chunk, Document};
use crate::error::PipelineError;
use crate::load::{self, Found};
use crate::store::{EmbeddedDocument, VectorStore};
use crate::trace::{Stage, stage_span};

/// What every load needs.
pub(super) struct Loader {
    /// Limits.
    pub(super) settings: LoadSettings,
    /// Cuts documents.
    pub(super) chunker: Chunker,
    /// Knows what is committed.
    pub(super) store: Arc<dyn VectorStore>,
    /// Parent of all spans.
    pub(super) root: Span,
}

/// The end of a load.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Id of the document.
    pub(super) id: String,
    /// What was found.
    pub(super) result: Result<Content, PipelineError>,
}

/// What a load found.
#[derive(Debug)]
pub(super) enum Content {
    /// What is committed already.
    Unchanged(Digest),
    /// Something new.
    New(NewDocument),
}

/// A document that has to be embedded.
#[derive(Debug)]
pub(super) struct NewDocument {
    digest: Digest,
    path: String,
    chunks: Vec<Chunk>,
}

impl Loader {
    /// Loads a document and cuts it, unless it is committed already.
    pub(super) async fn load(self: Arc<Self>, found: Found) -> Loaded {
        let id = found.id.clone();
        let result = Arc::clone(&self).content(found).await;
        Loaded { id, result }
    }

    async fn content(self: Arc<Self>, found: Found) -> Result<Content, PipelineError> {
        let stage = Stage::new(stage_span!(
            parent: &self.root, "load",
            "retake.stage" = "load",
            "document.id" = found.id,
            "document.bytes" = field::Empty,
            "document.format" = field::Empty,
            "retake.cache_hit" = field::Empty,
        ));
        let span = stage.span().clone();
        let read = Arc::clone(&self).read(found).instrument(span).await;
        let (document, is_unchanged) = stage.end(read)?;
        if is_unchanged {
            return Ok(Content::Unchanged(document.digest));
        }
        self.cut(document).await.map(Content::New)
    }

    /// The document, and whether it is committed as it is.
    async fn read(self: Arc<Self>, found: Found) -> Result<(Document, bool), PipelineError> {
        let span = Span::current();
        let path = found.path.clone();
        let loader = Arc::clone(&self);
        let inside = span.clone();
        let read = move || inside.in_scope(|| load::read(&found, &loader.settings));
        let document = tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(gave_up(path, "the reader panicked")))?;
        span.record("document.bytes", document.bytes);
        span.record("document.format", field::debug(document.format));
        let committed = self.store.committed_digest(&document.id).await?;
        let is_unchanged = committed == Some(document.digest);
        span.record("retake.cache_hit", is_unchanged);
        Ok((document, is_unchanged))
    }

    async fn cut(self: Arc<Self>, document: Document) -> Result<NewDocument, PipelineError> {
        let stage = Stage::new(stage_span!(
            parent: &self.root, "chunk",
            "retake.stage" = "chunk",
            "document.id" = document.id,
            "retake.document.count" = field::Empty,
        ));
        let span = stage.span().clone();
        let (digest, path) = (document.digest, document.path.clone());
        let cut = move || span.in_scope(|| self.chunker.chunk(&document));
        let chunks = tokio::task::spawn_blocking(cut)
            .await
            .unwrap_or_else(|_| Err(gave_up(path.clone(), "the chunker panicked")));
        if let Ok(chunks) = &chunks {
            stage.span().record("retake.document.count", chunks.len());
        }
        let chunks = stage.end(chunks)?;
        Ok(NewDocument { digest, path: path.to_string_lossy().into_owned(), chunks })
    }
}

fn gave_up(path: std::path::PathBuf, reason: &str) -> PipelineError {
    PipelineError::NotText { path, reason: reason.to_owned() }
}

/// A document whose vectors arrive in any order, from several calls.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Id of the document.
    pub(super) id: String,
    digest: Digest,
    path: String,
    chunks: Arc<[Chunk]>,
    vectors: Vec<Option<Vec<f32>>>,
    missing: usize,
}

impl Assembly {
    /// A document without vectors.
    pub(super) fn new(id: String, new: NewDocument) -> Self {
        let missing = new.chunks.len();
        Self {
            id,
            digest: new.digest,
            path: new.path,
            chunks: new.chunks.into(),
            vectors: vec![None; missing],
            missing,
        }
    }

    /// Its chunks.
    pub(super) fn chunks(&self) -> &Arc<[Chunk]> {
        &self.chunks
    }

    /// Puts in the vector of one chunk.
    pub(super) fn put(&mut self, ordinal: usize, vector: Vec<f32>) {
        if let Some(place @ None) = self.vectors.get_mut(ordinal) {
            *place = Some(vector);
            self.missing -= 1;
        }
    }

    /// Whether every chunk has its vector.
    pub(super) const fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The document, ready to be committed.
    pub(super) fn finish(self) -> EmbeddedDocument {
        debug_assert!(self.is_complete(), "{} lacks {} vectors", self.id, self.missing);
        let chunks = self.chunks.iter().cloned().zip(self.vectors.into_iter().flatten()).collect();
        EmbeddedDocument { id: self.id, digest: self.digest, path: self.path, chunks }
    }
}
