//! What threads meet at: locks, atomics, and the words of a chunk.
//!
//! In one place, because the protocols on top of it (`journal/handover.rs`, `journal/gate.rs`,
//! `journal/alarm.rs`, `writer/orders.rs`) are compiled once more in `checkers/tests/loom` and
//! `checkers/tests/shuttle`, with the locks and atomics of these checkers in place of these. What needs no
//! such check has no need to use it.

#![expect(unsafe_code, reason = "words of a chunk lie in mapped memory")]

use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use crossbeam_channel::{Receiver, Sender};
pub(crate) use parking_lot::{Condvar, Mutex};

/// A word of a chunk.
pub(crate) type Word = u64;

/// Reads a word that may be a header.
///
/// # Safety
/// The word is valid, and whoever writes it meanwhile uses [`store`].
#[inline(always)]
pub(crate) unsafe fn load(word: *const Word, order: Ordering) -> u64 {
    // SAFETY: as the caller says.
    unsafe { AtomicU64::from_ptr(word.cast_mut()) }.load(order)
}

/// Writes a word that may be a header.
///
/// # Safety
/// The word is valid, and whoever reads it meanwhile uses [`load`].
#[inline(always)]
pub(crate) unsafe fn store(word: *mut Word, value: u64, order: Ordering) {
    // SAFETY: as the caller says.
    unsafe { AtomicU64::from_ptr(word) }.store(value, order);
}

/// Reads a word that is no header.
///
/// # Safety
/// The word is valid, and nobody writes it meanwhile.
#[inline(always)]
pub(crate) unsafe fn read(word: *const Word) -> u64 {
    // SAFETY: as the caller says.
    unsafe { word.read() }
}
