//! What a span's children decide about it: self time, the origin of an error, and which tokens
//! count.
//!
//! Four columns need to know a span's children, and children may be sealed before their parent:
//! `self_ns` (time not covered by the *union* of the children; the usual "minus the sum" is wrong
//! with parallel children), `is_error_origin` (one failure is one error, the deepest),
//! `tokens_counted` (a call's tokens count once, at the leaf), and `is_call` (instrumentations nest
//! several spans around one call).

use retake_schemas::event::Status;

use super::held::{OwnAttributes, Parent};
use super::keys::KeyRole;
use super::waiting::is_skewed;
use super::{Fold, Slots};

impl Fold {
    /// Settles the closed spans, children before their parents, and tells parents that are still
    /// open what they must remember. A cycle of parents (hostile or broken input) is cut where it
    /// is met.
    pub(super) fn settle(&mut self) {
        let order = if self.closed_in_order {
            // Every child closed before its parent, so this already is bottom-up.
            std::mem::take(&mut self.closed)
        } else {
            bottom_up(&self.slots, &self.closed)
        };
        for slot in &order {
            self.settle_one(*slot);
        }
        if self.closed.is_empty() {
            self.closed = order;
        }
    }

    fn settle_one(&mut self, slot: u32) {
        let Some(span) = self.slots.get_mut(slot) else { return };
        let bytes = span.attributes;
        let own = OwnAttributes {
            bytes: self.arena.get(bytes.0 as usize..bytes.1 as usize).unwrap_or_default(),
            symbols: &self.symbols,
            keys: &self.keys,
        };
        let failed = span.status == Status::Error;
        span.verdict.is_error_origin = failed && !span.family.has_failed_child;
        let stated = span.stated_tokens(&own);
        let kind = if span.roles & KeyRole::KIND == 0 { 0 } else { own.keys.call_kind(own.bytes) };
        span.verdict.is_call = (kind != 0).then_some(span.family.kinds_below & kind == 0);
        let kinds_below = span.family.kinds_below | kind;
        let is_estimate = span.is_estimate();
        let below = span.family.counted_below;
        let counted = match (stated, below) {
            (Some(_), None) => {
                span.verdict.is_counted = true;
                stated
            }
            // Estimates of one text differ by what each level saw of it.
            (Some(_), below @ Some(_)) if is_estimate => below,
            // A parent that states the sum of its descendants is a roll-up; one that states more
            // is flagged, not guessed at.
            (Some((input, output)), Some((below_in, below_out))) => {
                span.verdict.tokens_disagree = input > below_in || output > below_out;
                below
            }
            (None, below) => below,
        };
        let (start, end) = (span.start_unix_ns, span.end());
        let above = span.parent;
        let is_skewed = is_skewed(&self.slots, above, start);
        if let Some(span) = self.slots.get_mut(slot) {
            span.verdict.is_skewed = is_skewed;
        }
        let Parent::Slot(parent) = above else { return };
        if parent == slot {
            return;
        }
        if let Some(parent) = self.slots.get_mut(parent) {
            parent.family.cover(start, end);
            parent.family.has_failed_child |= failed;
            parent.family.count_below(counted);
            parent.family.kinds_below |= kinds_below;
        }
    }
}

/// The closed slots, every child before its parent.
fn bottom_up(slots: &Slots, closed: &[u32]) -> Vec<u32> {
    let mut depths: std::collections::HashMap<u32, usize> = std::collections::HashMap::new();
    let parent_of = |slot: u32| match slots.get(slot)?.parent {
        Parent::Slot(parent) if parent != slot => Some(parent),
        _ => None,
    };
    for &start in closed {
        // Depth by walking up, remembering what is known; a walk longer than there are spans is
        // a cycle.
        let mut path = vec![start];
        let mut base = 0;
        while let Some(parent) = path.last().copied().and_then(parent_of) {
            if let Some(depth) = depths.get(&parent) {
                base = depth + 1;
                break;
            }
            if path.len() > slots.len() {
                break;
            }
            path.push(parent);
        }
        for (above, slot) in path.iter().rev().enumerate() {
            depths.entry(*slot).or_insert(base + above);
        }
    }
    let mut order = closed.to_vec();
    order.sort_by_key(|slot| std::cmp::Reverse(depths.get(slot).copied().unwrap_or(0)));
    order
}
