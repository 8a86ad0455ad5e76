//! A lane: the sequence of records of one thread at a time, and the cursor that appends to it.
//!
//! Appending takes no lock, no allocation and no system call. Every few hundred spans the cursor
//! fetches the next chunk, under a lock that nobody holds for long.

#![expect(unsafe_code, reason = "records are written in place, into mapped memory")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use retake_schemas::event::DropCause;

use super::Journal;
use super::record::{self, Kind, field};
use super::ring::{Chunk, ChunkHeader};

/// The part of a lane that the draining thread sees.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: u32,
    /// Its chunks, oldest first; the last one is being written.
    pub(crate) chunks: Mutex<VecDeque<LaneChunk>>,
}

/// A chunk in use.
#[derive(Debug)]
pub(crate) struct LaneChunk {
    pub(crate) chunk: Chunk,
    pub(crate) header: ChunkHeader,
}

/// The writing end of a lane. One thread has it at a time.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) lane: Arc<Lane>,
    /// Where the next record goes; the word there is zero.
    position: *mut u64,
    /// End of the present chunk.
    end: *mut u64,
    seed: u64,
    /// Records written to the lane.
    seq: u64,
    /// Spans opened in the lane.
    opens: u64,
}

// SAFETY: the pointers are into the present chunk of the lane, which only this cursor writes to;
// whoever holds the cursor keeps the journal alive.
unsafe impl Send for Cursor {}

/// Why a record was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was counted as lost.
    Dropped(DropCause),
    /// It does not fit a chunk: to be built aside and given to [`Cursor::append`].
    TooLong,
}

impl Cursor {
    /// A cursor at the start of a new lane; its first record fetches a chunk.
    pub(crate) fn new(lane: Arc<Lane>) -> Self {
        let none = std::ptr::null_mut();
        Self { lane, position: none, end: none, seed: 0, seq: 0, opens: 0 }
    }

    /// Begins a record: its words after the ticks are to be pushed, and [`Cursor::commit`] makes
    /// it one. A record that is not committed never was.
    #[inline(always)]
    pub(crate) fn begin(&mut self, journal: &Journal, kind: Kind) -> Result<Body, Refused> {
        if (self.end as usize) - (self.position as usize) < MARGIN_BYTES {
            self.next_chunk(journal, kind, CHUNK_WORDS)?;
        }
        // SAFETY: the margin leaves room for header and ticks.
        unsafe {
            self.position.add(1).write(journal.clock.ticks());
            let at = self.position.add(2);
            Ok(Body { at, end: self.end, flags: 0, is_cut_short: false })
        }
    }

    /// Appends the record that was begun last.
    #[inline(always)]
    pub(crate) fn commit(&mut self, kind: Kind, body: &Body) -> Result<(), Refused> {
        if body.is_cut_short {
            return Err(Refused::TooLong);
        }
        self.publish_up_to(kind, body.flags, body.at);
        Ok(())
    }

    /// Appends a record of `N` words after the ticks, which are known beforehand.
    #[inline(always)]
    pub(crate) fn write_words<const N: usize>(
        &mut self,
        journal: &Journal,
        (kind, flags): (Kind, u32),
        words: [u64; N],
    ) -> Result<(), Refused> {
        let margin = if matches!(kind, Kind::Close) { CLOSE_BYTES } else { MARGIN_BYTES };
        if (self.end as usize) - (self.position as usize) < margin.max((N + 2) * 8) {
            self.next_chunk(journal, kind, CHUNK_WORDS)?;
        }
        let ticks = journal.clock.ticks();
        let head = record::header_of(self.seed, (kind, flags), ticks, &words);
        // SAFETY: there is room for header, ticks and words.
        unsafe {
            let body = self.position.add(1);
            body.write(ticks);
            body.add(1).cast::<[u64; N]>().write(words);
        }
        self.publish(kind, head, N + 2);
        Ok(())
    }

    /// Appends a record that was built aside: header place (its flags are kept), ticks, and the
    /// rest. Of any length that the journal may take.
    pub(crate) fn append(
        &mut self,
        journal: &Journal,
        kind: Kind,
        words: &[u64],
    ) -> Result<(), Refused> {
        self.append_as(journal, kind, kind, words)
    }

