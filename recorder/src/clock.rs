//! Time stamps that cost as little as the machine allows, and their conversion to wall time.
//!
//! Instrumented threads read *ticks*: the processor's time stamp counter where the kernel itself
//! trusts it for its clock (11 ns here against 28 ns for `Instant::now`), else the monotonic clock
//! in nanoseconds. Ticks become wall time later, off the hot path, between *anchors*: pairs of
//! ticks and wall time taken together. Wall time is read once, at the start; all later anchors are
//! that plus monotonic time, so that setting the system clock changes no duration.

#![expect(unsafe_code, reason = "the time stamp counter and the raw monotonic clock")]

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks and the wall time that belongs to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Ticks of [`Clock::ticks`].
    pub ticks: u64,
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: i64,
}

/// A clock whose times never step back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    is_tsc: bool,
    monotonic_start_ns: u64,
    start: Anchor,
    ticks_per_ns: f64,
    /// Stands for the monotonic clock in tests of a day that must not take one, ns.
    #[cfg(test)]
    simulated: Option<&'static std::sync::atomic::AtomicU64>,
}

impl Clock {
    /// Anchors a new clock to the present wall time.
    #[must_use]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (is_tsc, ticks_per_ns) = *RATE.get_or_init(rate);
        let (ticks, monotonic_start_ns) = ticks_and_monotonic(is_tsc);
        // 2262 is when nanoseconds since 1970 no longer fit an i64.
        let unix_ns = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX / 2);
        Self {
            is_tsc,
            monotonic_start_ns,
            start: Anchor { ticks, unix_ns },
            ticks_per_ns,
            #[cfg(test)]
            simulated: None,
        }
    }

    /// A clock that stands wherever `now` (ns) says, and started at that many ns since the epoch.
    #[cfg(test)]
    pub(crate) fn simulated(now: &'static std::sync::atomic::AtomicU64) -> Self {
        let ticks = now.load(std::sync::atomic::Ordering::Relaxed);
        let start = Anchor { ticks, unix_ns: ticks.cast_signed() };
        let simulated = Some(now);
        Self { is_tsc: false, monotonic_start_ns: ticks, start, ticks_per_ns: 1.0, simulated }
    }

    /// Now, in ticks.
    #[inline]
    #[must_use]
    pub fn ticks(&self) -> u64 {
        #[cfg(test)]
        if let Some(now) = self.simulated {
            // It steps with every reading, so that no two moments are the same.
            return now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        ticks(self.is_tsc)
    }

    /// Now, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn now_unix_ns(&self) -> i64 {
        #[cfg(test)]
        if self.simulated.is_some() {
            return self.unix_ns_of(self.ticks());
        }
        self.unix_ns_of(monotonic_ns())
    }

    /// A new anchor.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        #[cfg(test)]
        if self.simulated.is_some() {
            return Anchor { ticks: self.ticks(), unix_ns: self.now_unix_ns() };
        }
        let (ticks, monotonic) = ticks_and_monotonic(self.is_tsc);
        Anchor { ticks, unix_ns: self.unix_ns_of(monotonic) }
    }

    /// The anchor taken at the start.
    #[must_use]
    pub fn start_anchor(&self) -> Anchor {
        self.start
    }

    /// Ticks in a nanosecond, as measured at the start; anchors are more exact.
    #[must_use]
    pub fn ticks_per_ns(&self) -> f64 {
        self.ticks_per_ns
    }

    fn unix_ns_of(&self, monotonic: u64) -> i64 {
        let elapsed = monotonic.saturating_sub(self.monotonic_start_ns);
        self.start.unix_ns.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

/// Converts ticks to wall time between anchors. Times never step back while ticks do not.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    from: Anchor,
    ns_per_tick: f64,
}

impl Timeline {
    /// A timeline from the start anchor on, at the first estimate of the rate.
    #[must_use]
    pub fn new(start: Anchor, ticks_per_ns: f64) -> Self {
        Self { from: start, ns_per_tick: 1.0 / ticks_per_ns }
    }

    /// The origin and the nanoseconds of a tick, to go on from in another process.
    #[must_use]
    pub fn state(&self) -> (Anchor, f64) {
        (self.from, self.ns_per_tick)
    }

    /// A timeline with the origin and rate of [`Timeline::state`].
    #[must_use]
    pub fn from_state(from: Anchor, ns_per_tick: f64) -> Self {
        Self { from, ns_per_tick }
    }

    /// Goes on from a newer anchor; ticks converted from now on lie mostly before it. The rate
    /// becomes the one between the last place and this anchor, so that converted times meet it.
    pub fn advance(&mut self, to: Anchor) {
        let ticks = to.ticks.saturating_sub(self.from.ticks);
        if ticks < TICKS_APART_MIN {
            return;
        }
        let ns = to.unix_ns.saturating_sub(self.from.unix_ns).max(1);
        self.ns_per_tick = ns as f64 / ticks as f64;
    }

    /// Makes a place on the timeline the new origin; small differences keep full precision.
    pub fn rebase(&mut self, ticks: u64) {
        self.from = Anchor { ticks, unix_ns: self.unix_ns(ticks) };
    }

