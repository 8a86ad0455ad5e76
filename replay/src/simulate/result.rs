//! What a replay in virtual time gives: a row for each operation, and sums that close.

use retake_schemas::Digest;
use serde::Serialize;

use super::model::{Demand, Model};
use crate::arrival::Plan;
use crate::quantile::nearest_rank;
use crate::workload::Workload;

/// Rows of a simulated replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// Names of the stages.
    pub stages: Vec<String>,
    /// Of each operation, when it arrived, ns of virtual time.
    pub arrived_ns: Vec<i64>,
    /// Of each operation, when it was over, however it ended.
    pub ended_ns: Vec<i64>,
    /// Of each operation, when the first token of its last stage came; -1 for none.
    pub first_token_ns: Vec<i64>,
    /// Of each stage, of each operation, when it began to be served; -1 when it never was.
    pub served_ns: Vec<Vec<i64>>,
    /// Of each stage, of each operation, for how long.
    pub service_ns: Vec<Vec<i64>>,
    /// How each operation ended.
    outcomes: Vec<Outcome>,
    /// Slots of each stage.
    slots: Vec<Option<u32>>,
    /// Events handled.
    pub events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outcome {
    NotBegun = 0,
    Ok = 1,
    Refused = 2,
    Running = 3,
}

/// Sums of a simulated replay. `planned = ok + error + cancelled + refused`, exactly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimulatedReport {
    /// Operations in the workload.
    pub planned: u64,
    /// Operations that passed every stage.
    pub ok: u64,
    /// Always 0: models do not fail.
    pub error: u64,
    /// Operations that never began or never ended. 0, unless the workload's links are wrong.
    pub cancelled: u64,
    /// Operations that found a queue full.
    pub refused: u64,
    /// BLAKE3 over the rows in order of the operations: equal for equal results.
    pub digest: Digest,
    /// Events handled.
    pub events: u64,
    /// From the first arrival to the last end, ns of virtual time.
    pub span_ns: i64,
    /// Operations that succeeded, per second of it.
    pub throughput_per_s: f64,
    /// From arrival to end, of operations that succeeded.
    pub latency: Quantiles,
    /// From arrival to the first token of the last stage, of those that succeeded.
    pub first_token: Quantiles,
    /// The stages.
    pub stages: Vec<StageUse>,
}

/// Quantiles of a time, ns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Quantiles {
    /// Mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: i64,
    /// 90th percentile.
    pub p90_ns: i64,
    /// 95th percentile.
    pub p95_ns: i64,
    /// 99th percentile.
    pub p99_ns: i64,
    /// Largest.
    pub max_ns: i64,
}

impl Quantiles {
    /// Of some times, in any order.
    #[must_use]
    pub fn of(mut times_ns: Vec<i64>) -> Self {
        times_ns.sort_unstable();
        let at = |q| nearest_rank(&times_ns, q).unwrap_or(0);
        let sum: i128 = times_ns.iter().map(|time| i128::from(*time)).sum();
        Self {
            mean_ns: if times_ns.is_empty() { 0.0 } else { sum as f64 / times_ns.len() as f64 },
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p95_ns: at(0.95),
            p99_ns: at(0.99),
            max_ns: times_ns.last().copied().unwrap_or(0),
        }
    }
}

/// How a stage was used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageUse {
    /// Its name.
    pub stage: String,
    /// Operations served at the same time; `None` for no limit.
    pub slots: Option<u32>,
    /// Share of its slots' time that was used; `None` without a limit.
    pub utilisation: Option<f64>,
    /// Waiting for a slot.
    pub queue: Quantiles,
    /// Being served.
    pub service: Quantiles,
}

impl Simulation {
    pub(super) fn new(workload: &Workload, model: &Model) -> Self {
        let count = workload.operations.len();
        let never = || vec![NEVER; count];
        Self {
            stages: model.stages.iter().map(|stage| stage.stage.clone()).collect(),
            arrived_ns: never(),
            ended_ns: never(),
            first_token_ns: never(),
            served_ns: model.stages.iter().map(|_| never()).collect(),
            service_ns: model.stages.iter().map(|_| vec![0; count]).collect(),
            outcomes: vec![Outcome::NotBegun; count],
            slots: model.stages.iter().map(|stage| stage.slots).collect(),
            events: 0,
        }
    }

    pub(super) fn arrive(&mut self, operation: u32, time_ns: i64) {
        set(&mut self.arrived_ns, operation, time_ns);
        set(&mut self.outcomes, operation, Outcome::Running);
    }

    pub(super) fn serve(&mut self, stage: usize, operation: u32, time_ns: i64, demand: Demand) {
        if let Some(served) = self.served_ns.get_mut(stage) {
            set(served, operation, time_ns);
        }
        if let Some(service) = self.service_ns.get_mut(stage) {
            set(service, operation, demand.total_ns());
        }
        if stage + 1 == self.stages.len() {
            set(&mut self.first_token_ns, operation, time_ns + demand.first_ns);
        }
    }

