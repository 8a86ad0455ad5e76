//! What a span's children decide about it: self time, the origin of an error, and which tokens
//! count.

use std::collections::HashMap;

use retake_schemas::SpanKey;
use retake_schemas::event::Status;

use super::open::{ClosedSpan, OpenSpan};
use super::rows::stated_tokens;

/// Settles the closed spans, children before their parents, and tells parents that are still open
/// what they must remember. A cycle of parents (hostile or broken input) is cut where it is met.
pub(super) fn settle(
    closed: &mut [ClosedSpan],
    at: &HashMap<SpanKey, usize>,
    open: &mut HashMap<SpanKey, OpenSpan>,
) {
    for index in bottom_up(closed, at) {
        let Some(child) = closed.get_mut(index) else { continue };
        settle_one(child);
        let span = &child.span;
        let (start, end) = (span.start_unix_ns(), span.end_unix_ns());
        let failed = span.status == Status::Error;
        let counted =
            if child.verdict.is_counted { stated_tokens(span) } else { span.family.counted_below };
        let Some(parent) = span.parent().filter(|parent| *parent != span.key()) else { continue };
        let family = match at.get(&parent) {
            Some(parent_index) => closed.get_mut(*parent_index).map(|p| &mut p.span.family),
            None => open.get_mut(&parent).map(|p| &mut p.family),
        };
        match family {
            Some(family) => {
                family.cover(start, end);
                family.has_failed_child |= failed;
                family.count_below(counted);
            }
            None => {
                if let Some(child) = closed.get_mut(index) {
                    child.verdict.is_orphan = true;
                }
            }
        }
    }
}

fn settle_one(closed: &mut ClosedSpan) {
    let family = &closed.span.family;
    closed.verdict.is_error_origin =
        closed.span.status == Status::Error && !family.has_failed_child;
    let Some((input, output)) = stated_tokens(&closed.span) else { return };
    match family.counted_below {
        None => closed.verdict.is_counted = true,
        // A parent that states the sum of its descendants is a roll-up; one that states more is
        // flagged, not guessed at.
        Some((below_in, below_out)) => {
            closed.verdict.tokens_disagree = input > below_in || output > below_out;
        }
    }
}

/// Indices of the closed spans, every child before its parent.
fn bottom_up(closed: &[ClosedSpan], at: &HashMap<SpanKey, usize>) -> Vec<usize> {
    let parent_of = |index: usize| -> Option<usize> {
        let span = &closed.get(index)?.span;
        at.get(&span.parent()?).copied().filter(|parent| *parent != index)
    };
    // Depth by walking up, remembering what is known; a walk longer than there are spans is a
    // cycle.
    let mut depths: Vec<Option<usize>> = vec![None; closed.len()];
    for start in 0..closed.len() {
        let mut path = vec![start];
        let mut base = 0;
        while let Some(parent) = path.last().copied().and_then(parent_of) {
            if let Some(depth) = depths.get(parent).copied().flatten() {
                base = depth + 1;
                break;
            }
            if path.len() > closed.len() {
                break;
            }
            path.push(parent);
        }
        for (above, index) in path.iter().rev().enumerate() {
            if let Some(depth) = depths.get_mut(*index) {
                depth.get_or_insert(base + above);
            }
        }
    }
    let mut order: Vec<usize> = (0..closed.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(depths.get(*index).copied().flatten()));
    order
}
