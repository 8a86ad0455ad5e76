//! The text index of a collection: a table of `tsvector`s with a GIN index.
//!
//! A table of its own, because a column of the chunks would have every row of a collection that is
//! there already written anew, and put into its vector index again. A collection gets it with the
//! first search for words, or with the first ingest that is set to such searches; from then on every
//! commit keeps it.
//!
//! PostgreSQL finds the texts that have a word; its own ranks know nothing of how rare a word is, so
//! the score is computed from the counts in the `tsvector`s: the same BM25 as SQLite's FTS5 has.
//!
//! `collections.words_revision` says of which revision it is. A retake from before there was a text
//! index changes the revision and leaves the index behind; the next search makes it anew.

use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Row as _};

use super::copy::CopyBuffer;
use super::statements::{ChunksTable, chunk_from};
use super::{PostgresStore, Work, execute, failed, lock};
use crate::error::PipelineError;
use crate::store::text::{IndexedText, searched_words};
use crate::store::vector::{CheckedDocument, Opened, column};
use crate::store::{TextHit, Wanted};

/// The words of one collection. Its statements are made of the collection's number and of the text
/// in this file, see [`super::statements`].
#[derive(Debug, Clone, Copy)]
pub(super) struct WordsTable {
    collection: i64,
}

impl WordsTable {
    /// The table of a collection, whether it is there or not.
    pub(super) fn of(collection: i64) -> Self {
        Self { collection }
    }

    /// The table, if it is there and has the words of what the collection holds now.
    pub(super) async fn current(
        executor: impl sqlx::PgExecutor<'_>,
        collection: i64,
    ) -> Result<Option<Self>, sqlx::Error> {
        let is_current: Option<bool> = sqlx::query_scalar(
            "SELECT coalesce(words_revision = revision, FALSE) FROM retake.collections WHERE id = $1",
        )
        .bind(collection)
        .fetch_optional(executor)
        .await?;
        Ok(is_current.filter(|is| *is).map(|_| Self::of(collection)))
    }

    /// Takes out the words of documents' chunks, which must still be there.
    pub(super) async fn remove(
        self,
        transaction: &mut Work<'_>,
        document_ids: &[&str],
    ) -> Result<(), sqlx::Error> {
        let Self { collection } = self;
        let delete = format!(
            "DELETE FROM retake.words_{collection} WHERE chunk_id IN
                (SELECT id FROM retake.chunks_{collection} WHERE document_id = ANY($1))"
        );
        sqlx::query(AssertSqlSafe(delete))
            .bind(document_ids)
            .execute(&mut **transaction)
            .await
            .map(drop)
    }

