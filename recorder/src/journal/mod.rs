//! The journal: what was recorded and is not sealed yet.
//!
//! Every thread that records has a [`lane`](Lane) of its own and appends [records](record) to it
//! without lock, allocation or system call. Lanes live in [chunks](ring) of memory-mapped files:
//! bytes copied into them belong to the kernel, so a killed process loses nothing. One thread
//! [drains](drain) all lanes into one sequence in the order of time.
//!
//! What must survive a power cut is copied into CRC-checked [frames](frame) besides
//! ([`durable`]); mapped pages that are being written must never be flushed, because the kernel
//! write-protects them for that and the instrumented threads stop in page faults (measured: p99
//! of a request grows threefold). `docs/format.md` draws all of it byte by byte.

mod alarm;
mod body;
mod callsites;
mod drain;
pub(crate) mod durable;
mod frame;
mod gate;
mod handover;
mod lane;
mod mend;
mod pool;
mod read;
pub(crate) mod record;
mod ring;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use retake_schemas::event::DropCause;
use retake_schemas::settings::WhenFull;
use rustc_hash::FxBuildHasher;

use crate::clock::Clock;
use crate::sync;
use alarm::Alarm;
pub(crate) use body::{Body, FieldsInPlace, Sizes};
pub(crate) use callsites::{Callsite, CallsiteDef, Callsites};
pub(crate) use drain::RecordPlace;
pub(crate) use drain::{DrainLimit, Drained, Drainer, LanePositions};
pub(crate) use frame::decode_body;
pub use frame::{Frame, FrameError, JournalHeader};
pub(crate) use frame::{encode_body, write_frame};
use gate::{Gate, Inside};
pub(crate) use lane::{Cursor, Lane, Refused};
use pool::Pool;
pub(crate) use read::{DeadJournal, journal_files, read_journal};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use ring::{ChunkHeader, RING_HEADER_BYTES, RingHeader};

/// Limits of a journal.
#[derive(Debug, Clone, Copy)]
pub struct JournalLimits {
    /// Size of the first mapped file, bytes; later ones are larger.
    pub first_file_bytes: u64,
    /// All mapped files together, bytes; above it events are dropped and counted, or their
    /// threads wait, by `when_full`.
    pub journal_bytes_max: u64,
    /// What becomes of an event when the journal is full.
    pub when_full: WhenFull,
    /// How long a thread waits at most with [`WhenFull::Block`].
    pub block_max: Duration,
    /// Longest text of one attribute, bytes; longer ones are cut and flagged.
    pub attribute_bytes_max: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self {
            first_file_bytes: 8 << 20,
            journal_bytes_max: 512 << 20,
            when_full: WhenFull::default(),
            block_max: Duration::from_secs(10),
            attribute_bytes_max: 16 << 10,
        }
    }
}

/// What became of an offered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is in the journal; the death of the process cannot lose it any more.
    Accepted,
    /// It was counted, and a [`retake_schemas::event::Gap`] will state the loss.
    Dropped(DropCause),
}

/// The losses so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// Events lost, by cause.
    pub events: BTreeMap<DropCause, u64>,
    /// Spans among them: their opening was lost, and with it everything about them.
    pub spans: BTreeMap<DropCause, u64>,
}

/// The journal of one run, shared by all threads that record into it.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) clock: Clock,
    pub(crate) limits: JournalLimits,
    pub(crate) callsites: Callsites,
    pool: Pool,
    lanes: Mutex<Lanes>,
    next_epoch: AtomicU32,
    gate: Gate,
    /// The process that may write; a forked child may not.
    pid: u32,
    losses: Mutex<Losses>,
    /// Spans whose opening was lost and that are still open in the program: nothing about them
    /// may enter the journal, or a reader would see half a span.
    lost_spans: Mutex<HashSet<u64, FxBuildHasher>>,
    has_lost_spans: AtomicBool,
    filled_chunks: AtomicUsize,
    alarm: Alarm,
}

#[derive(Debug, Default)]
struct Lanes {
    all: Vec<Arc<Lane>>,
    /// Lanes of threads that have ended, to be used again.
    parked: Vec<Cursor>,
}

impl Journal {
    /// A journal whose files go into `folder`; on the heap without one.
    pub(crate) fn new(folder: Option<&Path>, limits: JournalLimits, clock: Clock) -> Self {
        let limits = JournalLimits {
            journal_bytes_max: limits.journal_bytes_max.max(limits.first_file_bytes),
            ..limits
        };
        Self {
            clock,
            limits,
            callsites: Callsites::default(),
            pool: Pool::new(folder, &limits, &clock),
            lanes: Mutex::default(),
            next_epoch: AtomicU32::new(1),
            gate: Gate::new(),
            pid: std::process::id(),
            losses: Mutex::default(),
            lost_spans: Mutex::default(),
            has_lost_spans: AtomicBool::new(false),
            filled_chunks: AtomicUsize::new(0),
            alarm: Alarm::new(),
        }
    }

    /// A cursor for a thread that begins to record: on a lane whose thread has ended, or a new
    /// one.
    pub(crate) fn adopt_lane(&self) -> Cursor {
        let mut lanes = self.lanes.lock();
        if let Some(cursor) = lanes.parked.pop() {
            return cursor;
        }
        let id = u32::try_from(lanes.all.len()).unwrap_or(u32::MAX);
        let id = if id < LANE_OF_NO_THREAD { id } else { id + 1 };
        let lane = Arc::new(Lane { id, chunks: Mutex::default() });
        lanes.all.push(Arc::clone(&lane));
        Cursor::new(lane)
    }

