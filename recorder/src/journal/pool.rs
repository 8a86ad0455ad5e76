//! The chunks that nobody uses, and the policy for when there are none.

use std::path::Path;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use retake_schemas::event::DropCause;
use retake_schemas::settings::WhenFull;

use super::JournalLimits;
use super::record::Kind;
use super::ring::{CHUNK_BYTES, Chunk, Memory, RING_HEADER_BYTES, Ring, RingHeader};
use crate::clock::Clock;

/// A ring behind a lock that is taken once per chunk.
#[derive(Debug)]
pub(super) struct Pool {
    ring: Mutex<Ring>,
    returned: Condvar,
    /// The last attempt to get memory failed.
    disk_failed: Mutex<Option<Instant>>,
}

impl Pool {
    /// A pool with its first file; on the heap when none can be mapped.
    pub(super) fn new(folder: Option<&Path>, limits: &JournalLimits, clock: &Clock) -> Self {
        let mut ring = Ring::new(folder);
        let chunks = chunks_of(limits.first_file_bytes);
        let header = ring_header(chunks, CHUNK_BYTES, clock);
        let mapped = ring.next_path().map(|path| Memory::map(&path, &header));
        let memory = match mapped {
            Some(Ok(memory)) => memory,
            failed => {
                if failed.is_some() {
                    ring = Ring::new(None);
                }
                Memory::heap(&header)
            }
        };
        let _ = ring.add(memory);
        Self { ring: Mutex::new(ring), returned: Condvar::new(), disk_failed: Mutex::new(None) }
    }

    /// A chunk for a lane, by the policy when there is none.
    pub(super) fn take(
        &self,
        kind: Kind,
        limits: &JournalLimits,
        clock: &Clock,
        is_closed: impl Fn() -> bool,
    ) -> Result<Chunk, DropCause> {
        let mut ring = self.ring.lock();
        let deadline = Instant::now() + limits.block_max;
        loop {
            // The last chunks are for the ends of spans: an end that is lost leaves a span that
            // seems to run for ever.
            let is_of_writer = kind == Kind::Anchor;
            let has_claim = kind == Kind::Close || is_of_writer;
            let reserve = if has_claim { 0 } else { reserve(&ring) };
            if ring.free_count() > reserve
                && let Some(chunk) = ring.take()
            {
                return Ok(chunk);
            }
            // The writer thread adds files ahead of need. A burst that outruns it is worth a
            // fraction of a millisecond once a mebibyte; losing it would not be.
            if ring.bytes() + GROWTH_BYTES_MIN <= limits.journal_bytes_max {
                drop(ring);
                let has_grown = self.grow(GROWTH_BYTES_MIN, limits, clock);
                ring = self.ring.lock();
                if has_grown {
                    continue;
                }
            }
            let cause = if self.disk_failed.lock().is_some() {
                DropCause::Disk
            } else {
                DropCause::JournalFull
            };
            // The writer thread would wait for itself.
            if limits.when_full == WhenFull::DropNew || is_of_writer {
                return Err(cause);
            }
            if is_closed() {
                return Err(DropCause::Finished);
            }
            if self.returned.wait_until(&mut ring, deadline).timed_out() {
                return Err(cause);
            }
        }
    }

    /// A chunk of its own for a large record.
    pub(super) fn take_large(
        &self,
        bytes: usize,
        limits: &JournalLimits,
        clock: &Clock,
    ) -> Result<Chunk, DropCause> {
        let bytes = bytes.next_multiple_of(4096);
        if bytes > RECORD_BYTES_MAX {
            return Err(DropCause::TooLarge);
        }
        let path = {
            let mut ring = self.ring.lock();
            if ring.bytes() + bytes as u64 > limits.journal_bytes_max {
                return Err(DropCause::JournalFull);
            }
            ring.next_path()
        };
        let header = ring_header(1, bytes, clock);
        let memory = match path {
            Some(path) => Memory::map(&path, &header).map_err(|_| DropCause::Disk)?,
            None => Memory::heap(&header),
        };
        self.ring.lock().add(memory).ok_or(DropCause::Disk)
    }

