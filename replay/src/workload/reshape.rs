//! Workloads made of workloads: whole sessions drawn at random, other speeds, cloned sessions, and
//! stamps spread over what the clock could not tell apart.

use std::collections::{HashMap, HashSet};

use super::Workload;
use crate::rng::Rng;
use crate::target::{Operation, SourceLink};

/// What to do about stamps that are coarser than the gaps between requests (Mooncake has files with
/// 3 s, RAGPulse and BurstGPT 1 s): as they are, requests come in bursts that never happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stamps {
    /// As recorded.
    #[default]
    AsIs,
    /// Requests of one stamp evenly over the step after it, in recorded order.
    Spread,
    /// Requests of one stamp at random in the step after it.
    Jitter {
        /// Seed of the random numbers.
        seed: u64,
    },
}

impl Workload {
    /// What is left when some operations are done: by trace and span of the operation each repeats,
    /// how often it was done. A barrier that later operations need stays, because what it made is
    /// gone with whoever made it.
    #[must_use]
    pub fn without(mut self, done: &HashMap<(String, String), u64>) -> Self {
        let mut left = done.clone();
        let mut is_needed = false;
        let mut kept = Vec::with_capacity(self.operations.len());
        // From the end, so that a barrier sees what comes after it.
        for operation in self.operations.into_iter().rev() {
            let key = |link: &SourceLink| (link.trace_id.to_string(), link.span_id.to_string());
            let times = operation.source.as_ref().and_then(|link| left.get_mut(&key(link)));
            let is_done = times.is_some_and(|times| {
                let is_done = *times > 0;
                *times = times.saturating_sub(1);
                is_done
            });
            if !is_done || (operation.is_barrier && is_needed) {
                is_needed = true;
                kept.push(operation);
            }
        }
        kept.reverse();
        self.operations = kept;
        self.settle();
        self
    }

    /// The workload with its stamps repaired. A later turn of a session never comes before an
    /// earlier one.
    #[must_use]
    pub fn with_stamps(mut self, stamps: Stamps) -> Self {
        let step = self.stamp_resolution_ns;
        if step <= 1 || stamps == Stamps::AsIs {
            return self;
        }
        let mut rng = match stamps {
            Stamps::Jitter { seed } => Some(Rng::new(seed)),
            Stamps::AsIs | Stamps::Spread => None,
        };
        for burst in self.operations.chunk_by_mut(|a, b| a.due_ns == b.due_ns) {
            let count = burst.len() as i64;
            let mut offsets: Vec<i64> = match &mut rng {
                None => (0..count).map(|n| step * n / count).collect(),
                Some(rng) => {
                    (0..count).map(|_| rng.below(step.cast_unsigned()).cast_signed()).collect()
                }
            };
            // In recorded order, so that turns of a session keep theirs.
            offsets.sort_unstable();
            for (operation, offset) in burst.iter_mut().zip(offsets) {
                operation.due_ns += offset;
            }
        }
        self.settle();
        self
    }

    /// Draws whole sessions at random until there are `operations`; operations without a session
    /// are sessions of one. A session is never cut: its later turns hold its cost. Fewer when the
    /// workload has fewer.
    #[must_use]
    pub fn sample_sessions(mut self, operations: usize, seed: u64) -> Self {
        let mut sessions: Vec<Vec<Operation>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        for operation in std::mem::take(&mut self.operations) {
            let place = match &operation.shape.session {
                None => sessions.len(),
                Some(session) => *known.entry(session.clone()).or_insert(sessions.len()),
            };
            match sessions.get_mut(place) {
                Some(session) => session.push(operation),
                None => sessions.push(vec![operation]),
            }
        }
        Rng::new(seed).shuffle(&mut sessions);
        let mut taken = 0;
        for session in sessions {
            if taken >= operations {
                break;
            }
            taken += session.len();
            self.operations.extend(session);
        }
        self.settle();
        self.rebase();
        self
    }

    /// What is due in a window of time, counted from the first operation; it begins at 0. A later turn
    /// whose own time nobody knows stays with the turn before it, and one whose turn before is outside
    /// begins a session.
    #[must_use]
    pub fn window(mut self, from_ns: i64, length_ns: i64) -> Self {
        let first_ns = self.operations.first().map_or(0, |operation| operation.due_ns);
        let begin_ns = first_ns.saturating_add(from_ns);
        let within = begin_ns..begin_ns.saturating_add(length_ns);
        let mut kept = HashSet::new();
        // A turn never comes before the one that it follows.
        self.operations.retain(|operation| {
            let shape = &operation.shape;
            let is_kept = match shape.parent.filter(|_| shape.is_due_derived) {
                Some(parent) => kept.contains(&parent),
                None => within.contains(&operation.due_ns),
            };
            if is_kept {
                kept.insert(operation.index);
            }
            is_kept
        });
        for operation in &mut self.operations {
            let shape = &mut operation.shape;
            if shape.parent.is_some_and(|parent| !kept.contains(&parent)) {
                (shape.parent, shape.think_ns) = (None, None);
            }
        }
        self.settle();
        self.rebase();
        self
    }

    /// The workload `factor` times as fast. Think times are the user's own and stay.
    #[must_use]
    pub fn at_speed(mut self, factor: f64) -> Self {
        for operation in &mut self.operations {
            operation.due_ns = (operation.due_ns as f64 / factor) as i64;
        }
        self.stamp_resolution_ns = ((self.stamp_resolution_ns as f64 / factor) as i64).max(1);
        self
    }

