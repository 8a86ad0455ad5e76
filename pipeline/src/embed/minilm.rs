//! `all-MiniLM-L6-v2`, or another BERT of its kind, from a local folder, in pure Rust.
//!
//! The tokenizer file of that model says "cut at 128 tokens, pad to 128", which is not what the
//! model was trained for and makes short texts slow. Both are replaced here: texts are cut at
//! [`TOKENS_MAX`], and padded only to the longest text they are computed with.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use retake_schemas::Digest;
use retake_schemas::event::TokensSource;
use tokenizers::{Encoding, Tokenizer};

use super::{Embedder, Embeddings, normalized};
use crate::bert::{self, Batch, ModelFiles};
use crate::error::PipelineError;

/// The MiniLM embedder.
#[derive(Clone)]
pub struct MinilmEmbedder {
    model: Arc<Model>,
}

impl std::fmt::Debug for MinilmEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MinilmEmbedder").field("model", &self.model.name).finish_non_exhaustive()
    }
}

struct Model {
    name: String,
    fingerprint: String,
    dim: usize,
    pad_id: u32,
    tokenizer: Tokenizer,
    bert: BertModel,
}

impl MinilmEmbedder {
    /// Loads the model from `folder`; `name` is what its vectors are recorded under, or empty for
    /// [`NAME`]. Reads some 90 MB.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if a file is missing; [`PipelineError::Model`] if one
    /// cannot be understood.
    pub fn load(folder: &Path, name: &str) -> Result<Self, PipelineError> {
        let name = if name.is_empty() { NAME } else { name }.to_owned();
        let failed = |reason: String| PipelineError::Model { model: name.clone(), reason };
        let files =
            ModelFiles::read(folder, "minilm", &format!("embed.model_dir or {MODEL_DIR_ENV}"))?;
        let ModelFiles { weights, tokenizer, config } = files;
        let config: Config = serde_json::from_slice(&config)
            .map_err(|error| failed(format!("understand config.json: {error}")))?;
        let tokens_max = TOKENS_MAX.min(config.max_position_embeddings);
        // Another model under the same name must not be taken for this one.
        let fingerprint = format!("{name} {} {}", Digest::of(&weights), Digest::of(&tokenizer));
        let tokenizer = bert::tokenizer(&tokenizer, tokens_max)
            .map_err(|error| failed(format!("understand tokenizer.json: {error}")))?;
        let bert = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)
            .and_then(|weights| BertModel::load(weights, &config))
            .map_err(|error| failed(format!("understand model.safetensors: {error}")))?;
        let pad_id = u32::try_from(config.pad_token_id).unwrap_or_default();
        let dim = config.hidden_size;
        Ok(Self { model: Arc::new(Model { name, fingerprint, dim, pad_id, tokenizer, bert }) })
    }
}

#[async_trait]
impl Embedder for MinilmEmbedder {
    fn provider(&self) -> &str {
        "retake"
    }

    fn model(&self) -> &str {
        &self.model.name
    }

    fn fingerprint(&self) -> String {
        self.model.fingerprint.clone()
    }

    fn dim(&self) -> Option<usize> {
        Some(self.model.dim)
    }

    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError> {
        let model = Arc::clone(&self.model);
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let name = model.name.clone();
        let failed = |reason: String| PipelineError::Model { model: name.clone(), reason };
        // A batch computes for a second or so; the runtime's threads are for waiting.
        tokio::task::spawn_blocking(move || model.embed(texts))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))
    }
}

impl Model {
    fn embed(&self, texts: Vec<String>) -> Result<Embeddings, tokenizers::Error> {
        let count = texts.len();
        let encodings = self.tokenizer.encode_batch(texts, true)?;
        let tokens: usize = encodings.iter().map(Encoding::len).sum();
        let mut by_length: Vec<(usize, Encoding)> = encodings.into_iter().enumerate().collect();
        by_length.sort_by_key(|(_, encoding)| encoding.len());
        let mut vectors = vec![Vec::new(); count];
        for group in by_length.chunks(GROUP_TEXTS) {
            let computed = self.forward(group)?;
            for ((place, _), vector) in group.iter().zip(computed) {
                if let Some(slot) = vectors.get_mut(*place) {
                    *slot = vector;
                }
            }
        }
        Ok(Embeddings {
            dim: self.dim,
            vectors,
            tokens: Some(tokens as u64),
            tokens_source: TokensSource::Tokenizer,
            retries: 0,
        })
    }

