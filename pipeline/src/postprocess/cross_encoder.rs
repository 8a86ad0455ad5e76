//! Reranking by a cross-encoder: a BERT that reads a question and a passage together and gives one
//! figure. Slower than comparing vectors, and better, for the few candidates that a search leaves.
//!
//! A model is a folder as its makers publish it (`BertForSequenceClassification` with one output,
//! such as `cross-encoder/ms-marco-MiniLM-L6-v2`). It computes on a thread of its own, so questions
//! of others go on meanwhile.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use candle_core::{DType, Device, IndexOp as _};
use candle_nn::{Linear, Module as _, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::{Encoding, Tokenizer};

use super::{Postprocessor, Processed, Query, best_by_scores};
use crate::bert::{self, Batch, ModelFiles};
use crate::document::Hit;
use crate::error::PipelineError;

/// The reranker. A clone shares the model.
#[derive(Clone)]
pub struct CrossEncoder {
    model: Arc<Model>,
}

impl std::fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrossEncoder").finish_non_exhaustive()
    }
}

struct Model {
    pad_id: u32,
    tokenizer: Tokenizer,
    bert: BertModel,
    pooler: Linear,
    classifier: Linear,
}

impl CrossEncoder {
    /// Loads the model from `folder`.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if a file is missing or the model is of another kind;
    /// [`PipelineError::Model`] if a file cannot be understood.
    pub fn load(folder: &Path) -> Result<Self, PipelineError> {
        let files = ModelFiles::read(folder, "cross-encoder", "rerank.model_dir")?;
        let config: Config = serde_json::from_slice(&files.config)
            .map_err(|error| failed(format!("understand config.json: {error}")))?;
        check_kind(folder, &config)?;
        let tokenizer = bert::tokenizer(&files.tokenizer, config.max_position_embeddings)
            .map_err(|error| failed(format!("understand tokenizer.json: {error}")))?;
        let understood =
            |error: candle_core::Error| failed(format!("understand model.safetensors: {error}"));
        let weights =
            VarBuilder::from_buffered_safetensors(files.weights, DType::F32, &Device::Cpu)
                .map_err(understood)?;
        let hidden = config.hidden_size;
        let pooler = weights.pp("bert.pooler.dense");
        let model = Model {
            pad_id: u32::try_from(config.pad_token_id).unwrap_or_default(),
            tokenizer,
            bert: BertModel::load(weights.pp("bert"), &config).map_err(understood)?,
            pooler: candle_nn::linear(hidden, hidden, pooler).map_err(understood)?,
            classifier: candle_nn::linear(hidden, OUTPUTS, weights.pp("classifier"))
                .map_err(understood)?,
        };
        Ok(Self { model: Arc::new(model) })
    }

    /// How well each passage answers the question, 0 to 1, in order.
    ///
    /// # Errors
    /// [`PipelineError::Model`] if the model cannot compute it.
    pub async fn scores(
        &self,
        question: &str,
        passages: &[&str],
    ) -> Result<Vec<f64>, PipelineError> {
        let model = Arc::clone(&self.model);
        let pairs: Vec<(String, String)> =
            passages.iter().map(|passage| (question.to_owned(), (*passage).to_owned())).collect();
        tokio::task::spawn_blocking(move || model.scores(pairs))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))
    }
}

impl CrossEncoder {
    async fn ranked(
        &self,
        question: &str,
        hits: Vec<Hit>,
        keep: usize,
    ) -> Result<Vec<Hit>, PipelineError> {
        let passages: Vec<&str> = hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
        let scores = self.scores(question, &passages).await?;
        Ok(best_by_scores(hits, scores, keep))
    }
}

/// A model of another kind has weights of other names, and nobody would understand the message.
fn check_kind(folder: &Path, config: &Config) -> Result<(), PipelineError> {
    match config.model_type.as_deref() {
        None | Some("bert") => Ok(()),
        Some(other) => Err(PipelineError::Configuration(format!(
            "load the cross-encoder model: it is of type {other:?}, only bert is known; set \
             rerank.model_dir to another folder than {}",
            folder.display()
        ))),
    }
}

fn failed(reason: String) -> PipelineError {
    PipelineError::Model { model: "cross-encoder".to_owned(), reason }
}

impl Model {
    fn scores(&self, pairs: Vec<(String, String)>) -> Result<Vec<f64>, tokenizers::Error> {
        let count = pairs.len();
        let encodings = self.tokenizer.encode_batch(pairs, true)?;
        let mut by_length: Vec<(usize, Encoding)> = encodings.into_iter().enumerate().collect();
        by_length.sort_by_key(|(_, encoding)| encoding.len());
        let mut scores = vec![0.0; count];
        for group in by_length.chunks(GROUP_PAIRS) {
            let encodings: Vec<&Encoding> = group.iter().map(|(_, encoding)| encoding).collect();
            for ((place, _), score) in group.iter().zip(self.forward(&encodings)?) {
                if let Some(slot) = scores.get_mut(*place) {
                    *slot = score;
                }
            }
        }
        Ok(scores)
    }

    /// Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", NAACL 2019, section
    /// 4.1: the vector of the first token, through the pooler (a layer with tanh), to one output.
    fn forward(&self, encodings: &[&Encoding]) -> Result<Vec<f64>, tokenizers::Error> {
        let Batch { ids, types, mask } = Batch::padded(encodings, self.pad_id)?;
        let hidden = self.bert.forward(&ids, &types, Some(&mask))?;
        let pooled = self.pooler.forward(&hidden.i((.., 0))?.contiguous()?)?.tanh()?;
        let logits = self.classifier.forward(&pooled)?.squeeze(1)?.to_vec1::<f32>()?;
        let score = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
        logits
            .into_iter()
            .map(|logit| {
                if logit.is_nan() {
                    Err("its score is not a number".into())
                } else {
                    Ok(score(logit))
                }
            })
            .collect()
    }
}

#[async_trait]
impl Postprocessor for CrossEncoder {
    fn name(&self) -> &str {
        "cross_encoder"
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        Ok(self.ranked(query.text, hits, query.keep).await?.into())
    }
}

/// A reranker says how well, not which of several classes.
const OUTPUTS: usize = 1;
/// Pairs computed together; see the group of [`crate::embed::minilm`].
const GROUP_PAIRS: usize = 4;

#[cfg(test)]
mod tests;
