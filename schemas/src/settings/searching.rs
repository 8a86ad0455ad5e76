//! `[rag.vectors]`, `[rag.retrieve]` and `[rag.rerank]`: where chunks are kept, and how they are found.

use serde::{Deserialize, Serialize};

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
}

/// Settings of reranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RerankSettings {
    /// `none`, `bm25`, `llm`, `structured_llm` or `cross_encoder`.
    pub provider: RerankProvider,
    /// Chunks the search fetches for the reranker to choose from.
    pub candidates: usize,
    /// Chunks the language model rates in one call.
    pub llm_batch: usize,
    /// Chunks the language model rates lower than this, of 10, are left out.
    pub llm_rating_min: f64,
    /// Folder with `model.safetensors`, `tokenizer.json` and `config.json` of a cross-encoder.
    pub model_dir: Option<String>,
}

impl Default for RerankSettings {
    fn default() -> Self {
        Self {
            provider: RerankProvider::None,
            candidates: 20,
            llm_batch: 10,
            llm_rating_min: 0.0,
            model_dir: None,
        }
    }
}
