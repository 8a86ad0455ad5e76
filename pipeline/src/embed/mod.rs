//! Text to vectors.

pub mod hashing;
#[cfg(feature = "candle")]
pub mod minilm;
pub mod openai;

use std::sync::Arc;

use async_trait::async_trait;
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{EmbedProvider, EmbedSettings, RagSettings};

use crate::error::PipelineError;

/// Vectors of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Dimensions of each vector.
    pub dim: usize,
    /// One vector per text, in order, each of length 1 (L2).
    pub vectors: Vec<Vec<f32>>,
    /// Input tokens of the call.
    pub tokens: Option<u64>,
    /// Who counted them.
    pub tokens_source: TokensSource,
    /// Attempts after the first.
    pub retries: u32,
}

/// Makes vectors of texts.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Provider name for `gen_ai.provider.name`: `retake`, `openai`, …
    fn provider(&self) -> &str;

    /// Model name for `gen_ai.request.model`. Vectors of different names are never mixed.
    fn model(&self) -> &str;

    /// Everything its vectors depend on besides the text, without secrets: what a cache must tell
    /// apart.
    fn fingerprint(&self) -> String {
        self.model().to_owned()
    }

    /// Dimensions of its vectors, when they are known without a call.
    fn dim(&self) -> Option<usize>;

    /// Embeds a batch.
    ///
    /// # Errors
    /// The service or the model failed, after retries where a retry can help.
    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError>;
}

/// The embedder the settings ask for.
///
/// # Errors
/// [`PipelineError::Configuration`] for settings that cannot work or a missing model file.
pub fn from_settings(settings: &RagSettings) -> Result<Arc<dyn Embedder>, PipelineError> {
    let RagSettings { embed: settings, limits, .. } = settings;
    Ok(match settings.provider {
        EmbedProvider::Hashing => Arc::new(hashing::HashingEmbedder::new(settings.dim)?),
        EmbedProvider::Minilm => minilm_from_settings(settings)?,
        EmbedProvider::Openai => Arc::new(openai::OpenaiEmbedder::new(settings, limits)?),
    })
}

#[cfg(feature = "candle")]
fn minilm_from_settings(settings: &EmbedSettings) -> Result<Arc<dyn Embedder>, PipelineError> {
    let from_settings = settings.model_dir.as_ref().filter(|folder| !folder.is_empty());
    let folder = from_settings
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::var_os(minilm::MODEL_DIR_ENV).map(std::path::PathBuf::from))
        .ok_or_else(|| {
            PipelineError::Configuration(format!(
                "use setting embed.provider: minilm needs its model folder; set embed.model_dir or \
                 {}",
                minilm::MODEL_DIR_ENV
            ))
        })?;
    Ok(Arc::new(minilm::MinilmEmbedder::load(&folder, &settings.model)?))
}

#[cfg(not(feature = "candle"))]
fn minilm_from_settings(_: &EmbedSettings) -> Result<Arc<dyn Embedder>, PipelineError> {
    Err(PipelineError::Configuration(
        "use setting embed.provider: this retake was built without minilm; build it with \
         --features candle"
            .to_owned(),
    ))
}

/// `vector` scaled to length 1, or nothing if it has no direction or is not finite.
pub(crate) fn normalized(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    // In f64, so that the squares of large figures do not overflow.
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !length.is_finite() || length <= 0.0 {
        return None;
    }
    for x in &mut vector {
        #[expect(clippy::cast_possible_truncation, reason = "at most 1 in magnitude")]
        let scaled = (f64::from(*x) / length) as f32;
        *x = scaled;
    }
    Some(vector)
}
