//! What every store checks before it sends anything to a database.
//!
//! Vectors of the wrong width, vectors with NaN or infinity, and texts a database cannot hold are
//! refused here, so both stores refuse the same things with the same words and a refused batch
//! has touched nothing.

use std::collections::HashMap;

use retake_schemas::Digest;

use super::{CollectionSpec, EmbeddedDocument, KeptDocument};
use crate::document::{Chunk, Format};
use crate::error::PipelineError;

/// A document that may be sent: its vectors fit, its texts can be kept, its chunk ids are unique.
#[derive(Debug)]
pub(super) struct CheckedDocument<'a> {
    /// The document.
    pub(super) document: &'a EmbeddedDocument,
    /// Its chunks; of two with one id, the later.
    pub(super) chunks: Vec<&'a (Chunk, Vec<f32>)>,
}

/// Checks a batch and drops what a later member of the same batch replaces.
///
/// # Errors
/// The first document that may not be sent; then none may.
pub(super) fn checked<'a>(
    action: &'static str,
    spec: &CollectionSpec,
    documents: &'a [EmbeddedDocument],
) -> Result<Vec<CheckedDocument<'a>>, PipelineError> {
    let mut kept = Vec::with_capacity(documents.len());
    for document in last_of_each(documents, |document| &document.id) {
        check_text(action, &document.id, &document.id)?;
        check_text(action, &document.id, &document.path)?;
        for (chunk, vector) in &document.chunks {
            check_vector(action, spec, &chunk.id, vector)?;
            check_text(action, &chunk.id, &chunk.id)?;
            check_text(action, &chunk.id, &chunk.text)?;
        }
        let chunks = last_of_each(&document.chunks, |(chunk, _)| &chunk.id);
        kept.push(CheckedDocument { document, chunks });
    }
    Ok(kept)
}

/// Checks that a vector fits the collection.
///
/// # Errors
/// [`PipelineError::ModelMismatch`] for another width, [`PipelineError::NotFinite`] for NaN or
/// infinity.
pub(super) fn check_vector(
    action: &'static str,
    spec: &CollectionSpec,
    item: &str,
    vector: &[f32],
) -> Result<(), PipelineError> {
    if vector.len() != spec.dim {
        return Err(PipelineError::ModelMismatch {
            action,
            collection: spec.name.clone(),
            expected: spec.dim,
            expected_model: spec.model.clone(),
            found: vector.len(),
            found_model: spec.model.clone(),
        });
    }
    if vector.iter().any(|value| !value.is_finite()) {
        return Err(PipelineError::NotFinite { action, item: item.to_owned() });
    }
    Ok(())
}

/// Checks that a collection was made of the model that now wants to use it.
///
/// # Errors
/// [`PipelineError::ModelMismatch`], or a collection written by a newer retake.
pub(super) fn check_model(
    action: &'static str,
    spec: &CollectionSpec,
    held: &HeldCollection,
) -> Result<(), PipelineError> {
    if held.format > FORMAT {
        return Err(PipelineError::Store {
            action,
            reason: format!(
                "collection {:?} has format {}, this retake reads formats up to {FORMAT}",
                spec.name, held.format
            ),
        });
    }
    let dim = i64::try_from(spec.dim).unwrap_or(i64::MAX);
    if held.model == spec.model && held.dim == dim {
        return Ok(());
    }
    Err(PipelineError::ModelMismatch {
        action,
        collection: spec.name.clone(),
        expected: usize::try_from(held.dim).unwrap_or_default(),
        expected_model: held.model.clone(),
        found: spec.dim,
        found_model: spec.model.clone(),
    })
}

/// What a database says a collection is made of.
#[derive(Debug)]
pub(super) struct HeldCollection {
    /// Its number in the database.
    pub(super) id: i64,
    /// Model of its vectors.
    pub(super) model: String,
    /// Their width.
    pub(super) dim: i64,
    /// Version of the layout it was written in.
    pub(super) format: i64,
}

/// A collection that was opened.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// Its number in the database.
    pub(super) id: i64,
    /// What it is made of.
    pub(super) spec: CollectionSpec,
}

/// The error of a call before `open_collection`.
pub(super) fn not_open(action: &'static str) -> PipelineError {
    PipelineError::Store { action, reason: "no collection is open".to_owned() }
}

