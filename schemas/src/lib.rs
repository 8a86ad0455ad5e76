//! The data model of retake: ids, events, the Arrow schema of every table, the attribute mapping,
//! settings and format versions.
//!
//! This crate is pure. It does no I/O, starts no runtime, and knows neither the recorder nor the
//! SQL engine, so every other crate can agree on it. Two things live here and nowhere else:
//!
//! * the **events** ([`event::EventBody`]), the only truth a run has, and
//! * the **tables** ([`tables`]), what everyone reads. A table is a fold of the events.
//!
//! The SQL layer is the stable interface of retake: columns are only ever added, and last.

pub mod attributes;
pub mod convention;
pub mod date;
pub mod event;
pub mod id;
pub mod manifest;
pub mod mapping;
pub mod propagation;
pub mod redaction;
pub mod settings;
pub mod tables;
pub mod version;

pub use attributes::{Attributes, Key, Value};
pub use event::{Event, EventBody};
pub use id::{Digest, EventSeq, RunId, SpanId, SpanKey, TraceId, WriterId};
