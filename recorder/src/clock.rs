//! Time stamps that cost as little as the machine allows, and their conversion to wall time.
//!
//! Instrumented threads read *ticks*: the processor's time stamp counter where the kernel itself
//! trusts it for its clock (11 ns here against 28 ns for `Instant::now`), else the monotonic clock
//! in nanoseconds. Ticks become wall time later, off the hot path, between *anchors*: pairs of
//! ticks and wall time taken together. Wall time is read once, at the start; all later anchors are
//! that plus monotonic time, so that setting the system clock changes no duration.

#![expect(unsafe_code, reason = "the time stamp counter and the raw monotonic clock")]

use std::collections::VecDeque;
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
        Self::start_at(|| *RATE.get_or_init(rate))
    }

    fn start_at(rate: impl FnOnce() -> (bool, f64)) -> Self {
        // Measuring it takes a third of a millisecond, so the time is read after it.
        let (is_tsc, ticks_per_ns) = rate();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
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

/// Converts ticks to wall time between anchors. Of two ticks the later one never has the earlier
/// time, whatever anchors came between their conversions: the rate changes, the line never jumps,
/// and what was already passed keeps its rate for records that come late (a thread may be
/// interrupted between reading the clock and handing its record over).
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Where the present stretch begins, and its nanoseconds per tick.
    from: Anchor,
    ns_per_tick: f64,
    /// The last anchor that was passed, or where this timeline began.
    passed: Anchor,
    /// Stretches before the present one, oldest first: where each began, and its rate.
    past: VecDeque<(Anchor, f64)>,
}

impl Timeline {
    /// A timeline from the start anchor on, at the first estimate of the rate.
    #[must_use]
    pub fn new(start: Anchor, ticks_per_ns: f64) -> Self {
        Self::from_state(start, 1.0 / ticks_per_ns)
    }

    /// The origin and the nanoseconds of a tick, to go on from in another process.
    #[must_use]
    pub fn state(&self) -> (Anchor, f64) {
        (self.from, self.ns_per_tick)
    }

    /// A timeline with the origin and rate of [`Timeline::state`].
    #[must_use]
    pub fn from_state(from: Anchor, ns_per_tick: f64) -> Self {
        Self { from, ns_per_tick, passed: from, past: VecDeque::new() }
    }

    /// Goes on towards an anchor that lies after everything converted so far. The rate becomes the
    /// one between the last place and this anchor, so that converted times meet it.
    pub fn advance(&mut self, to: Anchor) {
        let ticks = to.ticks.saturating_sub(self.from.ticks);
        if ticks < TICKS_APART_MIN {
            return;
        }
        let ns = to.unix_ns.saturating_sub(self.from.unix_ns).max(1);
        self.ns_per_tick = ns as f64 / ticks as f64;
    }

    /// Passes an anchor up to which everything is converted, when the next one is not known. What
    /// the times are off by here is made up for over as long a stretch as there was since the
    /// anchor before.
    pub fn pass(&mut self, at: Anchor) {
        let ticks = at.ticks.saturating_sub(self.passed.ticks);
        if ticks < TICKS_APART_MIN {
            return;
        }
        self.rebase(at.ticks);
        let ns = at.unix_ns.saturating_sub(self.passed.unix_ns).max(1);
        let rate = ns as f64 / ticks as f64;
        let behind_ns = at.unix_ns.saturating_sub(self.from.unix_ns) as f64;
        self.ns_per_tick = (rate + behind_ns / ticks as f64).clamp(rate / 2.0, rate * 2.0);
        self.passed = at;
    }

    /// Makes a place on the timeline the new origin; small differences keep full precision.
    pub fn rebase(&mut self, ticks: u64) {
        if ticks <= self.from.ticks {
            return;
        }
        let from = Anchor { ticks, unix_ns: self.unix_ns(ticks) };
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back((self.from, self.ns_per_tick));
        self.from = from;
    }

    /// The wall time of ticks, nanoseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn unix_ns(&self, ticks: u64) -> i64 {
        if ticks >= self.from.ticks {
            return on_stretch(self.from, self.ns_per_tick, ticks);
        }
        self.unix_ns_before(ticks)
    }

    #[cold]
    fn unix_ns_before(&self, ticks: u64) -> i64 {
        let mut end = self.from.unix_ns;
        for (from, ns_per_tick) in self.past.iter().rev() {
            if ticks >= from.ticks {
                return on_stretch(*from, *ns_per_tick, ticks).min(end);
            }
            end = from.unix_ns;
        }
        let (from, ns_per_tick) =
            self.past.front().copied().unwrap_or((self.from, self.ns_per_tick));
        on_stretch(from, ns_per_tick, ticks)
    }
}

