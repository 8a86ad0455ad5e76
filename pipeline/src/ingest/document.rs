//! One document on its way: loading, the check whether it is new, and chunking.

use std::sync::Arc;

use retake_schemas::Digest;
use retake_schemas::settings::{DocumentStrategy, LoadSettings};
use tracing::{Instrument as _, Span, field};

use super::cached::CacheUse;
use crate::chunk::Chunker;
use crate::document::{Chunk, Document, Format};
use crate::embed::Embedder;
use crate::error::PipelineError;
use crate::load::{self, Compared, Found};
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
    /// Makes vectors; the cache's keys name it.
    pub(super) embedder: Arc<dyn Embedder>,
    /// Vectors made earlier.
    pub(super) cache: Option<CacheUse>,
    /// What becomes of documents that are seen again.
    pub(super) strategy: DocumentStrategy,
    /// Parent of all spans.
    pub(super) root: Span,
}

/// A document that waits to be loaded.
#[derive(Debug)]
pub(super) struct Awaited {
    /// Its file.
    pub(super) found: Found,
    /// What is committed of it.
    pub(super) committed: Committed,
}

/// What the store said of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// Under which digest it is committed, if it is.
    As(Option<Digest>),
    /// It was not asked, or did not answer.
    NotLookedUp,
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
    /// What is committed already, under the same id.
    Unchanged(Digest),
    /// What is committed already, under another id.
    Duplicate,
    /// Something new.
    New(NewDocument),
}

/// A document that has to be embedded.
#[derive(Debug)]
pub(super) struct NewDocument {
    /// Digest of its file.
    pub(super) digest: Digest,
    path: String,
    kind: Format,
    modified_ms: Option<i64>,
    chunks: Vec<Chunk>,
    /// Vectors that the cache had, one place per chunk.
    vectors: Vec<Option<Vec<f32>>>,
}

impl Loader {
    /// Loads a document and cuts it, unless it is committed already.
    pub(super) async fn load(self: Arc<Self>, awaited: Awaited) -> Loaded {
        let id = awaited.found.id.clone();
        let result = Arc::clone(&self).content(awaited).await;
        Loaded { id, result }
    }

    async fn content(self: Arc<Self>, awaited: Awaited) -> Result<Content, PipelineError> {
        let stage = Stage::new(stage_span!(
            parent: &self.root, "load",
            "retake.stage" = "load",
            "document.id" = awaited.found.id,
            "document.bytes" = field::Empty,
            "document.format" = field::debug(awaited.found.format),
            "retake.cache_hit" = field::Empty,
        ));
        let span = stage.span().clone();
        let read = Arc::clone(&self).read(awaited).instrument(span).await;
        match stage.end(read)? {
            Read::Unchanged(digest) => Ok(Content::Unchanged(digest)),
            Read::Elsewhere => Ok(Content::Duplicate),
            Read::New(document) => self.cut(document).await.map(Content::New),
        }
    }

