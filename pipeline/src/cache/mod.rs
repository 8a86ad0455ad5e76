//! Vectors kept by the text they were made of.
//!
//! One entry per chunk, not per batch: when one document of a thousand changes, its chunks are made
//! again and no others. A document that did not change is found as a whole. The key is a digest of length-prefixed fields, so no two lists of fields
//! are written the same; it holds the model's name and nothing secret.
//!
//! The cache is one SQLite file. A process killed in the middle of a write leaves the entries
//! before it. Its size is bounded; the entries used longest ago go first. It is never needed: what
//! goes wrong with it is told, and the vectors are made again.

mod documents;
mod file;

use retake_schemas::Digest;

pub use self::documents::{Cut, CutDocument};
pub use self::file::{CacheStats, VectorCache};

use crate::embed::Embedder;

/// Under which a vector is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// The key of `text` as `embedder` would embed it.
    #[must_use]
    pub fn of(embedder: &dyn Embedder, text: &str) -> Self {
        Self::of_fields(&[VERSION, embedder.provider(), &embedder.fingerprint(), text])
    }

    fn of_fields(fields: &[&str]) -> Self {
        let bytes: usize = fields.iter().map(|field| field.len() + size_of::<u64>()).sum();
        let mut all = Vec::with_capacity(bytes);
        for field in fields {
            all.extend_from_slice(&(field.len() as u64).to_le_bytes());
            all.extend_from_slice(field.as_bytes());
        }
        Self(Digest::of(&all))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes().as_slice()
    }
}

/// Changes whenever the same text and model would be kept as something else.
const VERSION: &str = "retake vector 1";

/// The same for documents as they are cut.
const DOCUMENT_VERSION: &str = "retake document 1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::hashing::HashingEmbedder;

    /// Scenario: fields that read the same when they are joined. LlamaIndex joins them, and gives
    /// `{"ab", "c"}`, `{"a", "bc"}` and `{"abc"}` one key: a wrong result.
    /// Guarantees: they have different keys.
    #[test]
    fn fields_that_only_read_alike_when_joined_have_keys_of_their_own() {
        let keys = [
            CacheKey::of_fields(&["ab", "c"]),
            CacheKey::of_fields(&["a", "bc"]),
            CacheKey::of_fields(&["abc"]),
            CacheKey::of_fields(&["abc", ""]),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key));
        }
    }

    #[test]
    fn another_model_is_another_key() {
        let embedder = |dim| HashingEmbedder::new(dim).unwrap();
        assert_eq!(CacheKey::of(&embedder(8), "x"), CacheKey::of(&embedder(8), "x"));
        assert_ne!(CacheKey::of(&embedder(8), "x"), CacheKey::of(&embedder(9), "x"));
        assert_ne!(CacheKey::of(&embedder(8), "x"), CacheKey::of(&embedder(8), "y"));
    }
}
