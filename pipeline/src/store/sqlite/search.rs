//! Searching the file, and looking up in it by ids.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt as _;
use retake_schemas::settings::Filter;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Sqlite, Transaction};

use super::file::{SqliteFile, failed};
use super::matrix::{Matrix, Near};
use super::rows::{chunk_from, from_little_endian, hit_from, little_endian};
use crate::document::{Chunk, Hit};
use crate::error::PipelineError;
use crate::store::filter::{Dialect, push_condition};
use crate::store::vector::{Opened, check_vector, column};
use crate::store::{Revision, Wanted};

/// Columns of the rows of a table whose ids are in a list: `?1` the collection, `?2` the list.
macro_rules! by_ids {
    ($table:literal, $columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM ",
            $table,
            " WHERE collection = ?1 AND id IN (SELECT value FROM json_each(?2))"
        )
    };
}
impl SqliteFile {
    pub(super) async fn search(
        &self,
        vector: &[f32],
        wanted: Wanted<'_>,
    ) -> Result<Vec<Hit>, PipelineError> {
        const ACTION: &str = "search vectors";
        let opened = self.opened(ACTION)?;
        check_vector(ACTION, &opened.spec, "the query", vector)?;
        // One moment of the file: what is found in memory has to be there.
        let mut transaction = self.pool.begin().await.map_err(failed(ACTION))?;
        match self.current_matrix(&mut transaction, &opened).await.map_err(failed(ACTION))? {
            Some(matrix) => {
                let among = match wanted.filter {
                    Some(filter) => {
                        let places = places(&mut transaction, opened.id, filter).await;
                        Some(places.map_err(failed(ACTION))?)
                    }
                    None => None,
                };
                let (query, top_k) = (vector.to_vec(), wanted.top_k);
                // The scan of a large collection takes milliseconds; the runtime is for waiting.
                let near = tokio::task::spawn_blocking(move || {
                    matrix.nearest(&query, top_k, among.as_ref())
                })
                .await
                .map_err(|error| PipelineError::Store {
                    action: ACTION,
                    reason: error.to_string(),
                })?;
                chunks_at(&mut transaction, &near).await.map_err(failed(ACTION))
            }
            None => {
                let mut scan = scan(vector, opened.id, wanted);
                let rows =
                    scan.build().fetch_all(&mut *transaction).await.map_err(failed(ACTION))?;
                rows.iter().map(hit_from).collect::<Result<_, _>>().map_err(failed(ACTION))
            }
        }
    }

    pub(super) async fn vectors(
        &self,
        chunk_ids: &[String],
    ) -> Result<HashMap<String, Vec<f32>>, PipelineError> {
        let rows: Vec<(String, Vec<u8>)> =
            self.by_ids("read vectors", by_ids!("chunks", "id, embedding"), chunk_ids).await?;
        Ok(rows.into_iter().map(|(id, bytes)| (id, from_little_endian(&bytes))).collect())
    }

    pub(super) async fn chunks(
        &self,
        chunk_ids: &[String],
    ) -> Result<HashMap<String, Chunk>, PipelineError> {
        let statement =
            by_ids!("chunks", "id, document_id, ordinal, start_char, end_char, tokens, text");
        let rows: Vec<ChunkRow> = self.by_ids("read chunks", statement, chunk_ids).await?;
        Ok(rows.into_iter().map(|ChunkRow(chunk)| (chunk.id.clone(), chunk)).collect())
    }

    pub(super) async fn modified_ms(
        &self,
        document_ids: &[String],
    ) -> Result<HashMap<String, i64>, PipelineError> {
        let statement = by_ids!("documents", "id, modified_ms");
        let rows: Vec<(String, Option<i64>)> =
            self.by_ids("read dates of documents", statement, document_ids).await?;
        Ok(rows.into_iter().filter_map(|(id, date)| Some((id, date?))).collect())
    }

    /// The rows of [`by_ids!`]; ids that are not there have none.
    async fn by_ids<R>(
        &self,
        action: &'static str,
        statement: &'static str,
        ids: &[String],
    ) -> Result<Vec<R>, PipelineError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let opened = self.opened(action)?;
        sqlx::query_as(statement)
            .bind(opened.id)
            .bind(json_list(action, ids)?)
            .fetch_all(&self.pool)
            .await
            .map_err(failed(action))
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
        // In order of the pages of the file, see `scan`.
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
}

/// A row with the columns of a chunk.
struct ChunkRow(Chunk);

impl FromRow<'_, SqliteRow> for ChunkRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        chunk_from(row).map(Self)
    }
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
        hits.push(Hit::new(chunk_from(&row)?, *similarity));
    }
    Ok(hits)
}

/// A list as one parameter, for `json_each`.
pub(super) fn json_list(action: &'static str, items: &[String]) -> Result<String, PipelineError> {
    serde_json::to_string(items)
        .map_err(|error| PipelineError::Store { action, reason: error.to_string() })
}

/// Scans the file. Without a filter it reads the table in order of its pages: by the index on
/// `(collection, id)` every row would be a jump. A vector of length 0 has no distance; 1 puts it
/// between near and far.
fn scan(vector: &[f32], collection: i64, wanted: Wanted<'_>) -> QueryBuilder<Sqlite> {
    let mut scan = QueryBuilder::new(
        "WITH nearest AS MATERIALIZED (
            SELECT c.rowid AS place, coalesce(vec_distance_cosine(c.embedding, ",
    );
    scan.push_bind(little_endian(vector)).push("), 1.0) AS distance ");
    match wanted.filter {
        None => {
            scan.push("FROM chunks AS c NOT INDEXED WHERE c.collection = ").push_bind(collection)
        }
        Some(filter) => push_filtered(&mut scan, collection, filter),
    };
    scan.push(" ORDER BY distance, c.id LIMIT ").push_bind(column(wanted.top_k as u64));
    scan.push(
        ") SELECT id, document_id, ordinal, start_char, end_char, tokens, text, distance
         FROM nearest JOIN chunks ON chunks.rowid = nearest.place ORDER BY distance, id",
    );
    scan
}

/// The rows of the chunks that may be found.
async fn places(
    transaction: &mut Transaction<'_, Sqlite>,
    collection: i64,
    filter: &Filter,
) -> Result<HashSet<i64>, sqlx::Error> {
    let mut query = QueryBuilder::new("SELECT c.rowid ");
    push_filtered(&mut query, collection, filter);
    let places: Vec<i64> = query.build_query_scalar().fetch_all(&mut **transaction).await?;
    Ok(places.into_iter().collect())
}

/// Appends the chunks `c` of a collection that may be found, with their documents `d`.
fn push_filtered<'q>(
    query: &'q mut QueryBuilder<Sqlite>,
    collection: i64,
    filter: &Filter,
) -> &'q mut QueryBuilder<Sqlite> {
    query.push(
        "FROM chunks AS c JOIN documents AS d ON d.collection = c.collection AND d.id = c.document_id
         WHERE c.collection = ",
    );
    query.push_bind(collection).push(" AND ");
    push_condition(query, filter.condition(), Dialect::Sqlite);
    query
}

/// A million and more vectors of 384 dimensions. Beyond it a search reads the file.
const MATRIX_BYTES_MAX: usize = 2 << 30;
