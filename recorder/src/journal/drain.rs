//! Draining: the lanes of all threads become one sequence, in the order of time.
//!
//! A drain takes everything older than a moment read *before* it looks at the lanes. Whatever
//! caused a record that is taken was written before that record's time was read, hence before
//! the moment, hence is seen: no span is closed before it was opened, whichever threads did it.

#![expect(unsafe_code, reason = "reads chunks that other threads are appending to")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Journal;
use super::handover::{self, Reads};
use super::lane::{Lane, LaneChunk};
use super::record::{self, Kind, Record};
use super::ring::{CHUNK_HEADER_WORDS, ChunkHeader, ChunkView};

/// Records of each lane that are dealt with: the first so many.
pub(crate) type LanePositions = BTreeMap<u32, u64>;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    pub(crate) lane: u32,
    /// Records of the lane before it.
    pub(crate) seq: u64,
    /// Spans the lane opened before it.
    pub(crate) opens: u64,
}

/// A stretch of one lane's records, for the durable journal.
#[derive(Debug)]
pub(crate) struct LaneRun<'a> {
    pub(crate) header: ChunkHeader,
    /// The header's counts hold for the first of these words.
    pub(crate) words: &'a [u64],
}

/// How much to take in one drain: what is taken is held in memory until it is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrainLimit {
    pub(crate) events: u64,
    pub(crate) words: usize,
}

impl DrainLimit {
    /// Everything there is.
    pub(crate) const NONE: Self = Self { events: u64::MAX, words: usize::MAX };

    fn is_used_up(self) -> bool {
        self.events == 0 || self.words == 0
    }

    fn take(&mut self, record: &Record<'_>) {
        self.events = self.events.saturating_sub(u64::from(record.kind.is_event()));
        self.words = self.words.saturating_sub(record.rest.len());
    }
}

/// What a drain took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    /// Events.
    pub(crate) events: u64,
    /// Everything older than these ticks was taken.
    pub(crate) until: u64,
    /// Whether the limit left nothing behind.
    pub(crate) is_all: bool,
}

/// Reads the lanes of a live journal. Only the writer thread has one.
#[derive(Debug, Default)]
pub(crate) struct Drainer {
    readers: Vec<LaneReader>,
    /// Something in memory was not a record: a bug, or memory gone bad.
    damaged: u64,
}

/// How far one lane has been read.
#[derive(Debug)]
struct LaneReader {
    lane: Arc<Lane>,
    /// The chunk being read: its place among the lane's, its header and a view of it.
    current: Option<(usize, ChunkHeader, ChunkView)>,
    /// Where in it the next record is.
    at: usize,
    place: RecordPlace,
    /// Time of the next record, if one is published.
    next_ticks: Option<u64>,
}

