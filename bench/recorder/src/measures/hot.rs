//! Hot path: ns per span and per event on the instrumented thread.
//!
//! Many short samples rather than one long one: an interruption spoils a sample, not the result.

use std::path::Path;
use std::time::Instant;

use super::Effort;
use crate::case::Case;
use crate::error::BenchError;
use crate::reading::Reading;
use crate::stats::{median, quantile};
use crate::tracer::{Pressure, Setup, Sink, install};
use crate::work::Load;

/// Measures every load of the case's variant.
///
/// # Errors
/// The variant cannot be started, or its background work failed.
pub(super) fn measure(case: Case, effort: Effort, folder: &Path) -> Result<Reading, BenchError> {
    let setup =
        Setup { folder, sink: Sink::Least, pressure: Pressure::Default, sync_ms: case.sync_ms };
    let mut tracer = install(case.variant, &setup)?;
    let mut reading = Reading::default();
    for mut load in tracer.loads() {
        let samples = sample(&mut load, effort.samples, || tracer.settle())?;
        put_quantiles(&mut reading, load.figure, &samples);
    }
    if let Some(dropped) = tracer.finish()?.dropped {
        reading.put("dropped", dropped as f64);
    }
    Ok(reading)
}

/// Times `load` again and again; `between` runs after every sample and is not timed.
pub(super) fn sample(
    load: &mut Load,
    samples: usize,
    mut between: impl FnMut() -> Result<(), BenchError>,
) -> Result<Vec<f64>, BenchError> {
    let calls = (UNITS_PER_SAMPLE / load.per_call).max(1);
    let mut first_call = 0;
    let mut measured = Vec::with_capacity(samples);
    for number in 0..WARM_UP_SAMPLES + samples {
        let started = Instant::now();
        for call in first_call..first_call + calls {
            (load.run)(call);
        }
        let elapsed_ns = started.elapsed().as_nanos() as f64;
        first_call += calls;
        if number >= WARM_UP_SAMPLES {
            measured.push(elapsed_ns / (calls * load.per_call) as f64);
        }
        between()?;
    }
    Ok(measured)
}

/// Puts the median, and the tenth and ninetieth percentile, under `figure`.
pub(super) fn put_quantiles(reading: &mut Reading, figure: &str, samples: &[f64]) {
    if let Some(middle) = median(samples) {
        reading.put(figure, middle);
    }
    for (suffix, share) in [("p10", 0.1), ("p90", 0.9)] {
        if let Some(value) = quantile(samples, share) {
            reading.put(format!("{figure}_{suffix}"), value);
        }
    }
}

/// Spans or events in a sample: some milliseconds, below a scheduler's time slice for most.
const UNITS_PER_SAMPLE: u64 = 20_000;
/// Samples that only warm caches, callsites and page tables.
const WARM_UP_SAMPLES: usize = 3;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Scenario: a load that counts its calls.
    #[test]
    fn calls_are_numbered_without_a_gap_and_warm_up_is_not_reported() {
        let next = Rc::new(Cell::new(0));
        let seen = Rc::clone(&next);
        let mut load = Load::new("x_ns", 1000, move |i| {
            assert_eq!(i, seen.get());
            seen.set(i + 1);
        });
        let samples = sample(&mut load, 2, || Ok(())).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(next.get(), 20 * (WARM_UP_SAMPLES as u64 + 2));
    }
}
