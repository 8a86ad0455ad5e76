//! The file behind the cache.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{CacheKey, documents};
use crate::error::PipelineError;
use crate::sqlite_file::{self, failed, unseen};

/// The cache, open.
#[derive(Debug)]
pub struct VectorCache {
    path: PathBuf,
    pub(super) pool: SqlitePool,
    bytes_max: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    hits: u64,
    misses: u64,
    evicted: u64,
}

/// What a cache holds, and what it did since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Vectors in it.
    pub entries: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Texts whose vector was there.
    pub hits: u64,
    /// Texts whose vector was not.
    pub misses: u64,
    /// Entries that had to go for others.
    pub evicted: u64,
}

impl VectorCache {
    /// Opens or makes the cache in `path`, with at most `bytes_max` of vectors.
    ///
    /// # Errors
    /// The file cannot be made, or is no cache of ours.
    pub async fn open(path: &Path, bytes_max: u64) -> Result<Self, PipelineError> {
        let pool = sqlite_file::open(path)?;
        let cache = Self { path: path.to_owned(), pool, bytes_max, counts: Mutex::default() };
        unseen(cache.make_tables()).await?;
        Ok(cache)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The vectors of `keys`, in order; nothing for those that are not there or not `dim` wide.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn get(
        &self,
        keys: &[CacheKey],
        dim: usize,
    ) -> Result<Vec<Option<Vec<f32>>>, PipelineError> {
        let found = unseen(self.look_up(keys)).await?;
        let vectors: Vec<Option<Vec<f32>>> =
            found.into_iter().map(|bytes| bytes.and_then(|bytes| vector(&bytes, dim))).collect();
        let hits = vectors.iter().flatten().count() as u64;
        let mut counts = self.counts.lock();
        counts.hits += hits;
        counts.misses += vectors.len() as u64 - hits;
        Ok(vectors)
    }

    pub(super) fn count_hits(&self, hits: u64) {
        self.counts.lock().hits += hits;
    }

    /// Keeps vectors in `collection`, in one transaction, and makes room for them.
    ///
    /// # Errors
    /// The file cannot be written; then nothing has changed.
    pub async fn put(
        &self,
        collection: &str,
        entries: &[(CacheKey, &[f32])],
    ) -> Result<(), PipelineError> {
        let evicted = unseen(self.write(collection, entries)).await?;
        self.counts.lock().evicted += evicted;
        Ok(())
    }

    /// Forgets a collection's vectors, or all. Returns how many there were.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn clear(&self, collection: Option<&str>) -> Result<u64, PipelineError> {
        let statement = "DELETE FROM vectors WHERE ?1 IS NULL OR collection = ?1";
        let cleared = unseen(sqlx::query(statement).bind(collection).execute(&self.pool)).await;
        Ok(cleared.map_err(failed("clear cache"))?.rows_affected())
    }

