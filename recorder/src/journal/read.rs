//! Reading a journal that another process writes, or wrote until it died.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::drain::{LanePositions, RecordPlace};
use super::durable::decode_run;
use super::frame::{Frame, HEADER_BYTES, JournalHeader};
use super::record::{self, Kind, Record};
use super::ring::{CHUNK_HEADER_WORDS, ChunkHeader, RING_HEADER_BYTES, RingHeader};
use crate::clock::Anchor;
use crate::disk::Disk;

/// The records of one lane that are not sealed, in stretches.
#[derive(Debug, Default)]
pub(crate) struct LaneRecords {
    runs: Vec<(ChunkHeader, Vec<u64>)>,
}

/// A journal's files as read.
#[derive(Debug, Default)]
pub(crate) struct DeadJournal {
    lanes: BTreeMap<u32, LaneRecords>,
    /// The clock the run started with, and its rate.
    pub(crate) clock: Option<(Anchor, f64)>,
    /// What could not be read.
    pub(crate) damage: Vec<String>,
    /// Records that are known to be missing or unreadable.
    pub(crate) records_lost: u64,
}

/// The journal files of a run.
///
/// # Errors
/// The folder cannot be listed.
pub(crate) fn journal_files(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = folder.join(entry.name);
        if path.extension().is_some_and(|ext| ext == "journal" || ext == "lanes") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the journal in a folder. Damage is not an error: everything before it is used, and said.
///
/// # Errors
/// A file cannot be read at all.
pub(crate) fn read_journal(disk: &dyn Disk, folder: &Path) -> io::Result<DeadJournal> {
    let mut journal = DeadJournal::default();
    for path in journal_files(disk, folder)? {
        let bytes = match disk.read(&path) {
            // Sealed and removed by its writer while we were looking.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|ext| ext == "lanes") {
            journal.add_ring_file(&name, &bytes);
        } else {
            journal.add_durable_file(&name, &bytes);
        }
    }
    Ok(journal)
}

impl DeadJournal {
    fn add_ring_file(&mut self, name: &str, bytes: &[u8]) {
        if bytes.iter().take(RING_HEADER_BYTES).all(|byte| *byte == 0) {
            // Made, but never written to.
            return;
        }
        let header = match RingHeader::decode(bytes) {
            Ok(header) => header,
            Err(reason) => {
                self.damage.push(format!("{name}: {reason}; nothing of it was read"));
                return;
            }
        };
        self.clock.get_or_insert((header.clock, header.ticks_per_ns));
        let chunks = bytes.get(RING_HEADER_BYTES..).unwrap_or_default();
        for chunk in chunks.chunks_exact(header.chunk_bytes as usize) {
            let words = record::words_of(chunk);
            let Some(header) = ChunkHeader::decode(&words) else { continue };
            let records = words.get(CHUNK_HEADER_WORDS..).unwrap_or_default();
            self.lanes.entry(header.lane).or_default().runs.push((header, records.to_vec()));
        }
    }

    fn add_durable_file(&mut self, name: &str, bytes: &[u8]) {
        if bytes.iter().take(HEADER_BYTES).all(|byte| *byte == 0) {
            return;
        }
        match JournalHeader::decode(bytes) {
            Ok(header) => self.clock = self.clock.or(header.clock),
            Err(error) => {
                self.damage.push(format!("{name}: {error}; nothing of it was read"));
                return;
            }
        }
        let mut offset = HEADER_BYTES;
        loop {
            match Frame::decode(bytes, offset) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    offset = frame.next_offset(offset);
                    if let Some((header, words)) = decode_run(frame.payload) {
                        self.lanes.entry(header.lane).or_default().runs.push((header, words));
                    }
                }
                Err(error) => {
                    // A torn tail is what a power cut leaves; only what was never acknowledged
                    // can be in it, and the mapped lanes may have it still.
                    self.damage.push(format!("{name}: {error}; what follows was not read"));
                    return;
                }
            }
        }
    }

    /// Hands every record after `sealed` and before the moment `before` to `sink`, in order of
    /// time. Gives how far each lane was read, and how many events there were.
    pub(crate) fn replay(
        &mut self,
        sealed: &LanePositions,
        before: u64,
        mut sink: impl FnMut(RecordPlace, &Record<'_>),
    ) -> (LanePositions, u64) {
        let mut readers: Vec<Reader<'_>> = Vec::new();
        for (lane, records) in &mut self.lanes {
            records.runs.sort_by_key(|(header, words)| (header.first_seq, words.len()));
            let start = sealed.get(lane).copied().unwrap_or(0);
            readers.push(Reader::new(*lane, start, &records.runs));
        }
        let mut events = 0;
        loop {
            let earliest = readers
                .iter_mut()
                .filter(|reader| reader.next.is_some_and(|(record, _)| record.ticks < before))
                .min_by_key(|reader| (reader.next.map(|(record, _)| record.ticks), reader.lane));
            let Some(reader) = earliest else { break };
            if let Some((record, place)) = reader.next {
                sink(place, &record);
                events += u64::from(record.kind.is_event());
            }
            reader.step();
        }
        let mut positions = sealed.clone();
        for reader in readers {
            positions.insert(reader.lane, reader.expected_below());
            self.records_lost += reader.lost;
            self.damage.extend(reader.damage);
        }
        (positions, events)
    }
}

/// Reads one lane's stretches: each record once, in order, counting what is missing.
struct Reader<'a> {
    lane: u32,
    runs: std::slice::Iter<'a, (ChunkHeader, Vec<u64>)>,
    current: Option<(&'a ChunkHeader, &'a [u64], usize)>,
    /// Where the next record of the current stretch stands.
    place: RecordPlace,
    /// Sequence number of the next record wanted.
    expected: u64,
    next: Option<(Record<'a>, RecordPlace)>,
    lost: u64,
    damage: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(lane: u32, start: u64, runs: &'a [(ChunkHeader, Vec<u64>)]) -> Self {
        let mut reader = Self {
            lane,
            runs: runs.iter(),
            current: None,
            place: RecordPlace { lane, seq: 0, opens: 0 },
            expected: start,
            next: None,
            lost: 0,
            damage: Vec::new(),
        };
        reader.step();
        reader
    }

    /// The sequence number below which everything was handed out.
    fn expected_below(&self) -> u64 {
        self.next.map_or(self.expected, |(_, place)| place.seq)
    }

    fn step(&mut self) {
        self.next = None;
        while self.next.is_none() {
            let Some((header, words, at)) = self.current else {
                let Some((header, words)) = self.runs.next() else { return };
                self.current = Some((header, words, 0));
                let (seq, opens) = (header.first_seq, header.first_open);
                self.place = RecordPlace { lane: self.lane, seq, opens };
                continue;
            };
            match record::read(words, at, header.seed()) {
                Ok(None) => self.current = None,
                Ok(Some((record, next))) => {
                    let place = self.place;
                    self.current = Some((header, words, next));
                    self.place.seq += 1;
                    self.place.opens += u64::from(record.kind == Kind::Open);
                    if place.seq < self.expected {
                        continue;
                    }
                    if place.seq > self.expected {
                        let missing = place.seq - self.expected;
                        self.lost += missing;
                        self.damage.push(format!(
                            "lane {}: {missing} records before number {} are missing",
                            self.lane, place.seq
                        ));
                    }
                    self.expected = place.seq + 1;
                    self.next = Some((record, place));
                }
                Err(error) => {
                    // Another stretch may hold the same records undamaged.
                    if self.place.seq >= self.expected {
                        self.damage.push(format!("lane {}: {error}", self.lane));
                    }
                    self.current = None;
                }
            }
        }
    }
}
