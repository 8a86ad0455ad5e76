//! Settings: of the recorder and of the built-in pipeline, with their defaults.
//!
//! The same names serve `retake.toml`, the environment (`RETAKE_RAG__EMBED__BATCH_SIZE`), and the
//! `--set embed.batch_size=64` of a replay. Secrets are never settings: a setting may name the
//! environment variable that holds one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::event::Capture;
use crate::redaction::RedactSettings;

mod budget;

pub use budget::{Budget, BudgetSettings, BudgetTokens, ModelBudgetSettings, OnExceeded};

/// Everything `retake.toml` may say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder of the store; `--store` and `RETAKE_STORE` win.
    pub store: Option<String>,
    /// Recording.
    pub record: RecordSettings,
    /// The built-in RAG pipeline.
    pub rag: RagSettings,
}

/// Settings of recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordSettings {
    /// How much content a run keeps: `off`, `digest`, `redacted` or `full`. Replays need `full`.
    pub capture: Capture,
    /// What redaction takes out.
    pub redact: RedactSettings,
    /// Longest text of one attribute kept in its span, bytes; longer ones are cut and flagged.
    pub attribute_bytes_max: usize,
    /// Largest content kept whole, bytes; longer ones are cut and flagged.
    pub payload_bytes_max: usize,
    /// Unsealed journal on disk, bytes; above it events are dropped and counted.
    pub journal_bytes_max: u64,
    /// Seal after this many journalled events.
    pub seal_events: u64,
    /// Seal at least this often while events arrive, seconds.
    pub seal_secs: u64,
    /// What a power cut may cost: with `never` (a killed process still loses nothing) what is not
    /// sealed, with `interval` the last `sync_ms`, with `batch` the last few hundredths of a second.
    pub sync: SyncPolicy,
    /// How often `sync = "interval"` flushes to the disk, ms.
    pub sync_ms: u64,
    /// What becomes of an event when the journal is full: `drop-new` counts and drops it, `block`
    /// lets its thread wait.
    pub when_full: WhenFull,
    /// How long a thread waits at most with `when_full = "block"`, ms.
    pub block_ms_max: u64,
    /// Seal on a thread that runs only when no other wants its core, as long as it keeps up.
    pub seal_idle: bool,
    /// Sample processor, memory, files and GPU this often, ms; 0 takes no samples.
    pub sample_ms: u64,
    /// Limits on the tokens of a run; without it there are none.
    pub budget: Option<BudgetSettings>,
    /// Where finished runs are copied to, such as `s3://bucket/prefix`; without it they stay here.
    /// Credentials come from the environment, never from settings.
    pub upload: Option<String>,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self {
            capture: Capture::Digest,
            redact: RedactSettings::default(),
            attribute_bytes_max: 16 << 10,
            payload_bytes_max: 1 << 20,
            journal_bytes_max: 512 << 20,
            seal_events: 262_144,
            seal_secs: 30,
            sync: SyncPolicy::Never,
            sync_ms: 1000,
            when_full: WhenFull::DropNew,
            block_ms_max: 10_000,
            seal_idle: true,
            sample_ms: 1000,
            budget: None,
            upload: None,
        }
    }
}

/// What a recording does for the power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum SyncPolicy {
    /// Only sealed segments are flushed to the disk.
    #[default]
    Never,
    /// The journal is flushed every `sync_ms`.
    Interval,
    /// The journal is flushed whenever the last flush is done.
    Batch,
}

/// What becomes of an event when the journal is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is counted and dropped; whole spans only, never half of one.
    #[default]
    DropNew,
    /// Its thread waits for room, up to a limit.
    Block,
}

impl RecordSettings {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        if self.sample_ms != 0 && !(SAMPLE_MS_MIN..=SAMPLE_MS_MAX).contains(&self.sample_ms) {
            return Err(OutOfRange {
                name: "record.sample_ms",
                reason: format!(
                    "must be 0 (no samples) or {SAMPLE_MS_MIN} to {SAMPLE_MS_MAX}, not {}",
                    self.sample_ms
                ),
            });
        }
        self.budget.as_ref().map_or(Ok(()), BudgetSettings::check)
    }
}

/// Settings of the built-in pipeline, and what `--set` of a replay may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RagSettings {
    /// Documents or batches worked on at the same time.
    pub workers: usize,
    /// Loading.
    pub load: LoadSettings,
    /// Chunking.
    pub chunk: ChunkSettings,
    /// Embedding.
    pub embed: EmbedSettings,
    /// Where vectors are kept.
    pub vectors: VectorSettings,
    /// Searching.
    pub retrieve: RetrieveSettings,
    /// Reranking.
    pub rerank: RerankSettings,
    /// Answering.
    pub synthesize: SynthesizeSettings,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for RagSettings {
    fn default() -> Self {
        Self {
            workers: 2,
            load: LoadSettings::default(),
            chunk: ChunkSettings::default(),
            embed: EmbedSettings::default(),
            vectors: VectorSettings::default(),
            retrieve: RetrieveSettings::default(),
            rerank: RerankSettings::default(),
            synthesize: SynthesizeSettings::default(),
            seed: 42,
        }
    }
}

