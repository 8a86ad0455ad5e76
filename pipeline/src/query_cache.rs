//! Answers kept by their question.
//!
//! An answer is found again only for the settings, the model, the form and the documents it was
//! made with: all of them are in its scope, a digest, so that an ingest that changes a document, or
//! another `top_k`, makes every older answer unfindable. Within a scope a question is the same when
//! its text is (blanks apart), or, if the settings say so, when its vector is near enough.
//!
//! It is one SQLite file, readable by its owner only, bounded in entries and in time. It is never
//! needed: what goes wrong with it is told, and the question is answered anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use retake_schemas::Digest;
use retake_schemas::settings::{QueryCacheMode, QueryCacheSettings, RagSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sqlx::sqlite::SqlitePool;

use crate::document::Hit;
use crate::error::PipelineError;
use crate::postprocess::cosine;
use crate::sqlite_file::{self, failed, unseen};
use crate::store::Revision;
use crate::synthesize::check::Objection;

/// The cache, open.
#[derive(Debug)]
pub struct QueryCache {
    pool: SqlitePool,
    settings: QueryCacheSettings,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Its text.
    pub text: String,
    /// The same as JSON, if a schema was given.
    pub structured: Option<Json>,
    /// What is wrong with it.
    pub objection: Option<Objection>,
    /// The chunks it was made of.
    pub hits: Vec<Hit>,
    /// Why it ended.
    pub finish_reason: Option<String>,
}

/// What a cache of answers holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerStats {
    /// Answers in it, those included that are too old to be given.
    pub entries: u64,
    /// Their size with their vectors, bytes.
    pub bytes: u64,
    /// Of them, those that are too old.
    pub expired: u64,
    /// When the oldest was made, seconds since 1970.
    pub oldest_unix_secs: Option<i64>,
}

/// A question, as its answer is kept.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What its answer depends on.
    pub scope: Scope,
    /// Its text.
    pub question: &'a str,
    /// Its vector.
    pub vector: &'a [f32],
}

/// What answers have to have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope(Digest);

impl Scope {
    /// The scope of answers made with these settings, models, documents and form.
    #[must_use]
    pub fn new(
        settings: &RagSettings,
        models: &[&str],
        revision: &Revision,
        schema: Option<&Json>,
    ) -> Self {
        let decisive: BTreeMap<String, Json> = settings
            .recordable()
            .into_iter()
            .filter(|(name, _)| !WITHOUT_EFFECT.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        // An array of them, so that no two lists of fields are written the same.
        let fields = serde_json::json!([VERSION, decisive, models, revision.as_str(), schema]);
        Self(Digest::of(fields.to_string().as_bytes()))
    }

    fn key(self, question: &str) -> Digest {
        let words: Vec<&str> = question.split_whitespace().collect();
        Digest::of(format!("{} {}", self.0, words.join(" ")).as_bytes())
    }
}

impl QueryCache {
    /// Opens or makes the cache in `path`.
    ///
    /// # Errors
    /// The file cannot be made, or is no cache of ours.
    pub async fn open(path: &Path, settings: &QueryCacheSettings) -> Result<Self, PipelineError> {
        let pool = sqlite_file::open(path)?;
        let cache = Self { pool, settings: settings.clone() };
        let made = sqlx::query(SCHEMA).execute(&cache.pool);
        unseen(made).await.map_err(failed("open cache of answers"))?;
        Ok(cache)
    }

    /// Whether questions are compared by their vectors.
    #[must_use]
    pub fn is_semantic(&self) -> bool {
        self.settings.mode == QueryCacheMode::Semantic
    }

    /// The answer to the same text.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn exact(
        &self,
        scope: Scope,
        question: &str,
    ) -> Result<Option<KeptAnswer>, PipelineError> {
        unseen(self.find(scope.key(question), now_secs())).await
    }

