//! The cost model: how long calls of a stage take by their size, fitted from recorded calls.
//!
//! A fit says what it does not know. A run with one batch size cannot tell what a call costs from
//! what its items cost, and a fit is not asked far outside the sizes it has seen: a service that
//! takes 64 texts a request need not take 6,400.

mod fit;
pub mod ingest;
mod observed;
mod predict;

pub use fit::{CallFit, Estimate, Range, SEEN_FACTOR, Unpredictable, fit};
pub use observed::{Call, DocumentWork, IngestRecord, Observed, Passage, QueryRecord};
pub use predict::{Predictor, Unknown};
