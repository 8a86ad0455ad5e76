//! The critical path: the last finisher, followed backwards.
//!
//! As in Jaeger and CRISP: from a span's end go back to the child that finished last, from that
//! child's start to the child that had finished by then, and so on; what lies between belongs to
//! the span itself. A child that was still running when the path's next child began is not on the
//! path, since nothing waited for it.
//!
//! Jaeger cuts children that outlive their parent. Then the time after the parent's end belongs to
//! nobody, although something ran. Here a span reaches as far as its descendants do, and only
//! what lies outside its own interval and inside no child on the path counts as idle. The roots of
//! a trace are treated as children of one span without an interval of its own.

use super::forest::{Forest, Node};

/// The critical path of a trace. `spans_ns` and `idle_ns` sum to the trace's wall time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CriticalPath {
    pub(super) spans_ns: Vec<i64>,
    pub(super) idle_ns: i64,
    pub(super) is_member: Vec<bool>,
}

/// Finds the critical path.
pub(super) fn path(forest: &Forest) -> CriticalPath {
    let reach = reaches(forest);
    let mut path = CriticalPath {
        spans_ns: vec![0; forest.len()],
        idle_ns: 0,
        is_member: vec![false; forest.len()],
    };
    let whole = Reach { start_ns: 0, end_ns: forest.wall_ns() };
    let mut stack = Vec::new();
    let own_ns = follow(Node::default(), whole, forest.roots(), &reach, &mut stack);
    path.idle_ns += own_ns.idle;
    while let Some(index) = stack.pop() {
        let span = reach.get(index).copied().unwrap_or_default();
        let own_ns = follow(forest.node(index), span, forest.children(index), &reach, &mut stack);
        path.idle_ns += own_ns.idle;
        if let Some(slot) = path.spans_ns.get_mut(index) {
            *slot = own_ns.active;
        }
        if let Some(slot) = path.is_member.get_mut(index) {
            *slot = true;
        }
    }
    path
}

/// From the first start to the last end of a span and its descendants.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    start_ns: i64,
    end_ns: i64,
}

fn reaches(forest: &Forest) -> Vec<Reach> {
    let mut reach: Vec<Reach> = forest
        .nodes()
        .iter()
        .map(|node| Reach { start_ns: node.start_ns, end_ns: node.end_ns })
        .collect();
    for index in forest.preorder().iter().rev() {
        let Some(child) = reach.get(*index).copied() else { continue };
        if let Some(parent) = forest.parent(*index).and_then(|parent| reach.get_mut(parent)) {
            parent.start_ns = parent.start_ns.min(child.start_ns);
            parent.end_ns = parent.end_ns.max(child.end_ns);
        }
    }
    reach
}

/// What of a stretch of the path belongs to a span, and what to nobody.
#[derive(Debug, Clone, Copy, Default)]
struct OwnNs {
    active: i64,
    idle: i64,
}

impl OwnNs {
    fn add(&mut self, own: Node, from_ns: i64, to_ns: i64) {
        let active = (to_ns.min(own.end_ns) - from_ns.max(own.start_ns)).max(0);
        self.active += active;
        self.idle += to_ns - from_ns - active;
    }
}

/// Follows the path through one span: pushes its children on the path, returns what is its own.
fn follow(
    own: Node,
    span: Reach,
    children: &[usize],
    reach: &[Reach],
    on_path: &mut Vec<usize>,
) -> OwnNs {
    let mut last_first: Vec<(Reach, usize)> =
        children.iter().filter_map(|index| Some((reach.get(*index).copied()?, *index))).collect();
    // Of two that finish together the longer one explains more.
    last_first.sort_unstable_by_key(|(child, index)| {
        (std::cmp::Reverse(child.end_ns), child.start_ns, *index)
    });
    let mut own_ns = OwnNs::default();
    let mut cursor_ns = span.end_ns;
    for (child, index) in last_first {
        if child.end_ns <= cursor_ns {
            own_ns.add(own, child.end_ns, cursor_ns);
            cursor_ns = child.start_ns;
            on_path.push(index);
        }
    }
    own_ns.add(own, span.start_ns, cursor_ns);
    own_ns
}
