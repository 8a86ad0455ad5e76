//! How large an embedding call should be, found out while embedding.
//!
//! The best size depends on the machine: on a GPU large batches pay, on two CPU cores the best
//! batch of a MiniLM is one to four and 128 is slower. So the size goes up while that makes
//! embedding faster, goes *down* when it does not, and is halved when calls take too long or the
//! service is overrun (additive increase, multiplicative decrease). Only full batches are
//! measured: the last one of an ingest says nothing about its size.

use std::time::Duration;

use retake_schemas::settings::EmbedSettings;

use crate::error::PipelineError;

/// The size of the next batch.
#[derive(Debug)]
pub(super) struct BatchSize {
    size: usize,
    is_adaptive: bool,
    target: Duration,
    window: Window,
    /// Rate at the size before, and which way the size went from there.
    before: Option<Rated>,
    /// Windows to wait before trying again.
    rest: u32,
}

/// Calls of the present size.
#[derive(Debug, Default)]
struct Window {
    calls: u32,
    chunks: usize,
    busy: Duration,
    slowest: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Rated {
    size: usize,
    chunks_per_sec: f64,
}

/// A change of the size, with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Size before.
    pub(super) from: usize,
    /// Size from now on.
    pub(super) to: usize,
    /// Why.
    pub(super) reason: &'static str,
}

impl BatchSize {
    /// The size the settings begin with.
    pub(super) fn new(settings: &EmbedSettings) -> Self {
        Self {
            size: settings.batch_size.max(1),
            is_adaptive: settings.adaptive,
            target: Duration::from_millis(settings.latency_target_ms),
            window: Window::default(),
            before: None,
            rest: 0,
        }
    }

    /// Chunks a batch has at most.
    pub(super) const fn get(&self) -> usize {
        self.size
    }

    /// Hears of a call that succeeded.
    pub(super) fn succeeded(&mut self, chunks: usize, took: Duration) -> Option<Change> {
        // A batch that is not full was cut by the supply; one of an earlier size says nothing.
        if !self.is_adaptive || chunks != self.size {
            return None;
        }
        self.window.calls += 1;
        self.window.chunks += chunks;
        self.window.busy += took;
        self.window.slowest = self.window.slowest.max(took);
        // Of so few calls the slowest is the 95th percentile.
        if self.window.slowest > self.target && self.size > 1 {
            return self.halve("latency");
        }
        if self.window.calls < WINDOW_CALLS {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let chunks = f64::from(u32::try_from(window.chunks).unwrap_or(u32::MAX));
        let chunks_per_sec = chunks / window.busy.as_secs_f64().max(f64::EPSILON);
        self.decide(Rated { size: self.size, chunks_per_sec })
    }

    /// Hears of a call that failed. What overran the service or the machine was too large.
    pub(super) fn failed(&mut self, error: &PipelineError) -> Option<Change> {
        let is_overrun = matches!(
            error,
            PipelineError::Service { status: Some(413 | 429 | 500..), .. }
                | PipelineError::Model { .. }
        );
        if self.is_adaptive && is_overrun && self.size > 1 { self.halve("overrun") } else { None }
    }

    fn decide(&mut self, now: Rated) -> Option<Change> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let Some(before) = self.before.replace(now) else {
            return self.go(grown(now.size), "probe");
        };
        let gain = now.chunks_per_sec / before.chunks_per_sec;
        let went_up = now.size > before.size;
        if gain > 1.0 + GAIN_MIN {
            return self.go(if went_up { grown(now.size) } else { shrunk(now.size) }, "faster");
        }
        if gain < 1.0 - GAIN_MIN && went_up {
            // The other side of where it came from has not been tried from here.
            return self.go(shrunk(before.size), "slower");
        }
        // Larger without gain only waits longer, smaller with loss was too small: the better of
        // the two stays, for a while.
        let keeps_now = if went_up { false } else { gain >= 1.0 - GAIN_MIN };
        self.rest = REST_WINDOWS;
        self.before = None;
        self.go(if keeps_now { now.size } else { before.size }, "settled")
    }

    fn halve(&mut self, reason: &'static str) -> Option<Change> {
        self.before = None;
        self.rest = REST_WINDOWS;
        self.go(self.size / 2, reason)
    }

