//! The things that flow through the pipeline.

use retake_schemas::Digest;
use retake_schemas::settings::LoadFormat;
use serde::{Deserialize, Serialize};

/// A loaded document: plain text with the place it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Stable id: the path relative to the ingested root, with `/` between parts.
    pub id: String,
    /// Path as it was opened.
    pub path: std::path::PathBuf,
    /// Format it was read as.
    pub format: Format,
    /// Its text.
    pub text: String,
    /// Digest of the file's bytes: what decides whether a document is unchanged.
    pub digest: Digest,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// When it was last changed, ms since 1970: as its front matter says, or else its file.
    pub modified_ms: Option<i64>,
}

/// How a file is turned into text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Taken as it is.
    Text,
    /// Kept as Markdown, chunked along its structure.
    Markdown,
    /// Reduced to its text.
    Html,
    /// The text of its records, a blank line between them.
    Jsonl,
    /// Taken as it is.
    Code,
    /// Reduced to the text of its pages.
    Pdf,
}

impl Format {
    /// The format by its setting.
    #[must_use]
    pub const fn setting(self) -> LoadFormat {
        match self {
            Self::Text => LoadFormat::Text,
            Self::Markdown => LoadFormat::Markdown,
            Self::Html => LoadFormat::Html,
            Self::Jsonl => LoadFormat::Jsonl,
            Self::Code => LoadFormat::Code,
            Self::Pdf => LoadFormat::Pdf,
        }
    }

    /// The word for it in a database and in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.setting().as_str()
    }

    /// The format that a word means.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        use Format::{Code, Html, Jsonl, Markdown, Pdf, Text};
        [Text, Markdown, Html, Jsonl, Code, Pdf].into_iter().find(|format| format.as_str() == word)
    }
}

/// A piece of a document, the unit of embedding and retrieval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Stable id: `<document id>#<ordinal>`.
    pub id: String,
    /// The document.
    pub document_id: String,
    /// Position in the document, from 0.
    pub ordinal: u32,
    /// Its text.
    pub text: String,
    /// First character in the document's text, Unicode code points.
    pub start_char: u64,
    /// One past the last character in the document's text, Unicode code points.
    pub end_char: u64,
    /// Tokens, by the tokenizer the chunker counts with.
    pub tokens: u32,
}

impl Chunk {
    /// The id of a chunk, by its document and its position in it.
    #[must_use]
    pub fn id_of(document_id: &str, ordinal: u32) -> String {
        format!("{document_id}#{ordinal}")
    }
}

/// A chunk found by a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The chunk.
    pub chunk: Chunk,
    /// Cosine similarity to the query, -1 to 1, whichever search found it.
    pub similarity: f64,
    /// Score of the reranker, when one ran; its scale is the reranker's.
    pub rerank_score: Option<f64>,
    /// Which searches found it.
    #[serde(default)]
    pub found: FoundBy,
}

impl Hit {
    /// A chunk that no search has placed and no reranker has seen.
    #[must_use]
    pub fn new(chunk: Chunk, similarity: f64) -> Self {
        Self { chunk, similarity, rerank_score: None, found: FoundBy::default() }
    }

    /// The score that put it where the search has it: that of both lists, or else of its words, or
    /// else its similarity.
    #[must_use]
    pub fn search_score(&self) -> f64 {
        let FoundBy { dense, text, fused } = self.found;
        let of_words = text.filter(|_| dense.is_none()).map(|place| place.score);
        fused.or(of_words).unwrap_or(self.similarity)
    }
}

/// Which searches found a chunk, and where they have it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundBy {
    /// Its place among the nearest vectors.
    pub dense: Option<Place>,
    /// Its place among the texts with the words of the question.
    pub text: Option<Place>,
    /// Its score in both lists together, after a search of both.
    pub fused: Option<f64>,
}

/// A place in the list of one search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Rank, from 0.
    pub rank: u32,
    /// Score: cosine similarity, or BM25.
    pub score: f64,
}
