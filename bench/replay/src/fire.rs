//! How late requests are fired: retake's engine beside tokio's timers, on the same schedules, and
//! beside asyncio, the pacing of load generators in Python (`asyncio_pacing.py`), on one of its kind.
//!
//! The error is measured where the request would be written: at the first poll of its task. The
//! schedules are Poisson, seeded; `interval` can only fire at a constant rate and gets one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use retake_replay::engine::{Arrival, ReplayOptions, replay};
use retake_replay::rng::Rng;
use retake_replay::target::{Operation, OperationContext, Target, TargetError};
use retake_replay::workload::Workload;
use retake_replay::workload::import::{ImportOptions, import};
use tokio::runtime::Runtime;

use crate::Row;

const AZURE: &str = "azure-llm-2023/AzureLLMInferenceTrace_conv.csv.gz";
const RATES: [u32; 3] = [100, 1_000, 5_000];
const VARIANTS: [&str; 5] = [
    "retake",
    "tokio: a task and sleep_until each",
    "tokio: a loop of sleep_until",
    "tokio: interval",
    "asyncio: a loop of sleep",
];

/// Errors of a schedule, us.
struct Errors {
    p50: f64,
    p99: f64,
    /// Share of a core the process used.
    cores: f64,
}

pub(crate) fn rows(rounds: usize, secs: f64) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    for rate in RATES {
        let mut found: Vec<Vec<Errors>> = VARIANTS.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for turn in 0..VARIANTS.len() {
                let variant = (turn + round) % VARIANTS.len();
                let schedule = schedule(rate, secs, round as u64, variant == 3);
                found[variant].extend(match variant {
                    // Without a Python its rows are empty.
                    4 => asyncio(rate, secs, round as u64),
                    _ => Some(run(variant, &schedule)?),
                });
            }
        }
        for (name, errors) in VARIANTS.iter().zip(&found) {
            let of = |pick: fn(&Errors) -> f64| errors.iter().map(pick).collect::<Vec<f64>>();
            let mut p50 = Row::new(format!("{rate}/s fire error p50, {name}"), "us", of(|e| e.p50));
            let mut p99 = Row::new(format!("{rate}/s fire error p99, {name}"), "us", of(|e| e.p99));
            if *name == "retake" {
                (p50.bar, p99.bar) = (Some(Ok(2.0)), Some(Ok(100.0)));
                let peer = |pick: fn(&Errors) -> f64| {
                    crate::median(&found[1].iter().map(pick).collect::<Vec<f64>>())
                };
                p50.peer = peer(|e| e.p50).map(|value| (VARIANTS[1], value));
                p99.peer = peer(|e| e.p99).map(|value| (VARIANTS[1], value));
            }
            rows.extend([p50, p99]);
            rows.push(Row::new(format!("{rate}/s cores, {name}"), "cores", of(|e| e.cores)));
        }
    }
    Ok(rows)
}

/// Ten minutes of Azure's conversations at three speeds into a target that answers at once: what the
/// replay itself reports.
pub(crate) fn window_rows(data: Option<&Path>) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let path = data.map(|data| data.join(AZURE)).filter(|path| path.exists());
    let Some(path) = path else {
        let mut row = Row::new("Azure, 600 s", "us", Vec::new());
        row.why = Some(format!("not there: give --data DIR with {AZURE}"));
        return Ok(vec![row]);
    };
    let (whole, _) = import(&[path], ImportOptions::default())?;
    let workload = Arc::new(whole.window(0, 600 * 1_000_000_000));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    for speed in [100.0, 10.0, 1.0] {
        let target: Arc<dyn Target> = Arc::new(Noting::default());
        let options = options(Arrival::Open { speed });
        let report = runtime.block_on(replay(&workload, &target, &options, &|_| {}))?;
        let fidelity = &report.fidelity;
        let mut add = |what: &str, ns: f64, bar: Option<f64>| {
            let name = format!("Azure, 600 s at {speed}x, {} operations: {what}", report.ok);
            let mut row = Row::new(name, "us", vec![ns / 1e3]);
            row.bar = bar.map(Ok);
            rows.push(row);
        };
        add("fire error p50", fidelity.fire_error_p50_ns as f64, Some(2.0));
        add("fire error p99", fidelity.fire_error_p99_ns as f64, Some(100.0));
        add("gaps off by, mean", fidelity.gap_error_mean_ns, Some(10.0));
        add("longest stall of the canary", fidelity.canary_stall_max_ns as f64, None);
        println!("{speed}x: {}", report.objection.as_deref().unwrap_or("VALID"));
    }
    Ok(rows)
}

fn options(arrival: Arrival) -> ReplayOptions {
    ReplayOptions { arrival, cassette: None, cancellation: Default::default() }
}

/// The same from Python.
fn asyncio(rate: u32, secs: f64, seed: u64) -> Option<Errors> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/asyncio_pacing.py");
    let words = [script.to_owned(), rate.to_string(), secs.to_string(), seed.to_string()];
    let output = std::process::Command::new("python3").args(words).output().ok()?;
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let number = |name: &str| found[name].as_f64();
    Some(Errors { p50: number("p50")?, p99: number("p99")?, cores: number("cores")? })
}

