//! Executes a workload on the wall clock.

use std::sync::Arc;
use std::time::Instant;

use retake_recorder::clock::Clock;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cassette::Cassette;
use crate::fidelity::{Canary, Fidelity};
use crate::pacer::pace;
use crate::target::{Operation, OperationContext, Target, TargetError};
use crate::workload::Workload;

/// When operations start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// At their recorded times, whether earlier ones have ended or not; `speed` 2 is twice as
    /// fast. Shows queueing, because a slow target does not slow the arrivals.
    Open {
        /// Factor on the arrival rate.
        speed: f64,
    },
    /// As soon as one of so many slots is free. Shows throughput, and hides queueing.
    Closed {
        /// Operations under way at the same time.
        concurrency: usize,
    },
}

/// What a replay needs beside the workload and the target.
#[derive(Clone)]
pub struct ReplayOptions {
    /// When operations start.
    pub arrival: Arrival,
    /// Recorded LLM answers, when that stage is `recorded`.
    pub cassette: Option<Arc<dyn Cassette>>,
    /// Ends the replay: what runs is cancelled, what has not begun is counted as cancelled.
    pub cancellation: CancellationToken,
}

impl std::fmt::Debug for ReplayOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayOptions").field("arrival", &self.arrival).finish_non_exhaustive()
    }
}

/// What became of every operation. `planned = ok + error + cancelled + refused`, exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct ReplayReport {
    /// Operations in the workload.
    pub planned: u64,
    /// Operations that succeeded.
    pub ok: u64,
    /// Operations that failed.
    pub error: u64,
    /// Operations the user ended, or that never began because of it.
    pub cancelled: u64,
    /// Operations the target did not know how to do.
    pub refused: u64,
    /// The first failures, in order of the workload: index and message.
    pub failures: Vec<(u64, String)>,
    /// How true the replay was to its schedule.
    pub fidelity: Fidelity,
    /// Why its numbers must not be used, if so.
    pub objection: Option<String>,
    /// From the first operation's start to the last one's end, ns.
    pub wall_ns: i64,
}

enum Outcome {
    Ok,
    Error(String),
    Cancelled,
    Refused(String),
}

struct Finished {
    index: u64,
    fire_error_ns: Option<i64>,
    outcome: Outcome,
}

/// Replays a workload. `progress` is told how many operations have ended.
pub async fn replay(
    workload: &Workload,
    target: &Arc<dyn Target>,
    options: &ReplayOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> ReplayReport {
    let began = Instant::now();
    let canary = Canary::start();
    let mut run = Run { target, options, clock: Clock::start(), ended: Vec::new(), progress };
    let mut rest = workload.operations.as_slice();
    let mut gap_ns = 0;
    while let Some(first) = rest.first() {
        // A barrier runs alone; what stands between barriers runs by the arrival policy.
        let length = if first.is_barrier {
            1
        } else {
            rest.iter().position(|op| op.is_barrier).unwrap_or(rest.len())
        };
        let (stretch, later) = rest.split_at(length);
        run.stretch(stretch, gap_ns).await;
        // The pause after a barrier is recorded think time; after anything else the schedule of
        // the next stretch starts where the recording had it.
        gap_ns = match (stretch.last(), later.first()) {
            (Some(last), Some(next)) => {
                (next.due_ns - last.due_ns - last.recorded_duration_ns).max(0)
            }
            _ => 0,
        };
        rest = later;
    }
    let ended = run.ended;
    let mut report = account(workload, ended, canary.stop());
    report.wall_ns = i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX);
    report
}

