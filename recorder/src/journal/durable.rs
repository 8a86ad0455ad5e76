//! The durable journal: a copy of what was drained, for the power cut.
//!
//! Plain files, appended to by write(2) in CRC-32C frames and flushed with fdatasync. A frame's
//! payload is a stretch of one lane: lane and epoch (4 bytes each), the lane's counts before the
//! stretch (records and opened spans, 8 each), and its words. One file covers the time between
//! two seals and goes when the second one's manifest is in place.
//!
//! A file that could not be written or flushed is done with: half a frame may stand in it, and
//! after a failed flush the system may have dropped bytes that it then calls flushed. Nothing more
//! is copied until the next seal, which has everything that is missing here, in memory; the file
//! after it is a new one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use retake_schemas::version::FormatVersion;
use retake_schemas::{EventSeq, WriterId};

use super::drain::LaneRun;
use super::frame::{JournalHeader, write_frame};
use super::ring::ChunkHeader;
use crate::clock::Clock;
use crate::disk::{Disk, DiskFile, Present};

/// Appends stretches of lanes.
#[derive(Debug)]
pub(crate) struct DurableJournal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    clock: Clock,
    next_number: u64,
    current: Option<Arc<JournalFile>>,
    buffer: Vec<u8>,
    /// Frames since the last seal began.
    frames: u64,
    /// Files since then.
    files: Vec<PathBuf>,
    /// Something since then is not in them.
    is_incomplete: bool,
}

impl DurableJournal {
    pub(crate) fn new(disk: &Arc<dyn Disk>, folder: &Path, clock: Clock) -> Self {
        Self {
            disk: Arc::clone(disk),
            folder: folder.to_owned(),
            clock,
            next_number: 0,
            current: None,
            buffer: Vec::new(),
            frames: 0,
            files: Vec::new(),
            is_incomplete: false,
        }
    }

    /// Adds a stretch to what [`DurableJournal::write`] writes next.
    pub(crate) fn add(&mut self, run: &LaneRun<'_>) {
        if self.has_failed() {
            self.is_incomplete = true;
            return;
        }
        let header = &run.header;
        let mut payload = Vec::with_capacity(RUN_HEADER_BYTES + run.words.len() * 8);
        payload.extend_from_slice(&header.lane.to_le_bytes());
        payload.extend_from_slice(&header.epoch.to_le_bytes());
        payload.extend_from_slice(&header.first_seq.to_le_bytes());
        payload.extend_from_slice(&header.first_open.to_le_bytes());
        payload.extend_from_slice(bytemuck::cast_slice(run.words));
        write_frame(&mut self.buffer, EventSeq(self.frames), 0, &payload);
        self.frames += 1;
    }

    /// Hands what was added to the system. When the disk fails the journal has failed.
    pub(crate) fn write(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.file().and_then(|file| file.file.write(&self.buffer));
        self.is_incomplete |= written.is_err();
        self.buffer.clear();
    }

    /// The file to append to.
    fn file(&mut self) -> io::Result<Arc<JournalFile>> {
        if let Some(current) = &self.current {
            return Ok(Arc::clone(current));
        }
        let path = self.folder.join(format!("durable-{:06}.journal", self.next_number));
        self.next_number += 1;
        let header = JournalHeader {
            version: FormatVersion::JOURNAL,
            writer_id: WriterId(0),
            first_seq: EventSeq(0),
            created_unix_ns: self.clock.now_unix_ns(),
            clock: Some((self.clock.start_anchor(), self.clock.ticks_per_ns())),
        };
        let file = self.disk.create(&path, Present::Refuse)?;
        // Also when what follows fails: the next seal removes it.
        self.files.push(path);
        file.write(&header.encode())?;
        self.disk.sync_dir(&self.folder)?;
        let file = Arc::new(JournalFile::new(file));
        self.current = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Whether something since the last seal began cannot be made to survive a power cut here;
    /// only the next seal can.
    pub(crate) fn has_failed(&self) -> bool {
        self.is_incomplete || self.current.as_ref().is_some_and(|file| file.has_failed())
    }

    /// The file that was written to, to flush it from any thread; `None` when nothing was written
    /// since the last seal began.
    pub(crate) fn current(&self) -> Option<Arc<JournalFile>> {
        self.current.clone()
    }

    /// The seal that begins now covers everything added so far; what follows goes into a file of
    /// its own. Gives the files to remove once the seal's manifest is in place.
    pub(crate) fn cut(&mut self) -> Vec<PathBuf> {
        self.buffer.clear();
        self.current = None;
        self.frames = 0;
        self.is_incomplete = false;
        std::mem::take(&mut self.files)
    }
}

/// A journal file that is being written by one thread and flushed by others.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: Box<dyn DiskFile>,
    /// One flush at a time, so that none begins after one that failed.
    flushing: Mutex<()>,
    has_failed: AtomicBool,
}

impl JournalFile {
    fn new(file: Box<dyn DiskFile>) -> Self {
        Self { file, flushing: Mutex::new(()), has_failed: AtomicBool::new(false) }
    }

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// The flush failed, or an earlier one of this file: another try would call bytes flushed that
    /// the system has dropped.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _flushing = self.flushing.lock();
        if self.has_failed() {
            return Err(io::Error::other("an earlier flush of this file failed"));
        }
        self.file.sync().inspect_err(|_| self.has_failed.store(true, Ordering::Release))
    }

    /// Whether a flush has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }
}

/// Reads the payload of a frame back.
pub(super) fn decode_run(payload: &[u8]) -> Option<(ChunkHeader, Vec<u64>)> {
    let (header, rest) = decode_start(payload)?;
    if !rest.len().is_multiple_of(8) {
        return None;
    }
    Some((header, super::record::words_of(rest)))
}

/// Reads where a frame's stretch stands, and gives the bytes of its words.
pub(super) fn decode_start(payload: &[u8]) -> Option<(ChunkHeader, &[u8])> {
    let (lane, rest) = payload.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (first_seq, rest) = rest.split_first_chunk()?;
    let (first_open, rest) = rest.split_first_chunk()?;
    let header = ChunkHeader {
        lane: u32::from_le_bytes(*lane),
        epoch: u32::from_le_bytes(*epoch),
        first_seq: u64::from_le_bytes(*first_seq),
        first_open: u64::from_le_bytes(*first_open),
    };
    Some((header, rest))
}

const RUN_HEADER_BYTES: usize = 24;
