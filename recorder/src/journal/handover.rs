//! How records and chunks pass from the thread that writes a lane to the one that drains it, and
//! back.
//!
//! The writer of a lane stores a record's words, a zero behind them, and its header last: who sees
//! the header sees the record. When a chunk is full it puts the next one behind it, under the
//! lane's lock. The drainer leaves a chunk only when it found no more records there *after* it saw
//! a next one under that lock. A chunk comes back, through the pool's lock, when it was left and
//! its records are sealed.

#![expect(unsafe_code, reason = "chunks are read while they are written")]

use std::collections::VecDeque;

use super::record;
use super::sync::{Mutex, Ordering, Word, load, read, store};

/// Makes the next `words` words, all but the first of which are written, a record; gives the place
/// of the next one.
///
/// # Safety
/// So many words at `position` and one more are the caller's alone to write, but for a reader that
/// goes by headers.
#[inline(always)]
pub(super) unsafe fn publish(position: *mut Word, words: usize, head: u64) -> *mut Word {
    // SAFETY: as the caller says. Places that may become headers are only stored atomically.
    unsafe {
        let end = position.add(words);
        store(end, 0, Ordering::Relaxed);
        store(position, head, Ordering::Release);
        end
    }
}

/// The end of what is published of a chunk of `len` words, from the record at `from` on.
///
/// # Safety
/// The chunk lives and is not given back meanwhile.
#[inline]
pub(super) unsafe fn published(chunk: *const Word, from: usize, len: usize) -> usize {
    let mut end = from;
    while end < len {
        // SAFETY: inside the chunk; the owner only stores words atomically that may become
        // headers.
        let head = unsafe { load(chunk.add(end), Ordering::Acquire) };
        if head == 0 {
            break;
        }
        // SAFETY: the header is published, so the whole record is; a record with a long header
        // has a third word.
        let count = record::words_stated(head, || unsafe { read(chunk.add(end + 2)) });
        if count == 0 || count > len - end {
            break;
        }
        end += count;
    }
    end
}

/// Starts a use of a chunk: nothing in it counts any more, then its header does.
///
/// # Safety
/// The chunk, with `first` words before its first record, is the caller's alone.
pub(super) unsafe fn begin(chunk: *mut Word, first: usize, header: [u64; 4]) {
    let [magic, rest @ ..] = header;
    // SAFETY: as the caller says.
    unsafe {
        store(chunk.add(first), 0, Ordering::Relaxed);
        for (index, word) in rest.into_iter().enumerate() {
            store(chunk.add(index + 1), word, Ordering::Relaxed);
        }
        store(chunk, magic, Ordering::Release);
    }
}

/// Ends its use: what is in it is sealed and must not be read again.
///
/// # Safety
/// The chunk is the caller's alone.
pub(super) unsafe fn retire(chunk: *mut Word) {
    // SAFETY: as the caller says.
    unsafe { store(chunk, 0, Ordering::Release) };
}

/// Who reads a lane, chunk by chunk.
pub(super) trait Reads {
    /// A chunk of the lane, as its writer leaves it there.
    type Chunk;

    /// Looks for a published record at the present place; `true` when there is one.
    fn finds_record(&mut self) -> bool;

    /// The place of the next chunk among the lane's.
    fn next_chunk(&self) -> usize;

    /// Goes to the start of the next chunk.
    fn enter(&mut self, chunk: &Self::Chunk);
}

/// Finds the next record of a lane, in this chunk or one after it.
pub(super) fn look<R: Reads>(reader: &mut R, chunks: &Mutex<VecDeque<R::Chunk>>) {
    while !reader.finds_record() {
        let chunks = chunks.lock();
        let Some(chunk) = chunks.get(reader.next_chunk()) else { return };
        // The owner published its last record here before it fetched the next chunk; what was not
        // yet there when we looked first is there now.
        if reader.finds_record() {
            return;
        }
        reader.enter(chunk);
    }
}
