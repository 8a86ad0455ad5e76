//! One monotonic clock, anchored once to wall time.
//!
//! Durations inside a run must not jump when somebody sets the system clock, so wall time is read
//! once and every later time is that anchor plus a monotonic difference.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock whose times never step back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    anchor_unix_ns: i64,
}

impl Clock {
    /// Anchors a new clock to the present wall time.
    #[must_use]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            anchor: Instant::now(),
            // 2262 is when nanoseconds since 1970 no longer fit an i64.
            anchor_unix_ns: i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX / 2),
        }
    }

    /// Now, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn now_unix_ns(&self) -> i64 {
        let elapsed = i64::try_from(self.anchor.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.anchor_unix_ns.saturating_add(elapsed)
    }
}
