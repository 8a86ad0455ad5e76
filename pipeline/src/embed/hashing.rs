//! Feature hashing: vectors of words and word pairs, deterministic and offline.
//!
//! Each word, pair of neighbours, and beginning of a long word adds to one dimension, chosen and
//! signed by a hash, so that texts with words in common point in similar directions. It knows no
//! synonyms, but it needs no model file, and it gives the same vectors on every machine.

use async_trait::async_trait;
use retake_schemas::event::TokensSource;

use super::{Embedder, Embeddings, normalized};
use crate::error::PipelineError;
use crate::{tokens, words};

/// The hashing embedder.
#[derive(Debug, Clone)]
pub struct HashingEmbedder {
    dim: usize,
    model: String,
}

impl HashingEmbedder {
    /// An embedder of `dim` dimensions.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if `dim` is 0.
    pub fn new(dim: usize) -> Result<Self, PipelineError> {
        if dim == 0 {
            let reason = "use setting embed.dim: must be at least 1".to_owned();
            return Err(PipelineError::Configuration(reason));
        }
        Ok(Self { dim, model: format!("hashing-{dim}") })
    }

    /// The vector of one text, of length 1.
    #[must_use]
    pub fn vector(&self, text: &str) -> Vec<f32> {
        let mut sums = vec![0.0_f32; self.dim];
        for (hash, weight) in weighed(features(text)) {
            // The low bits choose the dimension, the highest one the sign.
            let place = usize::try_from(hash % self.dim as u64).unwrap_or_default();
            let signed = if hash >> 63 == 0 { weight } else { -weight };
            if let Some(sum) = sums.get_mut(place) {
                *sum += signed;
            }
        }
        normalized(sums).unwrap_or_else(|| self.fallback())
    }

    /// What stands for a text without words: some direction there must be, and always the same.
    fn fallback(&self) -> Vec<f32> {
        let mut vector = vec![0.0; self.dim];
        if let Some(first) = vector.first_mut() {
            *first = 1.0;
        }
        vector
    }
}

#[async_trait]
impl Embedder for HashingEmbedder {
    fn provider(&self) -> &str {
        "retake"
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn dim(&self) -> Option<usize> {
        Some(self.dim)
    }

    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError> {
        let tokens: usize = texts.iter().map(|text| tokens::count(text)).sum();
        Ok(Embeddings {
            dim: self.dim,
            vectors: texts.iter().map(|text| self.vector(text)).collect(),
            tokens: Some(tokens as u64),
            tokens_source: TokensSource::Tokenizer,
            retries: 0,
        })
    }
}

/// The features of a text with their weights, one per occurrence.
fn features(text: &str) -> Vec<(u64, f32)> {
    let mut features = Vec::new();
    let mut previous: Option<(u64, f32)> = None;
    words::for_each_word(text, |word| {
        let weight = if word.is_stop_word { STOP_WORD_WEIGHT } else { 1.0 };
        let hash = stable_hash(word.stem.as_bytes());
        features.push((mixed(hash), weight));
        if let Some((before, weight_before)) = previous {
            // Rotated, so that "lock file" and "file lock" differ.
            let pair = mixed(before.rotate_left(21) ^ hash ^ PAIR_SALT);
            features.push((pair, PAIR_WEIGHT * weight_before.min(weight)));
        }
        previous = Some((hash, weight));
        if let Some((at, _)) = word.stem.char_indices().nth(BEGINNING_CHARS) {
            let beginning = word.stem.get(..at).unwrap_or(word.stem);
            let hash = stable_hash(beginning.as_bytes()) ^ BEGINNING_SALT;
            features.push((mixed(hash), BEGINNING_WEIGHT));
        }
    });
    features
}

/// Joins equal features: the tenth occurrence says much less than the first. In hash order, so
/// that floating-point sums do not depend on anything else.
fn weighed(mut features: Vec<(u64, f32)>) -> Vec<(u64, f32)> {
    features.sort_unstable_by_key(|(hash, _)| *hash);
    features
        .chunk_by(|one, other| one.0 == other.0)
        .filter_map(|same| {
            let (hash, weight) = same.first()?;
            let occurrences = u16::try_from(same.len()).unwrap_or(u16::MAX);
            Some((*hash, weight * (1.0 + f32::from(occurrences).ln())))
        })
        .collect()
}

/// FNV-1a, written out: the standard library's hash may change with any release, and stored
/// vectors must not.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// `SplitMix64`'s finisher: FNV alone leaves its high bits too regular to choose signs by.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// Enough that "to be or not to be" is not empty, too little to outweigh a word with a meaning.
const STOP_WORD_WEIGHT: f32 = 0.05;
/// A pair confirms what its words say already.
const PAIR_WEIGHT: f32 = 0.5;
/// Lets `configure` meet `configuration`.
const BEGINNING_WEIGHT: f32 = 0.5;
/// Beginnings are of this many characters.
const BEGINNING_CHARS: usize = 5;
/// Keeps pairs apart from words; any odd figure does.
const PAIR_SALT: u64 = 0x9E37_79B9_7F4A_7C15;
/// Keeps beginnings apart from words; any other odd figure does.
const BEGINNING_SALT: u64 = 0xD1B5_4A32_D192_ED03;

#[cfg(test)]
mod tests {
    use super::*;

