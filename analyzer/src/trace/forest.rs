//! Putting the spans of a trace together, whatever shape they arrive in.

use std::hash::{DefaultHasher, Hash, Hasher};

use foldhash::{HashMap, HashMapExt};

/// What the analysis of a trace needs to know of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanTimes {
    /// The span, see [`span_key`].
    pub id: u64,
    /// Its parent, `None` for a root.
    pub parent: Option<u64>,
    /// Start, ns since the Unix epoch; below 0 counts as 0.
    pub start_unix_ns: i64,
    /// End minus start, ns; below 0 counts as 0.
    pub duration_ns: i64,
}

/// A span id as a number: its 16 hex digits, or a hash of anything else somebody wrote there.
#[must_use]
pub fn span_key(text: &str) -> u64 {
    hex_number(text).unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    })
}

/// Sixteen hex digits and nothing else. By hand: every span asks for two.
fn hex_number(text: &str) -> Option<u64> {
    let digits: &[u8; 16] = text.as_bytes().try_into().ok()?;
    digits.iter().try_fold(0, |number: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// A span in its trace. Times are relative to the start of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Node {
    pub(super) start_ns: i64,
    pub(super) end_ns: i64,
    pub(super) parent: Option<usize>,
}

/// The spans of one trace as trees.
///
/// A span whose parent never arrived, that names itself as its parent, or that closes a cycle of
/// parents becomes a root. Where an id occurs twice, both spans stay and the children belong to
/// the one that began first. A child may begin before its parent and end after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forest {
    nodes: Vec<Node>,
    start_unix_ns: i64,
    wall_ns: i64,
    roots: Vec<usize>,
    child_ranges: Vec<(usize, usize)>,
    children: Vec<usize>,
    preorder: Vec<usize>,
    lost_parents: Vec<u64>,
    orphans: usize,
}

impl Forest {
    /// Puts spans of one trace together.
    #[must_use]
    pub fn new(spans: &[SpanTimes]) -> Self {
        let start_unix_ns = spans.iter().map(|s| s.start_unix_ns.max(0)).min().unwrap_or(0);
        let mut nodes: Vec<Node> = spans
            .iter()
            .map(|span| {
                let start = span.start_unix_ns.max(0);
                let end = start.saturating_add(span.duration_ns.max(0));
                Node { start_ns: start - start_unix_ns, end_ns: end - start_unix_ns, parent: None }
            })
            .collect();
        let order = time_order(spans, &nodes);
        let (lost_parents, orphans) = link_parents(spans, &order, &mut nodes);
        cut_cycles(&order, &mut nodes);
        let wall_ns = nodes.iter().map(|node| node.end_ns).max().unwrap_or(0);
        let roots = order
            .iter()
            .copied()
            .filter(|i| nodes.get(*i).is_some_and(|node| node.parent.is_none()))
            .collect();
        let (child_ranges, children) = group_children(&order, &nodes);
        let mut forest = Self {
            nodes,
            start_unix_ns,
            wall_ns,
            roots,
            child_ranges,
            children,
            preorder: Vec::new(),
            lost_parents,
            orphans,
        };
        forest.preorder = forest.walk();
        forest
    }

    /// Number of spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no span.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Start of the earliest span, ns since the Unix epoch.
    #[must_use]
    pub fn start_unix_ns(&self) -> i64 {
        self.start_unix_ns
    }

    /// From the first start to the last end, ns.
    #[must_use]
    pub fn wall_ns(&self) -> i64 {
        self.wall_ns
    }

    /// The roots, by start.
    #[must_use]
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// The children of a span, by start.
    #[must_use]
    pub fn children(&self, index: usize) -> &[usize] {
        let (from, to) = self.child_ranges.get(index).copied().unwrap_or_default();
        self.children.get(from..to).unwrap_or_default()
    }

    /// The parent a span hangs on; `None` for roots, whatever they name.
    #[must_use]
    pub fn parent(&self, index: usize) -> Option<usize> {
        self.nodes.get(index)?.parent
    }

    /// Every span once, parents before their children, siblings by start. A span's descendants
    /// follow it without a gap.
    #[must_use]
    pub fn preorder(&self) -> &[usize] {
        &self.preorder
    }

    /// The parents that are named and never arrived, each once, ascending.
    #[must_use]
    pub fn lost_parents(&self) -> &[u64] {
        &self.lost_parents
    }

    /// Spans whose parent never arrived.
    #[must_use]
    pub fn orphans(&self) -> usize {
        self.orphans
    }

    /// The depth of every span, 0 for roots.
    #[must_use]
    pub fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0; self.len()];
        for index in &self.preorder {
            let depth =
                self.parent(*index).and_then(|p| depths.get(p)).map_or(0, |d: &usize| d + 1);
            if let Some(slot) = depths.get_mut(*index) {
                *slot = depth;
            }
        }
        depths
    }

    /// A span and its descendants, parents first.
    #[must_use]
    pub fn subtree(&self, index: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut stack = vec![index];
        while let Some(next) = stack.pop() {
            found.push(next);
            stack.extend(self.children(next).iter().rev());
        }
        found
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn node(&self, index: usize) -> Node {
        self.nodes.get(index).copied().unwrap_or_default()
    }

    fn walk(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.len());
        let mut stack: Vec<usize> = self.roots.iter().rev().copied().collect();
        while let Some(index) = stack.pop() {
            order.push(index);
            stack.extend(self.children(index).iter().rev());
        }
        order
    }
}

/// By start, longest first, so that what encloses comes before what it encloses.
fn time_order(spans: &[SpanTimes], nodes: &[Node]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_unstable_by_key(|index| {
        let node = nodes.get(*index).copied().unwrap_or_default();
        let id = spans.get(*index).map_or(0, |span| span.id);
        (node.start_ns, std::cmp::Reverse(node.end_ns), id, *index)
    });
    order
}