    pub(super) fn complete(&mut self, operation: u32, time_ns: i64) {
        set(&mut self.ended_ns, operation, time_ns);
        set(&mut self.outcomes, operation, Outcome::Ok);
    }

    pub(super) fn refuse(&mut self, operation: u32, time_ns: i64) {
        set(&mut self.ended_ns, operation, time_ns);
        set(&mut self.outcomes, operation, Outcome::Refused);
    }

    /// Checks what must hold before anyone sees the rows.
    pub(super) fn finish(self, plan: &Plan) -> Self {
        let planned: usize = plan.stretches.iter().map(|stretch| stretch.end - stretch.first).sum();
        assert_eq!(planned, self.outcomes.len(), "every operation is in one stretch");
        self
    }

    /// Latencies from arrival, ns, of operations that succeeded, in their order.
    #[must_use]
    pub fn latencies_ns(&self) -> Vec<i64> {
        self.ok().map(|at| get(&self.ended_ns, at) - get(&self.arrived_ns, at)).collect()
    }

    fn ok(&self) -> impl Iterator<Item = usize> + '_ {
        let outcomes = self.outcomes.iter().enumerate();
        outcomes.filter(|(_, outcome)| **outcome == Outcome::Ok).map(|(at, _)| at)
    }

    pub(super) fn outcome(&self, at: usize) -> Outcome {
        self.outcomes.get(at).copied().unwrap_or(Outcome::NotBegun)
    }

    fn number(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().filter(|found| **found == outcome).count() as u64
    }

    /// BLAKE3 over the rows, in order of the operations.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut row = Vec::with_capacity(8 * (4 + 2 * self.stages.len()));
        for at in 0..self.outcomes.len() {
            row.clear();
            let outcome = self.outcomes.get(at).map_or(0, |outcome| *outcome as i64);
            let head = [&self.arrived_ns, &self.ended_ns, &self.first_token_ns];
            row.extend_from_slice(&outcome.to_le_bytes());
            let stages = self.served_ns.iter().chain(&self.service_ns);
            for column in head.into_iter().chain(stages) {
                row.extend_from_slice(&get(column, at).to_le_bytes());
            }
            hasher.update(&row);
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The sums.
    #[must_use]
    pub fn report(&self) -> SimulatedReport {
        let begun = || self.arrived_ns.iter().copied().filter(|time| *time != NEVER);
        let first = begun().min().unwrap_or(0);
        let last = self.ended_ns.iter().copied().max().unwrap_or(first);
        let span_ns = (last - first).max(0);
        let ok = self.number(Outcome::Ok);
        let first_tokens =
            self.ok().map(|at| get(&self.first_token_ns, at) - get(&self.arrived_ns, at)).collect();
        SimulatedReport {
            planned: self.outcomes.len() as u64,
            ok,
            error: 0,
            cancelled: self.number(Outcome::NotBegun) + self.number(Outcome::Running),
            refused: self.number(Outcome::Refused),
            digest: self.digest(),
            events: self.events,
            span_ns,
            throughput_per_s: if span_ns > 0 { ok as f64 / (span_ns as f64 / 1e9) } else { 0.0 },
            latency: Quantiles::of(self.latencies_ns()),
            first_token: Quantiles::of(first_tokens),
            stages: (0..self.stages.len()).map(|stage| self.stage_use(stage, span_ns)).collect(),
        }
    }

    fn stage_use(&self, stage: usize, span_ns: i64) -> StageUse {
        let empty = Vec::new();
        let served = self.served_ns.get(stage).unwrap_or(&empty);
        let service = self.service_ns.get(stage).unwrap_or(&empty);
        let was_served = |at: &usize| get(served, *at) != NEVER;
        // It came to this stage when it left the one before.
        let came = |at: usize| match stage.checked_sub(1) {
            None => get(&self.arrived_ns, at),
            Some(before) => {
                let column = |columns: &[Vec<i64>]| columns.get(before).map_or(0, |c| get(c, at));
                column(&self.served_ns) + column(&self.service_ns)
            }
        };
        let all = 0..self.outcomes.len();
        let waits = all.clone().filter(was_served).map(|at| get(served, at) - came(at)).collect();
        let services: Vec<i64> = all.filter(was_served).map(|at| get(service, at)).collect();
        let busy_ns: i128 = services.iter().map(|time| i128::from(*time)).sum();
        let slots = self.slots.get(stage).copied().flatten();
        let used = |slots: u32| busy_ns as f64 / (f64::from(slots) * span_ns as f64);
        StageUse {
            stage: self.stages.get(stage).cloned().unwrap_or_default(),
            slots,
            utilisation: slots.filter(|_| span_ns > 0).map(used),
            queue: Quantiles::of(waits),
            service: Quantiles::of(services),
        }
    }
}

fn set<T>(column: &mut [T], operation: u32, value: T) {
    if let Some(cell) = column.get_mut(operation as usize) {
        *cell = value;
    }
}

pub(super) fn get(column: &[i64], at: usize) -> i64 {
    column.get(at).copied().unwrap_or(NEVER)
}

/// A time that did not come.
pub(super) const NEVER: i64 = -1;
