//! A trace's tree, made ready to draw: who contains whom, which spans stay when there are too
//! many, and where a span worked itself rather than waiting for its children.

use crate::model::{TraceNode, TraceTree};

/// One row of a waterfall.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The span.
    pub(super) node: &'a TraceNode,
    /// Start and end, ns after the trace's start, inside the trace.
    pub(super) extent: (i64, i64),
    /// The parts of `extent` that no child covers, in order.
    pub(super) own: Vec<(i64, i64)>,
    /// 0 for a root; wrappers that are not drawn do not count.
    pub(super) depth: usize,
    /// Names of the wrappers around it that are not drawn, outermost first.
    pub(super) wrappers: Vec<&'a str>,
}

/// The rows to draw: all when they fit `rows_max`, else the spans with the longest self time and
/// their ancestors. Spans that only pass on a call are folded into it.
pub(super) fn rows(tree: &TraceTree, rows_max: usize) -> Vec<Row<'_>> {
    let parents = parents(&tree.nodes);
    let is_folded = folded(&tree.nodes, &parents);
    let levels = levels(&tree.nodes, &parents, &is_folded);
    let extents: Vec<(i64, i64)> = tree.nodes.iter().map(|node| extent(tree, node)).collect();
    let mut children: Vec<Vec<(i64, i64)>> = vec![Vec::new(); tree.nodes.len()];
    for (parent, &extent) in parents.iter().zip(&extents) {
        if let Some(siblings) = parent.and_then(|at| children.get_mut(at)) {
            siblings.push(extent);
        }
    }
    let is_kept = kept(&tree.nodes, &parents, rows_max);
    tree.nodes
        .iter()
        .zip(extents)
        .zip(children)
        .enumerate()
        .zip(is_kept.iter().zip(&is_folded))
        .filter(|(_, (is_kept, is_folded))| **is_kept && !**is_folded)
        .map(|((at, ((node, extent), children)), _)| Row {
            node,
            extent,
            own: uncovered(extent, children),
            depth: levels.get(at).copied().unwrap_or(0),
            wrappers: wrappers(at, tree, &parents, &is_folded),
        })
        .collect()
}

/// Which spans only pass on the one call below them: a client library around another. What adds
/// time of its own, or failed by itself, is worth a row.
fn folded(nodes: &[TraceNode], parents: &[Option<usize>]) -> Vec<bool> {
    let mut children = vec![0_usize; nodes.len()];
    let mut same_kind = vec![false; nodes.len()];
    for (node, parent) in nodes.iter().zip(parents) {
        let Some(at) = *parent else { continue };
        if let Some(number) = children.get_mut(at) {
            *number += 1;
        }
        if let (Some(same), Some(above)) = (same_kind.get_mut(at), nodes.get(at)) {
            *same = above.span.kind == node.span.kind;
        }
    }
    nodes
        .iter()
        .zip(children.iter().zip(&same_kind))
        .map(|(node, (children, same_kind))| {
            let adds = node.self_ns > node.span.duration_ns / WRAPPER_OWN_DIVISOR;
            node.span.is_call == Some(false)
                && *children == 1
                && *same_kind
                && !adds
                && !node.span.is_error_origin
        })
        .collect()
}

/// Depths without the folded spans.
fn levels(nodes: &[TraceNode], parents: &[Option<usize>], is_folded: &[bool]) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::with_capacity(nodes.len());
    for parent in parents {
        let level = parent.map_or(0, |at| {
            let above = levels.get(at).copied().unwrap_or(0);
            if is_folded.get(at) == Some(&true) { above } else { above + 1 }
        });
        levels.push(level);
    }
    levels
}

/// Names of the folded spans right around one, outermost first.
fn wrappers<'a>(
    at: usize,
    tree: &'a TraceTree,
    parents: &[Option<usize>],
    is_folded: &[bool],
) -> Vec<&'a str> {
    let up = |&at: &usize| parents.get(at).copied().flatten();
    let above = std::iter::successors(up(&at), up);
    let mut names: Vec<&str> = above
        .take_while(|&at| is_folded.get(at) == Some(&true))
        .filter_map(|at| tree.nodes.get(at).map(|node| node.span.name.as_str()))
        .collect();
    names.reverse();
    names
}

/// The parent of each node by position, from depths in display order.
fn parents(nodes: &[TraceNode]) -> Vec<Option<usize>> {
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut parents = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        while open.last().is_some_and(|&(_, depth)| depth >= node.depth) {
            open.pop();
        }
        parents.push(open.last().map(|&(parent, _)| parent));
        open.push((at, node.depth));
    }
    parents
}

/// A span's place in its trace; what lies outside by clock skew is cut off.
fn extent(tree: &TraceTree, node: &TraceNode) -> (i64, i64) {
    let whole = tree.duration_ns.max(0);
    let start = node.span.start_unix_ns.saturating_sub(tree.start_unix_ns);
    let end = start.saturating_add(node.span.duration_ns.max(0));
    (start.clamp(0, whole), end.clamp(0, whole))
}

