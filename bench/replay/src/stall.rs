//! Coordinated omission: a service that stands still for two seconds, asked by an open and by a
//! closed loop (60 requests a second, 12 slots of 120 ms, as in the design's own measurement).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use retake_replay::engine::{Arrival, ReplayOptions, replay};
use retake_replay::rng::Rng;
use retake_replay::target::{Operation, OperationContext, Target, TargetError};
use retake_replay::workload::Workload;
use tokio::sync::Semaphore;

use crate::Row;

struct Freezing {
    slots: Semaphore,
    began: Instant,
}

#[async_trait]
impl Target for Freezing {
    fn name(&self) -> &str {
        "freezing"
    }

    fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::new()
    }

    async fn execute(&self, _: &Operation, _: &OperationContext) -> Result<(), TargetError> {
        let _slot = self.slots.acquire().await.map_err(|_| TargetError::Cancelled)?;
        let now = self.began.elapsed();
        if now + SERVICE > FREEZE_BEGINS && now < FREEZE_ENDS {
            tokio::time::sleep(FREEZE_ENDS - now).await;
        }
        tokio::time::sleep(SERVICE).await;
        Ok(())
    }
}

pub(crate) fn rows() -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut rng = Rng::new(1);
    let mut at = 0.0;
    let operations = (0..600)
        .map(|index| {
            at += rng.exponential() / 60.0;
            let (kind, due_ns) = ("query".to_owned(), (at * 1e9) as i64);
            Operation { index, kind, due_ns, ..Operation::default() }
        })
        .collect();
    let workload = Arc::new(Workload { operations, stamp_resolution_ns: 1, ..Workload::default() });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    for (name, arrival) in [
        ("open loop", Arrival::Open { speed: 1.0 }),
        ("16 closed clients", Arrival::Closed { concurrency: 16 }),
    ] {
        let target: Arc<dyn Target> =
            Arc::new(Freezing { slots: Semaphore::new(12), began: Instant::now() });
        let options = ReplayOptions { arrival, cassette: None, cancellation: Default::default() };
        let report = runtime.block_on(replay(&workload, &target, &options, &|_| {}))?;
        for (from, found) in
            [("due", &report.latency_from_due), ("send", &report.latency_from_send)]
        {
            for (quantile, ns) in
                [("p50", found.p50_ns), ("p90", found.p90_ns), ("p99", found.p99_ns)]
            {
                let goal = format!("2 s freeze, {name}: latency from {from} {quantile}");
                rows.push(Row::new(goal, "ms", vec![ns as f64 / 1e6]));
            }
        }
    }
    Ok(rows)
}

const SERVICE: Duration = Duration::from_millis(120);
const FREEZE_BEGINS: Duration = Duration::from_secs(3);
const FREEZE_ENDS: Duration = Duration::from_secs(5);
