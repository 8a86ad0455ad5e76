//! Waiting for a moment, far closer than a runtime's timer: what token streams are paced by.
//!
//! tokio's timer is late by 1.07 ms at the median (measured; its wheel has millisecond slots).
//! Where tokens are 11 ms apart that is a tenth, and an answer that waits anew for each of its
//! tokens adds it up. Here one thread keeps the moments of all who wait, sleeps to shortly before
//! the next of them and spins the rest, but rarely: on two processors, spinning for a quarter of the
//! time made the latest one in a hundred of 128 streams 330 us late in place of 90, because those who
//! are woken need the processor.
//!
//! The thread starts with the first that waits, and ends when nobody has waited for a while.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Waits until `due`; not at all where it has passed. Wakes after it and never before.
///
/// Dropping it forgets it. Where the system gives no thread, the runtime's timer serves, which needs
/// a runtime that has one.
pub async fn sleep_until(due: Instant) {
    if due <= Instant::now() {
        return;
    }
    let timer = Timer::shared();
    if timer.is_awake() {
        Sleep { timer, due, id: None }.await;
    } else {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Waits for so long from now.
pub async fn sleep(duration: Duration) {
    // A time too far to be told is as good as never.
    match Instant::now().checked_add(duration) {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Timer {
    waiting: Mutex<Waiting>,
    /// Something earlier than all else was added.
    changed: Condvar,
    /// When the earliest is due, ns after `base`; what the spinning thread looks at.
    earliest: AtomicU64,
    base: Instant,
}

#[derive(Default)]
struct Waiting {
    /// Those of one moment in the order in which they came.
    wakers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    has_thread: bool,
}

impl Timer {
    fn shared() -> &'static Arc<Self> {
        static TIMER: OnceLock<Arc<Timer>> = OnceLock::new();
        TIMER.get_or_init(|| Arc::new(Self::new()))
    }

    fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            earliest: AtomicU64::new(u64::MAX),
            base: Instant::now(),
        }
    }

    /// Starts the thread if there is none. False when the system gives none.
    fn is_awake(self: &Arc<Self>) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.has_thread {
            let timer = Arc::clone(self);
            let thread = std::thread::Builder::new().name("retake-timer".to_owned());
            waiting.has_thread = thread.spawn(move || timer.run()).is_ok();
        }
        waiting.has_thread
    }

    fn run(&self) {
        sleep_sharply();
        let mut budget = SpinBudget::new(Instant::now());
        let mut due = Vec::new();
        while let Some(next) = self.wait_for_the_next(&mut budget) {
            if self.spin_until(next, &mut budget) {
                continue;
            }
            {
                let mut waiting = self.waiting.lock();
                let now = Instant::now();
                while let Some(first) = waiting.wakers.first_entry().filter(|it| it.key().0 <= now)
                {
                    due.push(first.remove());
                }
                self.note_earliest(&waiting);
            }
            // Outside the lock: who is woken may wait for its next moment at once.
            due.drain(..).for_each(Waker::wake);
        }
    }

    /// Sleeps until shortly before the next moment, and says which it is; none when the thread is to
    /// end.
    fn wait_for_the_next(&self, budget: &mut SpinBudget) -> Option<Instant> {
        let mut waiting = self.waiting.lock();
        loop {
            let Some((&(next, _), _)) = waiting.wakers.first_key_value() else {
                let nobody_came = self.changed.wait_for(&mut waiting, IDLE_MAX).timed_out();
                if nobody_came && waiting.wakers.is_empty() {
                    waiting.has_thread = false;
                    return None;
                }
                continue;
            };
            let now = Instant::now();
            let spin = budget.at(now);
            if next.saturating_duration_since(now) <= spin {
                // Who was the earliest may be gone.
                self.note_earliest(&waiting);
                return Some(next);
            }
            let until = next.checked_sub(spin).unwrap_or(next).max(now + NAP_MIN);
            self.changed.wait_until(&mut waiting, until);
        }
    }

    /// Whether something earlier came in the meantime.
    fn spin_until(&self, next: Instant, budget: &mut SpinBudget) -> bool {
        let began = Instant::now();
        let mut now = began;
        let next_ns = self.since_base(next);
        let mut is_earlier = false;
        while now < next && !is_earlier {
            std::hint::spin_loop();
            is_earlier = self.earliest.load(Ordering::Relaxed) < next_ns;
            now = Instant::now();
        }
        budget.spent(now.saturating_duration_since(began));
        is_earlier
    }

    fn note_earliest(&self, waiting: &Waiting) {
        let earliest = waiting.wakers.first_key_value();
        let earliest = earliest.map_or(u64::MAX, |((due, _), _)| self.since_base(*due));
        self.earliest.store(earliest, Ordering::Relaxed);
    }

    fn since_base(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.base);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Asks the kernel to end this thread's sleeps when they are over. It lets them be 50 us longer, so
/// that it wakes for several threads at once.
///
/// There is a system call for it, which takes `unsafe` code; the file says the same. Where there is no
/// such file sleeps are as they were.
pub(crate) fn sleep_sharply() {
    let own = std::fs::read_link("/proc/thread-self").ok();
    if let Some(thread) = own.as_deref().and_then(|own| own.file_name()) {
        // A process like any other to this folder, though its listing leaves threads out.
        let file = std::path::Path::new("/proc").join(thread).join("timerslack_ns");
        let _ = std::fs::write(file, "1");
    }
}

/// How much of its time the thread may spin: many moments close to each other would have it spin
/// without end, and take a processor from those whom it wakes.
struct SpinBudget {
    left: Duration,
    filled: Instant,
}

impl SpinBudget {
    fn new(now: Instant) -> Self {
        Self { left: SPIN_SAVED_MAX, filled: now }
    }

    /// How long before a moment the thread may be awake.
    fn at(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.filled) / SPIN_SHARE;
        self.filled = now;
        self.left = (self.left + earned).min(SPIN_SAVED_MAX);
        if self.left >= SPIN { SPIN } else { Duration::ZERO }
    }

    fn spent(&mut self, spun: Duration) {
        self.left = self.left.saturating_sub(spun);
    }
}

