//! Many settings at once, on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::engine::{Detail, SimulateError, simulate};
use super::model::Model;
use super::result::Simulation;
use crate::arrival::Arrival;
use crate::workload::Workload;

/// Simulates every setting; results stand in the order of the settings, whatever the threads did.
///
/// # Errors
/// The error of the first setting that cannot be simulated.
pub fn simulate_many(
    workload: &Workload,
    settings: &[(Model, Arrival)],
    detail: Detail,
    threads: usize,
) -> Result<Vec<Simulation>, SimulateError> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Simulation, SimulateError>>>> =
        settings.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let (Some((model, arrival)), Some(result)) =
                (settings.get(position), results.get(position))
            else {
                return;
            };
            *result.lock() = Some(simulate(workload, model, *arrival, detail));
        }
    };
    std::thread::scope(|scope| {
        for number in 1..threads {
            let name = format!("retake-simulate-{number}");
            // Without the thread the others do its share.
            let _ = std::thread::Builder::new().name(name).spawn_scoped(scope, work);
        }
        work();
    });
    results.into_iter().filter_map(Mutex::into_inner).collect()
}
