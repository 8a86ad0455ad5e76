//! Settings: of the recorder and of the built-in pipeline, with their defaults.
//!
//! The same names serve `retake.toml`, the environment (`RETAKE_RAG__EMBED__BATCH_SIZE`), and the
//! `--set embed.batch_size=64` of a replay. Secrets are never settings: a setting may name the
//! environment variable that holds one.

mod answering;
mod budget;
mod evaluation;
pub mod filter;
mod load;
mod prices;
mod rag;
mod record;
mod searching;
mod url;
mod work;

use serde::{Deserialize, Serialize};

pub use answering::{
    AnswerStyle, PostprocessSettings, PostprocessStep, QueryCacheMode, QueryCacheSettings,
    QuerySettings, QueryTransform, SynthesisMode,
};
pub use budget::{Budget, BudgetSettings, BudgetTokens, ModelBudgetSettings, OnExceeded};
pub use evaluation::{EvalSettings, EvaluatorName};
pub use filter::Filter;
pub use load::{LoadFormat, LoadSettings};
pub use prices::{Price, PricedTokens, Prices};
pub use rag::{
    ChunkSettings, EmbedProvider, EmbedSettings, RagSettings, SetError, SynthesizeProvider,
    SynthesizeSettings,
};
pub use record::{RecordSettings, SyncPolicy, WhenFull};
pub use searching::{
    Fusion, RerankProtocol, RerankProvider, RerankSettings, RetrieveMode, RetrieveSettings,
    VectorIndex, VectorSettings,
};
pub use url::without_password;
pub use work::{CacheSettings, DocumentStrategy, IngestSettings, LimitSettings};

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
    /// What tokens cost, for calls whose instrumentation does not say.
    pub prices: Prices,
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
