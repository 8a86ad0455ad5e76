//! Records and chunks of a lane, under loom.

#![expect(unsafe_code, reason = "chunks are reached by pointers, as in the journal")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync;

/// Records of the model, whose header is their length.
mod record {
    pub(super) fn words_stated(head: u64, _third: impl FnOnce() -> u64) -> usize {
        head as usize
    }
}

#[path = "../../../src/journal/handover.rs"]
mod handover;

use handover::Reads;
use sync::{Mutex, Word};

/// A chunk of the model: a header of four words, room for two records, the zero behind them.
#[derive(Debug, Clone, Copy)]
struct Chunk(*mut Word);

// SAFETY: its words are used as the protocol says, which is what loom checks.
unsafe impl Send for Chunk {}

/// What the threads share: a lane, and the chunks that nobody uses.
struct Journal {
    lane: Mutex<VecDeque<Chunk>>,
    free: Mutex<Vec<Chunk>>,
    /// Owns the words.
    _memory: Vec<Box<[Word]>>,
}

// SAFETY: `memory` is only there to be dropped.
unsafe impl Sync for Journal {}
// SAFETY: as above.
unsafe impl Send for Journal {}

impl Journal {
    fn new() -> Self {
        let chunk = || (0..CHUNK_WORDS).map(|_| Word::new(STALE)).collect();
        let mut memory: Vec<Box<[Word]>> = (0..CHUNKS).map(|_| chunk()).collect();
        let free = memory.iter_mut().map(|words| Chunk(words.as_mut_ptr())).collect();
        Self { lane: Mutex::new(VecDeque::new()), free: Mutex::new(free), _memory: memory }
    }
}

/// The writing end, as `Cursor` is.
struct Owner {
    position: *mut Word,
    records_left: usize,
}

impl Owner {
    /// Writes a record; `false` when there is no chunk for it.
    fn offer(&mut self, journal: &Journal, number: u64) -> bool {
        if self.records_left == 0 {
            let Some(chunk) = journal.free.lock().pop() else {
                return false;
            };
            // SAFETY: a free chunk is nobody's.
            unsafe { handover::begin(chunk.0, HEADER_WORDS, [1, 0, number, 0]) };
            // SAFETY: inside the chunk.
            self.position = unsafe { chunk.0.add(HEADER_WORDS) };
            self.records_left = RECORDS;
            journal.lane.lock().push_back(chunk);
        }
        // SAFETY: the chunk has room for this record and the zero behind it.
        unsafe {
            sync::write(self.position.add(1), number);
            self.position = handover::publish(self.position, RECORD_WORDS, RECORD_WORDS as u64);
        }
        self.records_left -= 1;
        true
    }
}

/// The reading end, as `LaneReader` is.
#[derive(Default)]
struct Reader {
    current: Option<(usize, Chunk)>,
    at: usize,
    taken: Vec<u64>,
}

impl Reads for Reader {
    type Chunk = Chunk;

    fn finds_record(&mut self) -> bool {
        self.published_end() > self.at
    }

    fn next_chunk(&self) -> usize {
        self.current.map_or(0, |(index, _)| index + 1)
    }

    fn enter(&mut self, chunk: &Chunk) {
        self.current = Some((self.next_chunk(), *chunk));
        self.at = HEADER_WORDS;
    }
}

impl Reader {
    fn published_end(&self) -> usize {
        match self.current {
            // SAFETY: only this reader gives chunks back.
            Some((_, chunk)) => unsafe { handover::published(chunk.0, self.at, CHUNK_WORDS) },
            None => self.at,
        }
    }

    /// Takes what is published, and gives back the chunks left behind, as if it were sealed.
    fn drain(&mut self, journal: &Journal) {
        handover::look(self, &journal.lane);
        let end = self.published_end();
        while let Some((_, chunk)) = self.current
            && self.at < end
        {
            // SAFETY: the record is published.
            self.taken.push(unsafe { sync::read(chunk.0.add(self.at + 1)) });
            self.at += RECORD_WORDS;
        }
        let mut left = Vec::new();
        let mut lane = journal.lane.lock();
        while let Some((index, _)) = &mut self.current
            && *index > 0
        {
            *index -= 1;
            left.extend(lane.pop_front());
        }
        drop(lane);
        for chunk in left {
            // SAFETY: the owner has left it, and this reader too.
            unsafe { handover::retire(chunk.0) };
            journal.free.lock().push(chunk);
        }
    }
}

/// Scenario: a thread writes five records into two chunks of two, so that the fifth needs the
/// first chunk again, while another drains.
/// Guarantees: J9 - each record is read whole, once, and in order; no chunk is used again while it
/// is read; what finds no chunk is refused.
#[test]
fn records_are_read_whole_once_and_in_order() {
    let refusing = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refusing);
    let explored = crate::explore(move || {
        let journal = loom::sync::Arc::new(Journal::new());
        let of_owner = loom::sync::Arc::clone(&journal);
        let owner = loom::thread::spawn(move || {
            let mut owner = Owner { position: std::ptr::null_mut(), records_left: 0 };
            (0..OFFERED).filter(|number| owner.offer(&of_owner, *number)).collect::<Vec<u64>>()
        });
        let mut reader = Reader::default();
        reader.drain(&journal);
        reader.drain(&journal);
        let accepted = owner.join().unwrap();
        count.fetch_add(usize::from(accepted.len() < OFFERED as usize), Ordering::Relaxed);
        for _ in 0..CHUNKS + 1 {
            reader.drain(&journal);
        }
        assert_eq!(reader.taken, accepted);
    });
    let refusing = refusing.load(Ordering::Relaxed);
    println!("{explored} executions, a record refused in {refusing} of them");
    assert!(refusing > 0 && refusing < explored, "the first chunk is used again only in some");
}

const OFFERED: u64 = 5;
const CHUNKS: usize = 2;
const HEADER_WORDS: usize = 4;
const RECORD_WORDS: usize = 2;
const RECORDS: usize = 2;
const CHUNK_WORDS: usize = HEADER_WORDS + RECORDS * RECORD_WORDS + 1;
/// What stands in memory from before: it looks like a header.
const STALE: u64 = 2;
