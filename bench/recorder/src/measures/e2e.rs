//! End to end: realistic requests as fast as possible until they are in files.
//!
//! The clock stops when finishing has returned, so a backlog is paid for. What counts is what is
//! in the files; what a tracer lost on the way is reported beside it.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Effort;
use crate::case::Case;
use crate::cpu::{process_cpu_ns, thread_cpu_ns};
use crate::error::BenchError;
use crate::reading::Reading;
use crate::tracer::{Kept, Pressure, Setup, Sink, install};
use crate::work::{Request, SPANS_PER_REQUEST};

/// Runs the load on the case's threads.
///
/// # Errors
/// The variant cannot be started or finished, or a thread cannot be started.
pub(super) fn measure(case: Case, effort: Effort, folder: &Path) -> Result<Reading, BenchError> {
    let setup =
        Setup { folder, sink: Sink::File, pressure: Pressure::Block, sync_ms: case.sync_ms };
    let tracer = install(case.variant, &setup)?;
    let request = tracer.request();
    let process_before_ns = process_cpu_ns();
    let started = Instant::now();
    let made = produce(&request, case.threads, Duration::from_secs_f64(effort.load_secs))
        .map_err(BenchError::io("start application threads of", folder))?;
    let kept = tracer.finish()?;
    let total = Total {
        made,
        kept,
        wall_secs: started.elapsed().as_secs_f64(),
        process_cpu_ns: process_cpu_ns() - process_before_ns,
    };
    Ok(total.reading())
}

/// What application threads did.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    spans: u64,
    cpu_ns: u64,
}

/// Requests on `threads` threads until `duration` is over.
fn produce(request: &Request, threads: u32, duration: Duration) -> io::Result<Made> {
    thread::scope(|scope| {
        let handles = (0..threads)
            .map(|number| {
                let name = format!("app-{number}");
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, || one_thread(request, duration))
            })
            .collect::<io::Result<Vec<_>>>()?;
        handles.into_iter().try_fold(Made::default(), |sum, handle| {
            let made =
                handle.join().map_err(|_| io::Error::other("an application thread panicked"))?;
            Ok(Made { spans: sum.spans + made.spans, cpu_ns: sum.cpu_ns + made.cpu_ns })
        })
    })
}

fn one_thread(request: &Request, duration: Duration) -> Made {
    let started = Instant::now();
    let before_ns = thread_cpu_ns();
    let mut requests = 0;
    while started.elapsed() < duration {
        for _ in 0..REQUESTS_PER_CLOCK_READ {
            request(requests);
            requests += 1;
        }
    }
    Made { spans: requests * SPANS_PER_REQUEST, cpu_ns: thread_cpu_ns() - before_ns }
}

struct Total {
    made: Made,
    kept: Kept,
    wall_secs: f64,
    process_cpu_ns: u64,
}

impl Total {
    fn reading(&self) -> Reading {
        let made = self.made.spans.max(1) as f64;
        let mut reading = Reading::default();
        reading.put("spans_made", self.made.spans as f64);
        reading.put("wall_secs", self.wall_secs);
        reading.put("app_cpu_ns_per_span", self.made.cpu_ns as f64 / made);
        let background_ns = self.process_cpu_ns.saturating_sub(self.made.cpu_ns);
        reading.put("background_cpu_ns_per_span", background_ns as f64 / made);
        if let Some(dropped) = self.kept.dropped {
            reading.put("dropped", dropped as f64);
        }
        if let Some(kept) = self.kept.spans {
            reading.put("spans_kept", kept as f64);
            reading.put("spans_per_s", kept as f64 / self.wall_secs);
            reading.put("lost_percent", 100.0 * (1.0 - kept as f64 / made));
            if let Some(bytes) = self.kept.bytes {
                reading.put("bytes_per_span", bytes as f64 / kept.max(1) as f64);
            }
        }
        reading
    }
}

/// Keeps the clock below 1 % of the work of the cheapest variant.
const REQUESTS_PER_CLOCK_READ: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a tracer that lost a quarter of four million spans in two seconds.
    #[test]
    fn only_what_is_in_files_counts_as_throughput() {
        let total = Total {
            made: Made { spans: 4_000_000, cpu_ns: 400_000_000 },
            kept: Kept { spans: Some(3_000_000), bytes: Some(60_000_000), dropped: None },
            wall_secs: 2.0,
            process_cpu_ns: 1_200_000_000,
        };
        let reading = total.reading();
        assert_eq!(reading.get("spans_per_s"), Some(1_500_000.0));
        assert_eq!(reading.get("lost_percent"), Some(25.0));
        assert_eq!(reading.get("background_cpu_ns_per_span"), Some(200.0));
        assert_eq!(reading.get("bytes_per_span"), Some(20.0));
        assert_eq!(reading.get("dropped"), None);
    }
}
