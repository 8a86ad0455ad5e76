//! Traces that are still arriving.
//!
//! Exporters of other processes send a span when it ended, in batches: children mostly before
//! their parents, and parts of one trace seconds apart. What a family decides (self time, where an
//! error began, whose tokens count) needs all of it, so closed spans of such a trace stay with the
//! open ones until the trace was quiet for a while.

use std::collections::HashMap;

use retake_schemas::{SpanKey, TraceId};

use super::held::Parent;
use super::{Fold, Slots};
use crate::otlp::Window;

/// Which traces may still get spans, and which spans were sealed lately.
#[derive(Debug)]
pub(super) struct Waiting {
    wait_ns: i64,
    /// When the last span of a trace came, by the latest time the fold had seen.
    touched: HashMap<TraceId, i64>,
    sealed: Window<SpanKey>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Waiting {
    pub(super) fn new(wait_ns: i64) -> Self {
        Self { wait_ns, touched: HashMap::new(), sealed: Window::new(SEALED_KNOWN_MAX) }
    }

    pub(super) fn is_on(&self) -> bool {
        self.wait_ns > 0
    }

    pub(super) fn touch(&mut self, trace_id: TraceId, now_unix_ns: i64) {
        if self.is_on() {
            self.touched.insert(trace_id, now_unix_ns);
        }
    }

    pub(super) fn is_sealed(&self, key: &SpanKey) -> bool {
        self.is_on() && self.sealed.contains(key)
    }
}

impl Fold {
    /// Takes the closed spans that have to wait out of the list of those that become rows.
    pub(super) fn hold_back(&mut self) -> Vec<u32> {
        if !self.waiting.is_on() {
            return Vec::new();
        }
        let Waiting { wait_ns, touched, sealed } = &mut self.waiting;
        let quiet_since = self.last_unix_ns.saturating_sub(*wait_ns);
        touched.retain(|_, time| *time > quiet_since);
        if self.closed.len() > HELD_SPANS_MAX {
            touched.clear();
        }
        let (held, released): (Vec<u32>, Vec<u32>) =
            std::mem::take(&mut self.closed).into_iter().partition(|slot| {
                self.slots
                    .get(*slot)
                    .is_some_and(|span| span.local == 0 && touched.contains_key(&span.trace_id))
            });
        for slot in &released {
            if let Some(span) = self.slots.get(*slot).filter(|span| span.local == 0) {
                sealed.insert(span.key());
            }
        }
        self.closed = released;
        held
    }
}

/// Whether a child began before its parent by more than clocks of one machine differ.
pub(super) fn is_skewed(slots: &Slots, parent: Parent, start_unix_ns: i64) -> bool {
    let Parent::Slot(parent) = parent else { return false };
    slots
        .get(parent)
        .is_some_and(|parent| start_unix_ns < parent.start_unix_ns.saturating_sub(SKEW_NS_MAX))
}

/// Spans held back at most; with more, everything is sealed.
const HELD_SPANS_MAX: usize = 200_000;
/// Sealed spans that are still known as parents.
const SEALED_KNOWN_MAX: usize = 1 << 16;
/// One clock read twice gives this much at most, on machines that correct it while running.
const SKEW_NS_MAX: i64 = 1_000_000;
