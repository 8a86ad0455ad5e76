//! A real RAG pipeline: the reference instrumented application and the built-in replay target.
//!
//! Stages speak plain `tracing` with the field names of `retake_schemas::convention`, as any
//! other application would; nothing here knows how they are recorded.

pub mod answer;
pub mod chunk;
pub mod document;
pub mod embed;
pub mod error;
pub mod load;
pub mod rerank;
pub mod store;
