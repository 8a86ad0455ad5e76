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
use super::record::{self, Kind};
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

    /// Appends a record whose words after the ticks `fill` writes.
    #[inline]
    pub(crate) fn write(
        &mut self,
        journal: &Journal,
        kind: Kind,
        fill: impl FnOnce(&mut Body),
    ) -> Result<(), Refused> {
        let margin = if matches!(kind, Kind::Close) { CLOSE_BYTES } else { MARGIN_BYTES };
        if (self.end as usize) - (self.position as usize) < margin {
            self.next_chunk(journal, kind, CHUNK_WORDS)?;
        }
        // SAFETY: the margin leaves room for header and ticks.
        let start = unsafe { self.position.add(1) };
        let mut body = Body { at: start, end: self.end, flags: 0, is_cut_short: false };
        body.push(journal.clock.ticks());
        fill(&mut body);
        if body.is_cut_short {
            return Err(Refused::TooLong);
        }
        self.publish(kind, body.flags, body.at);
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
        self.publish(kind, (head >> 24) as u8, end);
        Ok(())
    }

    /// Makes the words between the position and `end` a record.
    #[inline]
    fn publish(&mut self, kind: Kind, flags: u8, end: *mut u64) {
        // SAFETY: all places are inside the chunk; the words of the body were written just now by
        // this thread. Places that may become headers are only stored atomically.
        unsafe {
            let start = self.position.add(1);
            let len = ((end as usize) - (start as usize)) / 8;
            let body = std::slice::from_raw_parts(start, len);
            let head = record::header(self.seed, kind, flags, body);
            if end < self.end {
                AtomicU64::from_ptr(end).store(0, Ordering::Relaxed);
            }
            AtomicU64::from_ptr(self.position).store(head, Ordering::Release);
        }
        self.position = end;
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
    pub(crate) flags: u8,
    /// Something did not fit; the record must be built aside.
    pub(crate) is_cut_short: bool,
}

impl Body {
    #[inline]
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

    /// A place to come back to, holding `word` for now.
    #[inline]
    pub(crate) fn reserve(&mut self, word: u64) -> Place {
        let place = Place(self.at);
        self.push(word);
        place
    }

    /// Adds bits to a reserved word.
    #[inline]
    pub(crate) fn add_bits(&mut self, place: &Place, word: usize, bits: u64) {
        // SAFETY: reserved words lie between the start of the record and `at`.
        unsafe {
            let target = place.0.add(word);
            if target < self.at {
                target.write(target.read() | bits);
            }
        }
    }

    /// Appends a text: its length and its bytes.
    #[inline]
    pub(crate) fn push_str(&mut self, text: &str) {
        let words = record::field::str_words(text.len());
        if ((self.end as usize) - (self.at as usize)) / 8 < words {
            self.is_cut_short = true;
            return;
        }
        // SAFETY: there is room for all words; the text is not in the chunk. The last word is
        // cleared first, so that no byte of an earlier use of the chunk stays in the record.
        unsafe {
            self.at.add(words - 1).write(0);
            let bytes = self.at.cast::<u8>();
            bytes.cast::<u32>().write(text.len() as u32);
            std::ptr::copy_nonoverlapping(text.as_ptr(), bytes.add(4), text.len());
            self.at = self.at.add(words);
        }
    }

    /// Room for a text that is formatted in place, at most `bytes_max` long.
    pub(crate) fn text(&mut self, bytes_max: usize) -> TextInPlace<'_> {
        // `finish` writes length and padding even for an empty text.
        self.is_cut_short |= (self.end as usize) - (self.at as usize) < SLACK_BYTES;
        TextInPlace { body: self, len: 0, bytes_max, is_truncated: false }
    }
}

/// See [`Body::reserve`].
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
/// Length and padding of a text.
const SLACK_BYTES: usize = 16;
/// Words of an ordinary chunk.
const CHUNK_WORDS: usize = super::ring::CHUNK_BYTES / 8 - super::ring::CHUNK_HEADER_WORDS;
