//! The spans that are open, at most so many of them.
//!
//! A handler that lagged never hears of some ends, so a table without a limit would only grow. The
//! oldest span gives way: whatever was leaked is old, and the table heals by itself.

use std::collections::{HashMap, VecDeque};

use retake_schemas::SpanKey;

/// Open spans with what a handler keeps of each.
#[derive(Debug)]
pub(super) struct OpenSpans<T> {
    spans: HashMap<SpanKey, (u64, T)>,
    /// Keys by the order of opening, with the number of the opening. Spans that have closed are
    /// swept out in bulk.
    order: VecDeque<(u64, SpanKey)>,
    next_number: u64,
    spans_max: usize,
}

impl<T> OpenSpans<T> {
    pub(super) fn new(spans_max: usize) -> Self {
        Self { spans: HashMap::new(), order: VecDeque::new(), next_number: 0, spans_max }
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Adds a span, and gives the one that had to go. A span that is open already stays as it is.
    pub(super) fn insert(&mut self, key: SpanKey, span: T) -> Option<T> {
        if self.spans.contains_key(&key) {
            return None;
        }
        let evicted = if self.spans.len() >= self.spans_max { self.pop_oldest() } else { None };
        let number = self.next_number;
        self.next_number += 1;
        self.spans.insert(key, (number, span));
        self.order.push_back((number, key));
        // Each sweep halves the list at least, so its cost is spread over as many insertions.
        if self.order.len() > 2 * self.spans.len() + SWEEP_SLACK {
            let spans = &self.spans;
            self.order.retain(|(number, key)| spans.get(key).is_some_and(|(n, _)| n == number));
        }
        evicted
    }

    pub(super) fn get_mut(&mut self, key: SpanKey) -> Option<&mut T> {
        self.spans.get_mut(&key).map(|(_, span)| span)
    }

    pub(super) fn remove(&mut self, key: SpanKey) -> Option<T> {
        self.spans.remove(&key).map(|(_, span)| span)
    }

    /// The keys of all open spans, in the order they were opened.
    pub(super) fn keys(&self) -> Vec<SpanKey> {
        let is_open = |number: u64, key: &SpanKey| {
            self.spans.get(key).is_some_and(|(opened, _)| *opened == number)
        };
        self.order.iter().filter(|(n, key)| is_open(*n, key)).map(|(_, key)| *key).collect()
    }

    fn pop_oldest(&mut self) -> Option<T> {
        while let Some((number, key)) = self.order.pop_front() {
            if self.spans.get(&key).is_some_and(|(opened, _)| *opened == number) {
                return self.remove(key);
            }
        }
        None
    }
}

/// Small lists are not worth a sweep.
const SWEEP_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use retake_schemas::{SpanId, TraceId};

    use super::*;

    fn key(n: u64) -> SpanKey {
        SpanKey { trace_id: TraceId::from_bytes([1; 16]), span_id: SpanId::from_u64(n) }
    }

    #[test]
    fn the_oldest_open_span_gives_way() {
        let mut open = OpenSpans::new(3);
        for n in 1..=3 {
            assert_eq!(open.insert(key(n), n), None);
        }
        assert_eq!(open.insert(key(1), 99), None, "it is open already");
        assert_eq!(open.remove(key(1)), Some(1));
        assert_eq!(open.insert(key(1), 10), None, "opened anew, and now the youngest");
        assert_eq!(open.keys(), [key(2), key(3), key(1)]);
        assert_eq!(open.insert(key(4), 4), Some(2));
        assert_eq!(open.insert(key(5), 5), Some(3));
        assert_eq!(open.insert(key(6), 6), Some(10));
        assert_eq!(open.len(), 3);
    }

    #[test]
    fn closed_spans_leave_no_trace_beside_one_that_stays_open() {
        let mut open = OpenSpans::new(1000);
        open.insert(key(0), 0);
        for n in 1..100_000 {
            open.insert(key(n), n);
            open.remove(key(n));
        }
        assert_eq!(open.keys(), [key(0)]);
        assert!(open.order.len() <= 2 + SWEEP_SLACK, "{}", open.order.len());
    }
}