/// Settings of loading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSettings {
    /// Largest file read, bytes; larger ones are reported and skipped.
    pub file_bytes_max: u64,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self { file_bytes_max: 32 << 20 }
    }
}

/// Settings of chunking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChunkSettings {
    /// Largest chunk, tokens.
    pub size: usize,
    /// Tokens two neighbours share.
    pub overlap: usize,
}

impl Default for ChunkSettings {
    fn default() -> Self {
        Self { size: 256, overlap: 20 }
    }
}

/// Which model makes vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum EmbedProvider {
    /// Feature hashing of words and word pairs: deterministic, offline, no model file.
    #[default]
    Hashing,
    /// `all-MiniLM-L6-v2` from a local folder, in pure Rust.
    Minilm,
    /// An OpenAI-compatible HTTP service.
    Openai,
}

/// Settings of embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedSettings {
    /// `hashing`, `minilm` or `openai`.
    pub provider: EmbedProvider,
    /// Model name for the service, or empty for the provider's own.
    pub model: String,
    /// Dimensions of the hashing embedder.
    pub dim: usize,
    /// Largest batch, chunks.
    pub batch_size: usize,
    /// How long a batch may wait to fill, ms.
    pub max_wait_ms: u64,
    /// Folder with `model.safetensors`, `tokenizer.json` and `config.json`, for `minilm`.
    pub model_dir: Option<String>,
    /// Base URL of the service, such as `http://127.0.0.1:8000/v1`.
    pub url: Option<String>,
    /// Environment variable with the service's key.
    pub api_key_env: String,
}

impl Default for EmbedSettings {
    fn default() -> Self {
        Self {
            provider: EmbedProvider::Hashing,
            model: String::new(),
            dim: 384,
            batch_size: 32,
            max_wait_ms: 20,
            model_dir: None,
            url: None,
            api_key_env: "OPENAI_API_KEY".to_owned(),
        }
    }
}

/// Settings of the vector store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VectorSettings {
    /// `sqlite:FILE` or `postgres://…`; without it, `rag.sqlite` in the store.
    pub url: Option<String>,
    /// Collection: documents of different collections never meet.
    pub collection: String,
    /// Open connections at most (PostgreSQL).
    pub pool_size: u32,
    /// Longest a statement may take, ms (PostgreSQL).
    pub statement_timeout_ms: u64,
}

impl Default for VectorSettings {
    fn default() -> Self {
        Self {
            url: None,
            collection: "default".to_owned(),
            pool_size: 4,
            statement_timeout_ms: 30_000,
        }
    }
}

/// Settings of searching.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrieveSettings {
    /// Chunks handed to the answer.
    pub top_k: usize,
}

impl Default for RetrieveSettings {
    fn default() -> Self {
        Self { top_k: 4 }
    }
}

/// Which reranker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RerankProvider {
    /// None.
    #[default]
    None,
    /// BM25 over the candidates: lexical, offline.
    Bm25,
}

/// Settings of reranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RerankSettings {
    /// `none` or `bm25`.
    pub provider: RerankProvider,
    /// Chunks the search fetches for the reranker to choose from.
    pub candidates: usize,
}

impl Default for RerankSettings {
    fn default() -> Self {
        Self { provider: RerankProvider::None, candidates: 20 }
    }
}

/// Which model writes answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SynthesizeProvider {
    /// Chooses sentences of the retrieved chunks: deterministic, offline.
    #[default]
    Extractive,
    /// An OpenAI-compatible HTTP service.
    Openai,
}

/// Settings of answering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynthesizeSettings {
    /// `extractive` or `openai`.
    pub provider: SynthesizeProvider,
    /// Model name for the service, or empty for the provider's own.
    pub model: String,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Sentences an extractive answer has at most.
    pub max_sentences: usize,
    /// Output limit, tokens.
    pub max_tokens: u32,
    /// Sampling temperature of the service.
    pub temperature: f64,
    /// Base URL of the service.
    pub url: Option<String>,
    /// Environment variable with the service's key.
    pub api_key_env: String,
    /// Longest a request to the service may take, ms.
    pub timeout_ms: u64,
}

