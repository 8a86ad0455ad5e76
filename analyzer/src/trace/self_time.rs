//! Self time: what the union of the children leaves of a span.
//!
//! "Duration minus the sum of the children" goes negative as soon as children run in parallel.

use super::forest::Forest;

/// The self time of every span, ns.
pub(super) fn self_times(forest: &Forest) -> Vec<i64> {
    (0..forest.len())
        .map(|index| {
            let own = forest.node(index);
            let mut covered = 0;
            let mut covered_until = own.start_ns;
            for child in forest.children(index) {
                let child = forest.node(*child);
                let from = child.start_ns.max(covered_until);
                let to = child.end_ns.min(own.end_ns);
                if to > from {
                    covered += to - from;
                    covered_until = to;
                }
            }
            own.end_ns - own.start_ns - covered
        })
        .collect()
}