    /// Lets go the vectors used longest ago until those that stay take at most `bytes_max`. Returns how
    /// many went.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn evict(&self, bytes_max: u64) -> Result<u64, PipelineError> {
        const ACTION: &str = "evict from cache";
        unseen(async {
            let mut transaction = self.begin().await.map_err(failed(ACTION))?;
            let bytes: i64 = sqlx::query_scalar("SELECT bytes FROM state")
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed(ACTION))?;
            let excess = bytes - i64::try_from(bytes_max).unwrap_or(i64::MAX);
            let evicted = if excess > 0 {
                remove_oldest(&mut transaction, excess).await.map_err(failed(ACTION))?
            } else {
                0
            };
            transaction.commit().await.map_err(failed(ACTION))?;
            Ok(evicted)
        })
        .await
    }

    /// Vectors and bytes of each collection, in order of name.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn collections(&self) -> Result<Vec<(String, u64, u64)>, PipelineError> {
        let count = "SELECT collection, count(*), coalesce(sum(length(vector)), 0)
                     FROM vectors GROUP BY collection ORDER BY collection";
        let rows: Result<Vec<(String, i64, i64)>, _> =
            unseen(sqlx::query_as(count).fetch_all(&self.pool)).await;
        let number = |n: i64| u64::try_from(n).unwrap_or_default();
        let rows = rows.map_err(failed("count cache"))?.into_iter();
        Ok(rows.map(|(name, entries, bytes)| (name, number(entries), number(bytes))).collect())
    }

    /// What it holds.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn stats(&self) -> Result<CacheStats, PipelineError> {
        let count =
            "SELECT count(*) AS entries, coalesce(sum(length(vector)), 0) AS bytes FROM vectors";
        let row = unseen(sqlx::query(count).fetch_one(&self.pool)).await;
        let row = row.map_err(failed("count cache"))?;
        let number = |name: &str| {
            let number: Result<i64, _> = row.try_get(name);
            number.map(|n| u64::try_from(n).unwrap_or_default()).map_err(failed("count cache"))
        };
        let Counts { hits, misses, evicted } = *self.counts.lock();
        Ok(CacheStats {
            entries: number("entries")?,
            bytes: number("bytes")?,
            hits,
            misses,
            evicted,
        })
    }

    /// Moves the log into the file, so that a copy of the file alone is complete.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn flush(&self) -> Result<(), PipelineError> {
        let flushed = unseen(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool));
        flushed.await.map(drop).map_err(failed("flush cache"))
    }

    async fn make_tables(&self) -> Result<(), PipelineError> {
        let mut transaction = self.begin().await.map_err(failed(OPEN))?;
        for statement in SCHEMA.into_iter().chain(documents::SCHEMA) {
            sqlx::query(statement).execute(&mut *transaction).await.map_err(failed(OPEN))?;
        }
        transaction.commit().await.map_err(failed(OPEN))
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    async fn look_up(&self, keys: &[CacheKey]) -> Result<Vec<Option<Vec<u8>>>, PipelineError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut connection = self.pool.acquire().await.map_err(failed(LOOK_UP))?;
        for key in keys {
            let bytes: Option<Vec<u8>> =
                sqlx::query_scalar("SELECT vector FROM vectors WHERE key = ?")
                    .bind(key.as_bytes())
                    .fetch_optional(&mut *connection)
                    .await
                    .map_err(failed(LOOK_UP))?;
            found.push(bytes);
        }
        drop(connection);
        let used = keys.iter().zip(&found).filter(|(_, found)| found.is_some());
        self.touch(used.map(|(key, _)| *key).collect()).await?;
        Ok(found)
    }

    /// Notes that entries were used, so that they stay.
    async fn touch(&self, keys: Vec<CacheKey>) -> Result<(), PipelineError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await.map_err(failed(LOOK_UP))?;
        let turn = next_turn(&mut transaction).await.map_err(failed(LOOK_UP))?;
        for key in keys {
            sqlx::query("UPDATE vectors SET used = ? WHERE key = ?")
                .bind(turn)
                .bind(key.as_bytes())
                .execute(&mut *transaction)
                .await
                .map_err(failed(LOOK_UP))?;
        }
        transaction.commit().await.map_err(failed(LOOK_UP))
    }

    async fn write(
        &self,
        collection: &str,
        entries: &[(CacheKey, &[f32])],
    ) -> Result<u64, PipelineError> {
        let mut transaction = self.begin().await.map_err(failed(KEEP))?;
        let turn = next_turn(&mut transaction).await.map_err(failed(KEEP))?;
        for (key, vector) in entries {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            sqlx::query(
                "INSERT INTO vectors (key, collection, used, vector) VALUES (?, ?, ?, ?)
                 ON CONFLICT (key) DO UPDATE SET used = excluded.used, vector = excluded.vector",
            )
            .bind(key.as_bytes())
            .bind(collection)
            .bind(turn)
            .bind(bytes)
            .execute(&mut *transaction)
            .await
            .map_err(failed(KEEP))?;
        }
        let evicted = evict(&mut transaction, self.bytes_max).await.map_err(failed(KEEP))?;
        transaction.commit().await.map_err(failed(KEEP))?;
        Ok(evicted)
    }
}

/// Numbers uses; a clock may be set back, this cannot.
pub(super) async fn next_turn(
    transaction: &mut Transaction<'_, Sqlite>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("UPDATE state SET turn = turn + 1 RETURNING turn")
        .fetch_one(&mut **transaction)
        .await
}

/// Removes the entries used longest ago until a tenth of the room is free, so that not every write
/// has to. The size stands in the table of state, kept true by triggers.
async fn evict(
    transaction: &mut Transaction<'_, Sqlite>,
    bytes_max: u64,
) -> Result<u64, sqlx::Error> {
    let bytes: i64 =
        sqlx::query_scalar("SELECT bytes FROM state").fetch_one(&mut **transaction).await?;
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    if bytes <= bytes_max {
        return Ok(0);
    }
    let excess = bytes - (bytes_max - bytes_max / 10);
    remove_oldest(transaction, excess).await
}

/// Removes the entries used longest ago, of at least `excess` bytes. One is used when its chunk is,
/// or a document that has it.
async fn remove_oldest(
    transaction: &mut Transaction<'_, Sqlite>,
    excess: i64,
) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "DELETE FROM vectors WHERE key IN (
            SELECT key FROM (
                SELECT key, sum(length(vector)) OVER (ORDER BY last, key) - length(vector) AS before
                FROM (SELECT key, vector, max(used, coalesce((
                          SELECT max(documents.used) FROM placed
                          JOIN documents ON documents.key = placed.document
                          WHERE placed.vector = vectors.key), 0)) AS last
                      FROM vectors))
            WHERE before < ?)",
    )
    .bind(excess)
    .execute(&mut **transaction)
    .await
    .map(|done| done.rows_affected())
}

/// A kept vector, if it is whole: a damaged one would only be found by wrong answers.
pub(super) fn vector(bytes: &[u8], dim: usize) -> Option<Vec<f32>> {
    let (values, rest) = bytes.as_chunks::<4>();
    if values.len() != dim || !rest.is_empty() {
        return None;
    }
    let vector: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    vector.iter().all(|value| value.is_finite()).then_some(vector)
}

