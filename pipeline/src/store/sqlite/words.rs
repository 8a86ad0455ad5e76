//! The text index of a collection: an FTS5 table of the words of its chunks.
//!
//! It holds the index and no text of its own, and its rows have the numbers of the chunks' rows
//! (SQLite keeps these in a VACUUM where a table has an index, as the chunks have; there is a test).
//! A collection gets it with the first search for words, or with the first ingest that is set to
//! such searches; from then on every commit keeps it.
//!
//! `collections.words_revision` says of which revision it is. A retake from before there was a text
//! index changes the revision and leaves the index behind; the next search makes it anew.

use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite, Transaction};

use super::file::{SqliteFile, failed};
use super::rows::chunk_from;
use crate::error::PipelineError;
use crate::store::filter::{Dialect, push_condition};
use crate::store::text::{IndexedText, searched_words};
use crate::store::vector::{Opened, column};
use crate::store::{TextHit, Wanted};

/// The FTS5 table of one collection.
///
/// A table name cannot be a bound parameter; these statements are put together from the
/// collection's number and from the text here, and from nothing that came from outside.
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
        executor: impl sqlx::SqliteExecutor<'_>,
        collection: i64,
    ) -> Result<Option<Self>, sqlx::Error> {
        let is_current: Option<bool> = sqlx::query_scalar(
            "SELECT coalesce(words_revision = revision, FALSE) FROM collections WHERE id = ?",
        )
        .bind(collection)
        .fetch_optional(executor)
        .await?;
        Ok(is_current.filter(|is| *is).map(|_| Self::of(collection)))
    }

    /// Adds the words of the chunk in row `place`.
    pub(super) async fn add(
        self,
        transaction: &mut Transaction<'_, Sqlite>,
        place: i64,
        text: &str,
    ) -> Result<(), sqlx::Error> {
        let Self { collection } = self;
        let insert = format!("INSERT INTO words_{collection} (rowid, words) VALUES (?, ?)");
        sqlx::query(AssertSqlSafe(insert))
            .bind(place)
            .bind(IndexedText::of(text).joined())
            .execute(&mut **transaction)
            .await
            .map(drop)
    }

    /// Takes out the words of a document's chunks, which must still be there.
    pub(super) async fn remove(
        self,
        transaction: &mut Transaction<'_, Sqlite>,
        document_id: &str,
    ) -> Result<(), sqlx::Error> {
        let Self { collection } = self;
        let places: Vec<i64> =
            sqlx::query_scalar("SELECT rowid FROM chunks WHERE collection = ? AND document_id = ?")
                .bind(collection)
                .bind(document_id)
                .fetch_all(&mut **transaction)
                .await?;
        let delete = format!("DELETE FROM words_{collection} WHERE rowid = ?");
        for place in places {
            sqlx::query(AssertSqlSafe(delete.clone()))
                .bind(place)
                .execute(&mut **transaction)
                .await?;
        }
        Ok(())
    }

    /// Drops the table, if it is there.
    pub(super) async fn drop(
        self,
        transaction: &mut Transaction<'_, Sqlite>,
    ) -> Result<(), sqlx::Error> {
        let drop_table = format!("DROP TABLE IF EXISTS words_{}", self.collection);
        sqlx::query(AssertSqlSafe(drop_table)).execute(&mut **transaction).await.map(drop)
    }

    /// Makes the table anew from the texts of the chunks.
    async fn rebuild(self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), sqlx::Error> {
        let Self { collection } = self;
        self.drop(transaction).await?;
        // Words come in their final form, so the tokenizer has only to find the blanks.
        let create = format!(
            "CREATE VIRTUAL TABLE words_{collection} USING fts5 (words, content = '',
                contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 0')"
        );
        sqlx::query(AssertSqlSafe(create)).execute(&mut **transaction).await?;
        let mut last = i64::MIN;
        loop {
            let page: Vec<(i64, String)> = sqlx::query_as(
                "SELECT rowid, text FROM chunks NOT INDEXED
                 WHERE collection = ? AND rowid > ? ORDER BY rowid LIMIT ?",
            )
            .bind(collection)
            .bind(last)
            .bind(PAGE_CHUNKS)
            .fetch_all(&mut **transaction)
            .await?;
            let Some((place, _)) = page.last() else { break };
            last = *place;
            for (place, text) in &page {
                self.add(transaction, *place, text).await?;
            }
        }
        sqlx::query("UPDATE collections SET words_revision = revision WHERE id = ?")
            .bind(collection)
            .execute(&mut **transaction)
            .await
            .map(drop)
    }

    /// The best for an FTS5 query. First all that have the words and may be found, then of the best
    /// and of those as good as the last of them the chunks, of which the ids decide. Scores are
    /// rounded, so that sums in another order make no other order.
    fn search(self, query: String, wanted: Wanted<'_>) -> QueryBuilder<Sqlite> {
        let words = format!("words_{}", self.collection);
        let top_k = column(wanted.top_k as u64);
        let mut search = QueryBuilder::new(format!(
            "WITH found AS MATERIALIZED (
                SELECT rowid AS place, round(-bm25({words}), 9) AS score
                FROM {words} WHERE {words} MATCH "
        ));
        search.push_bind(query).push("), kept AS MATERIALIZED (SELECT place, score FROM found");
        if let Some(filter) = wanted.filter {
            search.push(
                " JOIN chunks AS c ON c.rowid = found.place
                  JOIN documents AS d ON d.collection = c.collection AND d.id = c.document_id WHERE ",
            );
            push_condition(&mut search, filter.condition(), Dialect::Sqlite);
        }
        search.push("), best AS (SELECT score FROM kept ORDER BY score DESC LIMIT ");
        search.push_bind(top_k).push(
            ") SELECT id, document_id, ordinal, start_char, end_char, tokens, text, kept.score AS score
             FROM kept CROSS JOIN chunks ON chunks.rowid = kept.place
             WHERE kept.score >= (SELECT min(score) FROM best)
             ORDER BY kept.score DESC, id LIMIT ",
        );
        search.push_bind(top_k);
        search
    }
}

