//! The PostgreSQL store: pgvector, loaded by COPY, searched by HNSW or IVFFlat.
//!
//! Every collection has a chunks table of its own, so its width is checked by the database, its
//! index is its own, dropping it costs nothing to the others, and no search needs a filter. The
//! index is built after a load: into an existing one rows go fifty times slower. Searches without
//! an index, and of small collections, are exact.

mod connect;
mod copy;
mod index;
mod saved;
mod statements;
mod version;
mod words;
mod write;

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::RwLock;
use pgvector::Vector;
use retake_schemas::Digest;
use retake_schemas::settings::VectorSettings;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Row, Transaction};

use self::index::Index;
use self::statements::{ChunksTable, chunk_from, hit_from};
use self::words::WordsTable;
use super::vector::{
    FORMAT, HeldCollection, Opened, check_model, check_vector, column, count, digests, not_open,
};
use super::{
    CollectionSpec, EmbeddedDocument, HeldDocument, KeptDocument, Revision, StoreStats, TextHit,
    VectorStore, Wanted,
};
use crate::document::{Chunk, Hit};
use crate::error::PipelineError;

/// A store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    settings: VectorSettings,
    opened: RwLock<Option<Opened>>,
    /// The index of the open collection.
    index: RwLock<Option<Index>>,
}

/// How the nearest vectors are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchMode {
    /// All vectors are compared.
    Exact,
    /// The index is asked; a neighbour may be missed.
    Indexed,
}

impl PostgresStore {
    /// Connects to the database at `url`, with pool and timeout of `settings`.
    ///
    /// # Errors
    /// The URL is malformed, the server cannot be reached, or pgvector is missing or too old.
    pub async fn connect(url: &str, settings: &VectorSettings) -> Result<Self, PipelineError> {
        let pool = connect::connect(url, settings).await?;
        connect::ensure_extension(&pool, url).await?;
        let settings = settings.clone();
        Ok(Self { pool, settings, opened: RwLock::new(None), index: RwLock::new(None) })
    }

    /// How searches are done now.
    #[must_use]
    pub fn search_mode(&self) -> SearchMode {
        if self.index.read().is_some() { SearchMode::Indexed } else { SearchMode::Exact }
    }

    /// Searches in a given mode, to compare one with the other.
    ///
    /// # Errors
    /// As [`VectorStore::search`].
    pub async fn search_by(
        &self,
        mode: SearchMode,
        vector: &[f32],
        wanted: Wanted<'_>,
    ) -> Result<Vec<Hit>, PipelineError> {
        let opened = self.opened(SEARCH)?;
        check_vector(SEARCH, &opened.spec, "the query", vector)?;
        let table = table(SEARCH, &opened)?;
        let mut transaction = self.begin(SEARCH).await?;
        let mut search = match mode {
            SearchMode::Exact => table.search_exact(vector, wanted),
            SearchMode::Indexed => {
                let index = *self.index.read();
                index::prepare_scan(&mut transaction, index, &self.settings, wanted)
                    .await
                    .map_err(failed(SEARCH))?;
                table.search_indexed(vector, wanted)
            }
        };
        let rows = search.build().fetch_all(&mut *transaction).await.map_err(failed(SEARCH))?;
        transaction.commit().await.map_err(failed(SEARCH))?;
        rows.iter().map(hit_from).collect::<Result<_, _>>().map_err(failed(SEARCH))
    }

    fn opened(&self, action: &'static str) -> Result<Opened, PipelineError> {
        self.opened.read().clone().ok_or_else(|| not_open(action))
    }

    async fn begin(
        &self,
        action: &'static str,
    ) -> Result<Transaction<'_, Postgres>, PipelineError> {
        self.pool.begin().await.map_err(failed(action))
    }

    async fn remember(&self, id: i64, spec: &CollectionSpec) -> Result<(), PipelineError> {
        let opened = Opened { id, spec: spec.clone() };
        let found = index::find(&self.pool, table(OPEN, &opened)?).await.map_err(failed(OPEN))?;
        *self.index.write() = found.map(|(_, index)| index);
        *self.opened.write() = Some(opened);
        Ok(())
    }
}

#[async_trait]
impl VectorStore for PostgresStore {
    fn system(&self) -> &'static str {
        "postgresql"
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<(), PipelineError> {
        connect::ensure_tables(&self.pool).await?;
        let mut transaction = self.begin(OPEN).await?;
        lock(&mut transaction, NO_COLLECTION).await.map_err(failed(OPEN))?;
        let id = match held(&mut transaction, &spec.name).await.map_err(failed(OPEN))? {
            Some(held) => {
                check_model(OPEN, spec, &held)?;
                remember_chunking(&mut transaction, held.id, spec).await.map_err(failed(OPEN))?;
                held.id
            }
            None => create(&mut transaction, spec).await?,
        };
        transaction.commit().await.map_err(failed(OPEN))?;
        self.remember(id, spec).await
    }