fn on_stretch(from: Anchor, ns_per_tick: f64, ticks: u64) -> i64 {
    let apart = ticks.wrapping_sub(from.ticks).cast_signed();
    from.unix_ns.saturating_add((apart as f64 * ns_per_tick) as i64)
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
/// Stretches remembered for late records. The writer begins one with each look at the journal, so
/// that a thread would have to be interrupted for this many looks to outlast them.
const PAST_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Scenario: the first clock of a process, which has to measure the rate.
    /// Guarantees: its time is the system's time, however long that takes.
    #[test]
    fn measuring_the_rate_does_not_set_the_clock_back() {
        let behind_ns = || {
            let clock = Clock::start_at(|| {
                std::thread::sleep(std::time::Duration::from_millis(200));
                rate()
            });
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            (since_epoch.as_nanos() as i64 - clock.now_unix_ns()).abs()
        };
        // Between two readings a busy machine may do something else, but not each time.
        let least = (0..5).map(|_| behind_ns()).min().expect("five");
        assert!(least < 100_000_000, "{least} ns behind");
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

    /// A journal's reader passes anchors one by one; a writer knows the present one.
    #[derive(Debug, Clone, Copy)]
    enum Reading {
        Journal,
        Live,
    }

    fn anchors_strategy() -> impl Strategy<Value = (Reading, f64, Vec<(u64, i64)>)> {
        // Distance to the next anchor (ticks), and by how much its wall time is misread (ns).
        let anchors = prop::collection::vec((20_000..40_000_000u64, -3_000..3_000i64), 1..40);
        let reading = prop_oneof![Just(Reading::Journal), Just(Reading::Live)];
        (reading, 0.9..1.1f64, anchors)
    }

    proptest! {
        /// Scenario: the first estimate of the rate is wrong, anchors are misread by a few
        /// microseconds, and some records come after the stretch they were made in was passed.
        /// Guarantees: of two records the later one never has the earlier time.
        #[test]
        fn a_later_record_never_has_an_earlier_time(
            (reading, misjudged, anchors) in anchors_strategy(),
            late in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut timeline = Timeline::new(Anchor { ticks: 0, unix_ns: 0 }, 2.0 * misjudged);
            let mut times: Vec<(u64, i64)> = Vec::new();
            let mut at = 0;
            for (apart, misread_ns) in anchors {
                let anchor = Anchor {
                    ticks: at + apart,
                    unix_ns: ((at + apart) / 2).cast_signed() + misread_ns,
                };
                if let Reading::Live = reading {
                    timeline.advance(anchor);
                }
                let step = (apart / 50).max(1) as usize;
                let inside = (at..anchor.ticks).step_by(step).chain([anchor.ticks - 1]);
                times.extend(inside.map(|ticks| (ticks, timeline.unix_ns(ticks))));
                timeline.pass(anchor);
                timeline.rebase(anchor.ticks);
                at = anchor.ticks;
                for index in &late {
                    // As late as four anchors before this one.
                    let ticks = at.saturating_sub(index.index(apart as usize * 4) as u64);
                    times.push((ticks, timeline.unix_ns(ticks)));
                }
            }
            times.sort_unstable();
            for pair in times.windows(2) {
                prop_assert!(pair[0].1 <= pair[1].1, "{:?} then {:?}", pair[0], pair[1]);
            }
        }
    }

    /// Scenario: a journal whose first estimate of the rate is off by 500 parts in a million.
    /// Guarantees: times read from it are soon right to a microsecond.
    #[test]
    fn passing_anchors_corrects_the_rate() {
        let mut timeline = Timeline::new(Anchor { ticks: 0, unix_ns: 0 }, 2.0 * 1.0005);
        for ms in (10..200).step_by(10) {
            timeline.pass(Anchor { ticks: ms * 2_000_000, unix_ns: ms.cast_signed() * 1_000_000 });
        }
        let error = timeline.unix_ns(400_000_000) - 200_000_000;
        assert!(error.abs() < 1_000, "off by {error} ns");
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
