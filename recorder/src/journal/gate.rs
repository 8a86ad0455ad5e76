//! The end of a run, for threads whose events must be in it or be refused.

use super::sync::{AtomicBool, AtomicUsize, Ordering};

/// Open until the run is over.
#[derive(Debug)]
pub(crate) struct Gate {
    is_closed: AtomicBool,
    /// Threads in the middle of an event whose acceptance they will report.
    inside: AtomicUsize,
}

/// A thread in the middle of such an event; it has left when this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    pub(crate) fn new() -> Self {
        Self { is_closed: AtomicBool::new(false), inside: AtomicUsize::new(0) }
    }

    /// Whether it was closed; a thread may see that late.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Goes in; `None` when the gate is closed. What is done before the guard is dropped is done
    /// before [`Gate::is_empty`] is true.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        self.inside.fetch_add(1, Ordering::AcqRel);
        let inside = Inside(self);
        // Either this sees that the gate is closed, or `is_empty` sees us: of the two changes to
        // the count one comes first, and what was done before it is seen after the other.
        (!self.is_closed.load(Ordering::Acquire)).then_some(inside)
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether everybody has left. To be asked after [`Gate::close`].
    pub(crate) fn is_empty(&self) -> bool {
        // A change, not a reading: a reading could see the count of before somebody went in.
        self.inside.fetch_add(0, Ordering::AcqRel) == 0
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
    }
}