impl Default for SynthesizeSettings {
    fn default() -> Self {
        Self {
            provider: SynthesizeProvider::Extractive,
            model: String::new(),
            stream: true,
            max_sentences: 3,
            max_tokens: 512,
            temperature: 0.0,
            url: None,
            api_key_env: "OPENAI_API_KEY".to_owned(),
            timeout_ms: 120_000,
        }
    }
}

/// A `--set` that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// Not of the form `name=value`.
    #[error("read setting {given:?}: expected name=value, such as embed.batch_size=64")]
    NotAnAssignment {
        /// What was given.
        given: String,
    },
    /// No setting has that name.
    #[error("set {name}: no such setting; known are {}", known.join(", "))]
    Unknown {
        /// The name as given.
        name: String,
        /// All names there are.
        known: Vec<String>,
    },
    /// The value has the wrong type or is out of range.
    #[error("set {name} to {value:?}: {reason}")]
    BadValue {
        /// The setting.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl RagSettings {
    /// All names `--set` understands, sorted, with the values they have now.
    #[must_use]
    pub fn flat(&self) -> BTreeMap<String, Json> {
        let mut flat = BTreeMap::new();
        if let Ok(json) = serde_json::to_value(self) {
            flatten("", &json, &mut flat);
        }
        flat
    }

    /// The settings as a run records them: [`RagSettings::flat`], with the password of a database
    /// URL taken out.
    #[must_use]
    pub fn recordable(&self) -> BTreeMap<String, Json> {
        let mut flat = self.flat();
        for (name, value) in &mut flat {
            if name.ends_with("url")
                && let Json::String(url) = value
            {
                *url = without_password(url);
            }
        }
        flat
    }

    /// The settings a run recorded. Names that this build does not know are left out, values that
    /// no longer fit keep their default: a newer build replays an older run.
    #[must_use]
    pub fn from_recorded(flat: &BTreeMap<String, Json>) -> Self {
        flat.iter().fold(Self::default(), |settings, (name, value)| {
            settings.with(name, value.clone()).unwrap_or(settings)
        })
    }

    /// Applies one `name=value`.
    ///
    /// # Errors
    /// See [`SetError`]; the settings are then unchanged.
    pub fn set(&mut self, assignment: &str) -> Result<(), SetError> {
        let (name, text) = assignment
            .split_once('=')
            .map(|(name, text)| (name.trim(), text.trim()))
            .ok_or_else(|| SetError::NotAnAssignment { given: assignment.to_owned() })?;
        let known = self.flat();
        if !known.contains_key(name) {
            return Err(SetError::Unknown {
                name: name.to_owned(),
                known: known.into_keys().collect(),
            });
        }
        let bad = |reason: String| SetError::BadValue {
            name: name.to_owned(),
            value: text.to_owned(),
            reason,
        };
        // A word that is not JSON is meant as text; so is a number where text is wanted.
        let as_text = Json::String(text.to_owned());
        let parsed = serde_json::from_str(text).unwrap_or_else(|_| as_text.clone());
        let changed = self
            .with(name, parsed)
            .or_else(|error| self.with(name, as_text).map_err(|_| error))
            .map_err(|error| bad(error.to_string()))?;
        changed.check().map_err(|error| bad(error.reason))?;
        *self = changed;
        Ok(())
    }

    /// A copy with one setting changed.
    fn with(&self, name: &str, value: Json) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::to_value(self)?;
        let pointer = format!("/{}", name.replace('.', "/"));
        if let Some(place) = json.pointer_mut(&pointer) {
            *place = value;
        }
        serde_json::from_value(json)
    }

    /// Checks what types cannot: limits, and settings that only make sense together.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let at_least_one = [
            ("workers", self.workers),
            ("chunk.size", self.chunk.size),
            ("embed.dim", self.embed.dim),
            ("embed.batch_size", self.embed.batch_size),
            ("retrieve.top_k", self.retrieve.top_k),
            ("rerank.candidates", self.rerank.candidates),
        ];
        let limits = [
            ("workers", self.workers, WORKERS_MAX),
            ("embed.dim", self.embed.dim, EMBED_DIM_MAX),
            ("embed.batch_size", self.embed.batch_size, BATCH_SIZE_MAX),
            ("retrieve.top_k", self.retrieve.top_k, TOP_K_MAX),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(OutOfRange { name, reason: "must be at least 1".to_owned() });
        }
        if let Some((name, _, most)) = limits.iter().find(|(_, value, most)| value > most) {
            return Err(OutOfRange { name, reason: format!("must be at most {most}") });
        }
        if self.chunk.overlap >= self.chunk.size {
            return Err(OutOfRange {
                name: "chunk.overlap",
                reason: format!("must be less than chunk.size ({})", self.chunk.size),
            });
        }
        Ok(())
    }
}

