//! One trace as a forest of spans, and the three times that are computed from it.
//!
//! Everything here is pure and total: whatever arrives (cycles, orphans, duplicates, children
//! outside their parents, negative durations), the result is defined, and `wall_ns` and
//! `critical_ns` each sum to the trace's wall time to the nanosecond. There is no recursion and
//! nothing slower than a sort, so a trace of 100,000 spans under one root is no special case.

mod critical;
mod forest;
mod self_time;
mod wall;
mod what_if;

#[cfg(test)]
mod oracle;

pub use forest::{Forest, SpanTimes, span_key};
pub use what_if::wall_with;

/// The times of every span of a [`Forest`], in the order the spans were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceTimes {
    /// Time not covered by the union of the children, ns.
    pub self_ns: Vec<i64>,
    /// Attributed wall time, ns.
    pub wall_ns: Vec<i64>,
    /// Time during which no span was active, ns.
    pub wall_idle_ns: i64,
    /// Time on the critical path, ns.
    pub critical_ns: Vec<i64>,
    /// Part of the critical path on which none of its spans was active, ns.
    pub critical_idle_ns: i64,
    /// Whether the span is on the critical path, be it with all its time given to its children.
    pub is_critical: Vec<bool>,
}

/// Computes all times of a trace.
#[must_use]
pub fn times(forest: &Forest) -> TraceTimes {
    let wall = wall::attribute(forest);
    let path = critical::path(forest);
    TraceTimes {
        self_ns: self_time::self_times(forest),
        wall_ns: wall.spans_ns,
        wall_idle_ns: wall.idle_ns,
        critical_ns: path.spans_ns,
        critical_idle_ns: path.idle_ns,
        is_critical: path.is_member,
    }
}
