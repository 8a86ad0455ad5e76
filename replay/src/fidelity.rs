//! How true a replay was to its schedule, and whether its numbers may be used.
//!
//! A replay on a machine that was too busy to fire on time says INVALID instead of reporting
//! wrong numbers (the habit of MLPerf's LoadGen).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::quantile::nearest_rank;

/// Errors of firing (fired minus due) and what disturbed it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Fidelity {
    /// Operations that had a due time.
    pub scheduled: u64,
    /// Smallest fired minus due, ns. Below 0 would be too early, which never happens.
    pub fire_error_min_ns: i64,
    /// Median of fired minus due, ns.
    pub fire_error_p50_ns: i64,
    /// 99th percentile of fired minus due, ns.
    pub fire_error_p99_ns: i64,
    /// Largest fired minus due, ns.
    pub fire_error_max_ns: i64,
    /// Share of operations fired more than 5 ms late.
    pub late_share: f64,
    /// Wasserstein-1 distance between the gaps that were due and those that were fired, ns: how far
    /// the gaps are off on average, sorted by length.
    pub gap_error_mean_ns: f64,
    /// Longest time an idle thread of this process was not scheduled although it should have
    /// been, ns: the machine's own stalls.
    pub canary_stall_max_ns: i64,
}

/// When an operation was due and when it was fired, ns since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// When it was due.
    pub due_unix_ns: i64,
    /// When it was fired.
    pub fired_unix_ns: i64,
}

impl Fidelity {
    /// Sums timings up; an empty list is a replay without a schedule.
    #[must_use]
    pub fn of(timings: Vec<Timing>, canary_stall_max_ns: i64) -> Self {
        let mut errors_ns: Vec<i64> =
            timings.iter().map(|timing| timing.fired_unix_ns - timing.due_unix_ns).collect();
        errors_ns.sort_unstable();
        let late = errors_ns.iter().filter(|error| **error > LATE_NS).count();
        let count = errors_ns.len();
        let due = timings.iter().map(|timing| timing.due_unix_ns).collect();
        let fired = timings.iter().map(|timing| timing.fired_unix_ns).collect();
        Self {
            scheduled: count as u64,
            fire_error_min_ns: errors_ns.first().copied().unwrap_or(0),
            fire_error_p50_ns: nearest_rank(&errors_ns, 0.50).unwrap_or(0),
            fire_error_p99_ns: nearest_rank(&errors_ns, 0.99).unwrap_or(0),
            fire_error_max_ns: errors_ns.last().copied().unwrap_or(0),
            late_share: if count == 0 { 0.0 } else { late as f64 / count as f64 },
            gap_error_mean_ns: wasserstein(&gaps(due), &gaps(fired)),
            canary_stall_max_ns,
        }
    }

    /// Why the replay's timing must not be used, if so.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        if self.fire_error_p99_ns > FIRE_ERROR_P99_MAX_NS {
            let p99 = Duration::from_nanos(self.fire_error_p99_ns.unsigned_abs());
            return Some(format!("p99 of fired - due is {p99:?}, more than 1 ms"));
        }
        if self.late_share > LATE_SHARE_MAX {
            let percent = self.late_share * 100.0;
            return Some(format!("{percent:.1} % of operations fired more than 5 ms late"));
        }
        None
    }
}

/// Why a replay must not be used whose latency is worse from the due time than from the send time
/// at the 99th percentile (both ns): the client held requests back, and a reader of the second
/// number would not know (coordinated omission).
#[must_use]
pub fn client_delay(from_due_p99_ns: i64, from_send_p99_ns: i64) -> Option<String> {
    let delay_ns = from_due_p99_ns - from_send_p99_ns;
    let is_large = delay_ns as f64 > CLIENT_DELAY_SHARE_MAX * from_send_p99_ns as f64;
    (is_large && delay_ns > FIRE_ERROR_P99_MAX_NS).then(|| {
        let delay = Duration::from_nanos(delay_ns.unsigned_abs());
        format!("the client held requests back: p99 of latency is {delay:?} more from due than from send")
    })
}