    /// The document, unless it is committed as it is.
    async fn read(self: Arc<Self>, awaited: Awaited) -> Result<Read, PipelineError> {
        let span = Span::current();
        let Awaited { found, committed } = awaited;
        let committed = match committed {
            Committed::As(digest) => digest,
            Committed::NotLookedUp => self.store.committed_digest(&found.id).await?,
        };
        let path = found.path.clone();
        let loader = Arc::clone(&self);
        let inside = span.clone();
        let read = move || {
            inside.in_scope(|| load::read_other(&found, &loader.settings, committed.as_ref()))
        };
        let compared = tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(gave_up(path, "the reader panicked")))?;
        let read = match compared {
            Compared::Same { digest, bytes } => {
                span.record("document.bytes", bytes);
                Read::Unchanged(digest)
            }
            Compared::Other(document) => {
                span.record("document.bytes", document.bytes);
                let drops_duplicates = self.strategy == DocumentStrategy::DuplicatesOnly;
                if drops_duplicates && self.store.holds_content(&document.digest).await? {
                    Read::Elsewhere
                } else {
                    Read::New(document)
                }
            }
        };
        span.record("retake.cache_hit", !matches!(read, Read::New(_)));
        Ok(read)
    }

    async fn cut(self: Arc<Self>, document: Document) -> Result<NewDocument, PipelineError> {
        if let Some(cache) = &self.cache
            && let Some((chunks, vectors)) =
                cache.find_document(self.embedder.as_ref(), &document, &self.root).await
        {
            return Ok(NewDocument {
                digest: document.digest,
                path: document.path.to_string_lossy().into_owned(),
                kind: document.format,
                modified_ms: document.modified_ms,
                chunks,
                vectors,
            });
        }
        let stage = Stage::new(stage_span!(
            parent: &self.root, "chunk",
            "retake.stage" = "chunk",
            "document.id" = document.id,
            "retake.document.count" = field::Empty,
        ));
        let span = stage.span().clone();
        let (digest, path) = (document.digest, document.path.clone());
        let (kind, modified_ms) = (document.format, document.modified_ms);
        let loader = Arc::clone(&self);
        let cut = move || span.in_scope(|| loader.chunker.chunk(&document));
        let chunks = tokio::task::spawn_blocking(cut)
            .await
            .unwrap_or_else(|_| Err(gave_up(path.clone(), "the chunker panicked")));
        if let Ok(chunks) = &chunks {
            stage.span().record("retake.document.count", chunks.len());
        }
        let chunks = stage.end(chunks)?;
        let vectors = match &self.cache {
            Some(cache) => cache.find(self.embedder.as_ref(), &chunks, &self.root).await,
            None => vec![None; chunks.len()],
        };
        let path = path.to_string_lossy().into_owned();
        Ok(NewDocument { digest, path, kind, modified_ms, chunks, vectors })
    }
}

/// What reading a document came to.
enum Read {
    /// It is committed as it is.
    Unchanged(Digest),
    /// Its content is committed under another id.
    Elsewhere,
    /// Something new.
    New(Document),
}

fn gave_up(path: std::path::PathBuf, reason: &str) -> PipelineError {
    PipelineError::NotText { path, reason: reason.to_owned() }
}

/// A document whose vectors arrive in any order, from several calls.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Id of the document.
    pub(super) id: String,
    /// Digest of its file.
    pub(super) digest: Digest,
    path: String,
    kind: Format,
    modified_ms: Option<i64>,
    chunks: Arc<[Chunk]>,
    vectors: Vec<Option<Vec<f32>>>,
    missing: usize,
}

impl Assembly {
    /// A document with the vectors that the cache had.
    pub(super) fn new(id: String, new: NewDocument) -> Self {
        let missing = new.vectors.iter().filter(|vector| vector.is_none()).count();
        Self {
            id,
            digest: new.digest,
            path: new.path,
            kind: new.kind,
            modified_ms: new.modified_ms,
            chunks: new.chunks.into(),
            vectors: new.vectors,
            missing,
        }
    }

    /// Its chunks.
    pub(super) fn chunks(&self) -> &Arc<[Chunk]> {
        &self.chunks
    }

    /// The chunks that have no vector yet.
    pub(super) fn open_ordinals(&self) -> impl Iterator<Item = usize> {
        self.vectors
            .iter()
            .enumerate()
            .filter(|(_, vector)| vector.is_none())
            .map(|(ordinal, _)| ordinal)
    }

    /// How many chunks had their vector in the cache, before any was put in.
    pub(super) fn cached(&self) -> u64 {
        (self.chunks.len() - self.missing) as u64
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
        EmbeddedDocument {
            id: self.id,
            digest: self.digest,
            path: self.path,
            kind: Some(self.kind),
            modified_ms: self.modified_ms,
            chunks,
        }
    }
}
