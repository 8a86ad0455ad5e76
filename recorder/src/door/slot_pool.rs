//! Span slots that threads of a subscriber leave to each other.

use parking_lot::Mutex;

/// Span slots that no thread keeps.
#[derive(Debug, Default)]
pub(crate) struct SlotPool {
    pid: u32,
    free: Mutex<Vec<u32>>,
    /// The same in forked children: there the other lock may be held by a thread that does not
    /// exist.
    free_in_child: Mutex<Vec<u32>>,
}

impl SlotPool {
    pub(super) fn new() -> Self {
        Self { pid: crate::fork::current_pid(), ..Self::default() }
    }

    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, Vec<u32>> {
        if crate::fork::current_pid() == self.pid { &self.free } else { &self.free_in_child }.lock()
    }
}
