//! Reading a journal file back: after a crash, or beside a live writer.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use retake_schemas::{Event, EventSeq};

use super::frame::{Frame, FrameError, HEADER_BYTES, JournalHeader, decode_body};

/// Where reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailEnd {
    /// At the last frame written.
    Clean,
    /// At bytes that are not a frame; what follows them was not read.
    Damaged(FrameError),
    /// The file is shorter than a header: made, but never written to.
    Empty,
}

/// A journal file's events.
#[derive(Debug)]
pub struct JournalContents {
    /// The events at or above the wanted sequence number, in order.
    pub events: Vec<Event>,
    /// One past the sequence number of the last frame, read or skipped.
    pub next_seq: EventSeq,
    /// Frames whose checksum is right but whose body this build cannot decode.
    pub undecodable: u64,
    /// Where reading stopped.
    pub end: TailEnd,
}

/// The journal files of a run, in order of their first sequence number.
///
/// # Errors
/// The folder cannot be listed.
pub fn journal_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "journal") {
            files.push(path);
        }
    }
    // Names carry the zero-padded first sequence number.
    files.sort();
    Ok(files)
}

/// Reads the events of a journal file from sequence number `from` on.
///
/// Damage is not an error here: everything before it is returned, and where it is.
///
/// # Errors
/// The file cannot be read.
pub fn read_journal(path: &Path, from: EventSeq) -> io::Result<JournalContents> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(decode_journal(&bytes, from))
}

/// Reads the events between two published positions of a journal file; 0 stands for its start.
pub(crate) fn read_range(path: &Path, from: usize, to: usize) -> io::Result<Vec<Event>> {
    let from = from.max(HEADER_BYTES);
    let mut bytes = vec![0; to.saturating_sub(from)];
    std::fs::File::open(path)?.read_exact_at(&mut bytes, from as u64)?;
    let (mut events, mut offset) = (Vec::new(), 0);
    while let Some(frame) = Frame::decode(&bytes, offset).map_err(io::Error::other)? {
        offset = frame.next_offset(offset);
        let body = decode_body(frame.payload).map_err(io::Error::other)?;
        events.push(Event { seq: frame.seq, time_unix_ns: frame.time_unix_ns, body });
    }
    Ok(events)
}

/// Decodes the bytes of a journal file.
pub(crate) fn decode_journal(bytes: &[u8], from: EventSeq) -> JournalContents {
    let mut contents = JournalContents {
        events: Vec::new(),
        next_seq: EventSeq(0),
        undecodable: 0,
        end: TailEnd::Clean,
    };
    if bytes.iter().take(HEADER_BYTES).all(|b| *b == 0) {
        contents.end = TailEnd::Empty;
        return contents;
    }
    match JournalHeader::decode(bytes) {
        Ok(header) => contents.next_seq = header.first_seq,
        Err(error) => {
            contents.end = TailEnd::Damaged(error);
            return contents;
        }
    }
    let mut offset = HEADER_BYTES;
    loop {
        match Frame::decode(bytes, offset) {
            Ok(None) => return contents,
            Err(error) => {
                contents.end = TailEnd::Damaged(error);
                return contents;
            }
            Ok(Some(frame)) => {
                offset = frame.next_offset(offset);
                contents.next_seq = EventSeq(frame.seq.0 + 1);
                if frame.seq < from {
                    continue;
                }
                match decode_body(frame.payload) {
                    Ok(body) => contents.events.push(Event {
                        seq: frame.seq,
                        time_unix_ns: frame.time_unix_ns,
                        body,
                    }),
                    Err(_) => contents.undecodable += 1,
                }
            }
        }
    }
}
