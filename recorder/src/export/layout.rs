//! Spans of one trace to rows in which every span lies wholly inside the span below it, and is a
//! child of it.
//!
//! Viewers nest by time alone: two spans that overlap in one row are drawn as parent and child, or
//! broken, whatever their ids say. So a span shares its parent's row only where the parent is
//! innermost and encloses it; concurrent children, children that outlive their parent, and spans
//! whose clock was odd get a row of their own.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// A span to place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) start: u64,
    /// Never before `start`.
    pub(super) end: u64,
    /// Position of the parent, if it is among the nodes.
    pub(super) parent: Option<usize>,
}

/// One step along a row; the number is the node's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The span begins, inside whatever has begun and not ended.
    Begin(usize),
    /// The span ends, which is the innermost.
    End(usize),
}

/// Places nodes. Gives the steps of each row in order of time; every node begins and ends once.
pub(super) fn place(nodes: &[Node]) -> Vec<Vec<Step>> {
    let ranks = ranks(nodes);
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|at| (nodes.get(*at).map(|node| node.start), ranks.get(*at)));
    let mut rows = Rows { nodes, ..Rows::default() };
    for at in order {
        rows.place(at);
    }
    rows.finish()
}

#[derive(Debug, Default)]
struct Rows<'a> {
    nodes: &'a [Node],
    rows: Vec<Placed>,
    /// The row of each node that was placed.
    row_of: HashMap<usize, usize>,
    /// When each row's outermost span ends, of rows that were in use when last looked at.
    taken: BinaryHeap<Reverse<(u64, usize)>>,
    /// Rows in which nothing lasts any more.
    free: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Placed {
    steps: Vec<Step>,
    open: Vec<usize>,
    /// The last moment at which a span of the row ended.
    ended: Option<u64>,
}

impl Rows<'_> {
    fn place(&mut self, at: usize) {
        let Some(node) = self.nodes.get(at).copied() else { return };
        while let Some(Reverse((_, row))) = self.taken.peek().filter(|t| t.0.0 <= node.start) {
            self.free.insert(*row);
            self.taken.pop();
        }
        let row = self.row_of_parent(&node).unwrap_or_else(|| {
            let row = self.free_row(&node);
            self.taken.push(Reverse((node.end, row)));
            row
        });
        if let Some(placed) = self.rows.get_mut(row) {
            placed.steps.push(Step::Begin(at));
            placed.open.push(at);
        }
        self.row_of.insert(at, row);
    }

    /// The parent's row, if the parent is innermost there and encloses the span.
    fn row_of_parent(&mut self, node: &Node) -> Option<usize> {
        let parent = node.parent?;
        let row = *self.row_of.get(&parent)?;
        let is_clear = self.end_before(row, node);
        let innermost = *self.rows.get(row)?.open.last()?;
        let encloses = self.nodes.get(parent)?.end >= node.end;
        (is_clear && innermost == parent && encloses).then_some(row)
    }

    /// The first row in which nothing lasts until the span begins, or a new one.
    fn free_row(&mut self, node: &Node) -> usize {
        let candidates: Vec<usize> = self.free.iter().copied().collect();
        for row in candidates {
            let is_clear = self.end_before(row, node);
            if is_clear && self.rows.get(row).is_some_and(|placed| placed.open.is_empty()) {
                self.free.remove(&row);
                return row;
            }
        }
        self.rows.push(Placed::default());
        self.rows.len() - 1
    }

    /// Ends what has ended in a row when the span begins. Of two spans that touch, one of which
    /// lasts no time, some readers make parent and child: there, at that moment, nothing has ended,
    /// and what ended before it was asked is in the way. Says whether nothing is.
    fn end_before(&mut self, row: usize, node: &Node) -> bool {
        let lasts = |node: &Node| node.end > node.start;
        let has_ended = |last: &Node| {
            last.end < node.start || (last.end == node.start && lasts(last) && lasts(node))
        };
        let Some(placed) = self.rows.get_mut(row) else { return false };
        while let Some(last) = placed.open.last().copied() {
            let Some(span) = self.nodes.get(last).filter(|span| has_ended(span)) else { break };
            placed.ended = Some(span.end);
            placed.open.pop();
            placed.steps.push(Step::End(last));
        }
        lasts(node) || placed.ended != Some(node.start)
    }

    fn finish(mut self) -> Vec<Vec<Step>> {
        for placed in &mut self.rows {
            placed.steps.extend(placed.open.drain(..).rev().map(Step::End));
        }
        self.rows.into_iter().map(|placed| placed.steps).collect()
    }
}

/// The position of each node when every span is followed by all below it, siblings in order of time:
/// what happens at one moment happens in this order. A cycle of parents is entered at one of its
/// nodes.
fn ranks(nodes: &[Node]) -> Vec<usize> {
    let mut by_time: Vec<usize> = (0..nodes.len()).collect();
    by_time.sort_by_key(|at| (nodes.get(*at).map(|node| (node.start, node.end)), *at));
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut roots = Vec::new();
    for at in by_time.iter().copied() {
        let parent = nodes.get(at).and_then(|node| node.parent);
        match parent.and_then(|parent| children.get_mut(parent)) {
            Some(siblings) => siblings.push(at),
            None => roots.push(at),
        }
    }
    let mut ranks: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut next = 0;
    // What no root leads to is in a circle, or below one.
    for start in roots.into_iter().chain(by_time) {
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            if let Some(rank @ None) = ranks.get_mut(at) {
                *rank = Some(next);
                next += 1;
                waiting.extend(children.get(at).into_iter().flatten().rev());
            }
        }
    }
    ranks.into_iter().map(Option::unwrap_or_default).collect()
}