    async fn open_existing(&self, spec: &CollectionSpec) -> Result<bool, PipelineError> {
        if !connect::has_tables(&self.pool).await? {
            return Ok(false);
        }
        connect::ensure_tables(&self.pool).await?;
        let mut transaction = self.begin(OPEN).await?;
        let held = held(&mut transaction, &spec.name).await.map_err(failed(OPEN))?;
        transaction.commit().await.map_err(failed(OPEN))?;
        let Some(held) = held else { return Ok(false) };
        check_model(OPEN, spec, &held)?;
        self.remember(held.id, spec).await.map(|()| true)
    }

    async fn committed_digests(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, Digest>, PipelineError> {
        const ACTION: &str = "look up documents";
        let opened = self.opened(ACTION)?;
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT id, digest FROM retake.documents
             WHERE collection = $1 AND id = ANY($2) AND chunking = $3",
        )
        .bind(opened.id)
        .bind(document_ids)
        .bind(&opened.spec.chunking)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(digests(rows))
    }

    async fn holds_content(&self, digest: &Digest) -> Result<bool, PipelineError> {
        const ACTION: &str = "look up content";
        let opened = self.opened(ACTION)?;
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM retake.documents
             WHERE collection = $1 AND digest = $2 AND chunking = $3)",
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
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT id, path FROM retake.documents WHERE collection = $1 ORDER BY id",
        )
        .bind(opened.id)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(rows.into_iter().map(|(id, path)| HeldDocument { id, path }).collect())
    }

    async fn delete_documents(&self, ids: &[String]) -> Result<(), PipelineError> {
        write::delete(self, ids).await
    }

    async fn commit(&self, documents: &[EmbeddedDocument]) -> Result<(), PipelineError> {
        write::commit(self, documents).await
    }

    async fn search_within(
        &self,
        vector: &[f32],
        wanted: Wanted<'_>,
    ) -> Result<Vec<Hit>, PipelineError> {
        let mode = self.search_mode();
        let found = self.search_by(mode, vector, wanted).await?;
        // An index scan gives up after a number of rows (`max_scan_tuples`), however few of them the
        // filter let through; what it lets through is then so little that a scan finds it soon.
        let gave_up = wanted.filter.is_some() && found.len() < wanted.top_k;
        if mode == SearchMode::Indexed && gave_up {
            return self.search_by(SearchMode::Exact, vector, wanted).await;
        }
        Ok(found)
    }

    async fn index_words(&self) -> Result<(), PipelineError> {
        words::index(self).await
    }

    async fn search_text_within(
        &self,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Result<Vec<TextHit>, PipelineError> {
        words::search(self, text, wanted).await
    }

    async fn vectors(
        &self,
        chunk_ids: &[String],
    ) -> Result<HashMap<String, Vec<f32>>, PipelineError> {
        const ACTION: &str = "read vectors";
        let opened = self.opened(ACTION)?;
        let rows: Vec<(String, Vector)> = sqlx::query_as(table(ACTION, &opened)?.vectors())
            .bind(chunk_ids)
            .fetch_all(&self.pool)
            .await
            .map_err(failed(ACTION))?;
        Ok(rows.into_iter().map(|(id, vector)| (id, vector.to_vec())).collect())
    }

    async fn chunks(&self, chunk_ids: &[String]) -> Result<HashMap<String, Chunk>, PipelineError> {
        const ACTION: &str = "read chunks";
        let opened = self.opened(ACTION)?;
        let rows = sqlx::query(table(ACTION, &opened)?.chunks())
            .bind(chunk_ids)
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
            "SELECT id, modified_ms FROM retake.documents
             WHERE collection = $1 AND modified_ms IS NOT NULL AND id = ANY($2)",
        )
        .bind(opened.id)
        .bind(document_ids)
        .fetch_all(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        Ok(rows.into_iter().collect())
    }

    async fn revision(&self) -> Result<Revision, PipelineError> {
        const ACTION: &str = "read revision";
        let opened = self.opened(ACTION)?;
        let name: Option<String> = sqlx::query_scalar(
            "SELECT encode(uuid_send(revision), 'hex') FROM retake.collections WHERE id = $1",
        )
        .bind(opened.id)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed(ACTION))?;
        name.map(Revision::new).ok_or_else(|| not_open(ACTION))
    }

    async fn collections(&self) -> Result<Vec<CollectionSpec>, PipelineError> {
        saved::collections(self).await
    }

    async fn read_documents(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeptDocument>, PipelineError> {
        saved::read_documents(self, after, limit).await
    }

    async fn take_name(&self, name: &str, revision: &Revision) -> Result<(), PipelineError> {
        saved::take_name(self, name, revision).await
    }

    async fn finish_load(&self) -> Result<(), PipelineError> {
        index::build(self).await
    }

    async fn stats(&self) -> Result<StoreStats, PipelineError> {
        const ACTION: &str = "count documents";
        let opened = self.opened(ACTION)?;
        let documents: i64 =
            sqlx::query_scalar("SELECT count(*) FROM retake.documents WHERE collection = $1")
                .bind(opened.id)
                .fetch_one(&self.pool)
                .await
                .map_err(failed(ACTION))?;
        let chunks: i64 = sqlx::query_scalar(table(ACTION, &opened)?.count())
            .fetch_one(&self.pool)
            .await
            .map_err(failed(ACTION))?;
        Ok(StoreStats { documents: count(documents), chunks: count(chunks) })
    }

    async fn drop_collection(&self) -> Result<(), PipelineError> {
        const ACTION: &str = "drop collection";
        let opened = self.opened(ACTION)?;
        let mut transaction = self.begin(ACTION).await?;
        lock(&mut transaction, opened.id).await.map_err(failed(ACTION))?;
        execute(&mut transaction, table(ACTION, &opened)?.drop()).await?;
        WordsTable::of(opened.id).drop(&mut transaction).await?;
        // Its documents go with it (ON DELETE CASCADE).
        sqlx::query("DELETE FROM retake.collections WHERE id = $1")
            .bind(opened.id)
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACTION))?;
        transaction.commit().await.map_err(failed(ACTION))?;
        *self.opened.write() = None;
        *self.index.write() = None;
        Ok(())
    }
}