    /// The answer to the nearest question, if it is near enough, with its similarity.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn nearest(
        &self,
        scope: Scope,
        vector: &[f32],
    ) -> Result<Option<(KeptAnswer, f64)>, PipelineError> {
        let now = now_secs();
        unseen(async {
            let rows: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
                "SELECT key, vector FROM answers
                 WHERE scope = ? AND made_secs > ? ORDER BY made_secs DESC, key",
            )
            .bind(scope.0.as_bytes().as_slice())
            .bind(self.oldest(now))
            .fetch_all(&self.pool)
            .await
            .map_err(failed(LOOK_UP))?;
            let near = rows.into_iter().map(|(key, bytes)| (cosine(vector, &floats(&bytes)), key));
            let best = near
                .filter(|(similarity, _)| *similarity >= self.settings.similarity_min)
                .reduce(|best, other| if other.0 > best.0 { other } else { best });
            let Some((similarity, key)) = best else { return Ok(None) };
            let Ok(key) = <[u8; 32]>::try_from(key) else { return Ok(None) };
            let found = self.find(Digest::from_bytes(key), now).await?;
            Ok(found.map(|answer| (answer, similarity)))
        })
        .await
    }

    /// Keeps an answer, and lets go what is too old or too much.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn keep(&self, asked: Asked<'_>, answer: &KeptAnswer) -> Result<(), PipelineError> {
        unseen(self.keep_at(asked, answer, now_secs())).await
    }

    /// What it holds.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn stats(&self) -> Result<AnswerStats, PipelineError> {
        let count = "SELECT count(*), coalesce(sum(length(answer) + length(vector)), 0),
                            count(*) FILTER (WHERE made_secs <= ?), min(made_secs) FROM answers";
        let row: (i64, i64, i64, Option<i64>) =
            unseen(sqlx::query_as(count).bind(self.oldest(now_secs())).fetch_one(&self.pool))
                .await
                .map_err(failed(LOOK_UP))?;
        let number = |n: i64| u64::try_from(n).unwrap_or_default();
        Ok(AnswerStats {
            entries: number(row.0),
            bytes: number(row.1),
            expired: number(row.2),
            oldest_unix_secs: row.3,
        })
    }

    /// Forgets all answers. Returns how many there were.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn clear(&self) -> Result<u64, PipelineError> {
        let cleared = unseen(sqlx::query("DELETE FROM answers").execute(&self.pool)).await;
        Ok(cleared.map_err(failed("clear answers"))?.rows_affected())
    }

    /// Lets go answers that are too old, and of the others those used longest ago until at most
    /// `entries_max` stay. Returns how many went.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn evict(&self, entries_max: u64) -> Result<u64, PipelineError> {
        let evicted = sqlx::query(EVICT)
            .bind(self.oldest(now_secs()))
            .bind(i64::try_from(entries_max).unwrap_or(i64::MAX))
            .execute(&self.pool);
        Ok(unseen(evicted).await.map_err(failed("evict answers"))?.rows_affected())
    }

    async fn find(&self, key: Digest, now: i64) -> Result<Option<KeptAnswer>, PipelineError> {
        let text: Option<String> = sqlx::query_scalar(
            "UPDATE answers SET used = (SELECT coalesce(max(used), 0) + 1 FROM answers)
             WHERE key = ? AND made_secs > ? RETURNING answer",
        )
        .bind(key.as_bytes().as_slice())
        .bind(self.oldest(now))
        .fetch_optional(&self.pool)
        .await
        .map_err(failed(LOOK_UP))?;
        // One that another version wrote is not understood, and so not there.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn keep_at(
        &self,
        asked: Asked<'_>,
        answer: &KeptAnswer,
        now: i64,
    ) -> Result<(), PipelineError> {
        let Asked { scope, question, vector } = asked;
        let answer = serde_json::to_string(answer)
            .map_err(|error| PipelineError::Store { action: KEEP, reason: error.to_string() })?;
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed(KEEP))?;
        sqlx::query(
            "INSERT INTO answers (key, scope, made_secs, used, vector, answer)
             VALUES (?, ?, ?, (SELECT coalesce(max(used), 0) + 1 FROM answers), ?, ?)
             ON CONFLICT (key) DO UPDATE SET made_secs = excluded.made_secs, used = excluded.used,
                 vector = excluded.vector, answer = excluded.answer",
        )
        .bind(scope.key(question).as_bytes().as_slice())
        .bind(scope.0.as_bytes().as_slice())
        .bind(now)
        .bind(bytes)
        .bind(answer)
        .execute(&mut *transaction)
        .await
        .map_err(failed(KEEP))?;
        sqlx::query(EVICT)
            .bind(self.oldest(now))
            .bind(i64::try_from(self.settings.entries_max).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await
            .map_err(failed(KEEP))?;
        transaction.commit().await.map_err(failed(KEEP))
    }

    /// Answers made then or before are too old.
    fn oldest(&self, now: i64) -> i64 {
        now.saturating_sub(i64::try_from(self.settings.ttl_secs).unwrap_or(i64::MAX))
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

fn now_secs() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Changes whenever the same settings would make another answer.
const VERSION: &str = "retake answer 1";
/// Settings that no answer depends on.
const WITHOUT_EFFECT: &[&str] = &[
    "workers",
    "limits.",
    "cache.",
    "query_cache.",
    "eval.",
    "ingest.",
    "embed.batch_size",
    "embed.max_wait_ms",
    "embed.adaptive",
    "embed.latency_target_ms",
    "embed.api_key_env",
    "rerank.api_key_env",
    "rerank.timeout_ms",
    "rerank.service_batch",
    "synthesize.api_key_env",
    "synthesize.timeout_ms",
    "synthesize.stream",
    "vectors.pool_size",
    "vectors.statement_timeout_ms",
];
/// `?1` the time before which answers are too old, `?2` how many may stay.
const EVICT: &str = "DELETE FROM answers WHERE made_secs <= ?1
    OR key NOT IN (SELECT key FROM answers ORDER BY used DESC, key LIMIT ?2)";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, scope BLOB NOT NULL, made_secs INTEGER NOT NULL, used INTEGER NOT NULL,
    vector BLOB NOT NULL, answer TEXT NOT NULL) STRICT, WITHOUT ROWID";