    /// Takes back the cursor of a thread that ends.
    pub(crate) fn park_lane(&self, cursor: Cursor) {
        self.lanes.lock().parked.push(cursor);
    }

    /// Refuses further events; the present ones stay.
    pub(crate) fn close(&self) {
        self.gate.close();
        self.pool.wake_all();
        self.wake();
        let deadline = Instant::now() + ANSWER_MAX;
        while !self.gate.is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }

    /// Whether the run takes no more events from this process.
    pub(crate) fn is_closed(&self) -> bool {
        self.gate.is_closed() || self.is_inherited()
    }

    /// Whether this process is a fork of the one that records. Its locks may be held by threads
    /// that do not exist here, so none may be taken.
    pub(crate) fn is_inherited(&self) -> bool {
        crate::fork::current_pid() != self.pid
    }

    /// Begins an event whose acceptance will be reported, so that it must be in the run;
    /// `None` when the run is over. [`Journal::close`] waits until the guard is dropped.
    pub(crate) fn answer(&self) -> Option<Inside<'_>> {
        if self.is_inherited() { None } else { self.gate.enter() }
    }

    /// Counts an event that is lost.
    #[cold]
    pub(crate) fn count_loss(&self, cause: DropCause, is_span: bool) {
        if self.is_inherited() {
            return;
        }
        let mut losses = self.losses.lock();
        *losses.events.entry(cause).or_default() += 1;
        if is_span {
            *losses.spans.entry(cause).or_default() += 1;
        }
    }

    /// The losses so far.
    pub(crate) fn losses(&self) -> Losses {
        self.losses.lock().clone()
    }

    /// Remembers a span whose opening was lost.
    #[cold]
    pub(crate) fn lose_span(&self, key: u64) {
        self.lost_spans.lock().insert(key);
        self.has_lost_spans.store(true, Ordering::Release);
    }

    /// Whether any span is open in the program whose opening was lost.
    #[inline(always)]
    pub(crate) fn has_lost_spans(&self) -> bool {
        self.has_lost_spans.load(Ordering::Relaxed)
    }

    /// Whether the span's opening was lost.
    #[inline]
    pub(crate) fn is_lost(&self, key: u64) -> bool {
        self.has_lost_spans() && self.lost_spans.lock().contains(&key)
    }

    /// Whether the span's opening was lost; it is over now.
    pub(crate) fn forget_lost(&self, key: u64) -> bool {
        self.has_lost_spans() && {
            let mut lost = self.lost_spans.lock();
            let was_lost = lost.remove(&key);
            if lost.is_empty() {
                self.has_lost_spans.store(false, Ordering::Release);
            }
            was_lost
        }
    }

    /// Sleeps until a good deal was recorded, [`Journal::wake`] is called, or the time is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        self.alarm.wait(at_most);
        self.filled_chunks.store(0, Ordering::Relaxed);
    }

    /// Wakes the writer thread now.
    pub(crate) fn wake(&self) {
        self.alarm.wake();
    }

    /// Whether what is written survives the death of the process.
    pub(crate) fn is_mapped(&self) -> bool {
        self.pool.is_mapped()
    }

    /// Whether at least half of the memory in use is free, so that there is no hurry.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.pool.is_half_empty(&self.limits)
    }

    /// Adds files ahead of need. To be called by the writer thread, which may wait for the disk.
    pub(crate) fn grow_ahead(&self) {
        self.pool.grow_ahead(&self.limits, &self.clock);
    }

    /// Removes the mapped files; only after the run is sealed to its end.
    pub(crate) fn remove_files(&self) {
        for path in self.pool.paths() {
            // A file left behind holds nothing that its manifest does not say is sealed.
            let _ = std::fs::remove_file(path);
        }
    }

    fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.lock().all.clone()
    }

    fn take_chunk(&self, kind: record::Kind, words: usize) -> Result<ring::Chunk, DropCause> {
        if self.is_closed() {
            return Err(DropCause::Finished);
        }
        let bytes = (words + ring::CHUNK_HEADER_WORDS) * 8;
        if bytes <= ring::CHUNK_BYTES {
            return self.pool.take(kind, &self.limits, &self.clock, || self.is_closed());
        }
        self.pool.take_large(bytes, &self.limits, &self.clock)
    }

    fn next_epoch(&self) -> u32 {
        self.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    fn chunk_was_filled(&self) {
        // Wakes the writer thread before its tick, so that bursts are drained while they come,
        // but not at every chunk: waking is a system call.
        if self.filled_chunks.fetch_add(1, Ordering::Relaxed) + 1 == WAKE_CHUNKS {
            self.wake();
        }
    }

    fn retire(&self, chunk: ring::Chunk) {
        chunk.retire();
        self.pool.give_back(chunk);
    }
}

/// Ids of spans that come without a lane look as if they came from this one.
pub(crate) const LANE_OF_NO_THREAD: u32 = 1023;
/// Copying an event takes microseconds; a thread that is not given a core for this long is not
/// waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Chunks filled before the writer thread is woken: a mebibyte.
const WAKE_CHUNKS: usize = 16;
