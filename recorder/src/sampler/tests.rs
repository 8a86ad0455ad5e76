//! The sampler in a real run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use retake_schemas::event::RunStatus;
use retake_schemas::tables::MeasureRow;

use super::*;
use crate::reader::RunReader;
use crate::recorder::{Recorder, RecorderBuilder};
use crate::store::Store;

fn run() -> (tempfile::TempDir, Store, Recorder) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    (folder, store, recorder)
}

/// Finishes the run and gives what it measured.
fn measures(store: &Store, recorder: Recorder) -> Vec<MeasureRow> {
    let run_id = recorder.run_id().clone();
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    RunReader::open(store, &run_id).unwrap().rows().unwrap()
}

fn every(sample_ms: u64) -> SamplerSettings {
    SamplerSettings { sample_ms }
}

/// Scenario: a run with samples every 20 ms.
/// Guarantees: they are in the table `measures`, and are what a process can have.
#[test]
fn samples_are_recorded_and_plausible() {
    let (_folder, store, recorder) = run();
    let sampler = Sampler::start(recorder.dispatcher().clone(), every(20)).unwrap();
    assert!(sampler.is_running());
    std::thread::sleep(Duration::from_millis(700));
    drop(sampler);
    let rows = measures(&store, recorder);
    let values = |name: &str| -> Vec<f64> {
        let rows = rows.iter().filter(|row| row.name == name);
        rows.map(|row| row.value).collect()
    };
    let at_least = |name: &str, least: f64| {
        let values = values(name);
        assert!(values.len() >= 3, "{name}: {values:?}");
        assert!(values.iter().all(|value| *value >= least), "{name}: {values:?}");
    };
    at_least("system.memory.usage", 1.0);
    at_least("system.cpu.utilization", 0.0);
    assert!(values("system.cpu.utilization").iter().all(|share| (0.0..=1.0).contains(share)));
    if cfg!(target_os = "linux") {
        at_least("process.cpu.utilization", 0.0);
        at_least("process.memory.usage", (1 << 20) as f64);
        at_least("process.thread.count", 2.0);
        at_least("process.open_file_descriptor.count", 3.0);
        let now = values("process.memory.usage").into_iter().fold(0.0, f64::max);
        assert!(values("retake.process.memory.peak").last().is_some_and(|peak| *peak >= now));
    }
    let times: Vec<i64> = rows.iter().map(|row| row.time_unix_ns).collect();
    assert!(times.is_sorted());
}

/// Scenario: a command that is over long before the first interval is.
/// Guarantees: it has samples of its begin and its end, and does not wait for the interval.
#[test]
fn a_short_run_is_sampled_and_ends_at_once() {
    let (_folder, store, recorder) = run();
    let sampler = Sampler::start(recorder.dispatcher().clone(), every(3_600_000)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let stopping = Instant::now();
    drop(sampler);
    let stop_ms = stopping.elapsed().as_millis();
    assert!(stop_ms < 100, "stopping took {stop_ms} ms");
    let rows = measures(&store, recorder);
    let count = rows.iter().filter(|row| row.name == "system.memory.usage").count();
    assert_eq!(count, 2, "at the begin and at the end");
}

#[test]
fn an_interval_of_zero_takes_no_samples() {
    let (_folder, store, recorder) = run();
    let sampler = Sampler::start(recorder.dispatcher().clone(), every(0)).unwrap();
    assert!(!sampler.is_running());
    assert_eq!(measures(&store, recorder), []);
}

/// Scenario: the run is finished while its sampler still runs.
/// Guarantees: the sampler ends by itself instead of offering samples nobody takes.
#[test]
fn a_sampler_ends_with_its_run() {
    let (_folder, _store, recorder) = run();
    let sampler = Sampler::start(recorder.dispatcher().clone(), every(5)).unwrap();
    let _ = recorder.finish(RunStatus::Finished);
    let since = Instant::now();
    while sampler.is_running() && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!sampler.is_running());
}

/// A driver that hangs once, then answers.
struct Hanging {
    asked: Arc<AtomicUsize>,
}

impl Source for Hanging {
    fn sample(&mut self, samples: &mut Vec<Measured>) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(400));
        samples.push(measured("late", "1", 1.0));
    }
}

/// Scenario: a source hangs while the sampler is stopped.
/// Guarantees: stopping takes less than 100 ms, and the late answer is not recorded.
#[test]
fn a_source_that_hangs_does_not_hold_up_the_end() {
    let (_folder, store, recorder) = run();
    let asked = Arc::new(AtomicUsize::new(0));
    let source = Box::new(Hanging { asked: Arc::clone(&asked) });
    let dispatcher = recorder.dispatcher().clone();
    let running = Running::start(dispatcher, Duration::from_millis(10), vec![source]).unwrap();
    while asked.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let stopping = Instant::now();
    drop(running);
    let stop_ms = stopping.elapsed().as_millis();
    assert!(stop_ms < 100, "stopping took {stop_ms} ms");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(measures(&store, recorder), []);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Scenario: what one sample of all sources costs, without GPU.
/// Guarantees: less than 1 ms of CPU; the mean of many, because the machine has other work too.
#[test]
fn the_cost_of_a_sample() {
    // First number: time on a processor, ns.
    let cpu_us = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let ns = stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        ns.unwrap_or_default() as f64 / 1000.0
    };
    let mut samples = Vec::new();
    let mut cost_us = |source: &mut dyn Source| {
        source.sample(&mut samples);
        let before = cpu_us();
        for _ in 0..SAMPLES {
            source.sample(&mut samples);
        }
        (cpu_us() - before) / f64::from(SAMPLES)
    };
    let process_us = cost_us(&mut process::Process::default());
    let host_us = cost_us(&mut host::Host::default());
    println!("one sample, CPU: process {process_us:.0} us, host {host_us:.0} us");
    assert!(process_us + host_us < 1000.0, "process {process_us} us, host {host_us} us");
}

const SAMPLES: u32 = 100;
