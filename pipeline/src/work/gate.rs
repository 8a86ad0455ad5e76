//! What a provider allows: calls at the same time, requests and tokens a minute.
//!
//! The rates are buckets that fill steadily and hold what may be used at once. A call takes what it
//! needs right away, if need be on credit, and waits until the credit is paid back; so callers are
//! served in the order they came, and none wakes up only to find that another was faster. Tokens
//! are taken as an estimate before the call, and corrected by what the provider counted.
//!
//! A provider that asks to wait closes the gate for everybody: what one caller was told holds for
//! the others too. `governor` knows neither corrections nor closing, so this is our own.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use retake_schemas::settings::LimitSettings;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Limits of one provider, shared by everybody who calls it.
#[derive(Debug)]
pub struct Gate {
    concurrency: Option<Arc<Semaphore>>,
    rates: Mutex<Rates>,
}

#[derive(Debug)]
struct Rates {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    closed_until: Option<Instant>,
}

/// Leave to make one call. It holds a place among the concurrent ones until it is dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    tokens: f64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate with these limits; 0 stands for none.
    #[must_use]
    pub fn new(limits: &LimitSettings) -> Self {
        let now = Instant::now();
        let bucket = |per_minute: u64| (per_minute > 0).then(|| Bucket::new(per_minute, now));
        let concurrency = limits.concurrency.min(Semaphore::MAX_PERMITS);
        Self {
            concurrency: (concurrency > 0).then(|| Arc::new(Semaphore::new(concurrency))),
            rates: Mutex::new(Rates {
                requests: bucket(limits.requests_per_minute),
                tokens: bucket(limits.tokens_per_minute),
                closed_until: None,
            }),
        }
    }

    /// The gate of `provider` (a host): the same for all callers of this process that ask for the
    /// same limits, as long as one of them lives.
    #[must_use]
    pub fn shared(provider: &str, limits: &LimitSettings) -> Arc<Self> {
        type Known = HashMap<(String, LimitSettings), Weak<Gate>>;
        static GATES: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        let mut gates = GATES.lock();
        gates.retain(|_, gate| gate.strong_count() > 0);
        let key = (provider.to_owned(), limits.clone());
        if let Some(gate) = gates.get(&key).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::new(Self::new(limits));
        gates.insert(key, Arc::downgrade(&gate));
        gate
    }

    /// Whether calls must say how many tokens they need.
    #[must_use]
    pub fn limits_tokens(&self) -> bool {
        self.rates.lock().tokens.is_some()
    }

    /// Waits until a call of some `tokens` may be made. Dropped while waiting, it has taken
    /// nothing.
    pub async fn enter(self: &Arc<Self>, tokens: u64) -> Permit {
        #[expect(clippy::cast_precision_loss, reason = "2^53 tokens are more than any call has")]
        let tokens = tokens as f64;
        self.open().await;
        let mut taken = Taken { gate: self, tokens, is_used: false };
        let ready = self.rates.lock().take(tokens, Instant::now());
        sleep_until(ready).await;
        let place = match &self.concurrency {
            // A semaphore of ours is never closed.
            Some(places) => Arc::clone(places).acquire_owned().await.ok(),
            None => None,
        };
        // It may have been closed meanwhile, for those who wait as well.
        self.open().await;
        taken.is_used = true;
        Permit { gate: Arc::clone(self), tokens, _place: place }
    }

    /// Lets nobody through for `wait`, because the provider asked for it.
    pub fn close_for(&self, wait: Duration) {
        let until = Instant::now().checked_add(wait);
        let mut rates = self.rates.lock();
        rates.closed_until = rates.closed_until.max(until);
    }

    async fn open(&self) {
        loop {
            let closed_until = self.rates.lock().closed_until;
            match closed_until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                _ => return,
            }
        }
    }
}

impl Permit {
    /// Corrects the tokens that were taken by what the provider counted.
    pub fn spent(&mut self, tokens: u64) {
        #[expect(clippy::cast_precision_loss, reason = "2^53 tokens are more than any call has")]
        let tokens = tokens as f64;
        if let Some(bucket) = &mut self.gate.rates.lock().tokens {
            bucket.level += self.tokens - tokens;
        }
        self.tokens = tokens;
    }
}

/// Gives back what a caller took who went away before he could use it.
struct Taken<'g> {
    gate: &'g Gate,
    tokens: f64,
    is_used: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            let mut rates = self.gate.rates.lock();
            if let Some(bucket) = &mut rates.requests {
                bucket.level += 1.0;
            }
            if let Some(bucket) = &mut rates.tokens {
                bucket.level += self.tokens;
            }
        }
    }
}

impl Rates {
    /// Takes a call's share, and says when it may be made.
    fn take(&mut self, tokens: f64, now: Instant) -> Instant {
        let requests = self.requests.as_mut().map(|bucket| bucket.take(1.0, now));
        let tokens = self.tokens.as_mut().map(|bucket| bucket.take(tokens, now));
        requests.max(tokens).unwrap_or(now)
    }
}