    /// The wall time of ticks, nanoseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn unix_ns(&self, ticks: u64) -> i64 {
        let apart = ticks.wrapping_sub(self.from.ticks).cast_signed();
        self.from.unix_ns.saturating_add((apart as f64 * self.ns_per_tick) as i64)
    }
}

#[inline]
fn ticks(is_tsc: bool) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_tsc {
        // SAFETY: reading the counter has no precondition; `is_tsc` is only set where the kernel
        // uses it as its own clock, so it exists and is not trapped.
        return unsafe { core::arch::x86_64::_rdtsc() };
    }
    let _ = is_tsc;
    monotonic_ns()
}

/// Monotonic time, the same in all processes of the machine.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place to write to; this clock exists on every Linux and macOS, so
    // the call cannot fail. (`Instant` hides its value, which other processes must compare with.)
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Both clocks at the same moment: the closest of a few tries.
fn ticks_and_monotonic(is_tsc: bool) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..ANCHOR_TRIES {
        let before = ticks(is_tsc);
        let monotonic = monotonic_ns();
        let gap = ticks(is_tsc).saturating_sub(before);
        if gap < best.0 {
            best = (gap, before + gap / 2, monotonic);
        }
    }
    (best.1, best.2)
}

/// Whether ticks are the time stamp counter, and how many make a nanosecond. Measured once a
/// process, over a fraction of a millisecond: good to some hundred parts in a million, which
/// matters only until the first anchor.
fn rate() -> (bool, f64) {
    let is_tsc = cfg!(target_arch = "x86_64")
        && std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|name| name.trim() == "tsc");
    if !is_tsc {
        return (false, 1.0);
    }
    let (ticks, start) = ticks_and_monotonic(true);
    while monotonic_ns() - start < RATE_NS {
        std::hint::spin_loop();
    }
    let (later, end) = ticks_and_monotonic(true);
    (true, later.saturating_sub(ticks).max(1) as f64 / (end - start).max(1) as f64)
}

static RATE: OnceLock<(bool, f64)> = OnceLock::new();
/// Which clock the kernel uses.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const ANCHOR_TRIES: usize = 5;
const RATE_NS: u64 = 300_000;
/// Closer anchors would give a rate made of their jitter.
const TICKS_APART_MIN: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converted_times_agree_with_the_clock_and_never_step_back() {
        let clock = Clock::start();
        let mut timeline = Timeline::new(clock.start_anchor(), clock.ticks_per_ns());
        let mut last = i64::MIN;
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let ticks: Vec<u64> = (0..100).map(|_| clock.ticks()).collect();
            let anchor = clock.anchor();
            timeline.advance(anchor);
            for ticks in &ticks {
                let time = timeline.unix_ns(*ticks);
                assert!(time >= last, "{time} < {last}");
                last = time;
            }
            let error = timeline.unix_ns(anchor.ticks) - anchor.unix_ns;
            assert!(error.abs() < 1000, "off by {error} ns");
            timeline.rebase(ticks.last().copied().unwrap());
        }
    }

    /// Scenario: anchors say that wall time was set back by an hour, then forward by a day.
    /// Guarantees: times never step back, and no interval is negative.
    #[test]
    fn anchors_of_a_clock_that_was_set_make_no_negative_duration() {
        let start = Anchor { ticks: 1_000, unix_ns: 1_795_000_000_000_000_000 };
        let mut timeline = Timeline::new(start, 2.0);
        let hour_ns = 3_600 * 1_000_000_000;
        let mut last = i64::MIN;
        for (step, set_by_ns) in [0, -hour_ns, 0, 24 * hour_ns, -hour_ns].into_iter().enumerate() {
            let from = 1_000 + step as u64 * 2_000_000;
            let to = Anchor {
                ticks: from + 2_000_000,
                unix_ns: start.unix_ns + (step as i64 + 1) * 1_000_000 + set_by_ns,
            };
            timeline.advance(to);
            for ticks in (from..to.ticks).step_by(1_000) {
                let time = timeline.unix_ns(ticks);
                assert!(time >= last, "{time} after {last}");
                last = time;
            }
            timeline.rebase(to.ticks);
        }
    }

    /// Guarantees: wall time is read once, when a clock starts: setting the system clock back
    /// while a run is recorded cannot reach a time in it. (The age of what is in quarantine is a
    /// matter of days, and of no recording.)
    #[test]
    fn nothing_that_records_reads_the_wall_clock_again() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![source.clone()];
        let mut readers = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs")
                    && std::fs::read_to_string(&path).unwrap().contains("SystemTime::now")
                {
                    readers.push(path.strip_prefix(&source).unwrap().display().to_string());
                }
            }
        }
        readers.sort();
        assert_eq!(readers, ["clock.rs", "upkeep/gc/quarantine.rs"]);
    }

    #[test]
    fn ticks_are_the_same_clock_in_every_thread() {
        let clock = Clock::start();
        for _ in 0..100 {
            let before = clock.ticks();
            let there = std::thread::scope(|s| s.spawn(|| clock.ticks()).join().unwrap());
            assert!(before <= there && there <= clock.ticks());
        }
    }
}