impl Drainer {
    /// Hands every record older than `before` (ticks) to `sink`, and the lanes' stretches to
    /// `copy`, until that was as much as `limit` allows. Gives how much it was.
    pub(crate) fn drain(
        &mut self,
        journal: &Journal,
        (before, limit): (u64, DrainLimit),
        mut sink: impl FnMut(RecordPlace, &Record<'_>),
        mut copy: impl FnMut(&LaneRun<'_>),
    ) -> Drained {
        for lane in journal.lanes().into_iter().skip(self.readers.len()) {
            self.readers.push(LaneReader::new(lane));
        }
        for reader in &mut self.readers {
            reader.look();
        }
        let (mut left, mut left_at) = (limit, None);
        while let Some((index, until)) = self.earliest(before) {
            let Some(reader) = self.readers.get_mut(index) else { break };
            if left.is_used_up() {
                left_at = reader.next_ticks;
                break;
            }
            let damaged = reader.read(until, &mut sink, &mut copy, &mut left);
            self.damaged += u64::from(damaged);
        }
        let events = limit.events - left.events;
        Drained { events, until: left_at.unwrap_or(before), is_all: left_at.is_none() }
    }

    /// The lane with the earliest record before `before`, and the moment at which another lane
    /// has an earlier one.
    fn earliest(&self, before: u64) -> Option<(usize, u64)> {
        let mut first: Option<(usize, u64)> = None;
        let mut second = before;
        for (index, reader) in self.readers.iter().enumerate() {
            let Some(ticks) = reader.next_ticks.filter(|ticks| *ticks < before) else { continue };
            match first {
                Some((_, earliest)) if earliest <= ticks => second = second.min(ticks + 1),
                Some((_, earliest)) => {
                    second = second.min(earliest);
                    first = Some((index, ticks));
                }
                None => first = Some((index, ticks)),
            }
        }
        first.map(|(index, _)| (index, second))
    }

    /// How far each lane has been read.
    pub(crate) fn positions(&self) -> LanePositions {
        self.readers.iter().map(|reader| (reader.place.lane, reader.place.seq)).collect()
    }

    /// Stretches of memory that were not records.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Gives back the chunks whose every record is sealed.
    pub(crate) fn retire_sealed(&mut self, journal: &Journal, sealed: &LanePositions) {
        for reader in &mut self.readers {
            let sealed = sealed.get(&reader.place.lane).copied().unwrap_or(0);
            let mut chunks = reader.lane.chunks.lock();
            let mut retired = Vec::new();
            while let Some((current, ..)) = &mut reader.current
                && *current > 0
                && chunks.get(1).is_some_and(|next| next.header.first_seq <= sealed)
            {
                *current -= 1;
                retired.extend(chunks.pop_front());
            }
            drop(chunks);
            for chunk in retired {
                journal.retire(chunk.chunk);
            }
        }
    }
}

impl LaneReader {
    fn new(lane: Arc<Lane>) -> Self {
        let place = RecordPlace { lane: lane.id, seq: 0, opens: 0 };
        Self { lane, current: None, at: CHUNK_HEADER_WORDS, place, next_ticks: None }
    }

    /// Finds the next record, in this chunk or the one after it.
    fn look(&mut self) {
        let lane = Arc::clone(&self.lane);
        handover::look(self, &lane.chunks);
    }

    /// Reads this chunk's records older than `until`, as many as are `left` to take. `true` when
    /// something was no record.
    fn read(
        &mut self,
        until: u64,
        sink: &mut impl FnMut(RecordPlace, &Record<'_>),
        copy: &mut impl FnMut(&LaneRun<'_>),
        left: &mut DrainLimit,
    ) -> bool {
        let Some((_, header, view)) = &self.current else { return false };
        // SAFETY: as in `finds_record`.
        let words = unsafe { view.published(self.at) };
        let header =
            ChunkHeader { first_seq: self.place.seq, first_open: self.place.opens, ..*header };
        let seed = header.seed();
        let mut at = 0;
        self.next_ticks = None;
        let is_damaged = loop {
            match record::read(words, at, seed) {
                Ok(Some((record, _))) if record.ticks >= until || left.is_used_up() => {
                    self.next_ticks = Some(record.ticks);
                    break false;
                }
                Ok(Some((record, next))) => {
                    sink(self.place, &record);
                    self.place.seq += 1;
                    self.place.opens += u64::from(record.kind == Kind::Open);
                    left.take(&record);
                    at = next;
                }
                Ok(None) => break false,
                Err(_) => {
                    // Nothing behind it can be found; the next chunk's header goes on.
                    at = words.len();
                    break true;
                }
            }
        };
        if at > 0 {
            copy(&LaneRun { header, words: words.get(..at).unwrap_or_default() });
        }
        self.at += at;
        if self.next_ticks.is_none() {
            self.look();
        }
        is_damaged
    }
}

impl Reads for LaneReader {
    type Chunk = LaneChunk;

    fn finds_record(&mut self) -> bool {
        self.next_ticks = self.current.as_ref().and_then(|(_, header, view)| {
            // SAFETY: the journal keeps the ring alive, and only this thread retires chunks.
            let words = unsafe { view.published(self.at) };
            match record::read(words, 0, header.seed()) {
                Ok(Some((record, _))) => Some(record.ticks),
                Ok(None) | Err(_) => None,
            }
        });
        self.next_ticks.is_some()
    }

    fn next_chunk(&self) -> usize {
        self.current.as_ref().map_or(0, |(index, ..)| index + 1)
    }

    fn enter(&mut self, chunk: &LaneChunk) {
        self.current = Some((self.next_chunk(), chunk.header, chunk.chunk.view()));
        self.at = CHUNK_HEADER_WORDS;
        // After damage the header tells where the lane stands.
        self.place.seq = chunk.header.first_seq;
        self.place.opens = chunk.header.first_open;
    }
}
