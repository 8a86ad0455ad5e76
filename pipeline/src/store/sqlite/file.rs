//! The file behind [`super::SqliteStore`]: its tables, and how documents come into them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use retake_schemas::Digest;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, QueryBuilder, Row, Sqlite, Transaction};

use super::matrix::Matrix;
use super::rows::little_endian;
use super::search::json_list;
use super::words::WordsTable;
use crate::document::{Chunk, Format};
use crate::error::PipelineError;
use crate::store::vector::{
    CheckedDocument, FORMAT, HeldCollection, Opened, check_model, checked, column, count, digests,
    not_open,
};
use crate::store::{
    CollectionSpec, EmbeddedDocument, HeldDocument, Revision, StoreStats, sqlite_vec,
};

/// The store itself.
#[derive(Debug)]
pub(super) struct SqliteFile {
    pub(super) path: PathBuf,
    pub(super) pool: SqlitePool,
    pub(super) opened: RwLock<Option<Opened>>,
    /// The vectors of the open collection, as of one revision of it.
    pub(super) matrix: RwLock<Option<Arc<Matrix>>>,
    /// The revision that the last search saw; held while a matrix is loaded, so that searches that
    /// come together load one.
    pub(super) searched: tokio::sync::Mutex<Option<Revision>>,
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
    ///
    /// # Errors
    /// The file cannot be opened once more.
    pub(super) async fn close(&self) -> Result<(), PipelineError> {
        self.pool.close().await;
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        if !log.exists() {
            return Ok(());
        }
        // Of two connections that close at the same time each leaves the log to the other.
        let alone = SqliteConnectOptions::new()
            .filename(&self.path)
            .journal_mode(SqliteJournalMode::Delete)
            .busy_timeout(BUSY_TIMEOUT);
        let connection = alone.connect().await.map_err(failed(CLOSE))?;
        connection.close().await.map_err(failed(CLOSE))
    }

    pub(super) fn opened(&self, action: &'static str) -> Result<Opened, PipelineError> {
        self.opened.read().clone().ok_or_else(|| not_open(action))
    }

    pub(super) async fn begin(
        &self,
        action: &'static str,
    ) -> Result<Transaction<'_, Sqlite>, PipelineError> {
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

    async fn lacks_columns(&self) -> Result<bool, sqlx::Error> {
        for (table, column, _) in ADDED_COLUMNS {
            if !has_column(&self.pool, table, column).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn has_tables(&self) -> Result<bool, PipelineError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'chunks')",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed(OPEN))
    }