/// A setting out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use setting {name}: {reason}")]
pub struct OutOfRange {
    /// The setting.
    pub name: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn flatten(prefix: &str, json: &Json, flat: &mut BTreeMap<String, Json>) {
    let Json::Object(fields) = json else {
        flat.insert(prefix.to_owned(), json.clone());
        return;
    };
    for (name, value) in fields {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        flatten(&path, value, flat);
    }
}

/// `postgres://user:secret@host/db` without the secret, and without secret parameters.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let authority = match authority.rsplit_once('@') {
        Some((user_info, host)) => {
            let user = user_info.split_once(':').map_or(user_info, |(user, _)| user);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    // `?password=` is the other place where PostgreSQL takes one, and services take keys there.
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let kept: Vec<_> = query.split('&').filter(|pair| !is_secret_pair(pair)).collect();
            format!("{path}?{}", kept.join("&"))
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

fn is_secret_pair(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name).to_ascii_lowercase();
    SECRET_PARAMETERS.iter().any(|secret| name.ends_with(secret))
}

/// Ends of the names of URL parameters that hold a secret.
const SECRET_PARAMETERS: [&str; 7] =
    ["password", "passwd", "token", "key", "secret", "signature", "sig"];
/// More often than this, the samples themselves would show in what they measure.
const SAMPLE_MS_MIN: u64 = 10;
/// A run with a sample less often than once an hour is better off without.
const SAMPLE_MS_MAX: u64 = 3_600_000;
/// More than this many workers only queue for the same processors.
const WORKERS_MAX: usize = 1024;
/// The widest vector pgvector can hold is 16,000 dimensions.
const EMBED_DIM_MAX: usize = 16_000;
/// The largest batch any service known to us accepts is 2,048.
const BATCH_SIZE_MAX: usize = 4096;
/// A prompt with more chunks than this fits no model.
const TOP_K_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_by_dotted_name() {
        let mut settings = RagSettings::default();
        settings.set("embed.batch_size=64").unwrap();
        settings.set("workers = 8").unwrap();
        settings.set("embed.provider=minilm").unwrap();
        settings.set("embed.model=7").unwrap();
        assert_eq!(settings.embed.batch_size, 64);
        assert_eq!(settings.workers, 8);
        assert_eq!(settings.embed.provider, EmbedProvider::Minilm);
        assert_eq!(settings.embed.model, "7");
    }

    #[test]
    fn recorded_settings_come_back() {
        let mut settings = RagSettings::default();
        settings.set("embed.batch_size=64").unwrap();
        settings.set("vectors.url=postgres://u@h/d").unwrap();
        assert_eq!(RagSettings::from_recorded(&settings.recordable()), settings);
        let strange = BTreeMap::from([
            ("no.such".to_owned(), Json::from(1)),
            ("workers".to_owned(), Json::from("many")),
        ]);
        assert_eq!(RagSettings::from_recorded(&strange), RagSettings::default());
    }

    #[test]
    fn an_unknown_setting_names_the_known_ones() {
        let error = RagSettings::default().set("embed.batchsize=64").unwrap_err();
        let SetError::Unknown { known, .. } = &error else { panic!("{error}") };
        assert!(known.contains(&"embed.batch_size".to_owned()));
    }

    #[test]
    fn samples_are_off_or_at_a_bearable_rate() {
        let with = |sample_ms| RecordSettings { sample_ms, ..RecordSettings::default() };
        for good in [0, 10, 1000, 3_600_000] {
            assert_eq!(with(good).check(), Ok(()), "{good}");
        }
        for bad in [1, 9, 3_600_001] {
            let error = with(bad).check().unwrap_err().to_string();
            assert!(error.contains("record.sample_ms") && error.contains("10 to"), "{error}");
        }
    }

    #[test]
    fn a_bad_value_changes_nothing() {
        let mut settings = RagSettings::default();
        for bad in ["workers=0", "workers=many", "workers=-1", "chunk.overlap=256", "workers"] {
            assert!(settings.set(bad).is_err(), "{bad}");
        }
        assert_eq!(settings, RagSettings::default());
    }

    /// Guarantees: P1 - a database password never reaches the run's settings.
    #[test]
    fn passwords_are_not_recorded() {
        for (url, expected) in [
            ("postgres://u:p@h:5432/d", "postgres://u@h:5432/d"),
            ("postgres://u:p@ss@h/d", "postgres://u@h/d"),
            ("postgres://u@h/d?password=p&x=1", "postgres://u@h/d?x=1"),
            ("postgres://h/d?password=p", "postgres://h/d?"),
            ("sqlite:rag.sqlite", "sqlite:rag.sqlite"),
            ("http://h/v1?api_key=k&page=2&X-Amz-Signature=s", "http://h/v1?page=2"),
        ] {
            assert_eq!(without_password(url), expected);
        }
    }
}
