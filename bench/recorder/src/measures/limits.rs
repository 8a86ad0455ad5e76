//! What the building bricks of any recorder cost on this machine, to read ratios by.
//!
//! A span needs two clock reads. Where one costs 28 ns, no design gets a span below 56 ns; where
//! the cycle counter costs 11 ns, 25 ns are in reach.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::Effort;
use super::hot::{put_quantiles, sample};
use crate::reading::Reading;
use crate::work::Load;

/// Measures all of them.
pub(super) fn measure(effort: Effort) -> Reading {
    let mut reading = Reading::default();
    for mut load in clocks().into_iter().chain(memory()) {
        // Nothing runs between these samples, so nothing can fail.
        if let Ok(samples) = sample(&mut load, effort.samples, || Ok(())) {
            put_quantiles(&mut reading, load.figure, &samples);
        }
    }
    reading
}

fn clocks() -> Vec<Load> {
    let counter = quanta::Clock::new();
    vec![
        repeated("cycle_counter_minstant_ns", |_| minstant::Instant::now()),
        repeated("cycle_counter_quanta_ns", move |_| counter.raw()),
        repeated("instant_now_ns", |_| Instant::now()),
        repeated("system_time_now_ns", |_| SystemTime::now()),
        repeated("coarse_clock_ns", |_| clock_gettime(ClockId::MonotonicCoarse)),
    ]
}

fn memory() -> Vec<Load> {
    let counter = AtomicU64::new(0);
    let lock = Mutex::new(0_u64);
    let record = [7_u8; RECORD_BYTES];
    // Written once, so that no first touch of a page is measured.
    let mut ring = vec![1_u8; RING_BYTES];
    let mut at = 0;
    vec![
        repeated("atomic_add_ns", move |i| counter.fetch_add(i, Ordering::Relaxed)),
        repeated("mutex_ns", move |i| lock.lock().map(|mut guarded| *guarded = i).is_ok()),
        repeated("box_64_bytes_ns", |i| Box::new([i; 8])),
        repeated("append_128_bytes_ns", move |_| {
            if let Some(slot) = ring.get_mut(at..at + RECORD_BYTES) {
                slot.copy_from_slice(&record);
                black_box(slot);
            }
            at = (at + RECORD_BYTES) % RING_BYTES;
        }),
    ]
}

/// A load whose loop stands inside the call, so that calling through a pointer is not measured.
fn repeated<R>(figure: &'static str, mut one: impl FnMut(u64) -> R + 'static) -> Load {
    Load::new(figure, REPEATS, move |i| {
        for k in 0..REPEATS {
            black_box(one(i + k));
        }
    })
}

const REPEATS: u64 = 1000;
const RECORD_BYTES: usize = 128;
/// Larger than any cache share, like a journal.
const RING_BYTES: usize = 16 << 20;
