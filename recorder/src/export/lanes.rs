//! Traces to lanes of a timeline: as few lanes as there are traces at once, so that a run of a
//! hundred thousand requests is as tall as its concurrency.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::hash::BuildHasher;

use retake_schemas::TraceId;

use super::source::TraceFacts;

/// Gives every trace with spans the lowest lane that is free from its start to its end. The lanes
/// depend on ids and times only, not on how the run was sealed. Times before `base_unix_ns` are
/// drawn there, so they count as there.
pub(super) fn assign<S: BuildHasher>(
    traces: &mut HashMap<TraceId, TraceFacts, S>,
    base_unix_ns: i64,
) {
    let with_spans = traces.iter().filter(|(_, facts)| facts.start_unix_ns <= facts.end_unix_ns);
    let drawn = |time_unix_ns: i64| time_unix_ns.max(base_unix_ns);
    let mut order: Vec<(i64, i64, TraceId)> = with_spans
        .map(|(id, facts)| (drawn(facts.start_unix_ns), drawn(facts.end_unix_ns), *id))
        .collect();
    order.sort_unstable();
    let mut taken: BinaryHeap<Reverse<(i64, u32)>> = BinaryHeap::new();
    let mut free: BTreeSet<u32> = BTreeSet::new();
    let mut lanes = 0;
    for (start, end, trace_id) in order {
        // Not at the very moment the trace before ends: traces are not written in the order of
        // time, and a viewer keeps the order of the file among equal times.
        while let Some(Reverse((_, lane))) = taken.peek().copied().filter(|t| t.0.0 < start) {
            taken.pop();
            free.insert(lane);
        }
        let lane = free.pop_first().unwrap_or_else(|| {
            lanes += 1;
            lanes - 1
        });
        taken.push(Reverse((end, lane)));
        if let Some(facts) = traces.get_mut(&trace_id) {
            facts.lane = lane;
        }
    }
}