/// Links spans to parents; returns the distinct parents that are missing, and how many spans name
/// one of them.
fn link_parents(spans: &[SpanTimes], order: &[usize], nodes: &mut [Node]) -> (Vec<u64>, usize) {
    let mut by_id: HashMap<u64, usize> = HashMap::with_capacity(spans.len());
    for index in order {
        if let Some(span) = spans.get(*index) {
            by_id.entry(span.id).or_insert(*index);
        }
    }
    let mut lost = Vec::new();
    for (span, node) in spans.iter().zip(nodes.iter_mut()) {
        let Some(parent) = span.parent.filter(|parent| *parent != span.id) else { continue };
        node.parent = by_id.get(&parent).copied();
        if node.parent.is_none() {
            lost.push(parent);
        }
    }
    let orphans = lost.len();
    lost.sort_unstable();
    lost.dedup();
    (lost, orphans)
}

/// Makes the earliest span of every cycle of parents a root.
fn cut_cycles(order: &[usize], nodes: &mut [Node]) {
    let mut rank = vec![0; nodes.len()];
    for (position, index) in order.iter().enumerate() {
        if let Some(slot) = rank.get_mut(*index) {
            *slot = position;
        }
    }
    // 0: not seen; otherwise one more than the start of the walk that saw it first.
    let mut seen_by = vec![0_usize; nodes.len()];
    for start in order {
        let walk = start + 1;
        let mut at = Some(*start);
        while let Some(index) = at {
            let Some(mark) = seen_by.get_mut(index) else { break };
            if *mark == walk {
                cut_one(index, &rank, nodes);
            }
            if *mark != 0 {
                break;
            }
            *mark = walk;
            at = nodes.get(index).and_then(|node| node.parent);
        }
    }
}

fn cut_one(member: usize, rank: &[usize], nodes: &mut [Node]) {
    let mut earliest = member;
    let mut at = nodes.get(member).and_then(|node| node.parent);
    while let Some(index) = at.filter(|index| *index != member) {
        if rank.get(index) < rank.get(earliest) {
            earliest = index;
        }
        at = nodes.get(index).and_then(|node| node.parent);
    }
    if let Some(node) = nodes.get_mut(earliest) {
        node.parent = None;
    }
}

/// The children of every span in one flat list, siblings in `order`.
fn group_children(order: &[usize], nodes: &[Node]) -> (Vec<(usize, usize)>, Vec<usize>) {
    let mut by_parent: Vec<(usize, usize)> =
        order.iter().filter_map(|index| Some((nodes.get(*index)?.parent?, *index))).collect();
    // Stable: siblings stay in the order of time.
    by_parent.sort_by_key(|(parent, _)| *parent);
    let mut ranges = vec![(0, 0); nodes.len()];
    for (position, (parent, _)) in by_parent.iter().enumerate() {
        if let Some(range) = ranges.get_mut(*parent) {
            if range.1 == 0 {
                range.0 = position;
            }
            range.1 = position + 1;
        }
    }
    (ranges, by_parent.into_iter().map(|(_, child)| child).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u64, parent: Option<u64>, start: i64, duration: i64) -> SpanTimes {
        SpanTimes { id, parent, start_unix_ns: start, duration_ns: duration }
    }

    /// Scenario: an orphan, its lost sibling, a self-parent, and a cycle of three.
    /// Guarantees: every span is in exactly one tree, and the loss is counted once per parent.
    #[test]
    fn broken_parents_become_roots() {
        let forest = Forest::new(&[
            span(1, None, 0, 10),
            span(2, Some(99), 1, 1),
            span(3, Some(99), 2, 1),
            span(4, Some(4), 3, 1),
            span(5, Some(7), 6, 1),
            span(6, Some(5), 4, 1),
            span(7, Some(6), 5, 1),
            span(8, Some(5), 7, 1),
        ]);
        assert_eq!(forest.roots(), [0, 1, 2, 3, 5]);
        assert_eq!(forest.preorder(), [0, 1, 2, 3, 5, 6, 4, 7]);
        assert_eq!(forest.depths(), [0, 0, 0, 0, 2, 0, 1, 3]);
        assert_eq!(forest.lost_parents(), [99]);
        assert_eq!(forest.orphans(), 2);
        assert_eq!(forest.subtree(5), [5, 6, 4, 7]);
    }

    #[test]
    fn children_of_a_duplicated_id_hang_on_the_earlier_span() {
        let forest =
            Forest::new(&[span(1, None, 5, 1), span(1, None, 0, 9), span(2, Some(1), 6, 1)]);
        assert_eq!(forest.parent(2), Some(1));
        assert_eq!(forest.roots(), [1, 0]);
    }

    #[test]
    fn hostile_times_neither_overflow_nor_run_backwards() {
        let forest =
            Forest::new(&[span(1, None, i64::MIN, i64::MAX), span(2, None, i64::MAX, i64::MAX)]);
        assert_eq!(forest.wall_ns(), i64::MAX);
        assert_eq!(Forest::new(&[span(1, None, 7, -3)]).wall_ns(), 0);
        assert!(Forest::new(&[]).is_empty());
    }

    #[test]
    fn a_span_id_that_is_not_hex_still_names_one_span() {
        assert_eq!(span_key("00000000000000ff"), 255);
        assert_eq!(span_key("call-1"), span_key("call-1"));
        assert_ne!(span_key("call-1"), span_key("call-2"));
        assert_ne!(span_key("+0000000000000ff"), 255);
    }
}
