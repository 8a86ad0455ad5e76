//! `[rag]`: the built-in pipeline, also as a run records it and a replay changes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::answering::{
    AnswerStyle, PostprocessSettings, QueryCacheSettings, QuerySettings, SynthesisMode,
};
use super::evaluation::EvalSettings;
use super::load::LoadSettings;
use super::searching::{RerankSettings, RetrieveSettings, VectorSettings};
use super::work::{CacheSettings, IngestSettings, LimitSettings};
use super::{OutOfRange, without_password};

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
    /// What questions become before they are searched for.
    pub query: QuerySettings,
    /// Searching.
    pub retrieve: RetrieveSettings,
    /// Reranking.
    pub rerank: RerankSettings,
    /// What becomes of found chunks.
    pub postprocess: PostprocessSettings,
    /// Answering.
    pub synthesize: SynthesizeSettings,
    /// Evaluating.
    pub eval: EvalSettings,
    /// What each model service allows.
    pub limits: LimitSettings,
    /// What becomes of documents that are seen again, or no longer.
    pub ingest: IngestSettings,
    /// Vectors kept by the text they were made of.
    pub cache: CacheSettings,
    /// Answers kept by their question.
    pub query_cache: QueryCacheSettings,
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
            query: QuerySettings::default(),
            retrieve: RetrieveSettings::default(),
            rerank: RerankSettings::default(),
            postprocess: PostprocessSettings::default(),
            synthesize: SynthesizeSettings::default(),
            eval: EvalSettings::default(),
            limits: LimitSettings::default(),
            ingest: IngestSettings::default(),
            cache: CacheSettings::default(),
            query_cache: QueryCacheSettings::default(),
            seed: 42,
        }
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
    /// Whether the batch grows while that makes embedding faster, and shrinks when it does not, or
    /// when the service is overrun; `batch_size` is then where it begins.
    pub adaptive: bool,
    /// Longest a call may take before an adaptive batch shrinks, ms.
    pub latency_target_ms: u64,
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
            adaptive: false,
            latency_target_ms: 10_000,
            model_dir: None,
            url: None,
            api_key_env: "OPENAI_API_KEY".to_owned(),
        }
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
    /// How the answer is made of the passages.
    pub mode: SynthesisMode,
    /// How the answer is worded: `abstractive`, `extractive` or `verbose`.
    pub style: AnswerStyle,
    /// What the model can read and write in one call, tokens; 0: no limit.
    pub context_window: u32,
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
            mode: SynthesisMode::Compact,
            style: AnswerStyle::Abstractive,
            context_window: 8192,
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
            ("retrieve.arm_candidates", self.retrieve.arm_candidates),
            ("rerank.candidates", self.rerank.candidates),
            ("rerank.llm_batch", self.rerank.llm_batch),
            ("rerank.service_batch", self.rerank.service_batch),
        ];
        let limits = [
            ("workers", self.workers, WORKERS_MAX),
            ("embed.dim", self.embed.dim, EMBED_DIM_MAX),
            ("embed.batch_size", self.embed.batch_size, BATCH_SIZE_MAX),
            ("retrieve.top_k", self.retrieve.top_k, TOP_K_MAX),
            ("retrieve.arm_candidates", self.retrieve.arm_candidates, TOP_K_MAX),
            (
                "postprocess.neighbours_before",
                self.postprocess.neighbours_before as usize,
                NEIGHBOURS_MAX,
            ),
            (
                "postprocess.neighbours_after",
                self.postprocess.neighbours_after as usize,
                NEIGHBOURS_MAX,
            ),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(OutOfRange { name, reason: "must be at least 1".to_owned() });
        }
        if let Some((name, _, most)) = limits.iter().find(|(_, value, most)| value > most) {
            return Err(OutOfRange { name, reason: format!("must be at most {most}") });
        }
        self.vectors.check()?;
        if self.chunk.overlap >= self.chunk.size {
            return Err(OutOfRange {
                name: "chunk.overlap",
                reason: format!("must be less than chunk.size ({})", self.chunk.size),
            });
        }
        let ranges = [
            ("retrieve.dense_weight", self.retrieve.dense_weight, 0.0, 1.0),
            ("retrieve.rrf_k", self.retrieve.rrf_k, 0.0, RRF_K_MAX),
            ("postprocess.similarity_min", self.postprocess.similarity_min, -1.0, 1.0),
            ("postprocess.mmr_lambda", self.postprocess.mmr_lambda, 0.0, 1.0),
            (
                "postprocess.recency_similarity_min",
                self.postprocess.recency_similarity_min,
                -1.0,
                1.0,
            ),
            ("postprocess.recency_weight", self.postprocess.recency_weight, 0.0, 1.0),
            (
                "postprocess.recency_half_life_days",
                self.postprocess.recency_half_life_days,
                HALF_LIFE_DAYS_MIN,
                HALF_LIFE_DAYS_MAX,
            ),
            ("postprocess.sentences_share", self.postprocess.sentences_share, 0.0, 1.0),
            (
                "postprocess.sentences_similarity_min",
                self.postprocess.sentences_similarity_min,
                -1.0,
                1.0,
            ),
            ("rerank.llm_rating_min", self.rerank.llm_rating_min, 0.0, 10.0),
            ("query_cache.similarity_min", self.query_cache.similarity_min, -1.0, 1.0),
            ("eval.correctness_min", self.eval.correctness_min, 1.0, 5.0),
            ("eval.similarity_min", self.eval.similarity_min, -1.0, 1.0),
        ];
        let outside =
            |(_, value, least, most): &&(_, f64, f64, f64)| !(*least..=*most).contains(value);
        if let Some((name, _, least, most)) = ranges.iter().find(outside) {
            return Err(OutOfRange { name, reason: format!("must be from {least} to {most}") });
        }
        Ok(())
    }
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

/// More than this many workers only queue for the same processors.
const WORKERS_MAX: usize = 1024;
/// The widest vector pgvector can hold is 16,000 dimensions.
const EMBED_DIM_MAX: usize = 16_000;
/// The largest batch any service known to us accepts is 2,048.
const BATCH_SIZE_MAX: usize = 4096;
/// A prompt with more chunks than this fits no model.
const TOP_K_MAX: usize = 10_000;
/// Beyond it all ranks count the same.
const RRF_K_MAX: f64 = 1e6;
/// With more, the document itself is what is wanted.
const NEIGHBOURS_MAX: usize = 100;
/// About a quarter of an hour: below it all documents but the youngest would count nothing.
const HALF_LIFE_DAYS_MIN: f64 = 0.01;
/// A century: beyond it age means nothing.
const HALF_LIFE_DAYS_MAX: f64 = 36_500.0;

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
    fn a_bad_value_changes_nothing() {
        let mut settings = RagSettings::default();
        for bad in ["workers=0", "workers=many", "workers=-1", "chunk.overlap=256", "workers"] {
            assert!(settings.set(bad).is_err(), "{bad}");
        }
        assert_eq!(settings, RagSettings::default());
    }
}
