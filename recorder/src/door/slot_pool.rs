//! Span slots that threads of a subscriber keep, and leave to each other.

use std::cell::Cell;

use parking_lot::Mutex;

/// Span slots that a thread keeps for the next spans it opens, the one freed last on top: it is
/// still in the cache.
#[derive(Debug)]
pub(crate) struct FreeSlots {
    count: Cell<usize>,
    places: [Cell<u32>; SLOTS_KEPT],
}

impl Default for FreeSlots {
    fn default() -> Self {
        Self { count: Cell::new(0), places: [const { Cell::new(0) }; SLOTS_KEPT] }
    }
}

impl FreeSlots {
    /// Takes one, if there are any.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<u32> {
        let last = self.count.get().wrapping_sub(1);
        let slot = self.places.get(last)?.get();
        self.count.set(last);
        Some(slot)
    }

    /// Keeps one more; `false` when there is no place for it.
    #[inline(always)]
    pub(crate) fn push(&self, slot: u32) -> bool {
        let count = self.count.get();
        let Some(place) = self.places.get(count) else { return false };
        place.set(slot);
        self.count.set(count + 1);
        true
    }
}

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

    /// Takes a batch from a thread that keeps too many, or `all` of them when it ends.
    pub(crate) fn take_from(&self, own: &FreeSlots, slots: usize) {
        self.lock().extend(std::iter::from_fn(|| own.pop()).take(slots));
    }
}

/// Slots a thread takes or leaves at a time.
pub(crate) const SLOT_BATCH: usize = 64;
/// Slots a thread keeps at most: opening and ending a batch of spans in turn must not move one
/// each time.
pub(crate) const SLOTS_KEPT: usize = SLOT_BATCH * 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a thread is given more slots than it may keep, leaves a batch, and ends.
    #[test]
    fn every_slot_is_somewhere_and_only_once() {
        let (own, pool) = (FreeSlots::default(), SlotPool::new());
        let kept: Vec<u32> = (0..1_000).filter(|slot| own.push(*slot)).collect();
        assert_eq!(kept.len(), SLOTS_KEPT);
        assert_eq!(own.pop(), kept.last().copied(), "the one freed last is on top");
        assert!(own.push(SLOTS_KEPT as u32 - 1));
        pool.take_from(&own, SLOT_BATCH);
        assert_eq!(pool.lock().len(), SLOT_BATCH);
        pool.take_from(&own, SLOTS_KEPT);
        assert_eq!(own.pop(), None);
        let mut all = pool.lock().clone();
        all.sort_unstable();
        assert_eq!(all, kept);
    }
}
