//! What a connection is doing, so that one that does nothing can be closed.
//!
//! hyper has a timeout for heads, but it also runs while a connection waits for its next request,
//! where ten seconds would cut every exporter between two exports. So time is kept here, by who
//! read bytes and who answers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::settings::Timeouts;

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Activity {
    state: Mutex<State>,
    evicted: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Requests whose response is not complete.
    in_progress: u32,
    /// When the last of them ended.
    idle_since: Instant,
    /// When the first byte of the next head came.
    head_since: Option<Instant>,
    /// Whether bytes without a request begin a head. In HTTP/2 they may be a ping or a window.
    bytes_begin_heads: bool,
}

/// Why a connection was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// A head took too long.
    Head,
    /// There was no request for too long.
    Idle,
    /// Another connection needed the place.
    Evicted,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            in_progress: 0,
            idle_since: Instant::now(),
            head_since: None,
            bytes_begin_heads: true,
        };
        Arc::new(Self { state: Mutex::new(state), evicted: CancellationToken::new() })
    }

    /// Bytes came in.
    pub(crate) fn bytes_came(&self) {
        let mut state = self.state.lock();
        if state.bytes_begin_heads && state.in_progress == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// The connection speaks HTTP/2.
    pub(crate) fn is_multiplexed(&self) {
        let mut state = self.state.lock();
        state.bytes_begin_heads = false;
        state.head_since = None;
    }

    /// A request begins; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InProgress {
        let mut state = self.state.lock();
        state.in_progress += 1;
        state.head_since = None;
        InProgress(Arc::clone(self))
    }

    /// Since when there has been no request, if there is none.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.in_progress == 0).then_some(state.idle_since)
    }

    /// Gives the connection's place to another.
    pub(crate) fn evict(&self) {
        self.evicted.cancel();
    }

    /// Completes when the connection has to go.
    pub(crate) async fn expired(&self, timeouts: &Timeouts) -> Expiry {
        // A head that begins moves the deadline forward, so it is looked at again in between.
        let look_again = (timeouts.head.min(timeouts.idle) / 8).clamp(LOOK_MIN, LOOK_MAX);
        loop {
            let now = Instant::now();
            let wait = match self.deadline(timeouts) {
                Some((deadline, expiry)) if deadline <= now => return expiry,
                Some((deadline, _)) => look_again.min(deadline - now),
                None => look_again,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.evicted.cancelled() => return Expiry::Evicted,
            }
        }
    }

    fn deadline(&self, timeouts: &Timeouts) -> Option<(Instant, Expiry)> {
        let state = self.state.lock();
        match (state.in_progress, state.head_since) {
            (0, Some(since)) => Some((since + timeouts.head, Expiry::Head)),
            (0, None) => Some((state.idle_since + timeouts.idle, Expiry::Idle)),
            _ => None,
        }
    }
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct InProgress(Arc<Activity>);

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.in_progress -= 1;
        state.idle_since = Instant::now();
    }
}

/// Most often that a deadline is looked at.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// Least often: a timeout is exact to this.
const LOOK_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_millis(50);
    const NEVER: Duration = Duration::from_secs(3600);

    /// What ends the connection, or `None` if nothing does for a while.
    async fn expiry(activity: &Activity, head: Duration, idle: Duration) -> Option<Expiry> {
        let timeouts = Timeouts { head, idle, ..Timeouts::default() };
        tokio::time::timeout(HEAD * 8, activity.expired(&timeouts)).await.ok()
    }

    /// Scenario: a client connects and sends nothing, or one byte, or a whole request.
    /// Guarantees: O3 - each has its own timeout, and a request in progress has none here.
    #[tokio::test]
    async fn heads_and_idle_connections_have_their_own_timeouts() {
        let activity = Activity::new();
        assert_eq!(expiry(&activity, HEAD, NEVER).await, None);
        assert_eq!(expiry(&activity, NEVER, HEAD).await, Some(Expiry::Idle));
        activity.bytes_came();
        assert_eq!(expiry(&activity, HEAD, NEVER).await, Some(Expiry::Head));

        let activity = Activity::new();
        activity.bytes_came();
        let request = activity.begin();
        activity.bytes_came();
        assert_eq!(activity.idle_since(), None);
        assert_eq!(expiry(&activity, HEAD, HEAD).await, None);
        drop(request);
        assert_eq!(expiry(&activity, HEAD, NEVER).await, None);
        assert_eq!(expiry(&activity, NEVER, HEAD).await, Some(Expiry::Idle));
        activity.evict();
        assert_eq!(expiry(&activity, NEVER, NEVER).await, Some(Expiry::Evicted));
    }

    /// Scenario: a head of which a byte comes each millisecond.
    /// Guarantees: O3 - the time counts from the first byte, not from the last.
    #[tokio::test]
    async fn a_trickle_does_not_move_the_deadline() {
        let activity = Activity::new();
        let trickle = async {
            loop {
                activity.bytes_came();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            found = expiry(&activity, HEAD, NEVER) => assert_eq!(found, Some(Expiry::Head)),
            () = trickle => {}
        }
    }

    /// Scenario: pings on an HTTP/2 connection without requests.
    /// Guarantees: they begin no head.
    #[tokio::test]
    async fn bytes_of_a_multiplexed_connection_begin_no_head() {
        let activity = Activity::new();
        activity.bytes_came();
        activity.is_multiplexed();
        activity.bytes_came();
        assert_eq!(expiry(&activity, HEAD, NEVER).await, None);
        assert_eq!(expiry(&activity, NEVER, HEAD).await, Some(Expiry::Idle));
    }
}