struct Run<'a> {
    target: &'a Arc<dyn Target>,
    options: &'a ReplayOptions,
    clock: Clock,
    ended: Vec<Finished>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Run<'_> {
    async fn stretch(&mut self, operations: &[Operation], gap_ns: i64) {
        match self.options.arrival {
            Arrival::Closed { concurrency } => self.closed(operations, concurrency.max(1)).await,
            Arrival::Open { speed } => self.open(operations, gap_ns, speed).await,
        }
    }

    async fn closed(&mut self, operations: &[Operation], concurrency: usize) {
        let mut running = JoinSet::new();
        for operation in operations {
            while running.len() >= concurrency {
                self.take(running.join_next().await);
            }
            if self.options.cancellation.is_cancelled() {
                break;
            }
            self.start(&mut running, operation, None);
        }
        while !running.is_empty() {
            self.take(running.join_next().await);
        }
    }

    async fn open(&mut self, operations: &[Operation], gap_ns: i64, speed: f64) {
        let first = operations.first().map_or(0, |operation| operation.due_ns);
        let scaled = |ns: i64| (ns as f64 / speed) as i64;
        let offsets: Vec<i64> =
            operations.iter().map(|op| scaled(gap_ns + op.due_ns - first)).collect();
        // A moment ahead, so that the first operation is not late by the thread's start.
        let (lead, lead_ns) = (LEAD, i64::try_from(LEAD.as_nanos()).unwrap_or(0));
        let origin_unix_ns = self.clock.now_unix_ns() + lead_ns;
        let Ok(mut fired) = pace(Instant::now() + lead, offsets.clone()) else {
            // Without the thread there is no schedule; the operations count as cancelled.
            return;
        };
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.options.cancellation.cancelled() => break,
                next = fired.recv() => {
                    let Some(position) = next else { break };
                    let due = offsets.get(position).map(|offset| origin_unix_ns + offset);
                    if let Some(operation) = operations.get(position) {
                        self.start(&mut running, operation, due);
                    }
                }
                done = running.join_next(), if !running.is_empty() => self.take(done),
            }
        }
        drop(fired);
        while !running.is_empty() {
            self.take(running.join_next().await);
        }
    }

    fn start(&self, running: &mut JoinSet<Finished>, operation: &Operation, due: Option<i64>) {
        let (target, operation) = (Arc::clone(self.target), operation.clone());
        let (clock, options) = (self.clock, self.options.clone());
        running.spawn(async move {
            // Taken at the first poll: only then does the operation really begin.
            let fired_unix_ns = clock.now_unix_ns();
            let context = OperationContext {
                due_unix_ns: due.unwrap_or(fired_unix_ns),
                cancellation: options.cancellation.child_token(),
                cassette: options.cassette.clone(),
            };
            let outcome = match target.execute(&operation, &context).await {
                Ok(()) => Outcome::Ok,
                Err(TargetError::Cancelled) => Outcome::Cancelled,
                Err(error @ TargetError::Refused(_)) => Outcome::Refused(error.to_string()),
                Err(error) => Outcome::Error(error.to_string()),
            };
            let fire_error_ns = due.map(|due| fired_unix_ns - due);
            Finished { index: operation.index, fire_error_ns, outcome }
        });
    }

    fn take(&mut self, done: Option<Result<Finished, tokio::task::JoinError>>) {
        // An `Err` is a panic of the target; which operation it was the accounting finds out.
        if let Some(Ok(finished)) = done {
            self.ended.push(finished);
        }
        (self.progress)(self.ended.len() as u64);
    }
}

fn account(workload: &Workload, ended: Vec<Finished>, stall_ns: i64) -> ReplayReport {
    let planned = workload.operations.len() as u64;
    let mut report = ReplayReport { planned, ..ReplayReport::default() };
    let mut fire_errors = Vec::new();
    let mut seen = vec![false; workload.operations.len()];
    for finished in ended {
        if let Some(seen) = usize::try_from(finished.index).ok().and_then(|i| seen.get_mut(i)) {
            *seen = true;
        }
        fire_errors.extend(finished.fire_error_ns);
        match finished.outcome {
            Outcome::Ok => report.ok += 1,
            Outcome::Cancelled => report.cancelled += 1,
            Outcome::Error(message) => {
                report.error += 1;
                report.failures.push((finished.index, message));
            }
            Outcome::Refused(message) => {
                report.refused += 1;
                report.failures.push((finished.index, message));
            }
        }
    }
    // Never begun because the replay was ended, or lost to a panic of the target.
    report.cancelled += seen.iter().filter(|seen| !**seen).count() as u64;
    report.failures.sort();
    report.failures.truncate(FAILURES_MAX);
    report.fidelity = Fidelity::of(fire_errors, stall_ns);
    report.objection = report.fidelity.objection();
    report
}

/// Failures kept for the report; all of them are in the recorded run.
const FAILURES_MAX: usize = 20;
/// Between asking for the pacer and the first due time.
const LEAD: std::time::Duration = std::time::Duration::from_millis(5);

#[cfg(test)]
mod tests;
