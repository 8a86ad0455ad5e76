//! Calling again what may succeed later.
//!
//! Only failures that the call itself declares transient are tried again, so a subclass of a fatal
//! error is never retried blindly. A call that waits has left its [`Gate`]: its place among the
//! concurrent ones is somebody else's meanwhile.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::gate::{Gate, Permit};

/// How often, and how long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries_max: usize,
    /// Upper end of the first delay; it doubles from there.
    pub delay_min: Duration,
    /// Upper end of any delay.
    pub delay_max: Duration,
    /// Longest wait a provider may ask for; a longer one is reported instead of slept through.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    /// Some four seconds of patience on average.
    fn default() -> Self {
        Self {
            retries_max: 4,
            delay_min: Duration::from_millis(500),
            delay_max: Duration::from_secs(8),
            wait_max: Duration::from_secs(30),
        }
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub struct Failed<E> {
    /// Why.
    pub error: E,
    /// Whether another attempt may succeed.
    pub is_transient: bool,
    /// How long the provider asks to wait.
    pub wait: Option<Duration>,
}

/// What succeeded, and what it took.
#[derive(Debug)]
pub struct Succeeded<T> {
    /// The result.
    pub value: T,
    /// Attempts after the first.
    pub retries: u32,
    /// The place it holds; drop it when the answer is read.
    pub permit: Permit,
}

/// What failed for good.
#[derive(Debug)]
pub struct GaveUp<E> {
    /// The last attempt.
    pub failed: Failed<E>,
    /// Attempts after the first.
    pub retries: u32,
}

/// Calls `attempt` through `gate` until it succeeds or another attempt cannot help.
///
/// # Errors
/// The last attempt's failure.
pub async fn retry<T, E, F>(
    policy: &RetryPolicy,
    gate: &Arc<Gate>,
    tokens: u64,
    mut attempt: impl FnMut() -> F,
) -> Result<Succeeded<T>, GaveUp<E>>
where
    F: Future<Output = Result<T, Failed<E>>>,
{
    let mut delays = Delays::new(policy);
    let mut retries = 0;
    loop {
        let permit = gate.enter(tokens).await;
        let failed = match attempt().await {
            Ok(value) => return Ok(Succeeded { value, retries, permit }),
            Err(failed) => failed,
        };
        drop(permit);
        let delay = failed.is_transient.then(|| delays.next(failed.wait)).flatten();
        let Some(delay) = delay else { return Err(GaveUp { failed, retries }) };
        if let Some(wait) = failed.wait {
            gate.close_for(wait);
        }
        tracing::debug!(delay_ms = millis(delay), "wait before another attempt");
        tokio::time::sleep(delay).await;
        retries += 1;
    }
}

/// How long to wait before each retry.
#[derive(Debug)]
struct Delays {
    backoff: backon::ExponentialBackoff,
    /// The part of the next delay that `backon` does not draw.
    base: Duration,
    policy: RetryPolicy,
}

impl Delays {
    fn new(policy: &RetryPolicy) -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(policy.delay_min)
            .with_max_delay(policy.delay_max)
            .with_max_times(policy.retries_max)
            .with_jitter()
            .build();
        Self { backoff, base: policy.delay_min, policy: policy.clone() }
    }

    /// The next delay, or nothing if it is time to give up.
    ///
    /// `backon` draws from base to twice the base. Full jitter draws from zero to the base, which
    /// spreads many clients better: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let drawn = self.backoff.next()?.saturating_sub(self.base);
        self.base = (self.base * 2).min(self.policy.delay_max);
        match asked {
            Some(wait) if wait > self.policy.wait_max => None,
            // Those who were told the same time should not all come back in the same moment.
            Some(wait) => Some(wait + drawn.min(self.policy.delay_min)),
            None => Some(drawn),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use retake_schemas::settings::LimitSettings;
    use tokio::time::Instant;

    use super::*;

    fn failed(is_transient: bool, wait: Option<u64>) -> Failed<&'static str> {
        Failed { error: "no", is_transient, wait: wait.map(Duration::from_millis) }
    }

    /// Delays too short to wait for.
    fn policy() -> RetryPolicy {
        RetryPolicy { delay_min: Duration::from_millis(2), ..RetryPolicy::default() }
    }

    fn gate(concurrency: usize) -> Arc<Gate> {
        Arc::new(Gate::new(&LimitSettings { concurrency, ..LimitSettings::default() }))
    }

    /// Scenario: an attempt that fails for good, and one that may succeed later but never does.
    /// Guarantees: the first is not tried again; the other as often as the policy says.
    #[tokio::test]
    async fn only_what_may_succeed_later_is_tried_again() {
        let policy = policy();
        for (is_transient, expected) in [(false, 1), (true, 5)] {
            let calls = AtomicU32::new(0);
            let attempt = || async {
                calls.fetch_add(1, Ordering::SeqCst);
                Err::<(), _>(failed(is_transient, None))
            };
            let error = retry(&policy, &gate(0), 0, attempt).await.unwrap_err();
            assert_eq!(error.retries + 1, expected);
            assert_eq!(calls.load(Ordering::SeqCst), expected);
        }
    }

    /// Scenario: one place, and a call that waits for its next attempt.
    /// Guarantees: another call goes meanwhile.
    #[tokio::test]
    async fn the_place_is_released_while_waiting() {
        let gate = gate(1);
        let policy = RetryPolicy { retries_max: 50, ..policy() };
        let tries = AtomicU32::new(0);
        let (other_went, began) = (AtomicU32::new(0), tokio::sync::Notify::new());
        let waiting = retry(&policy, &gate, 0, || async {
            began.notify_one();
            // It fails until the other has gone, which it can only while this one waits.
            match (other_went.load(Ordering::SeqCst), tries.fetch_add(1, Ordering::SeqCst)) {
                (0, _) => Err(failed(true, None)),
                (_, tries) => Ok(tries),
            }
        });
        let other = async {
            began.notified().await;
            drop(gate.enter(0).await);
            other_went.store(1, Ordering::SeqCst);
        };
        let (first, ()) = tokio::join!(waiting, other);
        assert!(first.unwrap().retries >= 1);
    }

    /// Scenario: providers that ask to wait, one for longer than anybody has patience.
    /// Guarantees: the time is kept to, and by everybody; too long is an error at once.
    #[tokio::test]
    async fn the_time_a_provider_asks_for_is_kept_to() {
        let policy = policy();
        let gate = gate(0);
        let tries = AtomicU32::new(0);
        let start = Instant::now();
        let succeeded = retry(&policy, &gate, 0, || async {
            match tries.fetch_add(1, Ordering::SeqCst) {
                0 => Err(failed(true, Some(60))),
                _ => Ok(()),
            }
        });
        assert_eq!(succeeded.await.unwrap().retries, 1);
        assert!(start.elapsed() >= Duration::from_millis(60), "{:?}", start.elapsed());
        let error =
            retry(&policy, &gate, 0, || async { Err::<(), _>(failed(true, Some(3_600_000))) });
        assert_eq!(error.await.unwrap_err().retries, 0);
    }

    /// Scenario: many clients that failed in the same moment.
    /// Guarantees: full jitter: delays spread from zero to the base, and the base doubles.
    #[test]
    fn delays_are_spread_from_zero_to_a_doubling_base() {
        let policy = RetryPolicy { retries_max: 8, ..RetryPolicy::default() };
        let mut shortest = [f64::MAX; 8];
        let mut longest = [0.0_f64; 8];
        for _ in 0..400 {
            let mut delays = Delays::new(&policy);
            for n in 0..8 {
                let delay = delays.next(None).unwrap().as_secs_f64();
                shortest[n] = shortest[n].min(delay);
                longest[n] = longest[n].max(delay);
            }
            assert_eq!(delays.next(None), None);
        }
        for (n, base) in [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0].into_iter().enumerate() {
            assert!(shortest[n] < base * 0.1, "{n}: {}", shortest[n]);
            assert!(longest[n] > base * 0.9 && longest[n] <= base, "{n}: {}", longest[n]);
        }
    }
}
