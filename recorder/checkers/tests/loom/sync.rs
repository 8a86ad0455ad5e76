//! Loom's locks and atomics, as `sync` of the recorder has them.

#![expect(unsafe_code, reason = "the same faces as those of the journal's words")]

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

crate::locks::locks_of!(loom);

pub(crate) type Word = loom::sync::atomic::AtomicU64;

pub(crate) unsafe fn load(word: *const Word, order: Ordering) -> u64 {
    // SAFETY: as the caller says.
    unsafe { &*word }.load(order)
}

pub(crate) unsafe fn store(word: *mut Word, value: u64, order: Ordering) {
    // SAFETY: as the caller says.
    unsafe { &*word }.store(value, order);
}

/// Loom ends the test when another thread may be writing.
pub(crate) unsafe fn read(word: *const Word) -> u64 {
    // SAFETY: as the caller says.
    unsafe { (*word).unsync_load() }
}

/// The same when another thread may be reading.
pub(crate) unsafe fn write(word: *mut Word, value: u64) {
    // SAFETY: as the caller says.
    unsafe { &mut *word }.with_mut(|word| *word = value);
}