    /// The same with another kind's claim to a chunk when chunks are few.
    pub(crate) fn append_as(
        &mut self,
        journal: &Journal,
        claim: Kind,
        kind: Kind,
        words: &[u64],
    ) -> Result<(), Refused> {
        let room = ((self.end as usize) - (self.position as usize)) / 8;
        if room < words.len() + 1 {
            self.next_chunk(journal, claim, words.len())?;
        }
        let Some((head, body)) = words.split_first() else { return Ok(()) };
        // SAFETY: `next_chunk` gave room for all words; the source is not in the chunk.
        let end = unsafe {
            let start = self.position.add(1);
            std::ptr::copy_nonoverlapping(body.as_ptr(), start, body.len());
            start.add(body.len())
        };
        self.publish_up_to(kind, (head >> 24) as u32 & 0xFF, end);
        Ok(())
    }

    /// Makes the words between the position and `end` a record.
    #[inline(always)]
    fn publish_up_to(&mut self, kind: Kind, flags: u32, end: *mut u64) {
        let words = ((end as usize) - (self.position as usize)) / 8;
        // SAFETY: the words of the body were written just now by this thread.
        let body = unsafe { std::slice::from_raw_parts(self.position.add(1), words - 1) };
        let head = record::header(self.seed, kind, flags, body);
        self.publish(kind, head, words);
    }

    /// Makes the next so many words, all but the first of which are written, a record.
    #[inline(always)]
    fn publish(&mut self, kind: Kind, head: u64, words: usize) {
        // SAFETY: all places are inside the chunk. Places that may become headers are only stored
        // atomically.
        unsafe {
            let end = self.position.add(words);
            if end < self.end {
                AtomicU64::from_ptr(end).store(0, Ordering::Relaxed);
            }
            AtomicU64::from_ptr(self.position).store(head, Ordering::Release);
            self.position = end;
        }
        self.seq += 1;
        self.opens += u64::from(matches!(kind, Kind::Open));
    }

    #[cold]
    #[inline(never)]
    fn next_chunk(&mut self, journal: &Journal, kind: Kind, words: usize) -> Result<(), Refused> {
        let chunk = journal.take_chunk(kind, words).map_err(Refused::Dropped)?;
        let header = ChunkHeader {
            epoch: journal.next_epoch(),
            lane: self.lane.id,
            first_seq: self.seq,
            first_open: self.opens,
        };
        self.seed = header.seed();
        self.position = chunk.start();
        self.end = chunk.end();
        chunk.begin(&header);
        self.lane.chunks.lock().push_back(LaneChunk { chunk, header });
        journal.chunk_was_filled();
        Ok(())
    }
}

/// The words of a record while it is being written in place.
#[derive(Debug)]
pub(crate) struct Body {
    at: *mut u64,
    end: *mut u64,
    /// As wide as it is read.
    pub(crate) flags: u32,
    /// Something did not fit; the record must be built aside.
    pub(crate) is_cut_short: bool,
}

impl Body {
    #[inline(always)]
    pub(crate) fn push(&mut self, word: u64) {
        if self.at < self.end {
            // SAFETY: inside the chunk, which this thread writes alone.
            unsafe {
                self.at.write(word);
                self.at = self.at.add(1);
            }
        } else {
            self.is_cut_short = true;
        }
    }

    /// Where the next word goes, to come back to.
    #[inline]
    pub(crate) fn place(&self) -> Place {
        Place(self.at)
    }

    /// Fills in words that were pushed at a place.
    #[inline(always)]
    pub(crate) fn fill(&mut self, place: &Place, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            // SAFETY: a place lies between the start of the record and `at`.
            unsafe {
                let target = place.0.add(index);
                if target < self.at {
                    target.write(*word);
                }
            }
        }
    }

    /// Appends a text: its length and its bytes.
    #[inline(always)]
    pub(crate) fn push_str(&mut self, text: &str) {
        let end = put_str(self.at, self.end, text);
        self.is_cut_short |= end == self.at;
        self.at = end;
    }

    /// Room for a text that is formatted in place, at most `bytes_max` long.
    pub(crate) fn text(&mut self, bytes_max: usize) -> TextInPlace<'_> {
        // `finish` writes length and padding even for an empty text.
        self.is_cut_short |= (self.end as usize) - (self.at as usize) < SLACK_BYTES;
        TextInPlace { body: self, len: 0, bytes_max, is_truncated: false }
    }
}

/// Writes a text at `to`: its length and its bytes. Gives the place behind it, or `to` when it does
/// not fit before `end`. One function for all places, which keeps these small; everything it takes
/// and gives is in registers.
#[inline(never)]
fn put_str(to: *mut u64, end: *mut u64, text: &str) -> *mut u64 {
    let words = field::str_words(text.len());
    if ((end as usize) - (to as usize)) / 8 < words {
        return to;
    }
    // SAFETY: there is room for all words; the text is not in the chunk.
    unsafe {
        if text.len() > COPIED_BY_WORDS {
            // Cleared first, so that no byte of an earlier use of the chunk stays in it.
            to.add(words - 1).write(0);
            to.cast::<u32>().write(text.len() as u32);
            let bytes = to.cast::<u8>().add(4);
            std::ptr::copy_nonoverlapping(text.as_ptr(), bytes, text.len());
        } else {
            write_words(text.as_bytes(), to);
        }
        to.add(words)
    }
}

