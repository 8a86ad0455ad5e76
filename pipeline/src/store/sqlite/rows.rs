//! How chunks and vectors stand in the rows of the file.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::document::{Chunk, Hit};
use crate::store::vector::{count, similarity, small_count};

/// A chunk with its similarity, of a row that has a `distance`.
pub(super) fn hit_from(row: &SqliteRow) -> Result<Hit, sqlx::Error> {
    Ok(Hit::new(chunk_from(row)?, similarity(row.try_get("distance")?)))
}

/// A chunk, of a row with its columns.
pub(super) fn chunk_from(row: &SqliteRow) -> Result<Chunk, sqlx::Error> {
    Ok(Chunk {
        id: row.try_get("id")?,
        document_id: row.try_get("document_id")?,
        ordinal: small_count(row.try_get("ordinal")?),
        text: row.try_get("text")?,
        start_char: count(row.try_get("start_char")?),
        end_char: count(row.try_get("end_char")?),
        tokens: small_count(row.try_get("tokens")?),
    })
}

/// A vector from its BLOB.
pub(super) fn from_little_endian(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

/// A vector as its BLOB.
pub(super) fn little_endian(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}