    /// Every session so many times, each clone beginning at another moment of the workload: more
    /// users, not faster ones. Single requests are not cloned out of their sessions.
    #[must_use]
    pub fn scale_sessions(mut self, copies: u32, seed: u64) -> Self {
        let span = self.span_ns().cast_unsigned().saturating_add(1);
        let originals = self.operations.clone();
        let count = originals.len() as u64;
        let mut rng = Rng::new(seed);
        for copy in 1..u64::from(copies) {
            let mut phases: HashMap<String, i64> = HashMap::new();
            for operation in &originals {
                let mut clone = operation.clone();
                let phase = match &operation.shape.session {
                    None => rng.below(span).cast_signed(),
                    Some(session) => *phases
                        .entry(session.clone())
                        .or_insert_with(|| rng.below(span).cast_signed()),
                };
                clone.index += copy * count;
                clone.due_ns += phase;
                clone.shape.parent = clone.shape.parent.map(|parent| parent + copy * count);
                clone.shape.session =
                    clone.shape.session.map(|session| format!("{session}#{copy}"));
                self.operations.push(clone);
            }
        }
        self.settle();
        self
    }

    /// Poisson arrivals of `per_second`, in recorded order.
    #[must_use]
    pub fn with_poisson(mut self, per_second: f64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut due = 0.0;
        for operation in &mut self.operations {
            operation.due_ns = due as i64;
            operation.shape.is_due_derived = false;
            due += rng.exponential() / per_second * 1e9;
        }
        self.stamp_resolution_ns = 1;
        self
    }

    /// Lets the first operation be due at 0.
    fn rebase(&mut self) {
        let first = self.operations.first().map_or(0, |operation| operation.due_ns);
        for operation in &mut self.operations {
            operation.due_ns -= first;
        }
    }
}

#[cfg(test)]
mod tests {
    use retake_schemas::{SpanId, TraceId};

    use super::*;
    use crate::workload::Shape;

    /// Scenario: requests every 10 ns, a conversation whose later turns have no time of their own, and
    /// one whose turns have.
    /// Guarantees: what is due in the window stays, from 0 on; turns without a time stay with theirs;
    /// a turn that lost the one before it begins a session.
    #[test]
    fn a_window_is_cut_out() {
        let operation = |index: u64, due_ns, parent: Option<u64>, is_due_derived| {
            let think_ns = parent.map(|_| 5);
            let shape = Shape { parent, think_ns, is_due_derived, ..Shape::default() };
            Operation {
                index,
                due_ns,
                recorded_duration_ns: 100 + due_ns,
                shape,
                ..Operation::default()
            }
        };
        let operations = vec![
            operation(0, 1_000, None, false),
            operation(1, 1_010, None, false),
            operation(2, 1_020, None, false),
            // Derived: with its first turn, wherever its earliest time lies.
            operation(3, 1_021, Some(1), true),
            operation(4, 1_022, Some(0), true),
            operation(5, 1_030, Some(0), false),
            operation(6, 1_040, Some(5), false),
        ];
        let whole = Workload { operations, ..Workload::default() };
        let cut = |from, length| -> Vec<(i64, i64, Option<u64>, Option<i64>)> {
            let cut = whole.clone().window(from, length);
            assert!(cut.operations.iter().zip(0..).all(|(op, place)| op.index == place));
            let row = |op: &Operation| {
                (op.recorded_duration_ns, op.due_ns, op.shape.parent, op.shape.think_ns)
            };
            cut.operations.iter().map(row).collect()
        };
        let (a, b) = ((1_110, 0, None, None), (1_120, 10, None, None));
        assert_eq!(cut(10, 20), [a, b, (1_121, 11, Some(0), Some(5))]);
        assert_eq!(cut(30, 1_000), [(1_130, 0, None, None), (1_140, 10, Some(0), Some(5))]);
        assert_eq!(cut(0, i64::MAX).len(), 7);
        assert!(cut(41, 10).is_empty());
    }

    /// Scenario: an ingest and three queries of which one is there twice, after a replay that did some.
    /// Guarantees: each is left as often as it was not done; an ingest that others need is done again.
    #[test]
    fn what_was_done_is_left_out() {
        let operation = |index: u64, span: u64, is_barrier| Operation {
            index,
            due_ns: index.cast_signed() * 10,
            is_barrier,
            source: Some(SourceLink {
                run_id: "r".parse().unwrap(),
                trace_id: TraceId::from_bytes([1; 16]),
                span_id: SpanId::from_u64(span),
            }),
            ..Operation::default()
        };
        let operations = vec![
            operation(0, 7, true),
            operation(1, 1, false),
            operation(2, 2, false),
            operation(3, 2, false),
        ];
        let whole = Workload { operations, ..Workload::default() };
        let rest = |done: &[(u64, u64)]| -> Vec<u64> {
            let key = |span: u64| {
                (TraceId::from_bytes([1; 16]).to_string(), SpanId::from_u64(span).to_string())
            };
            let done = done.iter().map(|(span, times)| (key(*span), *times)).collect();
            let rest = whole.clone().without(&done);
            assert!(rest.operations.iter().zip(0..).all(|(op, place)| op.index == place));
            let number = |op: &Operation| {
                let id = op.source.as_ref().unwrap().span_id;
                (0..10).find(|number| SpanId::from_u64(*number) == id).unwrap()
            };
            rest.operations.iter().map(number).collect()
        };
        assert_eq!(rest(&[]), [7, 1, 2, 2]);
        assert_eq!(rest(&[(7, 1), (1, 1)]), [7, 2, 2]);
        assert_eq!(rest(&[(7, 1), (1, 1), (2, 1)]), [7, 2]);
        assert!(rest(&[(7, 1), (1, 1), (2, 2)]).is_empty());
    }
}