    fn go(&mut self, to: usize, reason: &'static str) -> Option<Change> {
        let (from, to) = (self.size, to.clamp(1, SIZE_MAX));
        self.size = to;
        self.window = Window::default();
        (from != to).then_some(Change { from, to, reason })
    }
}

fn grown(size: usize) -> usize {
    size + (size / 4).max(1)
}

fn shrunk(size: usize) -> usize {
    size - (size / 4).max(1).min(size - 1)
}

/// Calls before a size is judged: enough that one odd call does not decide.
const WINDOW_CALLS: u32 = 4;
/// A rate that differs by less is the same.
const GAIN_MIN: f64 = 0.03;
/// Windows a size that was settled on is kept, before others are tried again.
const REST_WINDOWS: u32 = 32;
/// The largest batch services accept.
const SIZE_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    fn sizer(batch_size: usize, target_ms: u64) -> BatchSize {
        BatchSize::new(&EmbedSettings {
            batch_size,
            adaptive: true,
            latency_target_ms: target_ms,
            ..EmbedSettings::default()
        })
    }

    /// Runs calls on a machine on which a batch takes `secs(size)`; returns the sizes visited.
    fn drive(sizer: &mut BatchSize, calls: usize, secs: impl Fn(f64) -> f64) -> Vec<usize> {
        let mut visited = vec![sizer.get()];
        for _ in 0..calls {
            let size = sizer.get();
            let took = Duration::from_secs_f64(secs(size as f64));
            if let Some(change) = sizer.succeeded(size, took) {
                assert_eq!((change.from, change.to), (size, sizer.get()));
                visited.push(change.to);
            }
        }
        visited
    }

    /// Scenario: a machine on which every call has a fixed cost, as a GPU or a network.
    /// Guarantees: the size goes up.
    #[test]
    fn the_batch_grows_where_that_makes_it_faster() {
        let mut sizer = sizer(8, 60_000);
        let visited = drive(&mut sizer, 100, |size| 0.1 + size * 0.001);
        assert!(visited.iter().max() > Some(&40), "{visited:?}");
    }

    /// Scenario: a machine on which large batches are slower per chunk, as two CPU cores.
    /// Guarantees: the size goes down, and stays near the best.
    #[test]
    fn the_batch_shrinks_where_that_makes_it_faster() {
        let mut sizer = sizer(64, 60_000);
        let visited = drive(&mut sizer, 200, |size| size * (0.02 + 0.0008 * size));
        assert!(sizer.get() < 16, "{visited:?}");
    }

    /// Scenario: the size makes no difference.
    /// Guarantees: it stays where it is, and does not wander.
    #[test]
    fn the_batch_stays_where_nothing_is_gained() {
        let mut sizer = sizer(32, 60_000);
        let visited = drive(&mut sizer, 100, |size| size * 0.01);
        assert_eq!(visited, [32, 40, 32]);
    }

    /// Scenario: calls that take too long, and a service that is overrun.
    /// Guarantees: the size is halved at once, down to one, and each change has its reason.
    #[test]
    fn the_batch_is_halved_when_it_is_too_much() {
        let mut sizer = sizer(64, 1_000);
        let change = sizer.succeeded(64, Duration::from_secs(2)).unwrap();
        assert_eq!(change, Change { from: 64, to: 32, reason: "latency" });
        let busy = PipelineError::Service {
            service: "h".to_owned(),
            status: Some(429),
            reason: String::new(),
        };
        let mut sizes = vec![];
        while let Some(change) = sizer.failed(&busy) {
            assert_eq!(change.reason, "overrun");
            sizes.push(change.to);
        }
        assert_eq!(sizes, [16, 8, 4, 2, 1]);
        assert_eq!(sizer.succeeded(1, Duration::from_secs(9)), None);
        let refused = PipelineError::Service {
            service: "h".to_owned(),
            status: Some(401),
            reason: String::new(),
        };
        assert_eq!(sizer.failed(&refused), None);
    }

    #[test]
    fn a_fixed_size_stays_fixed_and_odd_batches_are_not_measured() {
        let mut fixed = BatchSize::new(&EmbedSettings::default());
        assert_eq!(fixed.succeeded(32, Duration::from_secs(3_600)), None);
        let mut sizer = sizer(8, 1);
        assert_eq!(sizer.succeeded(3, Duration::from_secs(9)), None);
    }
}
