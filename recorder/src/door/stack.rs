//! The spans a thread is in.

#![expect(unsafe_code, reason = "a RefCell's bookkeeping costs more than what it guards here")]

use std::cell::{Cell, UnsafeCell};

/// A span that is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) key: u64,
    /// Its entry was recorded, so its exit must be.
    pub(crate) is_recorded: bool,
}

/// Spans entered on one thread, innermost last.
///
/// No method calls out, so no reference to the spans is alive when another one begins; and being
/// in an `UnsafeCell` keeps it on its thread.
#[derive(Debug)]
pub(super) struct Stack {
    /// The outermost spans, in place. Before them stands one that is none, which is current when
    /// no span is entered: reading it needs no question whether there is one.
    first: UnsafeCell<[Entered; 1 + FIRST]>,
    depth: Cell<usize>,
    /// Those further in.
    others: UnsafeCell<Vec<Entered>>,
}

impl Default for Stack {
    fn default() -> Self {
        let none = Entered { key: 0, is_recorded: false };
        Self {
            first: UnsafeCell::new([none; 1 + FIRST]),
            depth: Cell::new(0),
            others: UnsafeCell::default(),
        }
    }
}

impl Stack {
    /// Innermost span entered, or 0.
    #[inline(always)]
    pub(super) fn current(&self) -> u64 {
        // SAFETY: see the type.
        match unsafe { &*self.first.get() }.get(self.depth.get()) {
            Some(entered) => entered.key,
            None => self.last_of_others(),
        }
    }

    #[cold]
    fn last_of_others(&self) -> u64 {
        // SAFETY: see the type.
        unsafe { &*self.others.get() }.last().map_or(0, |entered| entered.key)
    }

    pub(super) fn push(&self, entered: Entered) {
        if !self.push_in_place(entered) {
            self.depth.set(self.depth.get() + 1);
            // SAFETY: see the type.
            unsafe { &mut *self.others.get() }.push(entered);
        }
    }

    /// The same if the span has a place among the outermost ones.
    #[inline(always)]
    pub(super) fn push_in_place(&self, entered: Entered) -> bool {
        let depth = self.depth.get() + 1;
        // SAFETY: see the type.
        let Some(place) = unsafe { &mut *self.first.get() }.get_mut(depth) else { return false };
        *place = entered;
        self.depth.set(depth);
        true
    }

    /// The span is left; whether its entry was recorded, `None` if it was not entered here.
    #[inline(always)]
    pub(super) fn pop(&self, key: u64) -> Option<bool> {
        match self.top_if(key) {
            Some(is_recorded) => {
                self.depth.set(self.depth.get() - 1);
                Some(is_recorded)
            }
            None => self.remove(key),
        }
    }

    /// The same if it is the innermost span, has a place among the outermost ones, and its entry
    /// was not recorded.
    #[inline(always)]
    pub(super) fn pop_unrecorded(&self, key: u64) -> bool {
        let is_it = self.top_if(key) == Some(false);
        if is_it {
            self.depth.set(self.depth.get() - 1);
        }
        is_it
    }

    /// Whether the entry of the innermost span was recorded, if it is that one, in its place.
    ///
    /// Read part by part: a copy of the whole would have to wait until both of its parts, which
    /// were stored a moment ago, have reached the cache.
    #[inline(always)]
    fn top_if(&self, key: u64) -> Option<bool> {
        debug_assert!(key != 0, "no span");
        // SAFETY: see the type.
        let top = unsafe { &*self.first.get() }.get(self.depth.get())?;
        if top.key == key { Some(top.is_recorded) } else { None }
    }

    /// Guards may be dropped in any order.
    #[cold]
    #[inline(never)]
    fn remove(&self, key: u64) -> Option<bool> {
        let mut all = self.all();
        let place = all.iter().rposition(|entered| entered.key == key)?;
        let entered = all.remove(place);
        self.set(&all);
        Some(entered.is_recorded)
    }

    fn all(&self) -> Vec<Entered> {
        // SAFETY: see the type.
        let (first, others) = unsafe { (&*self.first.get(), &*self.others.get()) };
        first.iter().skip(1).take(self.depth.get()).chain(others).copied().collect()
    }

    fn set(&self, all: &[Entered]) {
        let (first, others) = all.split_at_checked(FIRST).unwrap_or((all, &[]));
        // SAFETY: see the type.
        let places = unsafe { &mut *self.first.get() };
        places.iter_mut().skip(1).zip(first).for_each(|(place, entered)| *place = *entered);
        // SAFETY: see the type.
        *unsafe { &mut *self.others.get() } = others.to_vec();
        self.depth.set(all.len());
    }
}

/// Spans a thread is in before a list of its own is needed.
const FIRST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: more spans than have a place, left from the inside, from the outside and twice.
    #[test]
    fn spans_are_found_in_whatever_order_they_are_left() {
        let stack = Stack::default();
        let entered = |key| Entered { key, is_recorded: key % 2 == 0 };
        for key in 1..=100 {
            stack.push(entered(key));
            assert_eq!(stack.current(), key);
        }
        for key in (51..=100).rev() {
            assert_eq!(stack.pop(key), Some(key % 2 == 0));
        }
        for key in 1..=20 {
            assert_eq!(stack.pop(key), Some(key % 2 == 0));
            assert_eq!(stack.pop(key), None);
            assert_eq!(stack.current(), 50);
        }
        for key in (21..=50).rev() {
            assert_eq!(stack.current(), key);
            assert_eq!(stack.pop(key), Some(key % 2 == 0));
        }
        assert_eq!((stack.current(), stack.pop(1)), (0, None));
    }
}