/// Writes the length of a text and its bytes in whole words: their checksum is about to be read,
/// and a word that was stored in parts can only be read when it has reached the cache.
///
/// # Safety
/// There must be room for the text's words at `to`, outside of the text.
#[inline(always)]
unsafe fn write_words(text: &[u8], to: *mut u64) {
    let (len, from) = (text.len(), text.as_ptr());
    // SAFETY: what is read lies in the text, what is written in its words.
    unsafe {
        if len < 8 {
            // The first four bytes are the length's neighbours, the other three a word.
            let bytes = field::word_of(text);
            to.write(len as u64 | bytes << 32);
            if len > 4 {
                to.add(1).write(bytes >> 32);
            }
            return;
        }
        to.write(len as u64 | u64::from(from.cast::<u32>().read_unaligned()) << 32);
        let (mut at, mut to) = (4, to.add(1));
        while at + 8 <= len {
            to.write(from.add(at).cast::<u64>().read_unaligned());
            (at, to) = (at + 8, to.add(1));
        }
        if at < len {
            let last = from.add(len - 8).cast::<u64>().read_unaligned();
            to.write(last >> ((8 - (len - at)) * 8));
        }
    }
}

/// See [`Body::place`].
#[derive(Debug)]
pub(crate) struct Place(*mut u64);

/// See [`Body::text`].
#[derive(Debug)]
pub(crate) struct TextInPlace<'a> {
    body: &'a mut Body,
    len: usize,
    bytes_max: usize,
    is_truncated: bool,
}

impl TextInPlace<'_> {
    /// Takes back what was written, and leaves none of it in the memory: it may be a secret.
    pub(crate) fn clear(&mut self) {
        // SAFETY: `write_str` has written `len` bytes there.
        unsafe { self.body.at.cast::<u8>().add(4).write_bytes(0, self.len) };
        self.len = 0;
    }

    /// The text so far.
    pub(crate) fn as_str(&self) -> &str {
        // SAFETY: `write_str` has copied `len` bytes of whole characters there.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.body.at.cast::<u8>().add(4).cast_const(), self.len)
        };
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Replaces the text.
    pub(crate) fn replace(&mut self, text: &str) {
        self.clear();
        let _ = std::fmt::Write::write_str(self, text);
    }

    /// Makes the text a part of the record; `true` when it was cut.
    pub(crate) fn finish(mut self) -> bool {
        if self.body.is_cut_short {
            self.clear();
            return false;
        }
        let words = record::field::str_words(self.len);
        // SAFETY: `write_str` keeps a word of slack before the end.
        unsafe {
            let bytes = self.body.at.cast::<u8>();
            let used = 4 + self.len;
            bytes.add(used).write_bytes(0, words * 8 - used);
            bytes.cast::<u32>().write(self.len as u32);
            self.body.at = self.body.at.add(words);
        }
        self.is_truncated
    }
}

impl std::fmt::Write for TextInPlace<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let (kept, is_cut) = crate::capture::cut(text, self.bytes_max.saturating_sub(self.len));
        self.is_truncated |= is_cut;
        let room = (self.body.end as usize) - (self.body.at as usize);
        if self.len + kept.len() + SLACK_BYTES > room {
            self.body.is_cut_short = true;
            return Err(std::fmt::Error);
        }
        // SAFETY: there is room, see above.
        unsafe {
            let target = self.body.at.cast::<u8>().add(4 + self.len);
            std::ptr::copy_nonoverlapping(kept.as_ptr(), target, kept.len());
        }
        self.len += kept.len();
        Ok(())
    }
}

/// Room that the end of a span needs. The margin that other records leave has room for some forty
/// of them, so a thread can end its spans even when there is no other chunk.
const CLOSE_BYTES: usize = 24;
/// Room that must be left in a chunk for a record to be started there: most fit.
const MARGIN_BYTES: usize = 1024;
/// Longest text that is not worth a call of `memcpy`, bytes.
const COPIED_BY_WORDS: usize = 64;
/// Length and padding of a text.
const SLACK_BYTES: usize = 16;
/// Words of an ordinary chunk.
const CHUNK_WORDS: usize = super::ring::CHUNK_BYTES / 8 - super::ring::CHUNK_HEADER_WORDS;
