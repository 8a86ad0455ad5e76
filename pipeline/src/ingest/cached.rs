//! The cache of vectors, as an ingest uses it: a help that may fail.

use std::sync::Arc;

use tracing::{Instrument as _, Span, field};

use crate::cache::{CacheKey, Cut, CutDocument, VectorCache};
use crate::document::{Chunk, Document};
use crate::embed::Embedder;
use crate::store::EmbeddedDocument;
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
    /// Names the settings by which documents are cut.
    pub(super) chunking: Arc<str>,
}

impl CacheUse {
    /// The chunks of a document with their vectors, if it is there as a whole: then it need not be
    /// cut. A cache that fails is told of and holds nothing.
    pub(super) async fn find_document(
        &self,
        embedder: &dyn Embedder,
        document: &Document,
        root: &Span,
    ) -> Option<(Vec<Chunk>, Vec<Option<Vec<f32>>>)> {
        let stage = Stage::new(stage_span!(
            parent: root, "cache",
            "retake.stage" = "cache",
            "document.id" = document.id,
            "retake.batch.size" = field::Empty,
            "retake.cache_hit" = field::Empty,
            "retake.cache.hits" = field::Empty,
        ));
        let key =
            CacheKey::of_document(embedder, &self.chunking, document.format, &document.digest);
        let span = stage.span().clone();
        let found = self.cache.get_document(&key, self.dim).instrument(span.clone()).await;
        let found = stage.end(found).ok()??;
        let cuts: Vec<Cut> = found.iter().map(|(cut, _)| *cut).collect();
        let chunks = chunks_of(document, &cuts)?;
        // Of one that is not there nothing is said: its chunks are looked up, and that is.
        span.record("retake.batch.size", chunks.len());
        span.record("retake.cache.hits", chunks.len());
        span.record("retake.cache_hit", true);
        Some((chunks, found.into_iter().map(|(_, vector)| Some(vector)).collect()))
    }

    /// Keeps how documents were cut.
    pub(super) async fn keep_documents(
        &self,
        embedder: &dyn Embedder,
        documents: &[EmbeddedDocument],
    ) {
        let cut = |document: &EmbeddedDocument| {
            let chunk = |(chunk, _): &(Chunk, Vec<f32>)| {
                let Chunk { start_char, end_char, tokens, .. } = *chunk;
                (Cut { start_char, end_char, tokens }, CacheKey::of(embedder, &chunk.text))
            };
            let (chunking, digest) = (&self.chunking, &document.digest);
            let key = CacheKey::of_document(embedder, chunking, document.kind?, digest);
            Some(CutDocument { key, chunks: document.chunks.iter().map(chunk).collect() })
        };
        let documents: Vec<CutDocument> = documents.iter().filter_map(cut).collect();
        if let Err(error) = self.cache.put_documents(&documents).await {
            tracing::warn!(%error, "documents are not kept in the cache");
        }
    }

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

/// The chunks that a document was cut into; nothing if it cannot have been this one.
fn chunks_of(document: &Document, cuts: &[Cut]) -> Option<Vec<Chunk>> {
    let text = document.text.as_str();
    // Both only move forward, so a long text is walked through twice, however many chunks it has.
    let (mut start, mut end) = (Place::default(), Place::default());
    let chunk = |(ordinal, cut): (u32, &Cut)| {
        start = start.forward(text, cut.start_char)?;
        end = end.forward(text, cut.end_char)?;
        Some(Chunk {
            id: Chunk::id_of(&document.id, ordinal),
            document_id: document.id.clone(),
            ordinal,
            text: text.get(start.byte..end.byte)?.to_owned(),
            start_char: cut.start_char,
            end_char: cut.end_char,
            tokens: cut.tokens,
        })
    };
    (0..).zip(cuts).map(chunk).collect()
}

/// A place in a text.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    byte: usize,
    chars: u64,
}

impl Place {
    /// The place `chars` characters from the beginning, if that is not before this one and not
    /// beyond the end.
    fn forward(self, text: &str, chars: u64) -> Option<Self> {
        let mut left = chars.checked_sub(self.chars)?;
        let mut byte = self.byte;
        for c in text.get(self.byte..)?.chars() {
            if left == 0 {
                break;
            }
            left -= 1;
            byte += c.len_utf8();
        }
        (left == 0).then_some(Self { byte, chars })
    }
}

#[cfg(test)]
mod tests {
    use retake_schemas::Digest;
    use retake_schemas::settings::ChunkSettings;

    use super::*;
    use crate::chunk::Chunker;
    use crate::document::Format;

    /// Guarantees: a document cut again from the places of its chunks has the same chunks, whatever
    /// characters and overlaps it has; places of another document are no chunks.
    #[test]
    fn places_give_the_chunks_they_were_taken_from() {
        let settings = ChunkSettings { size: 12, overlap: 4 };
        let chunker = Chunker::new(&settings).unwrap();
        for text in [
            "".to_owned(),
            "One. Two two. Three three three. ".repeat(20),
            "\u{6771}\u{4eac} tower, caf\u{e9}. \u{1F600} ".repeat(30),
        ] {
            let document = Document {
                id: "d".to_owned(),
                path: "d".into(),
                format: Format::Text,
                digest: Digest::of(text.as_bytes()),
                bytes: text.len() as u64,
                modified_ms: None,
                text,
            };
            let chunks = chunker.chunk(&document).unwrap();
            let cut = |chunk: &Chunk| {
                let Chunk { start_char, end_char, tokens, .. } = *chunk;
                Cut { start_char, end_char, tokens }
            };
            let cuts: Vec<Cut> = chunks.iter().map(cut).collect();
            assert_eq!(chunks_of(&document, &cuts), Some(chunks));
            let beyond = Cut { start_char: 0, end_char: document.bytes + 1, tokens: 1 };
            assert_eq!(chunks_of(&document, &[beyond]), None);
            let back = Cut { start_char: 1, end_char: 0, tokens: 1 };
            assert_eq!(chunks_of(&document, &[back]), None);
        }
    }
}