const LOOK_UP: &str = "look up answer";
const KEEP: &str = "keep answer";

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> KeptAnswer {
        KeptAnswer {
            text: text.to_owned(),
            structured: None,
            objection: None,
            hits: vec![crate::answer::prompt::tests::hit("a#0", "x")],
            finish_reason: Some("stop".to_owned()),
        }
    }

    fn scope(change: &str) -> Scope {
        let mut settings = RagSettings::default();
        if !change.is_empty() {
            settings.set(change).unwrap();
        }
        Scope::new(&settings, &["e", "m"], &Revision::new("documents"), None)
    }

    fn asked<'a>(question: &'a str, vector: &'a [f32]) -> Asked<'a> {
        Asked { scope: scope(""), question, vector }
    }

    async fn cache(entries_max: u64, ttl_secs: u64) -> (QueryCache, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let settings = QueryCacheSettings {
            mode: QueryCacheMode::Semantic,
            similarity_min: 0.9,
            entries_max,
            ttl_secs,
        };
        let path = folder.path().join("q.sqlite");
        (QueryCache::open(&path, &settings).await.unwrap(), folder)
    }

    /// Guarantees: whatever an answer depends on separates scopes, and nothing else does.
    #[test]
    fn another_setting_model_document_or_form_is_another_scope() {
        let settings = RagSettings::default();
        let documents = Revision::new("documents");
        let base = scope("");
        for change in
            ["retrieve.top_k=5", "synthesize.style=verbose", "vectors.collection=x", "seed=1"]
        {
            assert_ne!(scope(change), base, "{change}");
        }
        for change in ["workers=9", "query_cache.ttl_secs=5", "synthesize.stream=false"] {
            assert_eq!(scope(change), base, "{change}");
        }
        let form = serde_json::json!({});
        assert_ne!(Scope::new(&settings, &["e", "n"], &documents, None), base);
        assert_ne!(Scope::new(&settings, &["em"], &documents, None), base);
        assert_ne!(Scope::new(&settings, &["e", "m"], &Revision::new("other"), None), base);
        assert_ne!(Scope::new(&settings, &["e", "m"], &documents, Some(&form)), base);
    }

    /// Scenario: the same question with other blanks, another one, the same in another scope.
    #[tokio::test]
    async fn the_same_text_is_found_in_its_scope_only() {
        let (cache, _folder) = cache(10, 60).await;
        cache.keep(asked("Who  was\nit?", &[1.0, 0.0]), &answer("Ann")).await.unwrap();
        assert_eq!(cache.exact(scope(""), " Who was it? ").await.unwrap(), Some(answer("Ann")));
        assert_eq!(cache.exact(scope(""), "Who was she?").await.unwrap(), None);
        assert_eq!(cache.exact(scope("seed=1"), "Who was it?").await.unwrap(), None);
    }

    /// Guarantees: the nearest question answers if it is near enough; vectors of another width are
    /// near to nothing.
    #[tokio::test]
    async fn a_near_question_is_answered_and_a_far_one_is_not() {
        let (cache, _folder) = cache(10, 60).await;
        cache.keep(asked("a", &[1.0, 0.0]), &answer("a")).await.unwrap();
        cache.keep(asked("b", &[0.9, 0.1]), &answer("b")).await.unwrap();
        let (found, similarity) = cache.nearest(scope(""), &[0.8, 0.1]).await.unwrap().unwrap();
        assert_eq!(found.text, "b");
        assert!(similarity > 0.99, "{similarity}");
        assert_eq!(cache.nearest(scope(""), &[0.0, 1.0]).await.unwrap(), None);
        assert_eq!(cache.nearest(scope(""), &[1.0, 0.0, 0.0]).await.unwrap(), None);
        assert_eq!(cache.nearest(scope("seed=1"), &[1.0, 0.0]).await.unwrap(), None);
    }

    /// Scenario: more answers than may be kept, one of them used; answers that grow old.
    #[tokio::test]
    async fn answers_used_longest_ago_go_first_and_old_ones_are_none() {
        let (cache, _folder) = cache(2, 60).await;
        let scope = scope("");
        for (question, now) in [("a", 1_000), ("b", 1_010)] {
            cache.keep_at(asked(question, &[1.0]), &answer(question), now).await.unwrap();
        }
        assert!(cache.find(scope.key("a"), 1_020).await.unwrap().is_some());
        cache.keep_at(asked("c", &[1.0]), &answer("c"), 1_030).await.unwrap();
        assert!(cache.find(scope.key("b"), 1_030).await.unwrap().is_none());
        assert!(cache.find(scope.key("a"), 1_059).await.unwrap().is_some());
        assert!(cache.find(scope.key("a"), 1_060).await.unwrap().is_none(), "a minute has passed");
        assert!(cache.find(scope.key("c"), 1_060).await.unwrap().is_some());
    }

    /// Guarantees: expired answers are counted apart and go first; what is cleared is gone.
    #[tokio::test]
    async fn answers_are_counted_evicted_and_cleared() {
        let (cache, _folder) = cache(10, 60).await;
        let now = now_secs();
        for (question, made) in [("old", now - 61), ("a", now), ("b", now)] {
            cache.keep_at(asked(question, &[1.0]), &answer(question), made).await.unwrap();
        }
        // Keeping one lets the old go, so it is put back as it was.
        sqlx::query("UPDATE answers SET made_secs = ? WHERE key = ?")
            .bind(now - 61)
            .bind(scope("").key("a").as_bytes().as_slice())
            .execute(&cache.pool)
            .await
            .unwrap();
        let stats = cache.stats().await.unwrap();
        assert_eq!((stats.entries, stats.expired, stats.oldest_unix_secs), (2, 1, Some(now - 61)));
        assert!(stats.bytes > 0);
        assert_eq!(cache.evict(5).await.unwrap(), 1);
        assert_eq!(cache.evict(0).await.unwrap(), 1);
        cache.keep(asked("c", &[1.0]), &answer("c")).await.unwrap();
        assert_eq!(cache.clear().await.unwrap(), 1);
        assert_eq!(cache.stats().await.unwrap().entries, 0);
    }
}
