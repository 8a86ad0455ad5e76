//! The dispatch thread: fires at absolute times, far closer than a runtime's timer.
//!
//! tokio's timer is late by 1.07 ms at the median (measured; its wheel has millisecond slots). A
//! thread that sleeps to shortly before the time and spins the rest is late by 0.1 us at the
//! median. Times are absolute, so errors do not add up over a long schedule.
//!
//! Most times are known beforehand; those of a session's later turns come while others are
//! replayed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender};

/// A running dispatch thread. It ends when this and the schedule are at their end, or when nobody
/// listens any more.
#[derive(Debug)]
pub struct Pacer {
    additions: SyncSender<(Instant, u32)>,
}

impl Pacer {
    /// Starts the thread. `schedule` has ns after `origin`, in order, and what to fire; the
    /// receiver yields each when its time has come; or, if `is_early`, a moment before that, for
    /// whoever waits for the time itself.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(
        origin: Instant,
        schedule: Vec<(i64, u32)>,
        is_early: bool,
    ) -> std::io::Result<(Self, Receiver<u32>)> {
        let (fire, fired) = tokio::sync::mpsc::channel(FIRED_MAX);
        let (additions, added) = sync_channel(ADDED_MAX);
        let known = schedule.into_iter().map(move |(offset_ns, what)| {
            (origin + Duration::from_nanos(u64::try_from(offset_ns).unwrap_or(0)), what)
        });
        // Who is told early needs no thread that spins.
        let spin = if is_early { Duration::ZERO } else { SPIN };
        let mut thread = Thread {
            known: known.peekable(),
            later: BinaryHeap::new(),
            fire,
            is_early,
            spin,
            last: origin,
        };
        std::thread::Builder::new()
            .name("retake-pacer".to_owned())
            .spawn(move || thread.run(&added))?;
        Ok((Self { additions }, fired))
    }

    /// Adds a time. A full queue means that thousands of turns end at once; the caller waits.
    pub fn add(&self, time: Instant, what: u32) {
        // The thread is gone only when nobody listens.
        let _ = self.additions.send((time, what));
    }
}

struct Thread<I: Iterator<Item = (Instant, u32)>> {
    known: Peekable<I>,
    later: BinaryHeap<Reverse<(Instant, u32)>>,
    fire: Sender<u32>,
    is_early: bool,
    /// How much of the time before firing is spun and not slept.
    spin: Duration,
    /// When the last one was due.
    last: Instant,
}

impl<I: Iterator<Item = (Instant, u32)>> Thread<I> {
    fn run(&mut self, added: &std::sync::mpsc::Receiver<(Instant, u32)>) {
        crate::timer::sleep_sharply();
        let mut may_grow = true;
        while !self.fire.is_closed() {
            let Some((time, _)) = self.next() else {
                if !may_grow {
                    return;
                }
                match added.recv_timeout(NAP_MAX) {
                    Ok(addition) => self.later.push(Reverse(addition)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => may_grow = false,
                }
                continue;
            };
            let due = time;
            let time = due.checked_sub(self.early(due)).unwrap_or(due);
            let left = time.saturating_duration_since(Instant::now());
            if left > self.spin {
                let nap = (left - self.spin).min(NAP_MAX);
                if !may_grow {
                    std::thread::sleep(nap);
                    continue;
                }
                match added.recv_timeout(nap) {
                    Ok(addition) => self.later.push(Reverse(addition)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => may_grow = false,
                }
                continue;
            }
            while Instant::now() < time {
                std::hint::spin_loop();
            }
            // Firing late is better than not at all; a full queue means the runtime is behind,
            // which the fire error will show.
            let Some((_, what)) = self.take() else { continue };
            self.last = due;
            if self.fire.blocking_send(what).is_err() {
                return;
            }
            while let Ok(addition) = added.try_recv() {
                self.later.push(Reverse(addition));
            }
        }
    }

    /// How long before its time something is fired. A processor that was idle for long sleeps deeply
    /// and takes long to wake; the share of the time that is spent waiting awake stays the same.
    fn early(&self, due: Instant) -> Duration {
        if !self.is_early {
            return Duration::ZERO;
        }
        (due.saturating_duration_since(self.last) / EARLY_SHARE).clamp(EARLY_MIN, EARLY_MAX)
    }

    /// The earliest of what is still to fire.
    fn next(&mut self) -> Option<(Instant, u32)> {
        let later = self.later.peek().map(|Reverse(later)| *later);
        match (self.known.peek().copied(), later) {
            (Some(known), Some(later)) => Some(known.min(later)),
            (known, later) => known.or(later),
        }
    }

    fn take(&mut self) -> Option<(Instant, u32)> {
        let next = self.next();
        if self.known.peek().copied() == next {
            self.known.next()
        } else {
            self.later.pop().map(|Reverse(later)| later)
        }
    }
}

/// Sleeps end up to this much late on an idle machine; the rest is spun.
const SPIN: Duration = Duration::from_micros(100);
/// A sleep ends some 50 us late, and waking a runtime takes as long again.
const EARLY_MIN: Duration = Duration::from_micros(200);
/// Waking from the deepest sleep was seen to take 500 us.
const EARLY_MAX: Duration = Duration::from_millis(1);
/// Of the time since the one before, the part that is waited awake.
const EARLY_SHARE: u32 = 10;
/// A long gap must not keep the thread from noticing that it is over.
const NAP_MAX: Duration = Duration::from_millis(50);
/// Fired but not yet taken up.
const FIRED_MAX: usize = 4096;
/// Added but not yet seen by the thread.
const ADDED_MAX: usize = 4096;
