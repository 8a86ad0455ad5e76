//! What saves and restores collections, see `crate::storage`.

use std::collections::HashMap;

use pgvector::Vector;
use sqlx::Row as _;

use super::statements::{ChunksTable, chunk_from};
use super::words::WordsTable;
use super::{NO_COLLECTION, PostgresStore, connect, execute, failed, held, lock, table};
use crate::document::Chunk;
use crate::error::PipelineError;
use crate::store::vector::{DocumentColumns, DocumentRow, Opened, column};
use crate::store::{CollectionSpec, KeptDocument, Revision};

/// See `VectorStore::collections`.
pub(super) async fn collections(
    store: &PostgresStore,
) -> Result<Vec<CollectionSpec>, PipelineError> {
    const ACTION: &str = "list collections";
    if !connect::has_tables(&store.pool).await? {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, String, i64, String)> = sqlx::query_as(
        "SELECT name, model, dim, chunking FROM retake.collections ORDER BY name COLLATE \"C\"",
    )
    .fetch_all(&store.pool)
    .await
    .map_err(failed(ACTION))?;
    Ok(rows.into_iter().map(CollectionSpec::from).collect())
}

/// See `VectorStore::read_documents`.
pub(super) async fn read_documents(
    store: &PostgresStore,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<KeptDocument>, PipelineError> {
    const ACTION: &str = "read documents";
    let opened = store.opened(ACTION)?;
    let mut transaction = store.begin(ACTION).await?;
    // Documents and chunks as of one moment.
    execute(&mut transaction, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let rows: Vec<DocumentColumns> = sqlx::query_as(
        "SELECT id, digest, path, chunking, modified_ms, kind FROM retake.documents
         WHERE collection = $1 AND ($2::text IS NULL OR id > $2) ORDER BY id LIMIT $3",
    )
    .bind(opened.id)
    .bind(after)
    .bind(column(limit as u64))
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed(ACTION))?;
    let rows: Vec<DocumentRow> = rows.into_iter().map(DocumentRow::from).collect();
    let ids: Vec<&str> = rows.iter().map(DocumentRow::id).collect();
    let chunk_rows = sqlx::query(table(ACTION, &opened)?.chunks_of_documents())
        .bind(&ids)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(ACTION))?;
    let mut chunks: HashMap<String, Vec<(Chunk, Vec<f32>)>> = HashMap::new();
    for row in &chunk_rows {
        let chunk = chunk_from(row).map_err(failed(ACTION))?;
        let vector: Vector = row.try_get("embedding").map_err(failed(ACTION))?;
        let of_document = chunks.entry(chunk.document_id.clone()).or_default();
        of_document.push((chunk, vector.to_vec()));
    }
    rows.into_iter().map(|row| row.with_chunks(ACTION, &mut chunks)).collect()
}

/// See `VectorStore::take_name`.
pub(super) async fn take_name(
    store: &PostgresStore,
    name: &str,
    revision: &Revision,
) -> Result<(), PipelineError> {
    const ACTION: &str = "put collection in place";
    let opened = store.opened(ACTION)?;
    let mut transaction = store.begin(ACTION).await?;
    lock(&mut transaction, NO_COLLECTION).await.map_err(failed(ACTION))?;
    let former = held(&mut transaction, name).await.map_err(failed(ACTION))?;
    if let Some(former) = former.filter(|former| former.id != opened.id) {
        // Whoever commits into it just now is waited for.
        lock(&mut transaction, former.id).await.map_err(failed(ACTION))?;
        let table = ChunksTable { id: former.id, dim: 0 };
        execute(&mut transaction, table.drop()).await?;
        WordsTable::of(former.id).drop(&mut transaction).await?;
        sqlx::query("DELETE FROM retake.collections WHERE id = $1")
            .bind(former.id)
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACTION))?;
    }
    sqlx::query(
        "UPDATE retake.collections SET name = $2, revision = $3::text::uuid,
             words_revision = CASE WHEN words_revision = revision THEN $3::text::uuid END
         WHERE id = $1",
    )
    .bind(opened.id)
    .bind(name)
    .bind(revision.as_str())
    .execute(&mut *transaction)
    .await
    .map_err(failed(ACTION))?;
    transaction.commit().await.map_err(failed(ACTION))?;
    let spec = CollectionSpec { name: name.to_owned(), ..opened.spec };
    *store.opened.write() = Some(Opened { id: opened.id, spec });
    Ok(())
}
