//! Executes a workload on the wall clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retake_recorder::clock::Clock;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::arrival::{Arrival, ArrivalError};
use crate::arrival::{Plan, Stretch};
use crate::cassette::Cassette;
use crate::fidelity::{self, Canary, Fidelity, Timing};
use crate::pacer::Pacer;
use crate::prepare::{Preparer, Promise};
use crate::simulate::Quantiles;
use crate::target::{OperationContext, Target, TargetError};
use crate::workload::Workload;

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
    /// From the time an operation was due to its end, of those that succeeded. The one that users
    /// of the service would see: a slow target cannot hide in it.
    pub latency_from_due: Quantiles,
    /// From the time it was really sent to its end, of the same operations.
    pub latency_from_send: Quantiles,
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
    /// When it was due, and whether that was decided before it was sent.
    due_unix_ns: Option<i64>,
    fired_unix_ns: i64,
    ended_unix_ns: i64,
    outcome: Outcome,
}

/// Replays a workload. `progress` is told how many operations have ended.
///
/// Operations of a target that [waits on others](Target::waits_on_io) are driven on one thread of
/// their own, which fires them within microseconds; those of one that computes run where this is
/// called, and are as late as that runtime takes to wake a worker.
///
/// # Errors
/// The arrival policy needs what the workload does not have. Nothing has run then.
pub async fn replay(
    workload: &Arc<Workload>,
    target: &Arc<dyn Target>,
    options: &ReplayOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<ReplayReport, ArrivalError> {
    let plan = Plan::new(workload, options.arrival)?;
    let began = Instant::now();
    let canary = Canary::start();
    let (count, mut counted) = watch::channel(0);
    let run = Run {
        workload: Arc::clone(workload),
        plan,
        target: Arc::clone(target),
        options: options.clone(),
        clock: Clock::start(),
        firing: if target.waits_on_io() { Firing::InTheRuntime } else { Firing::ByThePacer },
        ended: Vec::new(),
        count,
    };
    let driven = async {
        match run.firing {
            Firing::ByThePacer => run.drive().await,
            Firing::InTheRuntime => on_its_own_thread(run).await,
        }
    };
    tokio::pin!(driven);
    let ended = loop {
        tokio::select! {
            ended = &mut driven => break ended,
            Ok(()) = counted.changed() => progress(*counted.borrow_and_update()),
        }
    };
    progress(ended.len() as u64);
    let mut report = account(workload, ended, canary.stop());
    report.wall_ns = i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX);
    Ok(report)
}