    /// Computes one group, padded to its longest text.
    fn forward(&self, group: &[(usize, Encoding)]) -> Result<Vec<Vec<f32>>, tokenizers::Error> {
        let encodings: Vec<&Encoding> = group.iter().map(|(_, encoding)| encoding).collect();
        let Batch { ids, types, mask } = Batch::padded(&encodings, self.pad_id)?;
        let hidden = self.bert.forward(&ids, &types, Some(&mask))?;
        let weight = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
        let sum = hidden.broadcast_mul(&weight)?.sum(1)?;
        let mean = sum.broadcast_div(&weight.sum(1)?)?;
        mean.to_vec2::<f32>()?
            .into_iter()
            .map(|vector| normalized(vector).ok_or_else(|| "its vector is not finite".into()))
            .collect()
    }
}

/// Name of the model whose folder is expected.
pub const NAME: &str = "all-MiniLM-L6-v2";
/// Environment variable with the model's folder, when no setting names it.
pub const MODEL_DIR_ENV: &str = "RETAKE_MODEL_DIR";
/// Longest text the model was trained on, tokens; what lies behind is not seen.
pub const TOKENS_MAX: usize = 256;

/// Texts computed together. On a CPU larger groups are slower: their matrices leave the cache.
const GROUP_TEXTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded() -> Option<MinilmEmbedder> {
        let Some(folder) = std::env::var_os(MODEL_DIR_ENV) else {
            println!("skipped: {MODEL_DIR_ENV} names no model folder");
            return None;
        };
        Some(MinilmEmbedder::load(Path::new(&folder), "").expect("model"))
    }

    fn cosine(one: &[f32], other: &[f32]) -> f32 {
        one.iter().zip(other).map(|(a, b)| a * b).sum()
    }

    /// Scenario: the real model, texts of very different lengths in one call.
    /// Guarantees: unit vectors of 384 dimensions in the order given, the same alone as in a
    /// batch, and nearer for what means the same.
    #[tokio::test]
    async fn the_real_model_understands_and_ignores_batching() {
        let Some(embedder) = loaded() else { return };
        let long = "The quick brown fox jumps over the lazy dog. ".repeat(60);
        let texts = [
            "How do I reset my password?",
            long.as_str(),
            "I forgot my login credentials and need new ones.",
            "",
            "Bananas are rich in potassium.",
            "one",
        ];
        let batch = embedder.embed(&texts).await.expect("vectors");
        assert_eq!((batch.dim, batch.vectors.len()), (384, texts.len()));
        for (text, vector) in texts.iter().zip(&batch.vectors) {
            assert_eq!(vector.len(), 384);
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
            let single = embedder.embed(&[text]).await.expect("vector");
            let difference = vector
                .iter()
                .zip(&single.vectors[0])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(difference < 1e-5, "{difference} for {text:.20}");
        }
        let near = cosine(&batch.vectors[0], &batch.vectors[2]);
        let far = cosine(&batch.vectors[0], &batch.vectors[4]);
        assert!(near > far + 0.2, "near {near}, far {far}");
    }

    /// Scenario: a text longer than the 128 tokens that the tokenizer file would cut at.
    /// Guarantees: the limit is 256, and short texts are not padded to any fixed length.
    #[tokio::test]
    async fn the_limits_of_the_tokenizer_file_are_replaced() {
        let Some(embedder) = loaded() else { return };
        let long = "word ".repeat(1_000);
        assert_eq!(embedder.embed(&[&long]).await.expect("vector").tokens, Some(256));
        assert_eq!(embedder.embed(&["word"]).await.expect("vector").tokens, Some(3));
    }

    #[test]
    fn a_missing_file_names_the_folder_and_the_way_out() {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let error = MinilmEmbedder::load(folder.path(), "").expect_err("empty folder");
        let text = error.to_string();
        assert_eq!(error.error_type(), "configuration");
        assert!(text.contains("model.safetensors is missing in"), "{text}");
        assert!(text.contains(MODEL_DIR_ENV), "{text}");
    }
}
