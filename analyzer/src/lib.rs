//! SQL over the run history, breakdowns, comparisons and reports.
//!
//! This is the only crate that compiles DataFusion. [`Analyzer`] opens runs; everything else
//! takes one and answers with the plain types of [`model`].
//!
//! ```text
//! Store ─► Analyzer (SQL) ─► trace (pure) ─► breakdown, traces ─► model ─► report, command line
//!                                     └────► stats (pure) ─► diff ───┤
//!                                                └────► trend ──┘
//! ```

mod answers;
mod assemble;
pub mod breakdown;
mod bubble_up;
pub mod check;
pub mod diff;
pub mod error;
mod explain;
mod flames;
pub mod format;
mod history;
pub mod model;
mod pulse;
pub mod report;
mod report_data;
mod retrieval;
pub mod session;
mod sources;
pub mod sql;
pub mod stats;
mod tables;
mod texts;
pub mod trace;
mod traces;
pub mod trend;
pub mod what_if;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod random_runs;
#[cfg(test)]
mod tests;

pub use breakdown::{GroupKey, breakdown};
pub use bubble_up::{Contrast, Lift, bubble_up, slowest_tenth};
pub use check::goodput;
pub use diff::{DiffOptions, diff, diff_repeated};
pub use error::{AnalyzeError, DamagedFile};
pub use explain::{Explanation, explain};
pub use pulse::{Pulse, PulseRow, pulse};
pub use report_data::{ReportRequest, report_data};
pub use session::{
    Analyzer, AnalyzerOptions, MEMORY_BYTES_DEFAULT, QueryResult, QueryStream, Scope,
};
pub use sql::sql_reference_markdown;
pub use texts::trace_detail;
pub use traces::{data_quality, trace_summaries, trace_tree};
