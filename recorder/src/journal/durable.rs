//! The durable journal: a copy of what was drained, for the power cut.
//!
//! Plain files, appended to by write(2) in CRC-32C frames and flushed with fdatasync. A frame's
//! payload is a stretch of one lane: lane and epoch (4 bytes each), the lane's counts before the
//! stretch (records and opened spans, 8 each), and its words. One file covers the time between
//! two seals and goes when the second one's manifest is in place.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use retake_schemas::version::FormatVersion;
use retake_schemas::{EventSeq, WriterId};

use super::drain::LaneRun;
use super::frame::{JournalHeader, write_frame};
use super::ring::ChunkHeader;

/// Appends stretches of lanes.
#[derive(Debug)]
pub(crate) struct DurableJournal {
    folder: PathBuf,
    next_number: u64,
    current: Option<Open>,
    buffer: Vec<u8>,
    /// Files before the current one, not yet covered by a seal.
    older: Vec<PathBuf>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    frames: u64,
}

impl DurableJournal {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            next_number: 0,
            current: None,
            buffer: Vec::new(),
            older: Vec::new(),
        }
    }

    /// Adds a stretch to what [`DurableJournal::write`] writes next.
    pub(crate) fn add(&mut self, run: &LaneRun<'_>) {
        let header = &run.header;
        let mut payload = Vec::with_capacity(RUN_HEADER_BYTES + run.words.len() * 8);
        payload.extend_from_slice(&header.lane.to_le_bytes());
        payload.extend_from_slice(&header.epoch.to_le_bytes());
        payload.extend_from_slice(&header.first_seq.to_le_bytes());
        payload.extend_from_slice(&header.first_open.to_le_bytes());
        payload.extend_from_slice(bytemuck::cast_slice(run.words));
        let frames = self.current.as_ref().map_or(0, |open| open.frames);
        write_frame(&mut self.buffer, EventSeq(frames), 0, &payload);
        if let Some(open) = &mut self.current {
            open.frames += 1;
        }
    }

    /// Hands what was added to the system.
    ///
    /// # Errors
    /// The disk failed. What was added stays for the next file, see
    /// [`DurableJournal::start_file`].
    pub(crate) fn write(&mut self, now_unix_ns: i64) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.current.is_none() {
            self.start_file(now_unix_ns)?;
        }
        if let Some(open) = &mut self.current {
            open.file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Goes on in a new file.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn start_file(&mut self, now_unix_ns: i64) -> io::Result<()> {
        self.older.extend(self.current.take().map(|open| open.path));
        let path = self.folder.join(format!("durable-{:06}.journal", self.next_number));
        self.next_number += 1;
        let header = JournalHeader {
            version: FormatVersion::JOURNAL,
            writer_id: WriterId(0),
            first_seq: EventSeq(0),
            created_unix_ns: now_unix_ns,
        };
        let mut file = crate::store::create_new_file(&path)?;
        file.write_all(&header.encode())?;
        crate::store::sync_dir(&self.folder)?;
        self.current = Some(Open { file, path, frames: 0 });
        Ok(())
    }

    /// A handle to flush what was written, from any thread.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub(crate) fn sync_handle(&self) -> io::Result<Option<File>> {
        self.current.as_ref().map(|open| open.file.try_clone()).transpose()
    }

    /// The seal that begins now covers everything added so far; what follows goes into a file of
    /// its own. Gives the files to remove once the seal's manifest is in place.
    pub(crate) fn cut(&mut self) -> Vec<PathBuf> {
        self.buffer.clear();
        let current = self.current.take().map(|open| open.path);
        self.older.drain(..).chain(current).collect()
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