/// Fills steadily; may be overdrawn by those who then wait.
#[derive(Debug)]
pub(crate) struct Bucket {
    level: f64,
    capacity: f64,
    per_second: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_minute: u64, now: Instant) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "2^53 a minute is no limit")]
        let per_second = per_minute as f64 / 60.0;
        let capacity = (per_second * BURST_SECS).max(1.0);
        Self { level: capacity, capacity, per_second, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let secs = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.level = (self.level + secs * self.per_second).min(self.capacity);
        self.filled_at = now;
    }

    /// Takes `amount`, and says when it is covered.
    fn take(&mut self, amount: f64, now: Instant) -> Instant {
        self.fill(now);
        self.level -= amount;
        // What is more than the bucket holds can only be had on credit: a full one is enough.
        let missing = -self.level - (amount - self.capacity).max(0.0);
        now + secs(missing / self.per_second)
    }

    /// Takes `amount` if it is there; else says how long it takes to be.
    pub(crate) fn try_take(&mut self, amount: f64, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        let needed = amount.min(self.capacity);
        if self.level >= needed {
            self.level -= amount;
            return Ok(());
        }
        Err(secs((needed - self.level) / self.per_second))
    }

    /// What is left.
    pub(crate) fn left(&self) -> f64 {
        self.level.max(0.0)
    }
}

fn secs(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs.clamp(0.0, WAIT_SECS_MAX)).unwrap_or_default()
}

/// How much of a rate may be used at once, in seconds of it. Providers enforce limits "a minute" in
/// shorter windows; a burst of a whole minute would be refused.
const BURST_SECS: f64 = 6.0;
/// Longest wait that is computed; a call that needs more than a day is a mistake.
const WAIT_SECS_MAX: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(requests: u64, tokens: u64, concurrency: usize) -> Arc<Gate> {
        Arc::new(Gate::new(&LimitSettings {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            concurrency,
        }))
    }

    /// When each of `calls`, all made at once, may go: seconds after the first.
    fn turns(requests: u64, tokens: u64, calls: &[f64]) -> Vec<u64> {
        let gate = gate(requests, tokens, 0);
        let now = Instant::now();
        let mut rates = gate.rates.lock();
        let secs = |turn: Instant| turn.saturating_duration_since(now).as_secs_f64().round() as u64;
        calls.iter().map(|tokens| secs(rates.take(*tokens, now))).collect()
    }

    /// Scenario: many calls at once through a limit of 60 a minute.
    /// Guarantees: a burst of six seconds goes at once, the rest at the rate, in order.
    #[test]
    fn requests_keep_to_their_rate() {
        let expected: Vec<u64> = (0..120_u64).map(|n| n.saturating_sub(5)).collect();
        assert_eq!(turns(60, 0, &[1_000.0; 120]), expected);
        assert_eq!(turns(0, 0, &[1_000.0; 3]), [0, 0, 0]);
    }

    /// Scenario: calls of very different sizes, one larger than all that may be used at once.
    /// Guarantees: tokens keep to their rate; no call waits for ever.
    #[test]
    fn tokens_keep_to_their_rate() {
        let mut calls = vec![600.0; 10];
        calls.extend([6_000.0, 100.0]);
        let mut expected: Vec<u64> = (0..10).map(|n| n * 6).collect();
        // The large one goes when the bucket is full, and is paid back before the next.
        expected.extend([60, 115]);
        assert_eq!(turns(0, 6_000, &calls), expected);
    }

    /// Scenario: time passes, and more than the bucket holds flows in.
    /// Guarantees: what is saved up is bounded by the burst.
    #[test]
    fn a_rate_that_is_not_used_is_not_saved_up() {
        let gate = gate(60, 0, 0);
        let later = Instant::now() + Duration::from_secs(3_600);
        let mut rates = gate.rates.lock();
        let turns: Vec<_> = (0..8).map(|_| rates.take(0.0, later) - later).collect();
        assert_eq!(turns.iter().filter(|wait| wait.is_zero()).count(), 6);
    }

    /// Scenario: the provider counts fewer tokens than were estimated.
    /// Guarantees: the difference is there for the next call.
    #[tokio::test]
    async fn an_estimate_is_corrected_by_what_was_spent() {
        let gate = gate(0, 6_000, 0);
        for _ in 0..9 {
            gate.enter(600).await.spent(60);
        }
        let left = gate.rates.lock().tokens.as_ref().map(Bucket::left);
        assert!(left.is_some_and(|left| left >= 60.0), "{left:?}");
    }

    /// Scenario: one caller is told to wait while others are about to call.
    /// Guarantees: nobody calls before that time.
    #[tokio::test]
    async fn a_provider_that_asks_to_wait_is_left_alone_by_all() {
        let gate = gate(0, 0, 1);
        let start = Instant::now();
        let first = gate.enter(0).await;
        let others: Vec<_> = (0..3)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { drop(gate.enter(0).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        gate.close_for(Duration::from_millis(80));
        drop(first);
        for other in others {
            other.await.unwrap();
            assert!(start.elapsed() >= Duration::from_millis(80));
        }
    }

    /// Scenario: callers give up while they wait for their turn.
    /// Guarantees: what they had taken is there for others.
    #[tokio::test]
    async fn who_gives_up_takes_nothing() {
        let gate = gate(1, 60, 0);
        drop(gate.enter(1).await);
        for _ in 0..50 {
            assert!(futures::poll!(std::pin::pin!(gate.enter(1))).is_pending());
        }
        let mut rates = gate.rates.lock();
        let now = Instant::now();
        assert!(rates.take(1.0, now) - now <= Duration::from_secs(60));
    }

    #[test]
    fn callers_of_one_provider_share_its_gate() {
        let limits = LimitSettings { requests_per_minute: 7, ..LimitSettings::default() };
        let one = Gate::shared("h:1", &limits);
        assert!(Arc::ptr_eq(&one, &Gate::shared("h:1", &limits)));
        assert!(!Arc::ptr_eq(&one, &Gate::shared("h:2", &limits)));
        assert!(!Arc::ptr_eq(&one, &Gate::shared("h:1", &LimitSettings::default())));
    }
}
