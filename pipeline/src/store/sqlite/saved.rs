//! What saves and restores collections, see `crate::storage`.

use std::collections::HashMap;

use sqlx::Row as _;

use super::file::{SqliteFile, failed};
use super::rows::{chunk_from, from_little_endian};
use super::search::json_list;
use super::words::WordsTable;
use crate::document::Chunk;
use crate::error::PipelineError;
use crate::store::vector::{DocumentColumns, DocumentRow, Opened, column};
use crate::store::{CollectionSpec, KeptDocument, Revision};

impl SqliteFile {
    pub(super) async fn collections(&self) -> Result<Vec<CollectionSpec>, PipelineError> {
        const ACTION: &str = "list collections";
        if !self.path.exists() || !self.has_tables().await? {
            return Ok(Vec::new());
        }
        let rows: Vec<(String, String, i64, String)> =
            sqlx::query_as("SELECT name, model, dim, chunking FROM collections ORDER BY name")
                .fetch_all(&self.pool)
                .await
                .map_err(failed(ACTION))?;
        Ok(rows.into_iter().map(CollectionSpec::from).collect())
    }

    pub(super) async fn read_documents(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeptDocument>, PipelineError> {
        const ACTION: &str = "read documents";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.pool.begin().await.map_err(failed(ACTION))?;
        let rows: Vec<DocumentColumns> = sqlx::query_as(
            "SELECT id, digest, path, chunking, modified_ms, kind FROM documents
             WHERE collection = ?1 AND (?2 IS NULL OR id > ?2) ORDER BY id LIMIT ?3",
        )
        .bind(opened.id)
        .bind(after)
        .bind(column(limit as u64))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(ACTION))?;
        let rows: Vec<DocumentRow> = rows.into_iter().map(DocumentRow::from).collect();
        let ids: Vec<String> = rows.iter().map(|row| row.id().to_owned()).collect();
        let chunk_rows = sqlx::query(
            "SELECT id, document_id, ordinal, start_char, end_char, tokens, text, embedding
             FROM chunks WHERE collection = ?1
               AND document_id IN (SELECT value FROM json_each(?2)) ORDER BY document_id, ordinal",
        )
        .bind(opened.id)
        .bind(json_list(ACTION, &ids)?)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(ACTION))?;
        let mut chunks: HashMap<String, Vec<(Chunk, Vec<f32>)>> = HashMap::new();
        for row in &chunk_rows {
            let chunk = chunk_from(row).map_err(failed(ACTION))?;
            let bytes: Vec<u8> = row.try_get("embedding").map_err(failed(ACTION))?;
            let of_document = chunks.entry(chunk.document_id.clone()).or_default();
            of_document.push((chunk, from_little_endian(&bytes)));
        }
        rows.into_iter().map(|row| row.with_chunks(ACTION, &mut chunks)).collect()
    }

    pub(super) async fn take_name(
        &self,
        name: &str,
        revision: &Revision,
    ) -> Result<(), PipelineError> {
        const ACTION: &str = "put collection in place";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
        let former: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM collections WHERE name = ? AND id <> ?")
                .bind(name)
                .bind(opened.id)
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed(ACTION))?;
        for id in former {
            WordsTable::of(id).drop(&mut transaction).await.map_err(failed(ACTION))?;
        }
        for statement in [
            "DELETE FROM chunks WHERE collection IN
                (SELECT id FROM collections WHERE name = ?1 AND id <> ?2)",
            "DELETE FROM documents WHERE collection IN
                (SELECT id FROM collections WHERE name = ?1 AND id <> ?2)",
            "DELETE FROM collections WHERE name = ?1 AND id <> ?2",
        ] {
            sqlx::query(statement)
                .bind(name)
                .bind(opened.id)
                .execute(&mut *transaction)
                .await
                .map_err(failed(ACTION))?;
        }
        let take = "
            UPDATE collections SET name = ?1, revision = unhex(?3),
                words_revision = CASE WHEN words_revision = revision THEN unhex(?3) END
            WHERE id = ?2";
        sqlx::query(take)
            .bind(name)
            .bind(opened.id)
            .bind(revision.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACTION))?;
        transaction.commit().await.map_err(failed(ACTION))?;
        let spec = CollectionSpec { name: name.to_owned(), ..opened.spec };
        *self.opened.write() = Some(Opened { id: opened.id, spec });
        Ok(())
    }

    pub(super) async fn finish_load(&self) -> Result<(), PipelineError> {
        // Moves the log into the file, so that a copy of the file alone is complete. A reader of
        // another process may prevent it; then the next one does it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("finish load"))
    }
}