    /// Adds a file when few chunks are left.
    pub(super) fn grow_ahead(&self, limits: &JournalLimits, clock: &Clock) {
        let next_bytes = {
            let ring = self.ring.lock();
            let next_bytes = (ring.bytes() / 2).clamp(GROWTH_BYTES_MIN, FILE_BYTES_MAX);
            let free = ring.free_count() as u64 * CHUNK_BYTES as u64;
            if free * 2 > next_bytes {
                return;
            }
            next_bytes
        };
        self.grow(next_bytes, limits, clock);
    }

    /// Adds a file, within the limit; `false` when that cannot be.
    fn grow(&self, bytes: u64, limits: &JournalLimits, clock: &Clock) -> bool {
        let (path, header) = {
            let mut ring = self.ring.lock();
            let is_too_much = ring.bytes() + bytes > limits.journal_bytes_max;
            let has_failed = self.disk_failed.lock().is_some_and(|at| at.elapsed() < DISK_RETRY);
            if is_too_much || has_failed {
                return false;
            }
            (ring.next_path(), ring_header(chunks_of(bytes), CHUNK_BYTES, clock))
        };
        let memory = match path {
            // Outside the lock: allocating may take milliseconds.
            Some(path) => Memory::map(&path, &header),
            None => Ok(Memory::heap(&header)),
        };
        match memory {
            Ok(memory) => {
                *self.disk_failed.lock() = None;
                let _ = self.ring.lock().add(memory);
                self.returned.notify_all();
                true
            }
            Err(_) => {
                *self.disk_failed.lock() = Some(Instant::now());
                false
            }
        }
    }

    /// Takes back a retired chunk.
    pub(super) fn give_back(&self, chunk: Chunk) {
        self.ring.lock().give_back(chunk);
        self.returned.notify_one();
    }

    /// Lets waiting threads look again.
    pub(super) fn wake_all(&self) {
        // One that has just found nothing and does not wait yet would miss the call.
        drop(self.ring.lock());
        self.returned.notify_all();
    }

    /// Whether less than half of what the journal may take is in use.
    pub(super) fn is_half_empty(&self, limits: &JournalLimits) -> bool {
        let ring = self.ring.lock();
        let free = ring.free_count() as u64 * CHUNK_BYTES as u64;
        (ring.bytes() - free.min(ring.bytes())) * 2 < limits.journal_bytes_max
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.ring.lock().is_mapped()
    }

    pub(super) fn paths(&self) -> Vec<std::path::PathBuf> {
        self.ring.lock().paths()
    }
}

fn ring_header(chunks: u32, chunk_bytes: usize, clock: &Clock) -> RingHeader {
    RingHeader {
        chunk_bytes: u32::try_from(chunk_bytes).unwrap_or(u32::MAX),
        chunks,
        clock: clock.start_anchor(),
        ticks_per_ns: clock.ticks_per_ns(),
    }
}

/// Chunks of a file of this size; at least two, because a file of one is for a large record.
fn chunks_of(bytes: u64) -> u32 {
    let chunks = bytes.saturating_sub(RING_HEADER_BYTES as u64) / CHUNK_BYTES as u64;
    u32::try_from(chunks).unwrap_or(u32::MAX).max(2)
}

/// Chunks kept for the ends of spans: an eighth of a small ring, half a mebibyte of a large one.
fn reserve(ring: &Ring) -> usize {
    ((ring.bytes() / CHUNK_BYTES as u64 / 8) as usize).clamp(1, 8)
}

/// Smallest file that is added.
const GROWTH_BYTES_MIN: u64 = 1 << 20;
/// Largest file of ordinary chunks: allocating it holds the writer thread up for milliseconds.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Largest record: contents are cut far below it.
const RECORD_BYTES_MAX: usize = 128 << 20;
/// A full disk is asked again once a second, not at every event.
const DISK_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
