//! A real RAG pipeline: the reference instrumented application and the built-in replay target.
//!
//! Stages speak plain `tracing` with the field names of `retake_schemas::convention`, as any
//! other application would; nothing here knows how they are recorded.

pub mod answer;
#[cfg(feature = "candle")]
mod bert;
pub mod cache;
pub mod chunk;
pub mod document;
pub mod embed;
pub mod error;
pub mod eval;
pub mod fake;
pub mod http;
pub mod ingest;
pub mod known_item;
pub mod load;
pub mod postprocess;
pub mod query;
pub mod query_cache;
pub mod replay_target;
mod sqlite_file;
pub mod storage;
pub mod store;
pub mod synthesize;
pub mod tokens;
pub mod usage;
pub mod words;
pub mod work;

mod collection;
mod embed_call;
mod llm_call;
mod trace;