impl SqliteFile {
    pub(super) async fn index_words(&self) -> Result<(), PipelineError> {
        let opened = self.opened(INDEX)?;
        self.current_words(&opened).await.map(drop)
    }

    pub(super) async fn search_text(
        &self,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Result<Vec<TextHit>, PipelineError> {
        let opened = self.opened(SEARCH)?;
        let words = searched_words(text);
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.current_words(&opened).await?;
        let query: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let mut search = table.search(query.join(" OR "), wanted);
        let rows = search.build().fetch_all(&self.pool).await.map_err(failed(SEARCH))?;
        let hit = |row| Ok(TextHit { chunk: chunk_from(row)?, score: row.try_get("score")? });
        rows.iter().map(hit).collect::<Result<_, _>>().map_err(failed(SEARCH))
    }

    /// The words of the open collection, made if they are not there.
    async fn current_words(&self, opened: &Opened) -> Result<WordsTable, PipelineError> {
        let found = WordsTable::current(&self.pool, opened.id).await.map_err(failed(INDEX))?;
        if let Some(table) = found {
            return Ok(table);
        }
        let mut transaction = self.begin(INDEX).await?;
        let found =
            WordsTable::current(&mut *transaction, opened.id).await.map_err(failed(INDEX))?;
        let table = WordsTable::of(opened.id);
        if found.is_none() {
            table.rebuild(&mut transaction).await.map_err(failed(INDEX))?;
        }
        transaction.commit().await.map_err(failed(INDEX))?;
        Ok(table)
    }
}

const INDEX: &str = "index words";
const SEARCH: &str = "search words";
/// Texts in memory at a time while an index is made: some MB.
const PAGE_CHUNKS: i64 = 1000;