/// Cosine similarity from a cosine distance. A vector of length 0 has no direction, and so no
/// distance; it is neither near nor far.
pub(super) fn similarity(distance: Option<f64>) -> f64 {
    distance.filter(|distance| distance.is_finite()).map_or(0.0, |distance| 1.0 - distance)
}

/// A row of the documents table, before its chunks are read.
#[derive(Debug)]
pub(super) struct DocumentRow {
    id: String,
    digest: Vec<u8>,
    path: String,
    chunking: String,
    modified_ms: Option<i64>,
    kind: Option<Format>,
}

/// Its columns: id, digest, path, chunking, date, and kind.
pub(super) type DocumentColumns = (String, Vec<u8>, String, String, Option<i64>, Option<String>);

impl From<DocumentColumns> for DocumentRow {
    fn from((id, digest, path, chunking, modified_ms, kind): DocumentColumns) -> Self {
        let kind = kind.as_deref().and_then(Format::parse);
        Self { id, digest, path, chunking, modified_ms, kind }
    }
}

impl DocumentRow {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The document with its chunks, of which those of others are left alone.
    ///
    /// # Errors
    /// The digest in the database has another length than digests have.
    pub(super) fn with_chunks(
        self,
        action: &'static str,
        chunks: &mut HashMap<String, Vec<(Chunk, Vec<f32>)>>,
    ) -> Result<KeptDocument, PipelineError> {
        let Self { id, digest, path, chunking, modified_ms, kind } = self;
        let digest = digest.try_into().map(Digest::from_bytes).map_err(|_| {
            PipelineError::Store { action, reason: format!("the digest of {id:?} is damaged") }
        })?;
        let chunks = chunks.remove(&id).unwrap_or_default();
        let document = EmbeddedDocument { id, digest, path, kind, modified_ms, chunks };
        Ok(KeptDocument { document, chunking })
    }
}

/// Digests by ids; one of another length than digests have is that of no file.
pub(super) fn digests(rows: Vec<(String, Vec<u8>)>) -> HashMap<String, Digest> {
    let read =
        |(id, bytes): (String, Vec<u8>)| Some((id, Digest::from_bytes(bytes.try_into().ok()?)));
    rows.into_iter().filter_map(read).collect()
}

/// A count for a column. Counts beyond `i64` do not exist in practice; saturating keeps the order.
pub(super) fn column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count from a column; a negative one can only come from a damaged database.
pub(super) fn count(column: i64) -> u64 {
    u64::try_from(column).unwrap_or_default()
}

/// A small count from a column.
pub(super) fn small_count(column: i64) -> u32 {
    u32::try_from(column).unwrap_or_default()
}

fn check_text(action: &'static str, item: &str, text: &str) -> Result<(), PipelineError> {
    if !text.contains('\0') {
        return Ok(());
    }
    // PostgreSQL cannot hold it, and a collection should not depend on where it is kept.
    Err(PipelineError::Store {
        action,
        reason: format!("text with a NUL character in {item:?} cannot be kept"),
    })
}

/// The items in order, without those whose key a later one has.
fn last_of_each<'a, T, K: Eq + std::hash::Hash + 'a>(
    items: &'a [T],
    key: impl Fn(&'a T) -> &'a K,
) -> Vec<&'a T> {
    let last: HashMap<&K, usize> =
        items.iter().enumerate().map(|(place, item)| (key(item), place)).collect();
    let is_last = |(place, item): &(usize, &'a T)| last.get(key(item)) == Some(place);
    items.iter().enumerate().filter(is_last).map(|(_, item)| item).collect()
}

/// Version of the tables; a newer one is refused.
pub(super) const FORMAT: i64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_with_one_key_the_later_stays_in_place() {
        let items = [("a", 1), ("b", 2), ("a", 3)];
        assert_eq!(last_of_each(&items, |item| &item.0), [&("b", 2), &("a", 3)]);
    }

    #[test]
    fn a_vector_without_direction_is_neither_near_nor_far() {
        assert_eq!(similarity(None), 0.0);
        assert_eq!(similarity(Some(f64::NAN)), 0.0);
        assert_eq!(similarity(Some(0.25)), 0.75);
    }
}