    /// Adds the words of the documents' chunks.
    pub(super) async fn add(
        self,
        transaction: &mut Work<'_>,
        documents: &[CheckedDocument<'_>],
    ) -> Result<(), PipelineError> {
        let chunks = documents.iter().flat_map(|checked| &checked.chunks);
        let texts = chunks.map(|(chunk, _)| (chunk.id.as_str(), chunk.text.as_str()));
        self.copy(transaction, texts).await
    }

    /// Drops the table, if it is there.
    pub(super) async fn drop(self, transaction: &mut Work<'_>) -> Result<(), PipelineError> {
        let drop_table = format!("DROP TABLE IF EXISTS retake.words_{}", self.collection);
        execute(transaction, AssertSqlSafe(drop_table)).await
    }

    async fn copy<'t>(
        self,
        transaction: &mut Work<'_>,
        texts: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Result<(), PipelineError> {
        let copy_in = format!(
            "COPY retake.words_{} (chunk_id, word_count, words) FROM STDIN (FORMAT binary)",
            self.collection
        );
        let mut copy = transaction.copy_in_raw(&copy_in).await.map_err(failed(INDEX))?;
        let mut buffer = CopyBuffer::new();
        for (chunk_id, text) in texts {
            buffer.words_row(chunk_id, &IndexedText::of(text))?;
            if buffer.is_full() {
                copy.send(buffer.bytes()).await.map_err(failed(INDEX))?;
                buffer.clear();
            }
        }
        buffer.finish();
        copy.send(buffer.bytes()).await.map_err(failed(INDEX))?;
        copy.finish().await.map(drop).map_err(failed(INDEX))
    }

    /// Makes the table anew from the texts of the chunks. Its index comes last: rows go into an
    /// existing one much slower.
    async fn rebuild(self, transaction: &mut Work<'_>) -> Result<(), PipelineError> {
        let Self { collection } = self;
        self.drop(transaction).await?;
        let create = format!(
            "CREATE TABLE retake.words_{collection} (
                chunk_id text COLLATE \"C\" PRIMARY KEY, word_count bigint NOT NULL,
                words tsvector NOT NULL)"
        );
        execute(transaction, AssertSqlSafe(create)).await?;
        let read = format!(
            "SELECT id, text FROM retake.chunks_{collection} WHERE id > $1 ORDER BY id LIMIT $2"
        );
        let mut last = String::new();
        loop {
            let page: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(read.clone()))
                .bind(&last)
                .bind(PAGE_CHUNKS)
                .fetch_all(&mut **transaction)
                .await
                .map_err(failed(INDEX))?;
            let Some((id, _)) = page.last() else { break };
            last.clone_from(id);
            let texts = page.iter().map(|(id, text)| (id.as_str(), text.as_str()));
            self.copy(transaction, texts).await?;
        }
        for index in [
            format!("CREATE INDEX ON retake.words_{collection} USING gin (words)"),
            // For the mean length, without reading any text.
            format!("CREATE INDEX ON retake.words_{collection} (word_count)"),
            format!("ANALYZE retake.words_{collection}"),
        ] {
            execute(transaction, AssertSqlSafe(index)).await?;
        }
        sqlx::query("UPDATE retake.collections SET words_revision = revision WHERE id = $1")
            .bind(collection)
            .execute(&mut **transaction)
            .await
            .map(drop)
            .map_err(failed(INDEX))
    }

    /// The best for distinct words. The idf and the defaults of `k1` and `b` are those of FTS5,
    /// <https://www.sqlite.org/fts5.html#the_bm25_function>. Scores are rounded, so that sums in
    /// another order make no other order.
    fn search(
        self,
        words: &[String],
        chunks: ChunksTable,
        wanted: Wanted<'_>,
    ) -> QueryBuilder<Postgres> {
        let Self { collection } = self;
        // Quoted, a word of letters and digits is a word to `tsquery` and nothing else.
        let query: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let mut search = QueryBuilder::new(format!(
            "WITH found AS MATERIALIZED (
                SELECT chunk_id, word_count, words FROM retake.words_{collection}
                WHERE words @@ "
        ));
        search.push_bind(query.join(" | "));
        search.push(
            "::text::tsquery),
             wanted AS (
                SELECT word AS lexeme, ('''' || word || '''')::tsquery AS query
                FROM unnest(",
        );
        search.push_bind(words.to_vec());
        search.push(
            "::text[]) AS word),
             held AS MATERIALIZED (
                SELECT * FROM (
                    SELECT chunk_id, word_count, lexeme, width_bucket(
                        ts_rank('{1, 1, 1, 1}', words, query)::float8, ",
        );
        search.push_bind(rank_steps());
        search.push(format!(
            "::float8[])::float8 AS frequency FROM found CROSS JOIN wanted) AS counted
                WHERE frequency > 0),
             whole AS MATERIALIZED (
                SELECT count(*)::float8 AS texts, avg(word_count)::float8 AS mean
                FROM retake.words_{collection}),
             rarity AS MATERIALIZED (
                SELECT lexeme, greatest(
                    ln((texts - count(*) + 0.5) / (count(*) + 0.5)), 1e-6::float8) AS weight
                FROM held CROSS JOIN whole GROUP BY lexeme, texts),
             scored AS MATERIALIZED (
                SELECT chunk_id, round(sum(weight * frequency * 2.2
                    / (frequency + 1.2 * (0.25 + 0.75 * word_count / mean)))::numeric, 9)::float8
                    AS score
                FROM held JOIN rarity USING (lexeme) CROSS JOIN whole GROUP BY chunk_id)
             SELECT c.id, c.document_id, c.ordinal, c.start_char, c.end_char, c.tokens, c.text, score
             FROM scored JOIN retake.chunks_{collection} AS c ON c.id = chunk_id"
        ));
        chunks.push_filter(&mut search, wanted);
        search.push(" ORDER BY score DESC, c.id LIMIT ");
        search.push_bind(column(wanted.top_k as u64));
        search
    }
}

/// Where the rank of a text with `n` times a word begins, for `n` from 1. Of one word with weight 1,
/// `ts_rank` is the sum of `1 / i^2` for `i` up to `n`, divided by its limit; so it tells how often
/// the word is there, in a tenth of the time that it takes to take the `tsvector` apart.
fn rank_steps() -> Vec<f64> {
    let mut sum = 0.0;
    (1..=super::copy::POSITIONS_MAX)
        .map(|count| {
            let next = 1.0 / (f64::from(count) * f64::from(count));
            let step = (sum + next / 2.0) / (std::f64::consts::PI.powi(2) / 6.0);
            sum += next;
            step
        })
        .collect()
}

/// See `VectorStore::index_words`.
pub(super) async fn index(store: &PostgresStore) -> Result<(), PipelineError> {
    let opened = store.opened(INDEX)?;
    current(store, &opened).await.map(drop)
}

/// See `VectorStore::search_text`.
pub(super) async fn search(
    store: &PostgresStore,
    text: &str,
    wanted: Wanted<'_>,
) -> Result<Vec<TextHit>, PipelineError> {
    let opened = store.opened(SEARCH)?;
    let words: Vec<String> = searched_words(text).into_iter().collect();
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let table = current(store, &opened).await?;
    let mut search = table.search(&words, super::table(SEARCH, &opened)?, wanted);
    let rows = search.build().fetch_all(&store.pool).await.map_err(failed(SEARCH))?;
    let hit = |row| Ok(TextHit { chunk: chunk_from(row)?, score: row.try_get("score")? });
    rows.iter().map(hit).collect::<Result<_, _>>().map_err(failed(SEARCH))
}

/// The words of the open collection, made if they are not there.
async fn current(store: &PostgresStore, opened: &Opened) -> Result<WordsTable, PipelineError> {
    let found = WordsTable::current(&store.pool, opened.id).await.map_err(failed(INDEX))?;
    if let Some(table) = found {
        return Ok(table);
    }
    let mut transaction = store.begin(INDEX).await?;
    // The index of a large collection outlasts any sensible limit of a query.
    execute(&mut transaction, "SET LOCAL statement_timeout = 0").await?;
    lock(&mut transaction, opened.id).await.map_err(failed(INDEX))?;
    let found = WordsTable::current(&mut *transaction, opened.id).await.map_err(failed(INDEX))?;
    let table = WordsTable::of(opened.id);
    if found.is_none() {
        table.rebuild(&mut transaction).await?;
    }
    transaction.commit().await.map_err(failed(INDEX))?;
    Ok(table)
}

const INDEX: &str = "index words";
const SEARCH: &str = "search words";
/// Texts in memory at a time while an index is made: some MB.
const PAGE_CHUNKS: i64 = 1000;
