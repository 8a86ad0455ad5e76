//! From rows to traces: the spans of a run, grouped by trace, in bounded memory.
//!
//! Segments are sealed while traces are still running, so a trace may be spread over several
//! files. What depends on a span's family (self time, origins of errors, which tokens count) is
//! therefore decided again here, on the whole trace.

mod family;
mod lean;
mod partitions;
mod texts;
mod visit;

pub(crate) use family::{Family, family};
pub(crate) use lean::{LeanSpan, Wanted, int, number, text, value};
pub(crate) use texts::{Text, Texts};
pub(crate) use visit::{TraceView, visit_traces, visit_traces_of};