    const PASSAGES: [&str; 8] = [
        "Expired sessions are removed by a background job that runs every ten minutes.",
        "The connection pool holds at most sixteen database connections per worker.",
        "Backups are written to object storage each night and kept for thirty days.",
        "A password must have twelve characters; a forgotten one is reset by e-mail.",
        "The command line tool prints JSON when it is called with the --json flag.",
        "Failed requests are retried three times with exponential backoff and jitter.",
        "Images are resized to a width of 800 pixels before they are uploaded.",
        "Log files rotate when they reach 100 megabytes; five old ones are kept.",
    ];

    const QUESTIONS: [(&str, usize); 8] = [
        ("When does the job remove a session that has expired?", 0),
        ("How many connections to the database may a worker's pool hold?", 1),
        ("How long is a nightly backup kept?", 2),
        ("How do I reset my password if I forgot it?", 3),
        ("Which flag makes the tool print its output as JSON?", 4),
        ("How often is a request that fails retried, and with what backoff?", 5),
        ("What pixel width do uploaded images get?", 6),
        ("At what size are log files rotated?", 7),
    ];

    fn embedder() -> HashingEmbedder {
        HashingEmbedder::new(384).expect("valid dim")
    }

    fn cosine(one: &[f32], other: &[f32]) -> f32 {
        one.iter().zip(other).map(|(a, b)| a * b).sum()
    }

    /// Scenario: eight passages, each asked for in other words.
    /// Guarantees: the right one ranks first: retrieval means something without a model.
    #[test]
    fn paraphrased_questions_find_their_passage() {
        let embedder = embedder();
        let passages = PASSAGES.map(|passage| embedder.vector(passage));
        for (question, expected) in QUESTIONS {
            let question_vector = embedder.vector(question);
            let best = (0..passages.len())
                .max_by(|a, b| {
                    cosine(&question_vector, &passages[*a])
                        .total_cmp(&cosine(&question_vector, &passages[*b]))
                })
                .expect("passages");
            assert_eq!(best, expected, "{question}");
        }
    }

    #[test]
    fn vectors_are_of_length_one_even_without_words() {
        for text in ["", " ", "?!", "a", "the of", "word", &"x ".repeat(100_000)] {
            let vector = embedder().vector(text);
            assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-5, "{text:.20}");
        }
        assert_eq!(embedder().vector("")[0], 1.0);
    }

    /// Scenario: another machine, another year.
    /// Guarantees: stored vectors stay comparable. If this fails, the model needs a new name.
    #[test]
    fn vectors_never_change() {
        assert_eq!(stable_hash(b"retake"), 0x60B0_E282_FF09_F6A3);
        let vector = HashingEmbedder::new(8).expect("valid dim").vector("Seal the journal, twice.");
        let rounded: Vec<i32> = vector.iter().map(|x| (x * 1000.0).round() as i32).collect();
        assert_eq!(rounded, [308, 0, -648, 0, 632, 292, 0, 0]);
    }

    #[tokio::test]
    async fn a_batch_is_counted_and_in_order() {
        let embedder = embedder();
        let batch = embedder.embed(&["hello world", "An apple a"]).await.expect("vectors");
        assert_eq!((batch.tokens, batch.tokens_source), (Some(5), TokensSource::Tokenizer));
        assert_eq!(batch.vectors[1], embedder.vector("An apple a"));
        assert_eq!(embedder.model(), "hashing-384");
    }
}
