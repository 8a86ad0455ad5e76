//! `[rag.load]`: which files are documents, and how they become text.

use serde::{Deserialize, Serialize};

/// A format of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadFormat {
    /// Plain text.
    Text,
    /// Markdown.
    Markdown,
    /// HTML.
    Html,
    /// JSON lines: a record a line.
    Jsonl,
    /// Source code.
    Code,
    /// PDF; only in builds with the cargo feature `pdf`.
    Pdf,
}

impl LoadFormat {
    /// All formats there are.
    pub const ALL: [Self; 6] =
        [Self::Text, Self::Markdown, Self::Html, Self::Jsonl, Self::Code, Self::Pdf];

    /// The word of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Jsonl => "jsonl",
            Self::Code => "code",
            Self::Pdf => "pdf",
        }
    }

    /// The format that a word means.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }
}

/// Settings of loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSettings {
    /// Largest file read, bytes; larger ones are reported and skipped.
    pub file_bytes_max: u64,
    /// Formats looked for in folders. A file that is named itself is read whatever stands here.
    pub formats: Vec<LoadFormat>,
    /// Fields of a record of JSON lines that are its text, in order; `a.b` is `b` in `a`. Without
    /// any, the field that is usually the text, or else all of them with their names.
    pub jsonl_fields: Vec<String>,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            file_bytes_max: 32 << 20,
            // A folder of documents often holds code and data that nobody wants to search.
            formats: vec![LoadFormat::Text, LoadFormat::Markdown, LoadFormat::Html],
            jsonl_fields: Vec::new(),
        }
    }
}
