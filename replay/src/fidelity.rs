//! How true a replay was to its schedule, and whether its numbers may be used.
//!
//! A replay on a machine that was too busy to fire on time says INVALID instead of reporting
//! wrong numbers (the habit of MLPerf's LoadGen).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Errors of firing (fired minus due) and what disturbed it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Fidelity {
    /// Operations that had a due time.
    pub scheduled: u64,
    /// Median of fired minus due, ns.
    pub fire_error_p50_ns: i64,
    /// 99th percentile of fired minus due, ns.
    pub fire_error_p99_ns: i64,
    /// Largest fired minus due, ns.
    pub fire_error_max_ns: i64,
    /// Share of operations fired more than 5 ms late.
    pub late_share: f64,
    /// Longest time an idle thread of this process was not scheduled although it should have
    /// been, ns: the machine's own stalls.
    pub canary_stall_max_ns: i64,
}

impl Fidelity {
    /// Sums up fire errors (ns); an empty list is a replay without a schedule.
    #[must_use]
    pub fn of(mut fire_errors_ns: Vec<i64>, canary_stall_max_ns: i64) -> Self {
        fire_errors_ns.sort_unstable();
        let late = fire_errors_ns.iter().filter(|error| **error > LATE_NS).count();
        let count = fire_errors_ns.len();
        Self {
            scheduled: count as u64,
            fire_error_p50_ns: nearest_rank(&fire_errors_ns, 0.50),
            fire_error_p99_ns: nearest_rank(&fire_errors_ns, 0.99),
            fire_error_max_ns: fire_errors_ns.last().copied().unwrap_or(0),
            late_share: if count == 0 { 0.0 } else { late as f64 / count as f64 },
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

/// The value at rank ceil(q*n) of a sorted list; 0 for an empty one.
fn nearest_rank(sorted: &[i64], q: f64) -> i64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
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
/// Short enough to see stalls of a scheduler's time slice.
const CANARY_PERIOD: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_replays_are_objected_to() {
        let good = Fidelity::of((0..1000).collect(), 0);
        assert_eq!((good.fire_error_p50_ns, good.fire_error_p99_ns), (499, 989));
        assert_eq!(good.objection(), None);
        assert!(Fidelity::of(vec![2_000_000; 100], 0).objection().is_some());
        let mut few_late = vec![0; 500];
        few_late.extend([9_000_000; 1]);
        assert!(Fidelity::of(few_late, 0).objection().is_some());
        assert_eq!(Fidelity::of(Vec::new(), 0).objection(), None);
    }
}
