//! A lane: the sequence of records of one thread at a time, and the cursor that appends to it.
//!
//! Appending takes no lock, no allocation and no system call. Every few hundred spans the cursor
//! fetches the next chunk, under a lock that nobody holds for long.

#![expect(unsafe_code, reason = "records are written in place, into mapped memory")]

use std::collections::VecDeque;
use std::sync::Arc;

use retake_schemas::event::DropCause;

use super::Journal;
use super::body::{Body, RESERVED_WORDS};
use super::handover;
use super::record::{self, Kind, field};
use super::ring::{Chunk, ChunkHeader};
use super::sync::Mutex;

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
    /// The last word of the present chunk, which no record takes: behind each there is a place for
    /// the zero that ends them.
    end: *mut u64,
    seed: u64,
    /// Records written to the present chunk (low half), and openings of spans among them: one sum
    /// counts both.
    counts: u64,
    /// Records written to the lane before this chunk.
    seq: u64,
    /// Spans opened in the lane before this chunk.
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
        Self { lane, position: none, end: none, seed: 0, counts: 0, seq: 0, opens: 0 }
    }

    /// Whether the present chunk has room for a record to be begun there.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.room() >= MARGIN_BYTES
    }

    /// Whether it has room for the end of a span.
    #[inline(always)]
    pub(crate) fn has_room_for_end(&self) -> bool {
        self.room() >= CLOSE_BYTES
    }

    /// Bytes left in the present chunk.
    #[inline(always)]
    fn room(&self) -> usize {
        (self.end as usize) - (self.position as usize)
    }

    /// Begins a record with the words after its ticks. Others are to be pushed, and
    /// [`Cursor::commit`] makes it one. A record that is not committed never was.
    #[inline(always)]
    pub(crate) fn begin(
        &mut self,
        journal: &Journal,
        kind: Kind,
        (span, parent): (u64, Option<u64>),
    ) -> Result<Body, Refused> {
        const { assert!(4 + field::TYPE_WORDS_MAX + RESERVED_WORDS <= MARGIN_BYTES / 8) };
        if !self.has_room() {
            self.next_chunk(journal, kind, CHUNK_WORDS)?;
        }
        let (position, end) = (self.position, self.end);
        // SAFETY: the margin leaves room for header, ticks and head, and for what is reserved.
        unsafe {
            position.add(1).write(journal.clock.ticks());
            // Each by itself: as an array they would be stored in parts and loaded as a whole,
            // which has to wait until the parts have reached the cache.
            position.add(2).write(span);
            let mut at = position.add(3);
            if let Some(parent) = parent {
                at.write(parent);
                at = at.add(1);
            }
            let text_end = end.sub(RESERVED_WORDS);
            Ok(Body { at, text_end, flags: 0, is_cut_short: false })
        }
    }

    /// Appends the record that was begun last, which was not cut short.
    #[inline(always)]
    pub(crate) fn commit(&mut self, kind: Kind, body: &Body) {
        debug_assert!(!body.is_cut_short, "half a record");
        let position = self.position;
        let words = ((body.at as usize) - (position as usize)) / 8;
        // SAFETY: this thread wrote the words just now.
        let rest = unsafe { std::slice::from_raw_parts(position.add(1), words - 1) };
        let head = record::header_in_place(self.seed, kind, body.flags, rest);
        self.publish(position, kind, head, words);
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
        if self.room() < margin.max((N + 2) * 8) {
            self.next_chunk(journal, kind, CHUNK_WORDS)?;
        }
        let ticks = journal.clock.ticks();
        let head = record::header_of(self.seed, (kind, flags), ticks, &words);
        let position = self.position;
        // SAFETY: there is room for header, ticks and words.
        unsafe {
            position.add(1).write(ticks);
            for (index, word) in words.into_iter().enumerate() {
                position.add(2 + index).write(word);
            }
        }
        self.publish(position, kind, head, N + 2);
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
        if self.room() / 8 < words.len() {
            self.next_chunk(journal, claim, words.len() + 1)?;
        }
        let Some((head, body)) = words.split_first() else { return Ok(()) };
        // SAFETY: `next_chunk` gave room for all words; the source is not in the chunk.
        unsafe { std::ptr::copy_nonoverlapping(body.as_ptr(), self.position.add(1), body.len()) };
        let head = record::header(self.seed, kind, (head >> 24) as u32 & 0xFF, body);
        self.publish(self.position, kind, head, words.len());
        Ok(())
    }

    /// Makes the next so many words at the position, all but the first of which are written, a
    /// record.
    #[inline(always)]
    fn publish(&mut self, position: *mut u64, kind: Kind, head: u64, words: usize) {
        // SAFETY: all places are inside the chunk, which is this lane's.
        self.position = unsafe { handover::publish(position, words, head) };
        self.counts += 1 + (u64::from(matches!(kind, Kind::Open)) << 32);
    }

    #[cold]
    #[inline(never)]
    fn next_chunk(&mut self, journal: &Journal, kind: Kind, words: usize) -> Result<(), Refused> {
        let chunk = journal.take_chunk(kind, words).map_err(Refused::Dropped)?;
        let counts = std::mem::take(&mut self.counts);
        self.seq += counts & 0xFFFF_FFFF;
        self.opens += counts >> 32;
        let header = ChunkHeader {
            epoch: journal.next_epoch(),
            lane: self.lane.id,
            first_seq: self.seq,
            first_open: self.opens,
        };
        self.seed = header.seed();
        self.position = chunk.start();
        self.end = chunk.last();
        chunk.begin(&header);
        self.lane.chunks.lock().push_back(LaneChunk { chunk, header });
        journal.chunk_was_filled();
        Ok(())
    }
}

/// Room that the end of a span needs. The margin that other records leave has room for some forty
/// of them, so a thread can end its spans even when there is no other chunk.
const CLOSE_BYTES: usize = 24;
/// Room that must be left in a chunk for a record to be started there: most fit.
const MARGIN_BYTES: usize = 1024;
/// Words of an ordinary chunk for records and the zero behind them.
const CHUNK_WORDS: usize = super::ring::CHUNK_BYTES / 8 - super::ring::CHUNK_HEADER_WORDS;