const SCHEMA: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS vectors (
        key BLOB PRIMARY KEY, collection TEXT NOT NULL, used INTEGER NOT NULL,
        vector BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS state (
        id INTEGER PRIMARY KEY CHECK (id = 1), turn INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT",
    "INSERT INTO state VALUES (1, 0, 0) ON CONFLICT DO NOTHING",
    "CREATE TRIGGER IF NOT EXISTS vectors_more AFTER INSERT ON vectors BEGIN
        UPDATE state SET bytes = bytes + length(new.vector); END",
    "CREATE TRIGGER IF NOT EXISTS vectors_other AFTER UPDATE OF vector ON vectors BEGIN
        UPDATE state SET bytes = bytes + length(new.vector) - length(old.vector); END",
    "CREATE TRIGGER IF NOT EXISTS vectors_less AFTER DELETE ON vectors BEGIN
        UPDATE state SET bytes = bytes - length(old.vector); END",
];
const OPEN: &str = "open cache";
const LOOK_UP: &str = "look up cache";
const KEEP: &str = "keep in cache";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> CacheKey {
        CacheKey::of_fields(&[text])
    }

    async fn put(cache: &VectorCache, collection: &str, names: &[&str]) {
        let entries: Vec<(CacheKey, &[f32])> =
            names.iter().map(|name| (key(name), &[1.0, 2.0][..])).collect();
        cache.put(collection, &entries).await.unwrap();
    }

    async fn held(cache: &VectorCache, names: &[&str]) -> Vec<bool> {
        let keys: Vec<CacheKey> = names.iter().map(|name| key(name)).collect();
        cache.get(&keys, 2).await.unwrap().iter().map(Option::is_some).collect()
    }

    /// Scenario: more vectors than the cache may hold, some of them used again.
    /// Guarantees: its size stays below the limit; what was used longest ago goes first; a file
    /// that is opened again holds what it held.
    #[tokio::test]
    async fn the_entries_used_longest_ago_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.sqlite");
        let cache = VectorCache::open(&path, 80).await.unwrap();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            put(&cache, "c", &[name]).await;
        }
        assert_eq!(held(&cache, &["a", "j"]).await, [true, true]);
        put(&cache, "c", &["k"]).await;
        assert_eq!(
            held(&cache, &["a", "b", "c", "d", "k"]).await,
            [true, false, false, true, true]
        );
        let stats = cache.stats().await.unwrap();
        assert_eq!((stats.entries, stats.bytes, stats.evicted), (9, 72, 2));
        assert_eq!((stats.hits, stats.misses), (5, 2));
        drop(cache);
        let again = VectorCache::open(&path, 80).await.unwrap();
        assert_eq!(held(&again, &["k", "b"]).await, [true, false]);
        assert_eq!(again.stats().await.unwrap().bytes, 72);
    }

    /// Guarantees: what was used longest ago goes, no more than has to, and the size stays true.
    #[tokio::test]
    async fn an_eviction_makes_just_the_room_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = VectorCache::open(&folder.path().join("e.sqlite"), 1 << 20).await.unwrap();
        for name in ["a", "b", "c", "d"] {
            put(&cache, if name == "d" { "two" } else { "one" }, &[name]).await;
        }
        assert_eq!(held(&cache, &["a"]).await, [true]);
        assert_eq!(cache.evict(32).await.unwrap(), 0);
        assert_eq!(cache.evict(17).await.unwrap(), 2);
        assert_eq!(held(&cache, &["a", "b", "c", "d"]).await, [true, false, false, true]);
        let one = ("one".to_owned(), 1, 8);
        assert_eq!(cache.collections().await.unwrap(), [one, ("two".to_owned(), 1, 8)]);
        assert_eq!(cache.evict(0).await.unwrap(), 2);
        assert_eq!(cache.stats().await.unwrap().bytes, 0);
    }

    /// Scenario: collections, one of them cleared; vectors of another width; a damaged one.
    /// Guarantees: only the cleared ones are gone; what does not fit is no hit.
    #[tokio::test]
    async fn collections_are_cleared_alone_and_misfits_are_no_hits() {
        let folder = tempfile::tempdir().unwrap();
        let cache = VectorCache::open(&folder.path().join("c.sqlite"), 1 << 20).await.unwrap();
        put(&cache, "one", &["a"]).await;
        put(&cache, "two", &["b"]).await;
        assert_eq!(cache.clear(Some("one")).await.unwrap(), 1);
        assert_eq!(held(&cache, &["a", "b"]).await, [false, true]);
        assert_eq!(cache.get(&[key("b")], 3).await.unwrap(), [None]);
        cache.put("two", &[(key("n"), &[f32::NAN, 1.0])]).await.unwrap();
        assert_eq!(held(&cache, &["n"]).await, [false]);
        assert_eq!(cache.clear(None).await.unwrap(), 2);
        assert_eq!(cache.stats().await.unwrap().bytes, 0);
    }
}
