//! Attributed wall time: every instant of a trace divided equally among the spans that are active
//! and have no active child.
//!
//! Adding each instant's share to each span would cost instants times spans. Instead one clock
//! runs that advances by `elapsed / spans sharing`, the same for everyone who shares (as in
//! fair queueing); a span's time is what the clock gained while the span was sharing. The clock
//! has 64 fractional bits, so rounding each span down to whole nanoseconds loses less than one
//! each, and the nanoseconds lost go to the spans with the largest fractions (largest remainder
//! method): every span is within 1 ns of its exact share and the sum is exact.

use super::forest::Forest;

/// The wall time of a trace, divided. `spans_ns` and `idle_ns` sum to the trace's wall time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributed {
    pub(super) spans_ns: Vec<i64>,
    pub(super) idle_ns: i64,
}

/// Divides the wall time of a trace.
pub(super) fn attribute(forest: &Forest) -> Attributed {
    let mut sweep = Sweep {
        spans: vec![Sharing::default(); forest.len()],
        now_ns: 0,
        clock: 0,
        sharing: 0,
        idle_ns: 0,
    };
    for (time_ns, index, change) in changes(forest) {
        sweep.advance(time_ns);
        sweep.apply(forest, index, change);
    }
    // A trace may end with a span without length, which changes nothing.
    sweep.advance(forest.wall_ns());
    let busy_ns = forest.wall_ns() - sweep.idle_ns;
    Attributed { spans_ns: round(&sweep.spans, busy_ns), idle_ns: sweep.idle_ns }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Begins,
    Ends,
}

fn changes(forest: &Forest) -> Vec<(i64, usize, Change)> {
    let mut changes: Vec<(i64, usize, Change)> = forest
        .nodes()
        .iter()
        .enumerate()
        .filter(|(_, node)| node.end_ns > node.start_ns)
        .flat_map(|(index, node)| {
            [(node.start_ns, index, Change::Begins), (node.end_ns, index, Change::Ends)]
        })
        .collect();
    // Changes at one instant may come in any order: the clock does not move between them.
    changes.sort_unstable();
    changes
}

#[derive(Debug, Clone, Copy, Default)]
struct Sharing {
    is_active: bool,
    active_children: usize,
    /// Reading of the clock when it began to share; `None` while it does not.
    since: Option<u128>,
    /// Gained so far, in 2^-64 ns.
    gained: u128,
}

#[derive(Debug)]
struct Sweep {
    spans: Vec<Sharing>,
    now_ns: i64,
    /// In 2^-64 ns; at most the wall time, so 63 + 64 bits suffice.
    clock: u128,
    sharing: u128,
    idle_ns: i64,
}

impl Sweep {
    fn advance(&mut self, to_ns: i64) {
        let elapsed_ns = to_ns - self.now_ns;
        self.now_ns = to_ns;
        let elapsed = u128::from(elapsed_ns.unsigned_abs()) << FRACTION_BITS;
        match elapsed.checked_div(self.sharing) {
            Some(gain) => self.clock += gain,
            None => self.idle_ns += elapsed_ns,
        }
    }

    fn apply(&mut self, forest: &Forest, index: usize, change: Change) {
        if let Some(span) = self.spans.get_mut(index) {
            span.is_active = change == Change::Begins;
        }
        self.settle(index);
        let Some(parent) = forest.parent(index) else { return };
        if let Some(span) = self.spans.get_mut(parent) {
            match change {
                Change::Begins => span.active_children += 1,
                Change::Ends => span.active_children = span.active_children.saturating_sub(1),
            }
        }
        self.settle(parent);
    }

    fn settle(&mut self, index: usize) {
        let Some(span) = self.spans.get_mut(index) else { return };
        let shares = span.is_active && span.active_children == 0;
        match (shares, span.since) {
            (true, None) => {
                span.since = Some(self.clock);
                self.sharing += 1;
            }
            (false, Some(since)) => {
                span.gained += self.clock - since;
                span.since = None;
                self.sharing -= 1;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// Whole nanoseconds that sum to `busy_ns`.
fn round(spans: &[Sharing], busy_ns: i64) -> Vec<i64> {
    let mut whole: Vec<i64> = spans
        .iter()
        .map(|span| i64::try_from(span.gained >> FRACTION_BITS).unwrap_or(i64::MAX))
        .collect();
    let given: i64 = whole.iter().sum();
    let left = usize::try_from(busy_ns - given).unwrap_or(0);
    let mut by_fraction: Vec<(u64, usize)> = spans
        .iter()
        .enumerate()
        .filter(|(_, span)| span.gained > 0)
        .map(|(index, span)| ((span.gained & u128::from(u64::MAX)) as u64, index))
        .collect();
    by_fraction.sort_unstable_by_key(|(fraction, index)| (std::cmp::Reverse(*fraction), *index));
    for (_, index) in by_fraction.into_iter().take(left) {
        if let Some(ns) = whole.get_mut(index) {
            *ns += 1;
        }
    }
    whole
}

const FRACTION_BITS: u32 = 64;
