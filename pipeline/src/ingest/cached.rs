//! The cache of vectors, as an ingest uses it: a help that may fail.

use std::sync::Arc;

use tracing::{Instrument as _, Span, field};

use crate::cache::{CacheKey, VectorCache};
use crate::document::Chunk;
use crate::embed::Embedder;
use crate::trace::{Stage, stage_span};

/// The cache, and the collection that is filled.
#[derive(Debug, Clone)]
pub(super) struct CacheUse {
    /// The cache.
    pub(super) cache: Arc<VectorCache>,
    /// Under which collection entries are kept.
    pub(super) collection: Arc<str>,
    /// Width of the collection's vectors.
    pub(super) dim: usize,
}

impl CacheUse {
    /// The vectors of `chunks` as far as they are there. A cache that fails is told of and holds
    /// nothing.
    pub(super) async fn find(
        &self,
        embedder: &dyn Embedder,
        chunks: &[Chunk],
        root: &Span,
    ) -> Vec<Option<Vec<f32>>> {
        let stage = Stage::new(stage_span!(
            parent: root, "cache",
            "retake.stage" = "cache",
            "retake.batch.size" = chunks.len(),
            "retake.cache_hit" = field::Empty,
            "retake.cache.hits" = field::Empty,
        ));
        let keys: Vec<CacheKey> =
            chunks.iter().map(|chunk| CacheKey::of(embedder, &chunk.text)).collect();
        let span = stage.span().clone();
        let found = self.cache.get(&keys, self.dim).instrument(span.clone()).await;
        if let Ok(found) = &found {
            let hits = found.iter().flatten().count();
            span.record("retake.cache.hits", hits);
            span.record("retake.cache_hit", hits == chunks.len());
        }
        stage.end(found).unwrap_or_else(|_| vec![None; chunks.len()])
    }

    /// Keeps the vectors of a call.
    pub(super) async fn keep(&self, embedder: &dyn Embedder, texts: &[&str], vectors: &[Vec<f32>]) {
        let entries: Vec<(CacheKey, &[f32])> = texts
            .iter()
            .zip(vectors)
            .map(|(text, vector)| (CacheKey::of(embedder, text), vector.as_slice()))
            .collect();
        if let Err(error) = self.cache.put(&self.collection, &entries).await {
            tracing::warn!(%error, "vectors are not kept in the cache");
        }
    }
}
