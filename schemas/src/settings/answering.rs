//! `[rag.postprocess]`: what becomes of found chunks before they are answered from.

use serde::{Deserialize, Serialize};

use crate::redaction::Detector;

/// A step between the search and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostprocessStep {
    /// Chunks less similar than `similarity_min` are left out.
    SimilarityCutoff,
    /// Chunks without any of `keywords_required`, or with one of `keywords_excluded`, are left out.
    Keywords,
    /// The reranker of `[rag.rerank]`, if there is one.
    Rerank,
    /// BM25 over the candidates.
    Bm25,
    /// The language model rates the candidates, a line each.
    LlmRerank,
    /// The language model rates the candidates as JSON.
    StructuredLlmRerank,
    /// A cross-encoder reads each candidate together with the question.
    CrossEncoder,
    /// A service over HTTP scores the candidates.
    ServiceRerank,
    /// Maximal marginal relevance: chunks that say what others do not.
    Mmr,
    /// The chunks of the youngest documents.
    FixedRecency,
    /// Of chunks that say nearly the same, the one of the youngest document.
    EmbeddingRecency,
    /// Similarity and age together.
    TimeWeighted,
    /// The chunks before and after each one are added.
    Neighbours,
    /// Each chunk grows by the text before and after it.
    Window,
    /// Of each chunk, the sentences most similar to the question stay.
    Sentences,
    /// E-mail addresses, card numbers and the like are taken out.
    MaskPii,
    /// The best chunks at the beginning and the end, where models look.
    LongContextReorder,
}

/// Settings of what becomes of found chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostprocessSettings {
    /// The steps, in order.
    pub steps: Vec<PostprocessStep>,
    /// Least cosine similarity that `similarity_cutoff` lets through, -1 to 1.
    pub similarity_min: f64,
    /// Words and phrases of which `keywords` wants at least one; without any, none is needed.
    pub keywords_required: Vec<String>,
    /// Words and phrases that `keywords` does not let through.
    pub keywords_excluded: Vec<String>,
    /// What `mmr` weighs: 1 is similarity to the question only, 0 is difference from the chunks
    /// chosen before only.
    pub mmr_lambda: f64,
    /// How similar to a younger chunk one has to be for `embedding_recency` to leave it out.
    pub recency_similarity_min: f64,
    /// What `time_weighted` gives age, 0 to 1; similarity has the rest.
    pub recency_weight: f64,
    /// After how many days a document counts half, for `time_weighted`.
    pub recency_half_life_days: f64,
    /// Chunks before each one that `neighbours` adds, and `window` joins.
    pub neighbours_before: u32,
    /// Chunks after each one that `neighbours` adds, and `window` joins.
    pub neighbours_after: u32,
    /// Share of a chunk's sentences that `sentences` keeps, 0 to 1; at least one.
    pub sentences_share: f64,
    /// Least cosine similarity of a sentence that `sentences` keeps; a chunk without one is left
    /// out.
    pub sentences_similarity_min: f64,
    /// What `mask_pii` takes out.
    pub mask: Vec<Detector>,
}

impl Default for PostprocessSettings {
    fn default() -> Self {
        use Detector::{Cards, Emails, Ibans, Ips, Keys, Phones};
        Self {
            steps: vec![PostprocessStep::Rerank],
            similarity_min: 0.0,
            keywords_required: Vec::new(),
            keywords_excluded: Vec::new(),
            mmr_lambda: 0.5,
            recency_similarity_min: 0.7,
            recency_weight: 0.5,
            recency_half_life_days: 30.0,
            neighbours_before: 1,
            neighbours_after: 1,
            sentences_share: 0.5,
            sentences_similarity_min: -1.0,
            mask: vec![Keys, Emails, Cards, Ibans, Phones, Ips],
        }
    }
}

/// How an answer is made of passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SynthesisMode {
    /// As few prompts as the passages fit into; each after the first improves the answer so far.
    #[default]
    Compact,
    /// A prompt for each passage; each after the first improves the answer so far.
    Refine,
    /// One prompt; passages that do not fit are left out.
    SimpleSummarize,
    /// Prompts as few as the passages fit into, then a prompt over their answers, and so on.
    TreeSummarize,
    /// An answer from each passage, one after the other.
    Accumulate,
    /// An answer from each prompt, as few as the passages fit into.
    CompactAccumulate,
    /// The model's answer without any passage.
    Generation,
    /// The passages, and no answer.
    NoText,
    /// The text of the passages, as it is.
    ContextOnly,
}

impl SynthesisMode {
    /// The word of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Refine => "refine",
            Self::SimpleSummarize => "simple_summarize",
            Self::TreeSummarize => "tree_summarize",
            Self::Accumulate => "accumulate",
            Self::CompactAccumulate => "compact_accumulate",
            Self::Generation => "generation",
            Self::NoText => "no_text",
            Self::ContextOnly => "context_only",
        }
    }
}

/// How an answer is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum AnswerStyle {
    /// Brief, in the model's words.
    #[default]
    Abstractive,
    /// In words of the passages only.
    Extractive,
    /// In several sentences, with details.
    Verbose,
}

impl AnswerStyle {
    /// The word of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Abstractive => "abstractive",
            Self::Extractive => "extractive",
            Self::Verbose => "verbose",
        }
    }
}

/// What a question becomes before it is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum QueryTransform {
    /// It stays as it is.
    #[default]
    None,
    /// The language model words it for a search.
    Rewrite,
    /// The language model makes up a passage that would answer it, and that is searched for.
    Hyde,
}

/// Settings of questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct QuerySettings {
    /// `none`, `rewrite` or `hyde`.
    pub transform: QueryTransform,
}

/// When a question has been answered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum QueryCacheMode {
    /// Never.
    #[default]
    Off,
    /// When its text is the same.
    Exact,
    /// When its vector is near enough.
    Semantic,
}

/// Settings of the cache of answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryCacheSettings {
    /// `off`, `exact` or `semantic`. Off by default: a replay and a benchmark must see the work
    /// done.
    pub mode: QueryCacheMode,
    /// Least cosine similarity of two questions that have one answer, for `semantic`.
    pub similarity_min: f64,
    /// Answers kept at most; those used longest ago go first.
    pub entries_max: u64,
    /// How long an answer is good, seconds.
    pub ttl_secs: u64,
}

impl Default for QueryCacheSettings {
    fn default() -> Self {
        Self {
            mode: QueryCacheMode::Off,
            similarity_min: 0.92,
            entries_max: 1000,
            ttl_secs: 86_400,
        }
    }
}