    pub(super) async fn open_collection(&self, spec: &CollectionSpec) -> Result<(), PipelineError> {
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

    pub(super) async fn open_existing(&self, spec: &CollectionSpec) -> Result<bool, PipelineError> {
        if !self.path.exists() || !self.has_tables().await? {
            return Ok(false);
        }
        if self.lacks_columns().await.map_err(failed(OPEN))? {
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

    pub(super) async fn committed_digests(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, Digest>, PipelineError> {
        const ACTION: &str = "look up documents";
        let opened = self.opened(ACTION)?;
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT id, digest FROM documents WHERE collection = ?1
               AND id IN (SELECT value FROM json_each(?2)) AND chunking = ?3",
        )
        .bind(opened.id)
        .bind(json_list(ACTION, document_ids)?)
        .bind(&opened.spec.chunking)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(digests(rows))
    }

    pub(super) async fn holds_content(&self, digest: &Digest) -> Result<bool, PipelineError> {
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

    pub(super) async fn documents(&self) -> Result<Vec<HeldDocument>, PipelineError> {
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

    pub(super) async fn delete_documents(&self, ids: &[String]) -> Result<(), PipelineError> {
        const ACTION: &str = "delete documents";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
        let words =
            WordsTable::current(&mut *transaction, opened.id).await.map_err(failed(ACTION))?;
        for id in ids {
            if let Some(words) = words {
                words.remove(&mut transaction, id).await.map_err(failed(ACTION))?;
            }
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

    pub(super) async fn commit(&self, documents: &[EmbeddedDocument]) -> Result<(), PipelineError> {
        let opened = self.opened(COMMIT)?;
        let documents = checked(COMMIT, &opened.spec, documents)?;
        let mut transaction = self.begin(COMMIT).await?;
        let words =
            WordsTable::current(&mut *transaction, opened.id).await.map_err(failed(COMMIT))?;
        let replaced = replace(&mut transaction, &opened, &documents, words).await;
        replaced.map_err(failed(COMMIT))?;
        renew_revision(&mut transaction, opened.id).await.map_err(failed(COMMIT))?;
        transaction.commit().await.map_err(failed(COMMIT))
    }

    pub(super) async fn revision(&self) -> Result<Revision, PipelineError> {
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

    pub(super) async fn stats(&self) -> Result<StoreStats, PipelineError> {
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

    pub(super) async fn drop_collection(&self) -> Result<(), PipelineError> {
        const ACTION: &str = "drop collection";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
        WordsTable::of(opened.id).drop(&mut transaction).await.map_err(failed(ACTION))?;
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

/// Puts documents in the place of their earlier versions. Rows go in by the dozen: a statement costs
/// more than a row.
async fn replace(
    transaction: &mut Transaction<'_, Sqlite>,
    opened: &Opened,
    documents: &[CheckedDocument<'_>],
    words: Option<WordsTable>,
) -> Result<(), sqlx::Error> {
    for checked in documents {
        let id = &checked.document.id;
        if let Some(words) = words {
            words.remove(transaction, id).await?;
        }
        // The chunks of the old version go with it (ON DELETE CASCADE).
        sqlx::query("DELETE FROM documents WHERE collection = ? AND id = ?")
            .bind(opened.id)
            .bind(id)
            .execute(&mut **transaction)
            .await?;
    }
    for documents in documents.chunks(ROWS_AT_ONCE) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO documents (collection, id, digest, path, chunking, modified_ms, kind) ",
        );
        insert.push_values(documents, |mut row, checked| {
            let document = checked.document;
            row.push_bind(opened.id)
                .push_bind(&document.id)
                .push_bind(document.digest.as_bytes().as_slice())
                .push_bind(&document.path)
                .push_bind(&opened.spec.chunking)
                .push_bind(document.modified_ms)
                .push_bind(document.kind.map(Format::as_str));
        });
        insert.build().execute(&mut **transaction).await?;
    }
    let chunks: Vec<(&str, &Chunk, &[f32])> = documents
        .iter()
        .flat_map(|checked| {
            let document_id = checked.document.id.as_str();
            checked
                .chunks
                .iter()
                .map(move |(chunk, vector)| (document_id, chunk, vector.as_slice()))
        })
        .collect();
    for chunks in chunks.chunks(ROWS_AT_ONCE) {
        insert_chunks(transaction, opened, chunks, words).await?;
    }
    Ok(())
}

async fn insert_chunks(
    transaction: &mut Transaction<'_, Sqlite>,
    opened: &Opened,
    chunks: &[(&str, &Chunk, &[f32])],
    words: Option<WordsTable>,
) -> Result<(), sqlx::Error> {
    let mut insert = QueryBuilder::<Sqlite>::new(
        "INSERT INTO chunks (collection, id, document_id, ordinal, start_char, end_char, tokens, \
         embedding, text) ",
    );
    insert.push_values(chunks, |mut row, (document_id, chunk, vector)| {
        row.push_bind(opened.id)
            .push_bind(&chunk.id)
            .push_bind(*document_id)
            .push_bind(chunk.ordinal)
            .push_bind(column(chunk.start_char))
            .push_bind(column(chunk.end_char))
            .push_bind(chunk.tokens)
            .push_bind(little_endian(vector))
            .push_bind(&chunk.text);
    });
    let Some(words) = words else {
        return insert.build().execute(&mut **transaction).await.map(drop);
    };
    insert.push(" RETURNING rowid, id");
    let places: Vec<(i64, String)> = insert.build_query_as().fetch_all(&mut **transaction).await?;
    let texts: HashMap<&str, &str> =
        chunks.iter().map(|(_, chunk, _)| (chunk.id.as_str(), chunk.text.as_str())).collect();
    for (place, id) in &places {
        if let Some(text) = texts.get(id.as_str()) {
            words.add(transaction, *place, text).await?;
        }
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

/// Says that the collection is another one now, in the transaction that makes it so. Words that
/// were those of the revision before are those of the new one: who changes chunks changes them too.
async fn renew_revision(
    transaction: &mut Transaction<'_, Sqlite>,
    collection: i64,
) -> Result<(), sqlx::Error> {
    let renew = "
        WITH next (revision) AS MATERIALIZED (SELECT randomblob(16))
        UPDATE collections SET revision = next.revision,
            words_revision = CASE WHEN words_revision = collections.revision THEN next.revision END
        FROM next WHERE id = ?";
    sqlx::query(renew).bind(collection).execute(&mut **transaction).await.map(drop)
}

pub(super) fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> PipelineError {
    move |error| PipelineError::Store { action, reason: error.to_string() }
}

/// The tables. `embedding` stands before `text`, so a scan never reads the text's pages.
const SCHEMA: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS collections (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
        dim INTEGER NOT NULL, chunking TEXT NOT NULL, format INTEGER NOT NULL,
        revision BLOB, words_revision BLOB) STRICT",
    "CREATE TABLE IF NOT EXISTS documents (
        collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
        id TEXT NOT NULL, digest BLOB NOT NULL, path TEXT NOT NULL, chunking TEXT NOT NULL,
        modified_ms INTEGER, kind TEXT,
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
const ADDED_COLUMNS: [(&str, &str, &str); 4] = [
    ("collections", "revision", "ALTER TABLE collections ADD COLUMN revision BLOB"),
    ("collections", "words_revision", "ALTER TABLE collections ADD COLUMN words_revision BLOB"),
    ("documents", "modified_ms", "ALTER TABLE documents ADD COLUMN modified_ms INTEGER"),
    ("documents", "kind", "ALTER TABLE documents ADD COLUMN kind TEXT"),
];

/// The default of 4 KiB holds one chunk of 256 tokens with 384 dimensions, and half of it is air.
const PAGE_BYTES: u32 = 16 << 10;
/// Rows of a statement: at nine values a row far below SQLite's 32,766, and beyond it nothing is gained.
const ROWS_AT_ONCE: usize = 32;
/// Longer than any commit of ours takes; after it another writer is stuck, not slow.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// One writer, and as many readers as there may be queries at the same time on a usual machine.
const CONNECTIONS_MAX: u32 = 8;
const OPEN: &str = "open collection";
const CLOSE: &str = "close the file of documents";
const COMMIT: &str = "commit documents";