type Work<'a> = Transaction<'a, Postgres>;

fn table(action: &'static str, opened: &Opened) -> Result<ChunksTable, PipelineError> {
    let dim = u16::try_from(opened.spec.dim).map_err(|_| PipelineError::Store {
        action,
        reason: format!("pgvector has no vectors of {} dimensions", opened.spec.dim),
    })?;
    Ok(ChunksTable { id: opened.id, dim })
}

/// Waits for whoever else changes the same thing; released when the transaction ends.
async fn lock(transaction: &mut Work<'_>, key: i64) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK_OF_SCHEMA.wrapping_add(key))
        .execute(&mut **transaction)
        .await
        .map(drop)
}

async fn execute(
    transaction: &mut Work<'_>,
    statement: impl sqlx::SqlSafeStr,
) -> Result<(), PipelineError> {
    sqlx::query(statement)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("change tables"))
}

async fn held(
    transaction: &mut Work<'_>,
    name: &str,
) -> Result<Option<HeldCollection>, sqlx::Error> {
    let row = sqlx::query("SELECT id, model, dim, format FROM retake.collections WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| {
        Ok(HeldCollection {
            id: row.try_get("id")?,
            model: row.try_get("model")?,
            dim: row.try_get("dim")?,
            format: row.try_get("format")?,
        })
    })
    .transpose()
}

async fn remember_chunking(
    transaction: &mut Work<'_>,
    id: i64,
    spec: &CollectionSpec,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE retake.collections SET chunking = $2 WHERE id = $1 AND chunking <> $2")
        .bind(id)
        .bind(&spec.chunking)
        .execute(&mut **transaction)
        .await
        .map(drop)
}

async fn create(transaction: &mut Work<'_>, spec: &CollectionSpec) -> Result<i64, PipelineError> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO retake.collections (name, model, dim, chunking, format)
         VALUES ($1, $2, $3, $4, $5) RETURNING id",
    )
    .bind(&spec.name)
    .bind(&spec.model)
    .bind(column(spec.dim as u64))
    .bind(&spec.chunking)
    .bind(FORMAT)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed(OPEN))?;
    let table = table(OPEN, &Opened { id, spec: spec.clone() })?;
    execute(transaction, table.create()).await?;
    execute(transaction, table.create_document_index()).await?;
    Ok(id)
}

/// Says that the collection is another one now, in the transaction that makes it so. Words that
/// were those of the revision before are those of the new one: who changes chunks changes them too.
async fn renew_revision(transaction: &mut Work<'_>, collection: i64) -> Result<(), sqlx::Error> {
    let renew = "
        WITH next AS MATERIALIZED (SELECT gen_random_uuid() AS revision)
        UPDATE retake.collections AS held SET revision = next.revision,
            words_revision = CASE WHEN words_revision = held.revision THEN next.revision END
        FROM next WHERE id = $1";
    sqlx::query(renew).bind(collection).execute(&mut **transaction).await.map(drop)
}

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> PipelineError {
    move |error| PipelineError::Store { action, reason: error.to_string() }
}

const OPEN: &str = "open collection";
const COMMIT: &str = "commit documents";
const SEARCH: &str = "search vectors";
/// Any number that other programs' advisory locks are unlikely to use; collections count up from it.
const LOCK_OF_SCHEMA: i64 = 0x7265_7461_6b65_0000;
/// Key of the lock on the fixed tables; collections count from 1.
const NO_COLLECTION: i64 = 0;
