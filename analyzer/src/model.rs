//! What the analyses answer, as plain data: the command line prints it, JSON carries it (fields
//! may be added, never renamed), the report draws it.
//!
//! Three times, and which of them add up (`docs/breakdown.md`):
//!
//! * `total_ns` sums durations. Nested and parallel work counts more than once; never a share.
//! * `self_ns` is a span's time not covered by the union of its children. Sums to busy time.
//! * `wall_ns` divides every instant of a trace among the spans that are active then and have no
//!   active child. Sums exactly to the traces' wall time, so shares of it are honest.
//! * `critical_ns` is time on the critical path. Sums to the wall time too, and says where a
//!   speed-up would help.

mod breakdown;
mod check;
mod compare;
mod report;
mod traces;
mod trend;

pub use breakdown::{
    Breakdown, BreakdownRow, ErrorOrigin, Flame, Goodput, MetricTokens, TokenTotals,
};
pub use check::{BudgetVerdict, CheckReport, CheckVerdict, Evidence};
pub use compare::{Contribution, Diff, DiffRow, ExampleTrace, Finding, Verdict};
pub use report::{
    BaselineData, DataQuality, RankScores, ReportData, ReportQuery, Reranking, Retrieval,
    SweepData, SweepMeasurement, SweepObjective, SweepSetting,
};
pub use traces::{KeptText, TraceDetail, TraceNode, TraceSummary, TraceTree};
pub use trend::{Trend, TrendChange, TrendPoint, TrendSeries, TrendShift};

/// Version of the JSON documents.
pub const SCHEMA_VERSION: u32 = 1;
