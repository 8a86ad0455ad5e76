//! Waking the writer thread.

use std::time::Duration;

use super::sync::{Condvar, Mutex};

/// Wakes whoever waits for it, or the next one who would.
#[derive(Debug)]
pub(crate) struct Alarm {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self { is_set: Mutex::new(false), changed: Condvar::new() }
    }

    /// Sleeps until [`Alarm::wake`] is called, unless it was called since the last time, or the
    /// time is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        let mut is_set = self.is_set.lock();
        if !*is_set {
            let _ = self.changed.wait_for(&mut is_set, at_most);
        }
        *is_set = false;
    }

    /// Ends the sleep, now or when it begins.
    pub(crate) fn wake(&self) {
        *self.is_set.lock() = true;
        self.changed.notify_all();
    }
}