/// Distances between neighbours in time, sorted by length.
fn gaps(mut times: Vec<i64>) -> Vec<i64> {
    times.sort_unstable();
    let mut gaps: Vec<i64> =
        times.windows(2).filter_map(|pair| Some(pair.get(1)? - pair.first()?)).collect();
    gaps.sort_unstable();
    gaps
}

/// Wasserstein-1 distance of two sorted samples of one size.
fn wasserstein(one: &[i64], other: &[i64]) -> f64 {
    let sum: i128 = one.iter().zip(other).map(|(a, b)| i128::from((a - b).abs())).sum();
    if one.is_empty() { 0.0 } else { sum as f64 / one.len() as f64 }
}

/// A thread that sleeps a millisecond at a time and notes the longest it overslept.
#[derive(Debug)]
pub(crate) struct Canary {
    stop: Arc<AtomicBool>,
    stall_max_ns: Arc<AtomicI64>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stall_max_ns = Arc::new(AtomicI64::new(0));
        let thread = std::thread::Builder::new()
            .name("retake-canary".to_owned())
            .spawn({
                let (stop, stall) = (Arc::clone(&stop), Arc::clone(&stall_max_ns));
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        let before = Instant::now();
                        std::thread::sleep(CANARY_PERIOD);
                        let over = before.elapsed().saturating_sub(CANARY_PERIOD);
                        let over_ns = i64::try_from(over.as_nanos()).unwrap_or(i64::MAX);
                        stall.fetch_max(over_ns, Ordering::Relaxed);
                    }
                }
            })
            // Without a canary the fire errors still tell.
            .ok();
        Self { stop, stall_max_ns, thread }
    }

    pub(crate) fn stop(mut self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.stall_max_ns.load(Ordering::Relaxed)
    }
}

/// Later than this is late by any standard of LLM serving.
const LATE_NS: i64 = 5_000_000;
/// Largest share of late operations in a valid replay.
const LATE_SHARE_MAX: f64 = 0.001;
/// Largest p99 of fired minus due in a valid replay.
const FIRE_ERROR_P99_MAX_NS: i64 = 1_000_000;
/// Largest share of the latency's p99 that may be the client's own delay.
const CLIENT_DELAY_SHARE_MAX: f64 = 0.01;
/// Short enough to see stalls of a scheduler's time slice.
const CANARY_PERIOD: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// One operation each millisecond, late by these.
    fn late_by(errors_ns: impl IntoIterator<Item = i64>) -> Fidelity {
        let timing = |(n, error_ns): (i64, i64)| Timing {
            due_unix_ns: n * 1_000_000,
            fired_unix_ns: n * 1_000_000 + error_ns,
        };
        Fidelity::of((0..).zip(errors_ns).map(timing).collect(), 0)
    }

    #[test]
    fn late_replays_are_objected_to() {
        let good = late_by(0..1000);
        assert_eq!((good.fire_error_p50_ns, good.fire_error_p99_ns), (499, 989));
        assert_eq!(good.objection(), None);
        assert!((good.gap_error_mean_ns - 1.0).abs() < 1e-9, "each gap is 1 ns longer");
        assert!(late_by([2_000_000; 100]).objection().is_some());
        let mut few_late = vec![0; 500];
        few_late.extend([9_000_000; 1]);
        assert!(late_by(few_late).objection().is_some());
        assert_eq!(late_by([]).objection(), None);
    }

    /// Scenario: a client waits for a free connection before it sends.
    /// Guarantees: latency from send looks fine, and the replay is invalid all the same.
    #[test]
    fn requests_held_back_by_the_client_make_a_replay_invalid() {
        assert!(client_delay(1_990_000_000, 120_000_000).is_some());
        assert_eq!(client_delay(120_900_000, 120_000_000), None, "less than 1 %");
        assert_eq!(client_delay(900_000, 100_000), None, "less than a millisecond");
    }
}
