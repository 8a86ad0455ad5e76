//! Documents in the cache: how each was cut, and under which keys its vectors are.
//!
//! A document with the same bytes, cut by the same settings for the same model, is found by one
//! look: it is not cut and counted again, and its vectors come together. Its vectors are kept once,
//! as entries of their chunks; so a document that changed in one place still finds the others.
//! When one of its vectors goes, the document is no longer found, and is cut again.

use sqlx::{Sqlite, Transaction};

use super::file::{VectorCache, next_turn, vector};
use super::{CacheKey, DOCUMENT_VERSION};
use crate::document::Format;
use crate::embed::Embedder;
use crate::error::PipelineError;
use crate::sqlite_file::{failed, unseen};
use retake_schemas::Digest;

/// Where a chunk is in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// First character in the document's text, Unicode code points.
    pub start_char: u64,
    /// One past the last character.
    pub end_char: u64,
    /// Tokens.
    pub tokens: u32,
}

/// A document as it was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutDocument {
    /// Its key, see [`CacheKey::of_document`].
    pub key: CacheKey,
    /// Its chunks in order, each with the key of its vector.
    pub chunks: Vec<(Cut, CacheKey)>,
}

impl CacheKey {
    /// The key of a document with these bytes, read as `format`, cut by settings of this name, for
    /// `embedder`.
    #[must_use]
    pub fn of_document(
        embedder: &dyn Embedder,
        chunking: &str,
        format: Format,
        digest: &Digest,
    ) -> Self {
        let digest = digest.to_string();
        Self::of_fields(&[
            DOCUMENT_VERSION,
            embedder.provider(),
            &embedder.fingerprint(),
            chunking,
            format.as_str(),
            &digest,
        ])
    }
}

impl VectorCache {
    /// The chunks of a document with their vectors, in order; nothing if one of them is not there
    /// or not `dim` wide.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn get_document(
        &self,
        key: &CacheKey,
        dim: usize,
    ) -> Result<Option<Vec<(Cut, Vec<f32>)>>, PipelineError> {
        let found = unseen(self.look_up_document(key)).await.map_err(failed(LOOK_UP))?;
        let Some((layout, vectors)) = found else { return Ok(None) };
        let Some(cuts) = cuts(&layout).filter(|cuts| cuts.len() == vectors.len()) else {
            return Ok(None);
        };
        let vectors: Option<Vec<Vec<f32>>> =
            vectors.iter().map(|bytes| vector(bytes, dim)).collect();
        let Some(vectors) = vectors else { return Ok(None) };
        self.count_hits(vectors.len() as u64);
        Ok(Some(cuts.into_iter().zip(vectors).collect()))
    }

    /// Keeps how documents were cut, or notes that they were used, in one transaction.
    ///
    /// # Errors
    /// The file cannot be written; then nothing has changed.
    pub async fn put_documents(&self, documents: &[CutDocument]) -> Result<(), PipelineError> {
        unseen(self.write_documents(documents)).await.map_err(failed(KEEP))
    }

    async fn look_up_document(
        &self,
        key: &CacheKey,
    ) -> Result<Option<(Vec<u8>, Vec<Vec<u8>>)>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let layout: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT layout FROM documents WHERE key = ?")
                .bind(key.as_bytes())
                .fetch_optional(&mut *connection)
                .await?;
        let Some(layout) = layout else { return Ok(None) };
        let vectors: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT vectors.vector FROM placed JOIN vectors ON vectors.key = placed.vector
             WHERE placed.document = ? ORDER BY placed.place",
        )
        .bind(key.as_bytes())
        .fetch_all(&mut *connection)
        .await?;
        Ok(Some((layout, vectors)))
    }

    async fn write_documents(&self, documents: &[CutDocument]) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        let turn = next_turn(&mut transaction).await?;
        for document in documents.iter().filter(|document| !document.chunks.is_empty()) {
            let used = sqlx::query("UPDATE documents SET used = ? WHERE key = ?")
                .bind(turn)
                .bind(document.key.as_bytes())
                .execute(&mut *transaction)
                .await?;
            if used.rows_affected() == 0 {
                write_document(&mut transaction, document, turn).await?;
            }
        }
        transaction.commit().await
    }
}