/// Drives a replay on a thread with a runtime of its own, whose one task is never behind another
/// thread's.
async fn on_its_own_thread(run: Run) -> Vec<Finished> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        // The fire errors will tell.
        return Run { firing: Firing::ByThePacer, ..run }.drive().await;
    };
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let (done, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("retake-replay".to_owned()).spawn(move || {
        tracing::dispatcher::with_default(&dispatch, || {
            let _ = done.send(runtime.block_on(run.drive()));
        });
    });
    // Operations of which nothing is known count as cancelled.
    match thread {
        Ok(_) => ended.await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Who waits for the moment at which an operation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firing {
    /// The pacer's thread. Waking a worker of the runtime then takes some 60 us.
    ByThePacer,
    /// The operation's own task: started shortly before, it lets others run until the moment has
    /// come.
    InTheRuntime,
}

struct Run {
    workload: Arc<Workload>,
    plan: Plan,
    target: Arc<dyn Target>,
    options: ReplayOptions,
    clock: Clock,
    firing: Firing,
    ended: Vec<Finished>,
    count: watch::Sender<u64>,
}

type Running = JoinSet<Finished>;

impl Run {
    async fn drive(mut self) -> Vec<Finished> {
        for stretch in std::mem::take(&mut self.plan.stretches) {
            // A barrier runs alone; what stands between barriers runs by the arrival policy.
            if stretch.closed_slots > 0 {
                self.closed(&stretch).await;
            } else {
                self.scheduled(stretch).await;
            }
            if self.options.cancellation.is_cancelled() {
                break;
            }
        }
        self.ended
    }

    async fn closed(&mut self, stretch: &Stretch) {
        let mut running = Running::new();
        for position in stretch.first..stretch.end {
            while running.len() >= stretch.closed_slots {
                self.take(running.join_next().await);
            }
            if self.options.cancellation.is_cancelled() {
                break;
            }
            self.start(&mut running, position, None, None);
        }
        while !running.is_empty() {
            self.take(running.join_next().await);
        }
    }

    /// Operations with times of their own, and those that wait for the end of others.
    async fn scheduled(&mut self, stretch: Stretch) {
        let known = stretch.fixed.iter().map(|(_, operation)| *operation).collect();
        let mut preparer = self.preparer(known);
        // A moment ahead, so that the first operation is not late by the thread's start.
        let lead_ns = i64::try_from(LEAD.as_nanos()).unwrap_or(0);
        let (origin, origin_unix_ns) = (Instant::now() + LEAD, self.clock.now_unix_ns() + lead_ns);
        let mut due: HashMap<u32, i64> = stretch
            .fixed
            .iter()
            .map(|(offset_ns, operation)| (*operation, origin_unix_ns + offset_ns))
            .collect();
        let is_early = self.firing == Firing::InTheRuntime;
        let Ok((pacer, mut fired)) = Pacer::start(origin, stretch.fixed, is_early) else {
            // Without the thread there is no schedule; the operations count as cancelled.
            return;
        };
        let mut running = Running::new();
        let mut left = stretch.end - stretch.first;
        while left > 0 {
            tokio::select! {
                biased;
                () = self.options.cancellation.cancelled() => break,
                next = fired.recv() => {
                    let Some(position) = next else { break };
                    let prepared = preparer.as_mut().and_then(|preparer| preparer.of(position));
                    self.start(&mut running, position as usize, due.remove(&position), prepared);
                }
                done = running.join_next(), if !running.is_empty() => {
                    left -= 1;
                    let Some(ended) = self.take(done) else { continue };
                    let (index, ended_unix_ns) = ended;
                    for (next, think_ns) in self.plan.after(index) {
                        let next_unix_ns = ended_unix_ns + think_ns;
                        due.insert(next, next_unix_ns);
                        let offset = u64::try_from(next_unix_ns - origin_unix_ns).unwrap_or(0);
                        if let Some(preparer) = &mut preparer {
                            preparer.ask(next);
                        }
                        pacer.add(origin + Duration::from_nanos(offset), next);
                    }
                }
            }
        }
        drop(fired);
        while !running.is_empty() {
            self.take(running.join_next().await);
        }
    }

    /// Has operations prepared before they are due; only where one thread drives them all.
    fn preparer(&self, known: Vec<u32>) -> Option<Preparer> {
        if self.firing == Firing::ByThePacer {
            return None;
        }
        Preparer::start(Arc::clone(&self.workload), Arc::clone(&self.target), known).ok()
    }

    fn start(
        &self,
        running: &mut Running,
        position: usize,
        due: Option<i64>,
        prepared: Option<Promise>,
    ) {
        let (target, workload) = (Arc::clone(&self.target), Arc::clone(&self.workload));
        let (clock, firing) = (self.clock, self.firing);
        let cancellation = self.options.cancellation.child_token();
        let cassette = self.options.cassette.clone();
        running.spawn(async move {
            if let (Firing::InTheRuntime, Some(due_unix_ns)) = (firing, due) {
                wait_until(clock, due_unix_ns).await;
            }
            // Taken here: only now does the operation really begin.
            let fired_unix_ns = clock.now_unix_ns();
            let due_unix_ns = due.unwrap_or(fired_unix_ns);
            let prepared = prepared.and_then(|mut made| made.try_recv().ok()).unwrap_or_default();
            let context = OperationContext { due_unix_ns, cancellation, cassette, prepared };
            let (index, outcome) = match workload.operations.get(position) {
                Some(operation) => {
                    (operation.index, outcome(target.execute(operation, &context).await))
                }
                // Positions are those of the workload.
                None => (position as u64, Outcome::Cancelled),
            };
            let ended_unix_ns = clock.now_unix_ns();
            Finished { index, due_unix_ns: due, fired_unix_ns, ended_unix_ns, outcome }
        });
    }

    /// Notes an end; gives which operation it was, and when.
    fn take(
        &mut self,
        done: Option<Result<Finished, tokio::task::JoinError>>,
    ) -> Option<(u32, i64)> {
        // An `Err` is a panic of the target; which operation it was the accounting finds out.
        let finished = done?.ok()?;
        let ended = (u32::try_from(finished.index).ok()?, finished.ended_unix_ns);
        self.ended.push(finished);
        // Nobody looks any more when the replay was dropped.
        let _ = self.count.send(self.ended.len() as u64);
        Some(ended)
    }
}

/// Lets others run until shortly before a moment, and then nothing.
async fn wait_until(clock: Clock, due_unix_ns: i64) {
    while clock.now_unix_ns() < due_unix_ns - SPIN_NS {
        tokio::task::yield_now().await;
    }
    while clock.now_unix_ns() < due_unix_ns {
        std::hint::spin_loop();
    }
}

fn outcome(result: Result<(), TargetError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Ok,
        Err(TargetError::Cancelled) => Outcome::Cancelled,
        Err(error @ TargetError::Refused(_)) => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

fn account(workload: &Workload, ended: Vec<Finished>, stall_ns: i64) -> ReplayReport {
    let planned = workload.operations.len() as u64;
    let mut report = ReplayReport { planned, ..ReplayReport::default() };
    let mut timings = Vec::with_capacity(ended.len());
    let (mut from_due, mut from_send) = (Vec::new(), Vec::new());
    let mut seen = vec![false; workload.operations.len()];
    for finished in ended {
        if let Some(seen) = usize::try_from(finished.index).ok().and_then(|i| seen.get_mut(i)) {
            *seen = true;
        }
        let Finished { due_unix_ns, fired_unix_ns, ended_unix_ns, .. } = finished;
        timings.extend(due_unix_ns.map(|due_unix_ns| Timing { due_unix_ns, fired_unix_ns }));
        match finished.outcome {
            Outcome::Ok => {
                report.ok += 1;
                from_due.push(ended_unix_ns - due_unix_ns.unwrap_or(fired_unix_ns));
                from_send.push(ended_unix_ns - fired_unix_ns);
            }
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
    (report.latency_from_due, report.latency_from_send) =
        (Quantiles::of(from_due), Quantiles::of(from_send));
    report.fidelity = Fidelity::of(timings, stall_ns);
    let (due, send) = (report.latency_from_due.p99_ns, report.latency_from_send.p99_ns);
    report.objection = report.fidelity.objection().or_else(|| fidelity::client_delay(due, send));
    report
}

/// Failures kept for the report; all of them are in the recorded run.
const FAILURES_MAX: usize = 20;
/// Between asking for the pacer and the first due time.
const LEAD: Duration = Duration::from_millis(5);
/// Letting others run takes a few microseconds, in which the moment must not pass.
const SPIN_NS: i64 = 10_000;

#[cfg(test)]
mod tests;
