//! What every model of BERT's kind in a local folder needs: its files, its tokenizer without the
//! limits that its file states, and texts of different lengths as one padded batch.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use crate::error::PipelineError;

/// The files of a model, read.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    /// `model.safetensors`.
    pub(crate) weights: Vec<u8>,
    /// `tokenizer.json`.
    pub(crate) tokenizer: Vec<u8>,
    /// `config.json`.
    pub(crate) config: Vec<u8>,
}

impl ModelFiles {
    /// Reads the files in `folder`. `model` and `setting` are for the message if one is missing.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if a file is missing, [`PipelineError::Io`] if it cannot be
    /// read.
    pub(crate) fn read(folder: &Path, model: &str, setting: &str) -> Result<Self, PipelineError> {
        let [weights, tokenizer, config] = FILES.map(|file| folder.join(file));
        for (name, file) in FILES.iter().zip([&weights, &tokenizer, &config]) {
            if !file.is_file() {
                return Err(PipelineError::Configuration(format!(
                    "load the {model} model: {name} is missing in {}; set {setting} to a folder \
                     with {}",
                    folder.display(),
                    FILES.join(", "),
                )));
            }
        }
        Ok(Self { weights: read(&weights)?, tokenizer: read(&tokenizer)?, config: read(&config)? })
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, PipelineError> {
    std::fs::read(path).map_err(|source| PipelineError::Io { path: path.clone(), source })
}

/// The tokenizer, cutting at `tokens_max` and padding nothing: padding is made in [`Batch::padded`],
/// because texts are grouped by length only after they are encoded.
pub(crate) fn tokenizer(json: &[u8], tokens_max: usize) -> Result<Tokenizer, tokenizers::Error> {
    let mut tokenizer = Tokenizer::from_bytes(json)?;
    let truncation = TruncationParams { max_length: tokens_max, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Texts that are computed together, padded to the longest of them.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Tokens.
    pub(crate) ids: Tensor,
    /// Which of two texts each token belongs to.
    pub(crate) types: Tensor,
    /// 1 for tokens, 0 for padding.
    pub(crate) mask: Tensor,
}

impl Batch {
    /// A batch of encoded texts.
    ///
    /// # Errors
    /// The texts do not fit in memory.
    pub(crate) fn padded(encodings: &[&Encoding], pad_id: u32) -> Result<Self, candle_core::Error> {
        let longest = encodings.iter().map(|encoding| encoding.len()).max().unwrap_or_default();
        let shape = (encodings.len(), longest);
        let padded = |part: fn(&Encoding) -> &[u32], padding: u32| {
            let row = |encoding: &&Encoding| {
                let rest = longest - encoding.len();
                part(encoding).iter().copied().chain(std::iter::repeat_n(padding, rest)).collect()
            };
            let all: Vec<u32> = encodings.iter().flat_map::<Vec<u32>, _>(row).collect();
            Tensor::from_vec(all, shape, &Device::Cpu)
        };
        Ok(Self {
            ids: padded(Encoding::get_ids, pad_id)?,
            types: padded(Encoding::get_type_ids, 0)?,
            mask: padded(Encoding::get_attention_mask, 0)?,
        })
    }
}

/// The files of a model: weights, tokenizer, shape.
const FILES: [&str; 3] = ["model.safetensors", "tokenizer.json", "config.json"];
