//! Options of the verbs that keep the built-in pipeline's documents and caches.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::quantity::parse_bytes;

/// Options of `rag fetch`.
#[derive(Debug, Args)]
pub(crate) struct RagFetch {
    /// Addresses that begin with http:// or https://
    #[arg(required_unless_present = "from")]
    pub(crate) urls: Vec<String>,
    /// A file with more of them, one a line; empty lines and those that begin with `#` are left out
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Folder for the pages; `rag ingest` reads it
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Pages fetched at the same time; of one host at most 4
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,
    /// Longest one attempt may take, ms
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) timeout_ms: u64,
    /// Largest page
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = parse_bytes)]
    pub(crate) bytes_max: u64,
    /// Attempts after the first, where another may succeed: broken connections, 429, 5xx
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=20))]
    pub(crate) retries: u16,
    /// Name of the run
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Label of the run; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
}

/// A folder of `rag save` and `rag restore`.
#[derive(Debug, Args)]
pub(crate) struct RagFolder {
    /// The folder
    pub(crate) folder: PathBuf,
    /// Change a setting, such as `vectors.url=postgres://...`; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

/// What to do with the caches.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheAction {
    /// What they hold; the default
    #[command(after_help = "Example: retake rag cache show")]
    Show,
    /// Forget what they hold
    #[command(after_help = "Example: retake rag cache clear --only answers")]
    Clear {
        /// Only this cache
        #[arg(long, value_enum, value_name = "CACHE")]
        only: Option<CachePart>,
        /// Only vectors that were first made for this collection
        #[arg(long, value_name = "NAME")]
        collection: Option<String>,
    },
    /// Let go what was used longest ago
    #[command(after_help = "Example: retake rag cache evict --bytes 200MiB --answers 100")]
    Evict {
        /// Keep vectors of at most this size
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes, required_unless_present = "answers")]
        bytes: Option<u64>,
        /// Keep at most so many answers; those that are too old go in any case
        #[arg(long, value_name = "N")]
        answers: Option<u64>,
    },
}

/// One of the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CachePart {
    /// Vectors by the text they were made of.
    Vectors,
    /// Answers by their question.
    Answers,
}
