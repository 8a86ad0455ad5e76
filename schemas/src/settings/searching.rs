//! `[rag.vectors]`, `[rag.retrieve]` and `[rag.rerank]`: where chunks are kept, and how they are found.

use serde::{Deserialize, Serialize};

use super::OutOfRange;
use super::filter::Filter;

/// Which index finds the nearest vectors in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum VectorIndex {
    /// A graph: fast and precise, slow to build, large.
    #[default]
    Hnsw,
    /// Lists around centres: quick to build and small, less precise for the same time.
    Ivfflat,
    /// None: every search looks at all vectors.
    None,
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
    /// `hnsw`, `ivfflat` or `none` (PostgreSQL). Another one, or other parameters, and the next
    /// ingest builds it anew.
    pub index: VectorIndex,
    /// Neighbours of a vector in the graph of `hnsw`.
    pub hnsw_m: u32,
    /// Candidates while the graph of `hnsw` is built.
    pub hnsw_ef_construction: u32,
    /// Candidates of a search by `hnsw`; 0: twice what is wanted, at least 40.
    pub hnsw_ef_search: u32,
    /// Lists of `ivfflat`; 0: by the number of vectors.
    pub ivfflat_lists: u32,
    /// Lists that a search by `ivfflat` looks at; 0: by the number of lists.
    pub ivfflat_probes: u32,
}

impl Default for VectorSettings {
    fn default() -> Self {
        Self {
            url: None,
            collection: "default".to_owned(),
            pool_size: 4,
            statement_timeout_ms: 30_000,
            index: VectorIndex::Hnsw,
            hnsw_m: 16,
            hnsw_ef_construction: 64,
            hnsw_ef_search: 0,
            ivfflat_lists: 0,
            ivfflat_probes: 0,
        }
    }
}

impl VectorSettings {
    /// Checks what pgvector allows.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub(super) fn check(&self) -> Result<(), OutOfRange> {
        let ranges = [
            ("vectors.hnsw_m", self.hnsw_m, 2, 100),
            ("vectors.hnsw_ef_construction", self.hnsw_ef_construction, 4, 1000),
            ("vectors.hnsw_ef_search", self.hnsw_ef_search, 0, 1000),
            ("vectors.ivfflat_lists", self.ivfflat_lists, 0, 32_768),
            ("vectors.ivfflat_probes", self.ivfflat_probes, 0, 32_768),
        ];
        let outside =
            |(_, value, least, most): &&(_, u32, u32, u32)| !(*least..=*most).contains(value);
        if let Some((name, _, least, most)) = ranges.iter().find(outside) {
            return Err(OutOfRange { name, reason: format!("must be from {least} to {most}") });
        }
        if self.hnsw_ef_construction < 2 * self.hnsw_m {
            return Err(OutOfRange {
                name: "vectors.hnsw_ef_construction",
                reason: format!("must be at least twice vectors.hnsw_m ({})", self.hnsw_m),
            });
        }
        Ok(())
    }
}

/// What a search looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RetrieveMode {
    /// The nearest vectors.
    #[default]
    Dense,
    /// The words of the question.
    Text,
    /// Both, and both lists become one.
    Hybrid,
}

impl RetrieveMode {
    /// The word of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Text => "text",
            Self::Hybrid => "hybrid",
        }
    }

    /// Whether words are searched for.
    #[must_use]
    pub const fn searches_words(self) -> bool {
        matches!(self, Self::Text | Self::Hybrid)
    }
}

/// How the two lists of a hybrid search become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// Reciprocal rank fusion: only ranks count, so scores need no common scale.
    #[default]
    Rrf,
    /// The scores of each list, stretched to 0..1.
    RelativeScore,
}

/// Settings of searching.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrieveSettings {
    /// Chunks handed to the answer.
    pub top_k: usize,
    /// `dense`, `text` or `hybrid`.
    pub mode: RetrieveMode,
    /// How a hybrid search joins its two lists: `rrf` or `relative_score`.
    pub fusion: Fusion,
    /// What the nearest vectors count in a hybrid search, 0 to 1; words have the rest.
    pub dense_weight: f64,
    /// How much less a lower rank counts in `rrf`: the larger, the less.
    pub rrf_k: f64,
    /// Chunks each of the two searches of a hybrid one finds, at least `top_k`.
    pub arm_candidates: usize,
    /// What has to hold of chunks that are found, such as `kind = 'markdown'`.
    pub filter: Option<Filter>,
}

impl Default for RetrieveSettings {
    fn default() -> Self {
        Self {
            top_k: 4,
            mode: RetrieveMode::Dense,
            fusion: Fusion::Rrf,
            dense_weight: 0.5,
            rrf_k: 60.0,
            arm_candidates: 20,
            filter: None,
        }
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
    /// The language model rates the candidates, a line each.
    Llm,
    /// The language model rates the candidates as JSON.
    StructuredLlm,
    /// A cross-encoder from a local folder, in pure Rust.
    CrossEncoder,
    /// A service over HTTP.
    Service,
}

/// How a reranking service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RerankProtocol {
    /// Cohere, Jina, vLLM: `documents`, and `relevance_score` in `results`.
    #[default]
    Cohere,
    /// Text Embeddings Inference: `texts`, and a list of `score`.
    Tei,
}

/// Settings of reranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RerankSettings {
    /// `none`, `bm25`, `llm`, `structured_llm`, `cross_encoder` or `service`.
    pub provider: RerankProvider,
    /// Chunks the search fetches for the reranker to choose from.
    pub candidates: usize,
    /// Chunks the language model rates in one call.
    pub llm_batch: usize,
    /// Chunks the language model rates lower than this, of 10, are left out.
    pub llm_rating_min: f64,
    /// Folder with `model.safetensors`, `tokenizer.json` and `config.json` of a cross-encoder.
    pub model_dir: Option<String>,
    /// How the service is spoken to: `cohere` (also vLLM and Jina) or `tei`.
    pub protocol: RerankProtocol,
    /// Base URL of the service: `/rerank` is added to it.
    pub url: Option<String>,
    /// Model name for the service, or empty for the one it has.
    pub model: String,
    /// Environment variable with the service's key.
    pub api_key_env: String,
    /// Chunks the service scores in one call.
    pub service_batch: usize,
    /// Longest a request to the service may take, ms.
    pub timeout_ms: u64,
}

impl Default for RerankSettings {
    fn default() -> Self {
        Self {
            provider: RerankProvider::None,
            candidates: 20,
            llm_batch: 10,
            llm_rating_min: 0.0,
            model_dir: None,
            protocol: RerankProtocol::Cohere,
            url: None,
            model: String::new(),
            api_key_env: "OPENAI_API_KEY".to_owned(),
            service_batch: 32,
            timeout_ms: 60_000,
        }
    }
}
