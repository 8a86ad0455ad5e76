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
    /// The outermost spans, in place.
    first: UnsafeCell<[Entered; FIRST]>,
    depth: Cell<usize>,
    /// Those further in.
    others: UnsafeCell<Vec<Entered>>,
}

impl Default for Stack {
    fn default() -> Self {
        let none = Entered { key: 0, is_recorded: false };
        Self {
            first: UnsafeCell::new([none; FIRST]),
            depth: Cell::new(0),
            others: UnsafeCell::default(),
        }
    }
}

impl Stack {
    /// Innermost span entered, or 0.
    #[inline(always)]
    pub(super) fn current(&self) -> u64 {
        let Some(place) = self.depth.get().checked_sub(1) else { return 0 };
        // SAFETY: see the type.
        match unsafe { &*self.first.get() }.get(place) {
            Some(entered) => entered.key,
            None => self.last_of_others(),
        }
    }

    #[cold]
    fn last_of_others(&self) -> u64 {
        // SAFETY: see the type.
        unsafe { &*self.others.get() }.last().map_or(0, |entered| entered.key)
    }

    #[inline(always)]
    pub(super) fn push(&self, entered: Entered) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        // SAFETY: see the type.
        match unsafe { &mut *self.first.get() }.get_mut(depth) {
            Some(place) => *place = entered,
            None => self.push_other(entered),
        }
    }

    #[cold]
    #[inline(never)]
    fn push_other(&self, entered: Entered) {
        // SAFETY: see the type.
        unsafe { &mut *self.others.get() }.push(entered);
    }

    /// The span is left; whether its entry was recorded, `None` if it was not entered here.
    ///
    /// Read part by part: a copy of the whole would have to wait until both of its parts, which
    /// were stored a moment ago, have reached the cache.
    #[inline(always)]
    pub(super) fn pop(&self, key: u64) -> Option<bool> {
        let depth = self.depth.get();
        // SAFETY: see the type.
        match unsafe { &*self.first.get() }.get(depth.wrapping_sub(1)) {
            Some(top) if top.key == key => {
                self.depth.set(depth - 1);
                Some(top.is_recorded)
            }
            _ => self.remove(key),
        }
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
        first.iter().take(self.depth.get()).chain(others).copied().collect()
    }

    fn set(&self, all: &[Entered]) {
        let (first, others) = all.split_at_checked(FIRST).unwrap_or((all, &[]));
        // SAFETY: see the type.
        let places = unsafe { &mut *self.first.get() };
        places.iter_mut().zip(first).for_each(|(place, entered)| *place = *entered);
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
