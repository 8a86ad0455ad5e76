//! Facts that come before the span they belong to.
//!
//! Log records leave a program when their batch is full, spans when they end, so what a log record
//! says of a span (its prompt, its usage, the exception that ended it) is mostly here first.

use std::collections::{HashMap, VecDeque};

use retake_schemas::{EventBody, SpanKey};

use super::Fold;
use super::held::is_exception;

/// Facts by the span they wait for. The oldest are forgotten when there are too many: a span may
/// never come.
#[derive(Debug, Default)]
pub(super) struct Early {
    facts: HashMap<SpanKey, Vec<(i64, EventBody)>>,
    order: VecDeque<SpanKey>,
    count: usize,
}

impl Early {
    fn keep(&mut self, key: SpanKey, time_unix_ns: i64, body: &EventBody) {
        let facts = self.facts.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Vec::new()
        });
        facts.push((time_unix_ns, body.clone()));
        self.count += 1;
        while self.count > EARLY_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.count -= self.facts.remove(&oldest).map_or(0, |facts| facts.len());
        }
    }

    fn take(&mut self, key: &SpanKey) -> Vec<(i64, EventBody)> {
        let Some(facts) = self.facts.remove(key) else { return Vec::new() };
        self.count -= facts.len();
        self.order.retain(|waiting| waiting != key);
        facts
    }

    /// In the order in which their spans were first heard of.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(i64, EventBody)> {
        self.order.iter().filter_map(|key| self.facts.get(key)).flatten()
    }
}

impl Fold {
    /// Tells a span what an event says of it; one that has not come yet is told when it does.
    pub(super) fn tell(&mut self, time: i64, key: SpanKey, body: &EventBody) {
        let Some(slot) = self.slot_of(key) else {
            if !self.waiting.is_sealed(&key) && is_told_late(body) {
                self.early.keep(key, time, body);
            }
            return;
        };
        if let EventBody::SpanUpdated(update) = body {
            self.add_attributes(slot, &update.attributes);
        } else if let Some(span) = self.slots.get_mut(slot) {
            match body {
                EventBody::Usage(usage) => span.rare().usage = Some(usage.clone()),
                EventBody::Token(token) => span.token(time, token.count),
                EventBody::Retrieved(retrieved) => {
                    span.documents(retrieved.role, retrieved.documents.len());
                }
                EventBody::Annotated(line) => span.annotate(line),
                _ => {}
            }
        }
        self.reconsider(slot);
    }

    /// Tells a span that has just come what was said of it before.
    pub(super) fn tell_early(&mut self, key: SpanKey) {
        for (time, body) in self.early.take(&key) {
            self.tell(time, key, &body);
        }
    }

    pub(super) fn keep_early(&mut self, time: i64, body: &EventBody) {
        if let Some(key) = body.span() {
            self.early.keep(key, time, body);
        }
    }
}

/// Whether a span that comes later must hear of it. Ordinary log lines say nothing of their span.
fn is_told_late(body: &EventBody) -> bool {
    match body {
        EventBody::SpanUpdated(_)
        | EventBody::Usage(_)
        | EventBody::Token(_)
        | EventBody::Retrieved(_) => true,
        EventBody::Annotated(line) => is_exception(line),
        _ => false,
    }
}

/// Facts that wait for their spans, at most: some megabytes, as contents are references.
const EARLY_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use retake_schemas::event::SpanUpdated;
    use retake_schemas::{SpanId, TraceId};

    use super::*;

    fn fact(number: u64) -> (SpanKey, EventBody) {
        let span = SpanKey {
            trace_id: TraceId::from_bytes([1; 16]),
            span_id: SpanId::from_bytes(number.to_be_bytes()),
        };
        (span, EventBody::SpanUpdated(SpanUpdated { span, attributes: Vec::new() }))
    }

    /// Scenario: log records of spans that never come.
    /// Guarantees: what is held is bounded, and the oldest goes first.
    #[test]
    fn the_oldest_facts_are_forgotten_when_there_are_too_many() {
        let mut early = Early::default();
        let count = EARLY_MAX as u64 + 10;
        for number in 1..=count {
            let (key, body) = fact(number);
            early.keep(key, 0, &body);
        }
        assert_eq!(
            (early.count, early.facts.len(), early.order.len()),
            (EARLY_MAX, EARLY_MAX, EARLY_MAX)
        );
        assert!(early.take(&fact(10).0).is_empty());
        assert_eq!(early.take(&fact(11).0).len(), 1);
        assert_eq!(early.iter().count(), EARLY_MAX - 1);
    }
}
