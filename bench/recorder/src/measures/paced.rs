//! Paced: how long a whole request of 12 spans takes at a fixed rate while files are written.
//!
//! The thread spins to absolute due times, so a slow request delays the next and is seen as such
//! (`behind_percent`), instead of silently lowering the rate.

use std::hint::spin_loop;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Effort;
use crate::case::Case;
use crate::error::BenchError;
use crate::reading::Reading;
use crate::tracer::{Pressure, Setup, Sink, install};
use crate::work::{Request, SPANS_PER_REQUEST};

/// Paces requests on this thread.
///
/// # Errors
/// The variant cannot be started or finished.
pub(super) fn measure(case: Case, effort: Effort, folder: &Path) -> Result<Reading, BenchError> {
    let setup =
        Setup { folder, sink: Sink::File, pressure: Pressure::Default, sync_ms: case.sync_ms };
    let tracer = install(case.variant, &setup)?;
    let request = tracer.request();
    for i in 0..WARM_UP_REQUESTS {
        request(i);
    }
    let requests = (effort.load_secs * (SPANS_PER_S / SPANS_PER_REQUEST) as f64) as u64;
    let paced = pace(&request, requests)?;
    let kept = tracer.finish()?;
    let mut reading = paced.reading();
    if let Some(dropped) = kept.dropped {
        reading.put("dropped", dropped as f64);
    }
    if let Some(spans) = kept.spans {
        let made = (requests + WARM_UP_REQUESTS) * SPANS_PER_REQUEST;
        reading.put("lost_percent", 100.0 * (1.0 - spans as f64 / made as f64));
    }
    Ok(reading)
}

struct Paced {
    latency_ns: Histogram<u64>,
    behind: u64,
}

fn pace(request: &Request, requests: u64) -> Result<Paced, BenchError> {
    let mut paced = Paced { latency_ns: histogram()?, behind: 0 };
    let period_ns = SPANS_PER_REQUEST * 1_000_000_000 / SPANS_PER_S;
    let started = Instant::now();
    for i in 0..requests {
        let due = started + Duration::from_nanos(i * period_ns);
        let mut now = Instant::now();
        if now >= due + Duration::from_nanos(period_ns) {
            paced.behind += 1;
        }
        while now < due {
            spin_loop();
            now = Instant::now();
        }
        request(i);
        let latency_ns = u64::try_from(now.elapsed().as_nanos()).unwrap_or(u64::MAX);
        paced.latency_ns.saturating_record(latency_ns);
    }
    Ok(paced)
}

impl Paced {
    fn reading(&self) -> Reading {
        let mut reading = Reading::default();
        for (figure, share) in QUANTILES {
            let latency_ns = self.latency_ns.value_at_quantile(share);
            reading.put(figure, latency_ns as f64 / 1000.0);
        }
        let requests = self.latency_ns.len().max(1) as f64;
        reading.put("behind_percent", 100.0 * self.behind as f64 / requests);
        reading
    }
}

/// Three digits from 1 ns to a minute; anything longer is recorded as a minute.
fn histogram() -> Result<Histogram<u64>, BenchError> {
    Ok(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?)
}

/// Rate of the recorded spans.
const SPANS_PER_S: u64 = 200_000;
/// Requests before the measured ones: callsites, page tables, first files.
const WARM_UP_REQUESTS: u64 = 2000;
const LATENCY_NS_MAX: u64 = 60_000_000_000;
const QUANTILES: [(&str, f64); 5] =
    [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999), ("p9999_us", 0.9999), ("max_us", 1.0)];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Scenario: a request that takes a tenth of its period.
    #[test]
    fn requests_keep_to_their_due_times() {
        let request: Request = Arc::new(|_| std::thread::sleep(Duration::from_micros(5)));
        let started = Instant::now();
        let paced = pace(&request, 50).unwrap();
        assert!(started.elapsed() >= Duration::from_micros(49 * 60));
        let p50_us = paced.reading().get("p50_us").unwrap();
        assert!(p50_us >= 5.0, "p50 {p50_us}");
    }
}