/// Which nodes to draw. A failed span outranks any other: it is what the reader looks for.
fn kept(nodes: &[TraceNode], parents: &[Option<usize>], rows_max: usize) -> Vec<bool> {
    if nodes.len() <= rows_max {
        return vec![true; nodes.len()];
    }
    let mut order: Vec<(bool, i64, usize)> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| (!node.span.is_error_origin, -node.self_ns.max(0), at))
        .collect();
    order.sort_unstable();
    let mut is_kept = vec![false; nodes.len()];
    let mut room = rows_max;
    for (_, _, at) in order {
        let line = missing_line(at, parents, &is_kept);
        if line.len() > room {
            continue;
        }
        room -= line.len();
        for member in line {
            if let Some(kept) = is_kept.get_mut(member) {
                *kept = true;
            }
        }
    }
    is_kept
}

/// A node and those of its ancestors that are not kept yet.
fn missing_line(at: usize, parents: &[Option<usize>], is_kept: &[bool]) -> Vec<usize> {
    let up = |&at: &usize| parents.get(at).copied().flatten();
    std::iter::successors(Some(at), up).take_while(|&at| is_kept.get(at) == Some(&false)).collect()
}

/// What of `(start, end)` no child covers.
fn uncovered((start, end): (i64, i64), mut children: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    children.sort_unstable();
    let mut own = Vec::new();
    let mut covered_to = start;
    for (child_start, child_end) in children {
        if child_start > covered_to {
            own.push((covered_to, child_start.min(end)));
        }
        covered_to = covered_to.max(child_end);
    }
    if covered_to < end {
        own.push((covered_to, end));
    }
    own.retain(|(from, to)| from < to);
    own
}

/// A wrapper's own time is at most this part of it.
const WRAPPER_OWN_DIVISOR: i64 = 20;

#[cfg(test)]
mod tests {
    use super::super::sample::node;
    use super::*;

    fn tree(nodes: Vec<TraceNode>) -> TraceTree {
        TraceTree { trace_id: "t".to_owned(), start_unix_ns: 0, duration_ns: 100, nodes }
    }

    /// Scenario: a parent with two overlapping children, one of which ends after its parent.
    /// Guarantees: own time is what no child covers, and stays inside the span.
    #[test]
    fn own_time_is_the_uncovered_part() {
        let tree = tree(vec![node(0, 0, 60), node(1, 10, 20), node(1, 25, 15), node(1, 50, 40)]);
        let rows = rows(&tree, 200);
        let own: Vec<_> = rows.iter().map(|row| row.own.clone()).collect();
        assert_eq!(own, [vec![(0, 10), (40, 50)], vec![(10, 30)], vec![(25, 40)], vec![(50, 90)]]);
    }

    /// Scenario: a client library calls another, which makes the call; a third adds time of its own.
    /// Guarantees: what only passes on is folded into the call, and named; what adds time is not.
    #[test]
    fn wrappers_are_folded_into_their_call() {
        let mut nodes = vec![node(0, 0, 100), node(1, 0, 60), node(2, 1, 58), node(3, 2, 57)];
        nodes.extend([node(1, 60, 40), node(2, 70, 10)]);
        for (node, (self_ns, is_call, name)) in nodes.iter_mut().zip([
            (0, None, "root"),
            (2, Some(false), "outer"),
            (1, Some(false), "inner"),
            (57, Some(true), "call"),
            (30, Some(false), "adds"),
            (10, Some(true), "other"),
        ]) {
            (node.self_ns, node.span.is_call) = (self_ns, is_call);
            (node.span.name, node.span.kind) = (name.to_owned(), "llm".to_owned());
        }
        let tree = tree(nodes);
        let rows = rows(&tree, 200);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.node.span.name.as_str(), row.depth, row.wrappers.join(" ")))
            .collect();
        let expected =
            [("root", 0, ""), ("call", 1, "outer inner"), ("adds", 1, ""), ("other", 2, "")];
        assert_eq!(shown, expected.map(|(name, depth, around)| (name, depth, around.to_owned())));
    }

    /// Scenario: more spans than rows, the longest of them deep in the tree.
    /// Guarantees: it stays with its ancestors, and no more rows are drawn than fit.
    #[test]
    fn big_trees_keep_the_longest_with_their_ancestors() {
        let mut nodes = vec![node(0, 0, 100)];
        nodes.extend((0..50).map(|at| node(1, at, 1)));
        nodes.extend([node(1, 50, 50), node(2, 50, 50), node(3, 50, 50)]);
        for (node, self_ns) in
            nodes.iter_mut().zip([0].into_iter().chain([1; 50]).chain([0, 0, 50]))
        {
            node.self_ns = self_ns;
        }
        let tree = tree(nodes);
        let rows = rows(&tree, 6);
        let depths: Vec<_> = rows.iter().map(|row| row.node.depth).collect();
        assert_eq!(depths, [0, 1, 1, 1, 2, 3]);
    }
}
