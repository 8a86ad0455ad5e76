//! The file behind [`super::SqliteStore`]: its tables and statements.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use parking_lot::RwLock;
use retake_schemas::Digest;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row, Sqlite, Transaction};

use super::matrix::{Matrix, Near};
use crate::document::{Chunk, Hit};
use crate::error::PipelineError;
use crate::store::vector::{
    CheckedDocument, DocumentColumns, DocumentRow, FORMAT, HeldCollection, Opened, check_model,
    check_vector, checked, column, count, not_open, similarity, small_count,
};
use crate::store::{
    CollectionSpec, EmbeddedDocument, HeldDocument, KeptDocument, Revision, StoreStats,
    VectorStore, sqlite_vec,
};

/// The store itself.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    pool: SqlitePool,
    opened: RwLock<Option<Opened>>,
    /// The vectors of the open collection, as of one revision of it.
    matrix: RwLock<Option<Arc<Matrix>>>,
    /// The revision that the last search saw; held while a matrix is loaded, so that searches that
    /// come together load one.
    searched: tokio::sync::Mutex<Option<Revision>>,
}

impl SqliteFile {
    /// Prepares the store in `path`. The file is made by the first `open_collection`.
    ///
    /// # Errors
    /// SQLite refused the distance functions.
    pub(super) fn new(path: &Path) -> Result<Self, PipelineError> {
        if !sqlite_vec::register() {
            return Err(PipelineError::Store {
                action: "register sqlite-vec",
                reason: "SQLite refused the extension".to_owned(),
            });
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            // Several chunks with their vectors fit a page, so a scan wastes little of each read.
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode this loses no consistency; a power cut may undo the last commits whole.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            // Nobody hears it (see `super::unseen`), so it need not be put together.
            .disable_statement_logging();
        let pool =
            SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_lazy_with(options);
        Ok(Self {
            path: path.to_owned(),
            pool,
            opened: RwLock::new(None),
            matrix: RwLock::new(None),
            searched: tokio::sync::Mutex::new(None),
        })
    }

    /// Closes all connections; the last one moves the log into the file.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    fn opened(&self, action: &'static str) -> Result<Opened, PipelineError> {
        self.opened.read().clone().ok_or_else(|| not_open(action))
    }

    async fn begin(&self, action: &'static str) -> Result<Transaction<'_, Sqlite>, PipelineError> {
        // A deferred transaction that writes later can fail with "busy" at once; this one waits.
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed(action))
    }

    /// Makes the file, readable by its owner only: it holds the texts of private documents.
    fn create_file(&self) -> Result<(), PipelineError> {
        let io = |source| PipelineError::Io { path: self.path.clone(), source };
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        options.open(&self.path).map(drop).map_err(io)
    }

    async fn held(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        name: &str,
    ) -> Result<Option<HeldCollection>, PipelineError> {
        let row = sqlx::query("SELECT id, model, dim, format FROM collections WHERE name = ?")
            .bind(name)
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed(OPEN))?;
        row.map(|row| held_from(&row)).transpose().map_err(failed(OPEN))
    }

    /// The vectors of the collection as this transaction sees it. Nothing for a collection that is
    /// too large for the memory, or that changed since the last search: while documents are
    /// ingested, to load it for every question would cost more than to scan the file.
    async fn current_matrix(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        opened: &Opened,
    ) -> Result<Option<Arc<Matrix>>, sqlx::Error> {
        let revision: Option<String> =
            sqlx::query_scalar("SELECT lower(hex(revision)) FROM collections WHERE id = ?")
                .bind(opened.id)
                .fetch_optional(&mut **transaction)
                .await?;
        let revision = Revision::new(revision.unwrap_or_default());
        let loaded = || self.matrix.read().clone().filter(|matrix| matrix.revision == revision);
        if let Some(matrix) = loaded() {
            return Ok(Some(matrix));
        }
        let mut searched = self.searched.lock().await;
        if let Some(matrix) = loaded() {
            return Ok(Some(matrix));
        }
        if searched.replace(revision.clone()).as_ref() != Some(&revision) {
            return Ok(None);
        }
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM chunks WHERE collection = ?")
            .bind(opened.id)
            .fetch_one(&mut **transaction)
            .await?;
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let bytes = rows.saturating_mul(opened.spec.dim).saturating_mul(size_of::<f32>());
        if bytes > MATRIX_BYTES_MAX {
            return Ok(None);
        }
        let mut matrix = Matrix::new(revision, opened.spec.dim, rows);
        // In order of the pages of the file, see `SEARCH`.
        let mut found = sqlx::query_as::<_, (i64, String, Vec<u8>)>(
            "SELECT rowid, id, embedding FROM chunks NOT INDEXED WHERE collection = ?",
        )
        .bind(opened.id)
        .fetch(&mut **transaction);
        while let Some((place, id, bytes)) = found.try_next().await? {
            if !matrix.push(place, id, &bytes) {
                // The scan by SQLite says what is wrong with it.
                return Ok(None);
            }
        }
        let matrix = Arc::new(matrix);
        *self.matrix.write() = Some(Arc::clone(&matrix));
        Ok(Some(matrix))
    }

    async fn has_tables(&self) -> Result<bool, PipelineError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'chunks')",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed(OPEN))
    }
}

