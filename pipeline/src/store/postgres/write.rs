//! Putting documents into a collection.

use super::copy::CopyBuffer;
use super::statements::ChunksTable;
use super::words::WordsTable;
use super::{COMMIT, PostgresStore, Work, failed, lock, renew_revision, table};
use crate::document::Format;
use crate::error::PipelineError;
use crate::store::EmbeddedDocument;
use crate::store::vector::{CheckedDocument, Opened, checked};

/// See `VectorStore::commit`.
pub(super) async fn commit(
    store: &PostgresStore,
    documents: &[EmbeddedDocument],
) -> Result<(), PipelineError> {
    let opened = store.opened(COMMIT)?;
    let documents = checked(COMMIT, &opened.spec, documents)?;
    let mut transaction = store.begin(COMMIT).await?;
    // One committer at a time: two that replace the same document would refuse each other.
    lock(&mut transaction, opened.id).await.map_err(failed(COMMIT))?;
    let words = WordsTable::current(&mut *transaction, opened.id).await.map_err(failed(COMMIT))?;
    if let Some(words) = words {
        let ids = ids(&documents);
        words.remove(&mut transaction, &ids).await.map_err(failed(COMMIT))?;
    }
    replace(&mut transaction, &opened, &documents).await?;
    if let Some(words) = words {
        words.add(&mut transaction, &documents).await?;
    }
    renew_revision(&mut transaction, opened.id).await.map_err(failed(COMMIT))?;
    transaction.commit().await.map_err(failed(COMMIT))
}

/// See `VectorStore::delete_documents`.
pub(super) async fn delete(store: &PostgresStore, ids: &[String]) -> Result<(), PipelineError> {
    const ACTION: &str = "delete documents";
    let opened = store.opened(ACTION)?;
    let mut transaction = store.begin(ACTION).await?;
    lock(&mut transaction, opened.id).await.map_err(failed(ACTION))?;
    let words = WordsTable::current(&mut *transaction, opened.id).await.map_err(failed(ACTION))?;
    if let Some(words) = words {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        words.remove(&mut transaction, &ids).await.map_err(failed(ACTION))?;
    }
    let delete = table(ACTION, &opened)?.delete_documents();
    sqlx::query(delete).bind(ids).execute(&mut *transaction).await.map_err(failed(ACTION))?;
    sqlx::query("DELETE FROM retake.documents WHERE collection = $1 AND id = ANY($2)")
        .bind(opened.id)
        .bind(ids)
        .execute(&mut *transaction)
        .await
        .map_err(failed(ACTION))?;
    renew_revision(&mut transaction, opened.id).await.map_err(failed(ACTION))?;
    transaction.commit().await.map_err(failed(ACTION))
}

fn ids<'d>(documents: &[CheckedDocument<'d>]) -> Vec<&'d str> {
    documents.iter().map(|checked| checked.document.id.as_str()).collect()
}

/// Puts documents in the place of their earlier versions.
async fn replace(
    transaction: &mut Work<'_>,
    opened: &Opened,
    documents: &[CheckedDocument<'_>],
) -> Result<(), PipelineError> {
    let table = table(COMMIT, opened)?;
    let ids = ids(documents);
    let digests: Vec<&[u8]> =
        documents.iter().map(|checked| checked.document.digest.as_bytes().as_slice()).collect();
    let paths: Vec<&str> = documents.iter().map(|checked| checked.document.path.as_str()).collect();
    let modified_ms: Vec<Option<i64>> =
        documents.iter().map(|checked| checked.document.modified_ms).collect();
    let kinds: Vec<Option<&str>> =
        documents.iter().map(|checked| checked.document.kind.map(Format::as_str)).collect();
    sqlx::query(table.delete_documents())
        .bind(&ids)
        .execute(&mut **transaction)
        .await
        .map_err(failed(COMMIT))?;
    sqlx::query(
        "INSERT INTO retake.documents (collection, id, digest, path, chunking, modified_ms, kind)
         SELECT $1, id, digest, path, $2, modified_ms, kind
         FROM unnest($3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::text[])
             AS given (id, digest, path, modified_ms, kind)
         ON CONFLICT (collection, id) DO UPDATE SET digest = excluded.digest,
             path = excluded.path, chunking = excluded.chunking,
             modified_ms = excluded.modified_ms, kind = excluded.kind",
    )
    .bind(opened.id)
    .bind(&opened.spec.chunking)
    .bind(&ids)
    .bind(&digests)
    .bind(&paths)
    .bind(&modified_ms)
    .bind(&kinds)
    .execute(&mut **transaction)
    .await
    .map_err(failed(COMMIT))?;
    copy_chunks(transaction, table, documents).await
}

async fn copy_chunks(
    transaction: &mut Work<'_>,
    table: ChunksTable,
    documents: &[CheckedDocument<'_>],
) -> Result<(), PipelineError> {
    let mut copy = transaction.copy_in_raw(&table.copy_in()).await.map_err(failed(COMMIT))?;
    let mut buffer = CopyBuffer::new();
    for checked in documents {
        for (chunk, vector) in &checked.chunks {
            buffer.row(&checked.document.id, chunk, vector)?;
            if buffer.is_full() {
                copy.send(buffer.bytes()).await.map_err(failed(COMMIT))?;
                buffer.clear();
            }
        }
    }
    buffer.finish();
    copy.send(buffer.bytes()).await.map_err(failed(COMMIT))?;
    copy.finish().await.map(drop).map_err(failed(COMMIT))
}
