//! Arrival policies: when operations begin, on either clock.

use std::collections::HashMap;

use serde::Serialize;

use crate::workload::Workload;

/// When operations begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum Arrival {
    /// At their recorded times, whether earlier ones have ended or not; `speed` 2 is twice as
    /// fast. Shows queueing, because a slow target does not slow the arrivals.
    Open {
        /// Factor on the arrival rate.
        speed: f64,
    },
    /// Sessions begin at their recorded times; each later turn begins when the one before has ended
    /// and its user has thought, however slow the target is.
    Session {
        /// Factor on the arrival rate of sessions. Think times are the users' own.
        speed: f64,
    },
    /// As soon as one of so many slots is free. Shows throughput, and hides queueing.
    Closed {
        /// Operations under way at the same time.
        concurrency: usize,
    },
}

/// Why a policy cannot be used with a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrivalError {
    /// Later turns without a pure think time.
    #[error(
        "replay sessions: {missing} of {turns} later turns have no pure think time, because the \
         recording does not say when the turn before ended; the gap between starts would count \
         the service time twice (use --arrival open)"
    )]
    NoThinkTime {
        /// Turns without one.
        missing: u64,
        /// Turns after the first of their session.
        turns: u64,
    },
    /// Times that were not recorded.
    #[error(
        "replay at recorded times: {derived} of {operations} operations have none, because the \
         trace says only when sessions began (use --arrival session)"
    )]
    NoRecordedTime {
        /// Operations without one.
        derived: u64,
        /// Operations in all.
        operations: u64,
    },
}

/// A policy applied to a workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// What stands between barriers, in order.
    pub(crate) stretches: Vec<Stretch>,
    /// Of each operation, who waits for its end, and how long after it they begin, ns.
    after: HashMap<u32, Vec<(u32, i64)>>,
}

/// Operations that may overlap: a barrier alone, or what stands between two.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Stretch {
    /// Position of the first operation.
    pub(crate) first: usize,
    /// Position behind the last one.
    pub(crate) end: usize,
    /// Operations with a time of their own: ns after the stretch begins, and which. In order.
    pub(crate) fixed: Vec<(i64, u32)>,
    /// Slots of a closed policy; 0 for the others.
    pub(crate) closed_slots: usize,
}

impl Plan {
    pub(crate) fn new(workload: &Workload, arrival: Arrival) -> Result<Self, ArrivalError> {
        match arrival {
            Arrival::Session { .. } => need_think_times(workload)?,
            Arrival::Open { .. } => need_recorded_times(workload)?,
            Arrival::Closed { .. } => {}
        }
        let operations = &workload.operations;
        let mut after: HashMap<u32, Vec<(u32, i64)>> = HashMap::new();
        let mut stretches = Vec::new();
        let mut first = 0;
        let mut gap_ns = 0;
        while let Some(head) = operations.get(first) {
            let rest = operations.get(first..).unwrap_or_default();
            let length = if head.is_barrier {
                1
            } else {
                rest.iter().position(|op| op.is_barrier).unwrap_or(rest.len())
            };
            let mut stretch = Stretch { first, end: first + length, ..Stretch::default() };
            let stretch_operations = rest.get(..length).unwrap_or_default();
            for (operation, position) in stretch_operations.iter().zip(first..) {
                let position = position as u32;
                let offset_ns = gap_ns + operation.due_ns - head.due_ns;
                // A parent before the barrier has ended when the barrier has.
                let parent = operation.shape.parent.filter(|parent| *parent >= first as u64);
                match (arrival, parent) {
                    (Arrival::Closed { .. }, _) => {}
                    (Arrival::Session { .. }, Some(parent)) => {
                        let think_ns = operation.shape.think_ns.unwrap_or(0);
                        after.entry(parent as u32).or_default().push((position, think_ns));
                    }
                    (Arrival::Session { speed } | Arrival::Open { speed }, _) => {
                        stretch.fixed.push(((offset_ns as f64 / speed) as i64, position));
                    }
                }
            }
            if let Arrival::Closed { concurrency } = arrival {
                stretch.closed_slots = concurrency.max(1);
            }
            stretch.fixed.sort_unstable();
            // The pause after a barrier is recorded think time; after anything else the schedule
            // of the next stretch starts where the recording had it.
            gap_ns = match (stretch_operations.last(), rest.get(length)) {
                (Some(last), Some(next)) => {
                    (next.due_ns - last.due_ns - last.recorded_duration_ns).max(0)
                }
                _ => 0,
            };
            stretches.push(stretch);
            first += length;
        }
        Ok(Self { stretches, after })
    }

    /// Who waits for the end of an operation, and how long after it they begin, ns.
    pub(crate) fn after(&self, operation: u32) -> impl Iterator<Item = (u32, i64)> + '_ {
        self.after.get(&operation).into_iter().flatten().copied()
    }
}

fn need_think_times(workload: &Workload) -> Result<(), ArrivalError> {
    let turns = workload.operations.iter().filter(|operation| operation.shape.parent.is_some());
    let missing = turns.clone().filter(|operation| operation.shape.think_ns.is_none()).count();
    if missing == 0 {
        return Ok(());
    }
    Err(ArrivalError::NoThinkTime { missing: missing as u64, turns: turns.count() as u64 })
}

fn need_recorded_times(workload: &Workload) -> Result<(), ArrivalError> {
    let derived = workload.operations.iter().filter(|o| o.shape.is_due_derived).count() as u64;
    if derived == 0 {
        return Ok(());
    }
    let operations = workload.operations.len() as u64;
    Err(ArrivalError::NoRecordedTime { derived, operations })
}