/// Times after the start.
fn schedule(rate: u32, secs: f64, seed: u64, is_even: bool) -> Vec<Duration> {
    let mut rng = Rng::new(seed);
    let count = (f64::from(rate) * secs) as u32;
    let mut at = 0.0;
    (0..count)
        .map(|_| {
            at += if is_even { 1.0 } else { rng.exponential() } / f64::from(rate);
            Duration::from_secs_f64(at)
        })
        .collect()
}

fn run(variant: usize, schedule: &[Duration]) -> Result<Errors, Box<dyn std::error::Error>> {
    // A runtime of its own, as a program has: no task of the variant before is left in it.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (busy_before, began) = (cpu_seconds(), Instant::now());
    let mut errors = match variant {
        0 => ours(&runtime, schedule)?,
        1 => tasks(&runtime, schedule),
        2 => one_loop(&runtime, schedule),
        _ => interval(&runtime, schedule),
    };
    let cores = (cpu_seconds() - busy_before) / began.elapsed().as_secs_f64();
    errors.sort_by(f64::total_cmp);
    let at = |q: f64| errors.get((q * errors.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    Ok(Errors { p50: at(0.50), p99: at(0.99), cores })
}

fn ours(runtime: &Runtime, schedule: &[Duration]) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let operation = |(index, due): (usize, &Duration)| Operation {
        index: index as u64,
        kind: "query".to_owned(),
        due_ns: due.as_nanos() as i64,
        ..Operation::default()
    };
    let operations = schedule.iter().enumerate().map(operation).collect();
    let workload = Arc::new(Workload { operations, stamp_resolution_ns: 1, ..Workload::default() });
    let noting = Arc::new(Noting::default());
    let target: Arc<dyn Target> = Arc::clone(&noting) as Arc<dyn Target>;
    let options = options(Arrival::Open { speed: 1.0 });
    runtime.block_on(replay(&workload, &target, &options, &|_| {}))?;
    let errors = noting.0.lock().map(|mut errors| std::mem::take(&mut *errors));
    Ok(errors.unwrap_or_default())
}

/// Notes how late it is called, and does nothing else: what is left is the firing.
#[derive(Default)]
struct Noting(Mutex<Vec<f64>>);

#[async_trait]
impl Target for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::new()
    }

    fn waits_on_io(&self) -> bool {
        true
    }

    async fn execute(&self, _: &Operation, context: &OperationContext) -> Result<(), TargetError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ns = now.map_or(0, |since| since.as_nanos() as i64);
        if let Ok(mut errors) = self.0.lock() {
            errors.push((now_ns - context.due_unix_ns) as f64 / 1e3);
        }
        Ok(())
    }
}

fn tasks(runtime: &Runtime, schedule: &[Duration]) -> Vec<f64> {
    runtime.block_on(async {
        let origin = tokio::time::Instant::now() + LEAD;
        let tasks: Vec<_> = schedule
            .iter()
            .map(|due| {
                let due = origin + *due;
                tokio::spawn(async move {
                    tokio::time::sleep_until(due).await;
                    late_us(due)
                })
            })
            .collect();
        let mut errors = Vec::with_capacity(tasks.len());
        for task in tasks {
            errors.extend(task.await);
        }
        errors
    })
}

fn one_loop(runtime: &Runtime, schedule: &[Duration]) -> Vec<f64> {
    runtime.block_on(async {
        let origin = tokio::time::Instant::now() + LEAD;
        let mut tasks = Vec::with_capacity(schedule.len());
        for due in schedule {
            let due = origin + *due;
            tokio::time::sleep_until(due).await;
            tasks.push(tokio::spawn(async move { late_us(due) }));
        }
        let mut errors = Vec::with_capacity(tasks.len());
        for task in tasks {
            errors.extend(task.await);
        }
        errors
    })
}

fn interval(runtime: &Runtime, schedule: &[Duration]) -> Vec<f64> {
    let Some(gap) = schedule.first().copied() else { return Vec::new() };
    runtime.block_on(async {
        let origin = tokio::time::Instant::now() + LEAD;
        let mut ticks = tokio::time::interval_at(origin, gap);
        let mut tasks = Vec::with_capacity(schedule.len());
        for _ in schedule {
            let due = ticks.tick().await;
            tasks.push(tokio::spawn(async move { late_us(due) }));
        }
        let mut errors = Vec::with_capacity(tasks.len());
        for task in tasks {
            errors.extend(task.await);
        }
        errors
    })
}

fn late_us(due: tokio::time::Instant) -> f64 {
    due.elapsed().as_secs_f64() * 1e6
}

/// User and system time of this process; clock ticks of Linux are hundredths of a second.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = after_name.split(' ').skip(11).take(2).filter_map(|word| word.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// So that starting does not count as being late.
const LEAD: Duration = Duration::from_millis(5);