async fn write_document(
    transaction: &mut Transaction<'_, Sqlite>,
    document: &CutDocument,
    turn: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO documents (key, used, layout) VALUES (?, ?, ?)")
        .bind(document.key.as_bytes())
        .bind(turn)
        .bind(layout(document))
        .execute(&mut **transaction)
        .await?;
    for (place, (_, vector)) in document.chunks.iter().enumerate() {
        sqlx::query("INSERT INTO placed (document, place, vector) VALUES (?, ?, ?)")
            .bind(document.key.as_bytes())
            .bind(i64::try_from(place).unwrap_or(i64::MAX))
            .bind(vector.as_bytes())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// The chunks as bytes: start, end and tokens of each, little endian.
fn layout(document: &CutDocument) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(document.chunks.len() * CUT_BYTES);
    for (cut, _) in &document.chunks {
        bytes.extend_from_slice(&cut.start_char.to_le_bytes());
        bytes.extend_from_slice(&cut.end_char.to_le_bytes());
        bytes.extend_from_slice(&cut.tokens.to_le_bytes());
    }
    bytes
}

/// The chunks of [`layout`], if it is whole.
fn cuts(layout: &[u8]) -> Option<Vec<Cut>> {
    let (cuts, rest) = layout.as_chunks::<CUT_BYTES>();
    let cut = |bytes: &[u8; CUT_BYTES]| {
        let (start_char, rest) = bytes.split_first_chunk::<8>()?;
        let (end_char, rest) = rest.split_first_chunk::<8>()?;
        let (tokens, _) = rest.split_first_chunk::<4>()?;
        Some(Cut {
            start_char: u64::from_le_bytes(*start_char),
            end_char: u64::from_le_bytes(*end_char),
            tokens: u32::from_le_bytes(*tokens),
        })
    };
    if rest.is_empty() { cuts.iter().map(cut).collect() } else { None }
}

/// The tables of documents. A document whose vector goes has to go too: it would be found in part.
pub(super) const SCHEMA: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS documents (
        key BLOB PRIMARY KEY, used INTEGER NOT NULL, layout BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS placed (
        document BLOB NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
        place INTEGER NOT NULL, vector BLOB NOT NULL,
        PRIMARY KEY (document, place)) STRICT, WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS placed_by_vector ON placed (vector)",
    "CREATE TRIGGER IF NOT EXISTS vectors_placed AFTER DELETE ON vectors BEGIN
        DELETE FROM documents WHERE key IN (SELECT document FROM placed WHERE vector = old.key);
    END",
];
const CUT_BYTES: usize = 20;
const LOOK_UP: &str = "look up document in cache";
const KEEP: &str = "keep document in cache";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::hashing::HashingEmbedder;

    fn key(text: &str) -> CacheKey {
        CacheKey::of_fields(&[text])
    }

    fn document(name: &str, vectors: &[&str]) -> CutDocument {
        let chunk = |(place, name): (u64, &&str)| {
            let cut = Cut { start_char: place * 10, end_char: place * 10 + 12, tokens: 3 };
            (cut, key(name))
        };
        CutDocument { key: key(name), chunks: (0..).zip(vectors).map(chunk).collect() }
    }

    async fn put(cache: &VectorCache, names: &[&str]) {
        for (name, value) in names.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            cache.put("c", &[(key(name), &[value, -value][..])]).await.unwrap();
        }
    }

    async fn held(cache: &VectorCache, name: &str) -> Option<Vec<(Cut, Vec<f32>)>> {
        cache.get_document(&key(name), 2).await.unwrap()
    }

    /// Scenario: two documents that share a chunk; a document before its vectors; another width.
    /// Guarantees: a document is found whole, with its chunks in order, or not at all.
    #[tokio::test]
    async fn a_document_is_found_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = VectorCache::open(&folder.path().join("d.sqlite"), 1 << 20).await.unwrap();
        let (one, two) = (document("one", &["b", "a"]), document("two", &["a", "c", "b"]));
        cache.put_documents(&[one.clone(), two.clone()]).await.unwrap();
        assert_eq!(held(&cache, "one").await, None, "without its vectors");
        put(&cache, &["a", "b", "c"]).await;
        let found = held(&cache, "one").await.unwrap();
        assert_eq!(found[0], (one.chunks[0].0, vec![2.0, -2.0]));
        assert_eq!(found[1], (one.chunks[1].0, vec![1.0, -1.0]));
        assert_eq!(held(&cache, "two").await.unwrap().len(), 3);
        assert_eq!(held(&cache, "three").await, None);
        assert_eq!(cache.get_document(&key("one"), 3).await.unwrap(), None);
        assert_eq!(cache.stats().await.unwrap().hits, 5);
        cache.put_documents(&[one, document("empty", &[])]).await.unwrap();
        assert_eq!(held(&cache, "empty").await, None);
        cache.clear(None).await.unwrap();
        assert_eq!(held(&cache, "one").await, None);
    }

    /// Scenario: a cache that is full; a document that was used last is older than another vector.
    /// Guarantees: a vector is as young as the youngest document that has it; with one vector the
    /// documents go that have it.
    #[tokio::test]
    async fn what_a_document_uses_stays_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = VectorCache::open(&folder.path().join("e.sqlite"), 1 << 20).await.unwrap();
        put(&cache, &["a", "b", "c", "d"]).await;
        let (one, two) = (document("one", &["a", "b"]), document("two", &["c"]));
        cache.put_documents(&[two]).await.unwrap();
        cache.put_documents(&[one]).await.unwrap();
        assert_eq!(cache.evict(24).await.unwrap(), 1);
        assert_eq!(cache.get(&[key("d")], 2).await.unwrap(), [None], "no document has it");
        assert_eq!(cache.evict(16).await.unwrap(), 1);
        assert_eq!(held(&cache, "two").await, None);
        assert_eq!(held(&cache, "one").await.unwrap().len(), 2);
        assert_eq!(cache.evict(8).await.unwrap(), 1);
        assert_eq!(held(&cache, "one").await, None, "half of it is nothing");
    }

    #[test]
    fn other_settings_are_another_document() {
        let embedder = |dim| HashingEmbedder::new(dim).unwrap();
        let (one, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let key = |dim, chunking, format, digest| {
            CacheKey::of_document(&embedder(dim), chunking, format, digest)
        };
        let keys = [
            key(8, "c1", Format::Text, &one),
            key(9, "c1", Format::Text, &one),
            key(8, "c2", Format::Text, &one),
            key(8, "c1", Format::Markdown, &one),
            key(8, "c1", Format::Text, &other),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key));
        }
        assert_eq!(keys[0], key(8, "c1", Format::Text, &one));
    }
}