/// Waits for one moment.
struct Sleep {
    timer: &'static Arc<Timer>,
    due: Instant,
    /// Its place among those that wait, once it does.
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.due <= Instant::now() {
            return Poll::Ready(());
        }
        let mut waiting = self.timer.waiting.lock();
        let id = self.id.unwrap_or(waiting.next_id);
        if self.id.is_none() {
            waiting.next_id += 1;
        }
        let key = (self.due, id);
        let is_first = waiting.wakers.first_key_value().is_none_or(|(first, _)| key < *first);
        waiting.wakers.insert(key, context.waker().clone());
        if is_first {
            self.timer.note_earliest(&waiting);
            self.timer.changed.notify_one();
        }
        drop(waiting);
        self.id = Some(id);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(key) = self.id.map(|id| (self.due, id)) else { return };
        let mut waiting = self.timer.waiting.lock();
        let is_first = waiting.wakers.first_key_value().is_some_and(|(first, _)| *first == key);
        // The thread must not sleep until a moment that nobody waits for any more.
        if waiting.wakers.remove(&key).is_some() && is_first {
            self.timer.changed.notify_one();
        }
    }
}

/// What a sleep is shorter than the time that is left: waking takes as long on an idle machine.
const SPIN: Duration = Duration::from_micros(20);
/// Sleeps are no shorter, so that of a thousand streams several are woken at once.
const NAP_MIN: Duration = Duration::from_micros(30);
/// Of the thread's time, the part that may be spun.
const SPIN_SHARE: u32 = 20;
/// What was not spun is not saved for longer than this.
const SPIN_SAVED_MAX: Duration = Duration::from_millis(5);
/// How long nobody must have waited for the thread to end.
const IDLE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::task::JoinSet;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Scenario: many wait for moments given in no order, on several threads, some for the same.
    /// Guarantees: nobody is early, and all come.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_are_woken_and_none_is_early() {
        let start = Instant::now();
        let mut waiting = JoinSet::new();
        for task in 0..300_u32 {
            waiting.spawn(async move {
                let due = start + MS * (task * 7 % 31);
                sleep_until(due).await;
                assert!(Instant::now() >= due, "early");
            });
        }
        assert_eq!(waiting.join_all().await.len(), 300);
    }

    /// Scenario: one waits for long, then another for a moment before that.
    /// Guarantees: the earlier is not kept until the later, and a time that has passed returns.
    #[tokio::test]
    async fn who_comes_later_may_be_due_earlier() {
        let far = tokio::spawn(sleep(Duration::from_secs(3_600)));
        sleep(20 * MS).await;
        let start = Instant::now();
        sleep_until(start + 20 * MS).await;
        let took = start.elapsed();
        assert!(took >= 20 * MS && took < Duration::from_secs(60), "{took:?}");
        sleep_until(start).await;
        far.abort();
        assert!(far.await.expect_err("aborted").is_cancelled());
    }

    /// Scenario: a timer of its own; waiting ends before its moment, as when an answer is cancelled.
    /// Guarantees: nothing of it is kept, and the thread ends when nobody waits.
    #[tokio::test]
    async fn who_is_gone_is_forgotten() {
        let timer: &'static Arc<Timer> = Box::leak(Box::new(Arc::new(Timer::new())));
        assert!(timer.is_awake());
        let far = Instant::now() + Duration::from_secs(3_600);
        let waiting = Sleep { timer, due: far, id: None };
        assert!(tokio::time::timeout(5 * MS, waiting).await.is_err());
        assert!(timer.waiting.lock().wakers.is_empty());
        while timer.waiting.lock().has_thread {
            tokio::time::sleep(20 * MS).await;
        }
        assert!(timer.is_awake());
    }

    /// Scenario: a task is polled anew for another reason, with another waker.
    /// Guarantees: the last waker is the one that is woken.
    #[test]
    fn the_last_waker_counts() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let timer: &'static Arc<Timer> = Box::leak(Box::new(Arc::new(Timer::new())));
        let due = Instant::now() + 30 * MS;
        let mut sleep = std::pin::pin!(Sleep { timer, due, id: None });
        let counts = [(), ()].map(|()| Arc::new(Count(AtomicUsize::new(0))));
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(timer.waiting.lock().wakers.len(), 1);
        assert!(timer.is_awake());
        while counts[1].0.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(MS);
        }
        assert_eq!(counts[0].0.load(Ordering::SeqCst), 0);
        assert!(Instant::now() >= due);
    }

    /// Scenario: moments without end, each within what may be spun.
    /// Guarantees: the thread spins no more than its share.
    #[test]
    fn no_more_than_a_share_is_spun() {
        let start = Instant::now();
        let mut budget = SpinBudget::new(start);
        let (mut now, mut spun) = (start, Duration::ZERO);
        for _ in 0..100_000 {
            let spin = budget.at(now);
            budget.spent(spin);
            spun += spin;
            now += Duration::from_micros(100).max(spin);
        }
        let whole = now.saturating_duration_since(start);
        assert!(spun <= whole / SPIN_SHARE + SPIN_SAVED_MAX, "{spun:?} of {whole:?}");
        assert!(spun >= whole / (SPIN_SHARE + 1), "{spun:?} of {whole:?}");
    }
}