#[async_trait]
impl VectorStore for SqliteFile {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<(), PipelineError> {
        self.create_file()?;
        let mut transaction = self.begin(OPEN).await?;
        for statement in SCHEMA {
            sqlx::query(statement).execute(&mut *transaction).await.map_err(failed(OPEN))?;
        }
        add_columns(&mut transaction).await.map_err(failed(OPEN))?;
        if let Some(held) = self.held(&mut transaction, &spec.name).await? {
            check_model(OPEN, spec, &held)?;
        }
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO collections (name, model, dim, chunking, format, revision)
             VALUES (?, ?, ?, ?, ?, randomblob(16)) ON CONFLICT (name)
             DO UPDATE SET chunking = excluded.chunking RETURNING id",
        )
        .bind(&spec.name)
        .bind(&spec.model)
        .bind(column(spec.dim as u64))
        .bind(&spec.chunking)
        .bind(FORMAT)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(OPEN))?;
        transaction.commit().await.map_err(failed(OPEN))?;
        *self.opened.write() = Some(Opened { id, spec: spec.clone() });
        Ok(())
    }

    async fn open_existing(&self, spec: &CollectionSpec) -> Result<bool, PipelineError> {
        if !self.path.exists() || !self.has_tables().await? {
            return Ok(false);
        }
        if !has_column(&self.pool, "collections", "revision").await.map_err(failed(OPEN))? {
            let mut transaction = self.begin(OPEN).await?;
            add_columns(&mut transaction).await.map_err(failed(OPEN))?;
            transaction.commit().await.map_err(failed(OPEN))?;
        }
        let mut transaction = self.pool.begin().await.map_err(failed(OPEN))?;
        let Some(held) = self.held(&mut transaction, &spec.name).await? else {
            return Ok(false);
        };
        check_model(OPEN, spec, &held)?;
        *self.opened.write() = Some(Opened { id: held.id, spec: spec.clone() });
        Ok(true)
    }

    async fn committed_digest(&self, document_id: &str) -> Result<Option<Digest>, PipelineError> {
        const ACTION: &str = "look up document";
        let opened = self.opened(ACTION)?;
        let digest: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT digest FROM documents WHERE collection = ? AND id = ? AND chunking = ?",
        )
        .bind(opened.id)
        .bind(document_id)
        .bind(&opened.spec.chunking)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(digest.and_then(|bytes| bytes.try_into().ok()).map(Digest::from_bytes))
    }

    async fn holds_content(&self, digest: &Digest) -> Result<bool, PipelineError> {
        const ACTION: &str = "look up content";
        let opened = self.opened(ACTION)?;
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM documents
             WHERE collection = ? AND digest = ? AND chunking = ?)",
        )
        .bind(opened.id)
        .bind(digest.as_bytes().as_slice())
        .bind(&opened.spec.chunking)
        .fetch_one(&self.pool)
        .await
        .map_err(failed(ACTION))
    }

    async fn documents(&self) -> Result<Vec<HeldDocument>, PipelineError> {
        const ACTION: &str = "list documents";
        let opened = self.opened(ACTION)?;
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT id, path FROM documents WHERE collection = ? ORDER BY id")
                .bind(opened.id)
                .fetch_all(&self.pool)
                .await
                .map_err(failed(ACTION))?;
        Ok(rows.into_iter().map(|(id, path)| HeldDocument { id, path }).collect())
    }

    async fn delete_documents(&self, ids: &[String]) -> Result<(), PipelineError> {
        const ACTION: &str = "delete documents";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
        for id in ids {
            // The chunks go with it (ON DELETE CASCADE).
            sqlx::query("DELETE FROM documents WHERE collection = ? AND id = ?")
                .bind(opened.id)
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed(ACTION))?;
        }
        renew_revision(&mut transaction, opened.id).await.map_err(failed(ACTION))?;
        transaction.commit().await.map_err(failed(ACTION))
    }

    async fn commit(&self, documents: &[EmbeddedDocument]) -> Result<(), PipelineError> {
        let opened = self.opened(COMMIT)?;
        let documents = checked(COMMIT, &opened.spec, documents)?;
        let mut transaction = self.begin(COMMIT).await?;
        for document in &documents {
            replace(&mut transaction, &opened, document).await.map_err(failed(COMMIT))?;
        }
        renew_revision(&mut transaction, opened.id).await.map_err(failed(COMMIT))?;
        transaction.commit().await.map_err(failed(COMMIT))
    }

    async fn search(&self, vector: &[f32], top_k: usize) -> Result<Vec<Hit>, PipelineError> {
        const ACTION: &str = "search vectors";
        let opened = self.opened(ACTION)?;
        check_vector(ACTION, &opened.spec, "the query", vector)?;
        // One moment of the file: what is found in memory has to be there.
        let mut transaction = self.pool.begin().await.map_err(failed(ACTION))?;
        match self.current_matrix(&mut transaction, &opened).await.map_err(failed(ACTION))? {
            Some(matrix) => {
                let query = vector.to_vec();
                // The scan of a large collection takes milliseconds; the runtime is for waiting.
                let near = tokio::task::spawn_blocking(move || matrix.nearest(&query, top_k))
                    .await
                    .map_err(|error| PipelineError::Store {
                        action: ACTION,
                        reason: error.to_string(),
                    })?;
                chunks_at(&mut transaction, &near).await.map_err(failed(ACTION))
            }
            None => {
                let rows = sqlx::query(SEARCH)
                    .bind(little_endian(vector))
                    .bind(opened.id)
                    .bind(column(top_k as u64))
                    .fetch_all(&mut *transaction)
                    .await
                    .map_err(failed(ACTION))?;
                rows.iter().map(hit_from).collect::<Result<_, _>>().map_err(failed(ACTION))
            }
        }
    }

    async fn vectors(
        &self,
        chunk_ids: &[String],
    ) -> Result<HashMap<String, Vec<f32>>, PipelineError> {
        const ACTION: &str = "read vectors";
        let opened = self.opened(ACTION)?;
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT id, embedding FROM chunks
             WHERE collection = ?1 AND id IN (SELECT value FROM json_each(?2))",
        )
        .bind(opened.id)
        .bind(json_list(ACTION, chunk_ids)?)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(rows.into_iter().map(|(id, bytes)| (id, from_little_endian(&bytes))).collect())
    }

    async fn chunks(&self, chunk_ids: &[String]) -> Result<HashMap<String, Chunk>, PipelineError> {
        const ACTION: &str = "read chunks";
        let opened = self.opened(ACTION)?;
        let rows = sqlx::query(
            "SELECT id, document_id, ordinal, start_char, end_char, tokens, text FROM chunks
             WHERE collection = ?1 AND id IN (SELECT value FROM json_each(?2))",
        )
        .bind(opened.id)
        .bind(json_list(ACTION, chunk_ids)?)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        let chunks = rows.iter().map(|row| chunk_from(row).map(|chunk| (chunk.id.clone(), chunk)));
        chunks.collect::<Result<_, _>>().map_err(failed(ACTION))
    }

    async fn modified_ms(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, i64>, PipelineError> {
        const ACTION: &str = "read dates of documents";
        let opened = self.opened(ACTION)?;
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, modified_ms FROM documents
             WHERE collection = ?1 AND modified_ms IS NOT NULL
               AND id IN (SELECT value FROM json_each(?2))",
        )
        .bind(opened.id)
        .bind(json_list(ACTION, document_ids)?)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(rows.into_iter().collect())
    }

    async fn revision(&self) -> Result<Revision, PipelineError> {
        const ACTION: &str = "read revision";
        let opened = self.opened(ACTION)?;
        let name: Option<String> =
            sqlx::query_scalar("SELECT lower(hex(revision)) FROM collections WHERE id = ?")
                .bind(opened.id)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed(ACTION))?;
        name.map(Revision::new).ok_or_else(|| not_open(ACTION))
    }

    async fn collections(&self) -> Result<Vec<CollectionSpec>, PipelineError> {
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

    async fn read_documents(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeptDocument>, PipelineError> {
        const ACTION: &str = "read documents";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.pool.begin().await.map_err(failed(ACTION))?;
        let rows: Vec<DocumentColumns> = sqlx::query_as(
            "SELECT id, digest, path, chunking, modified_ms FROM documents
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

    async fn take_name(&self, name: &str, revision: &Revision) -> Result<(), PipelineError> {
        const ACTION: &str = "put collection in place";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
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
        sqlx::query("UPDATE collections SET name = ?1, revision = unhex(?3) WHERE id = ?2")
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

    async fn finish_load(&self) -> Result<(), PipelineError> {
        // Moves the log into the file, so that a copy of the file alone is complete. A reader of
        // another process may prevent it; then the next one does it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("finish load"))
    }

    async fn stats(&self) -> Result<StoreStats, PipelineError> {
        const ACTION: &str = "count documents";
        let opened = self.opened(ACTION)?;
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM documents WHERE collection = ?1) AS documents,
                    (SELECT count(*) FROM chunks WHERE collection = ?1) AS chunks",
        )
        .bind(opened.id)
        .fetch_one(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        let number = |name| row.try_get(name).map(count).map_err(failed(ACTION));
        Ok(StoreStats { documents: number("documents")?, chunks: number("chunks")? })
    }

    async fn drop_collection(&self) -> Result<(), PipelineError> {
        const ACTION: &str = "drop collection";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
        for statement in [
            "DELETE FROM chunks WHERE collection = ?",
            "DELETE FROM documents WHERE collection = ?",
            "DELETE FROM collections WHERE id = ?",
        ] {
            sqlx::query(statement)
                .bind(opened.id)
                .execute(&mut *transaction)
                .await
                .map_err(failed(ACTION))?;
        }
        transaction.commit().await.map_err(failed(ACTION))?;
        *self.opened.write() = None;
        Ok(())
    }
}

/// Puts a document in the place of its earlier version.
async fn replace(
    transaction: &mut Transaction<'_, Sqlite>,
    opened: &Opened,
    checked: &CheckedDocument<'_>,
) -> Result<(), sqlx::Error> {
    let document = checked.document;
    // The chunks of the old version go with it (ON DELETE CASCADE).
    sqlx::query("DELETE FROM documents WHERE collection = ? AND id = ?")
        .bind(opened.id)
        .bind(&document.id)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO documents (collection, id, digest, path, chunking, modified_ms)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(opened.id)
    .bind(&document.id)
    .bind(document.digest.as_bytes().as_slice())
    .bind(&document.path)
    .bind(&opened.spec.chunking)
    .bind(document.modified_ms)
    .execute(&mut **transaction)
    .await?;
    for (chunk, vector) in &checked.chunks {
        sqlx::query(
            "INSERT INTO chunks (collection, id, document_id, ordinal, start_char, end_char, \
             tokens, embedding, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(opened.id)
        .bind(&chunk.id)
        .bind(&document.id)
        .bind(chunk.ordinal)
        .bind(column(chunk.start_char))
        .bind(column(chunk.end_char))
        .bind(chunk.tokens)
        .bind(little_endian(vector))
        .bind(&chunk.text)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

fn held_from(row: &SqliteRow) -> Result<HeldCollection, sqlx::Error> {
    Ok(HeldCollection {
        id: row.try_get("id")?,
        model: row.try_get("model")?,
        dim: row.try_get("dim")?,
        format: row.try_get("format")?,
    })
}

/// The chunks at places in the file, in the order given.
async fn chunks_at(
    transaction: &mut Transaction<'_, Sqlite>,
    near: &[Near],
) -> Result<Vec<Hit>, sqlx::Error> {
    let mut hits = Vec::with_capacity(near.len());
    for Near { place, similarity } in near {
        let row = sqlx::query(
            "SELECT id, document_id, ordinal, start_char, end_char, tokens, text
             FROM chunks WHERE rowid = ?",
        )
        .bind(place)
        .fetch_one(&mut **transaction)
        .await?;
        hits.push(Hit { chunk: chunk_from(&row)?, similarity: *similarity, rerank_score: None });
    }
    Ok(hits)
}

/// Adds what collections of earlier versions lack. Rows of before get a revision each.
async fn add_columns(transaction: &mut Transaction<'_, Sqlite>) -> Result<(), sqlx::Error> {
    for (table, column, statement) in ADDED_COLUMNS {
        if !has_column(&mut **transaction, table, column).await? {
            sqlx::query(statement).execute(&mut **transaction).await?;
        }
    }
    sqlx::query("UPDATE collections SET revision = randomblob(16) WHERE revision IS NULL")
        .execute(&mut **transaction)
        .await
        .map(drop)
}

async fn has_column(
    executor: impl sqlx::SqliteExecutor<'_>,
    table: &str,
    column: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)")
        .bind(table)
        .bind(column)
        .fetch_one(executor)
        .await
}

/// Says that the collection is another one now, in the transaction that makes it so.
async fn renew_revision(
    transaction: &mut Transaction<'_, Sqlite>,
    collection: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE collections SET revision = randomblob(16) WHERE id = ?")
        .bind(collection)
        .execute(&mut **transaction)
        .await
        .map(drop)
}

/// A list as one parameter, for `json_each`.
fn json_list(action: &'static str, items: &[String]) -> Result<String, PipelineError> {
    serde_json::to_string(items)
        .map_err(|error| PipelineError::Store { action, reason: error.to_string() })
}

fn hit_from(row: &SqliteRow) -> Result<Hit, sqlx::Error> {
    let similarity = similarity(row.try_get("distance")?);
    Ok(Hit { chunk: chunk_from(row)?, similarity, rerank_score: None })
}

fn chunk_from(row: &SqliteRow) -> Result<Chunk, sqlx::Error> {
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

fn from_little_endian(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

fn little_endian(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> PipelineError {
    move |error| PipelineError::Store { action, reason: error.to_string() }
}

/// The tables. `embedding` stands before `text`, so a scan never reads the text's pages.
const SCHEMA: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS collections (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
        dim INTEGER NOT NULL, chunking TEXT NOT NULL, format INTEGER NOT NULL,
        revision BLOB) STRICT",
    "CREATE TABLE IF NOT EXISTS documents (
        collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
        id TEXT NOT NULL, digest BLOB NOT NULL, path TEXT NOT NULL, chunking TEXT NOT NULL,
        modified_ms INTEGER,
        PRIMARY KEY (collection, id)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS chunks (
        collection INTEGER NOT NULL, id TEXT NOT NULL, document_id TEXT NOT NULL,
        ordinal INTEGER NOT NULL, start_char INTEGER NOT NULL, end_char INTEGER NOT NULL,
        tokens INTEGER NOT NULL, embedding BLOB NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (collection, id),
        FOREIGN KEY (collection, document_id) REFERENCES documents (collection, id)
            ON DELETE CASCADE) STRICT",
    "CREATE INDEX IF NOT EXISTS chunks_of_document ON chunks (collection, document_id)",
    "CREATE INDEX IF NOT EXISTS documents_by_content ON documents (collection, digest)",
];

/// Columns that came later: table, column, and the statement that adds it.
const ADDED_COLUMNS: [(&str, &str, &str); 2] = [
    ("collections", "revision", "ALTER TABLE collections ADD COLUMN revision BLOB"),
    ("documents", "modified_ms", "ALTER TABLE documents ADD COLUMN modified_ms INTEGER"),
];

/// Reads the table in order of its pages: by the index on `(collection, id)` every row would be a
/// jump. A vector of length 0 has no distance; 1 puts it between near and far.
const SEARCH: &str = "
    WITH nearest AS MATERIALIZED (
        SELECT rowid AS place, coalesce(vec_distance_cosine(embedding, ?1), 1.0) AS distance
        FROM chunks NOT INDEXED WHERE collection = ?2 ORDER BY distance, id LIMIT ?3)
    SELECT id, document_id, ordinal, start_char, end_char, tokens, text, distance
    FROM nearest JOIN chunks ON chunks.rowid = nearest.place ORDER BY distance, id";

/// The default of 4 KiB holds one chunk of 256 tokens with 384 dimensions, and half of it is air.
const PAGE_BYTES: u32 = 16 << 10;
/// A million and more vectors of 384 dimensions. Beyond it a search reads the file.
const MATRIX_BYTES_MAX: usize = 2 << 30;
/// Longer than any commit of ours takes; after it another writer is stuck, not slow.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// One writer, and as many readers as there may be queries at the same time on a usual machine.
const CONNECTIONS_MAX: u32 = 8;
const OPEN: &str = "open collection";
const COMMIT: &str = "commit documents";
