//! Reading a journal that another process writes, or wrote until it died.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use retake_schemas::version::{FormatVersion, UnreadableVersion};

use super::drain::{LanePositions, RecordPlace};
use super::durable::{decode_run, decode_start};
use super::frame::{FRAME_HEADER_BYTES, Frame, FrameError, HEADER_BYTES, JournalHeader};
use super::mend::{mend_chunk_header, mend_frame, mend_header, unread_records};
use super::record::{self, Kind, Record};
use super::ring::{CHUNK_HEADER_WORDS, ChunkHeader, RING_HEADER_BYTES, RingHeader};
use crate::clock::{Anchor, Clock};
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
    torn: Vec<TornTail>,
    /// There are mapped lanes, so no power cut has taken what they hold.
    has_lanes: bool,
    /// The clock the run started with, and its rate; mapped files state it.
    clock: Option<(Anchor, f64)>,
    /// What could not be read.
    pub(crate) damage: Vec<String>,
    /// Records that are known to be missing or unreadable.
    pub(crate) records_lost: u64,
    /// A file was written by a newer retake, so only that one may repair the run.
    pub(crate) newer: Option<UnreadableVersion>,
}

/// A frame of the durable journal that its file ends in the middle of, as the death of the writer
/// leaves it. The mapped lanes have what it would have held, unless a power cut took them.
#[derive(Debug)]
struct TornTail {
    /// The lane and the number of its first record there; `None` when the file ends inside the
    /// frame's header.
    place: Option<(u32, u64)>,
    /// In words, should the lanes not have it.
    damage: String,
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
    pub(crate) fn add_ring_file(&mut self, name: &str, bytes: &[u8]) {
        if bytes.iter().take(RING_HEADER_BYTES).all(|byte| *byte == 0) {
            // Made, but never written to.
            return;
        }
        self.newer = self.newer.take().or_else(|| newer_version(bytes));
        let header = match RingHeader::decode(bytes) {
            Ok(header) => header,
            Err(reason) => match mend_header(bytes, |bytes| RingHeader::decode(bytes).ok()) {
                Some(header) => {
                    self.damage.push(format!("{name}: {reason}; {MENDED}"));
                    header
                }
                None => {
                    self.damage.push(format!("{name}: {reason}; nothing of it was read"));
                    return;
                }
            },
        };
        self.has_lanes = true;
        self.clock.get_or_insert((header.clock, header.ticks_per_ns));
        let chunks = bytes.get(RING_HEADER_BYTES..).unwrap_or_default();
        let bytes_stated = u64::from(header.chunk_bytes) * u64::from(header.chunks);
        if (chunks.len() as u64) < bytes_stated {
            let missing = bytes_stated - chunks.len() as u64;
            self.damage.push(format!("{name}: its last {missing} bytes are missing"));
        }
        for (number, chunk) in chunks.chunks(header.chunk_bytes as usize).enumerate() {
            self.add_chunk(&format!("{name}: chunk {number}"), &record::words_of(chunk));
        }
    }

    fn add_chunk(&mut self, place: &str, words: &[u64]) {
        let records = words.get(CHUNK_HEADER_WORDS..).unwrap_or_default();
        let header = match (ChunkHeader::decode(words), words.first()) {
            (Some(header), _) => header,
            (None, None | Some(0)) => return,
            (None, Some(first)) if first.count_ones() == 1 => {
                // No header in use has so few bits set: the chunk was unused.
                self.damage.push(format!("{place}: a flipped bit; it holds nothing"));
                return;
            }
            (None, Some(_)) => match mend_chunk_header(words, records) {
                Some(header) => {
                    self.damage.push(format!("{place}: its header is damaged; {MENDED}"));
                    header
                }
                None => {
                    self.damage
                        .push(format!("{place}: its header is damaged; nothing of it was read"));
                    return;
                }
            },
        };
        self.lanes.entry(header.lane).or_default().runs.push((header, records.to_vec()));
    }

    pub(crate) fn add_durable_file(&mut self, name: &str, bytes: &[u8]) {
        if bytes.iter().take(HEADER_BYTES).all(|byte| *byte == 0) {
            return;
        }
        self.newer = self.newer.take().or_else(|| newer_version(bytes));
        let header = match JournalHeader::decode(bytes) {
            Ok(header) => header,
            Err(error) => {
                let Some(header) = mend_header(bytes, |bytes| JournalHeader::decode(bytes).ok())
                else {
                    self.damage.push(format!("{name}: {error}; nothing of it was read"));
                    return;
                };
                self.damage.push(format!("{name}: {error}; {MENDED}"));
                header
            }
        };
        self.clock = self.clock.or(header.clock);
        let mut offset = HEADER_BYTES;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let error = match Frame::decode(rest, 0) {
                Ok(Some(frame)) => {
                    offset += frame.next_offset(0);
                    self.add_frame(name, &frame);
                    continue;
                }
                // Nothing is written ahead of the frames, so the end mark is the file's end.
                Ok(None) if rest.iter().all(|byte| *byte == 0) => return,
                Ok(None) => None,
                Err(error) => Some(error),
            };
            let reason = error
                .as_ref()
                .map_or_else(|| "its last frame is not whole".to_owned(), ToString::to_string);
            let Some(mended) = mend_frame(rest) else {
                let damage = format!("{name}: {reason} (byte {offset}); what follows was not read");
                if error.is_none() && rest.len() < FRAME_HEADER_BYTES {
                    // The kernel may end a write of a killed process at a page's end.
                    return self.torn.push(TornTail { place: None, damage });
                }
                return self.end_early(rest, error.as_ref(), damage);
            };
            self.damage.push(format!("{name}: {reason} (byte {offset}); {MENDED}"));
            match Frame::decode(&mended, 0) {
                Ok(Some(frame)) => {
                    offset += frame.next_offset(0);
                    self.add_frame(name, &frame);
                }
                _ => return,
            }
        }
    }

    fn add_frame(&mut self, name: &str, frame: &Frame<'_>) {
        match decode_run(frame.payload) {
            Some((header, words)) => {
                self.lanes.entry(header.lane).or_default().runs.push((header, words));
            }
            None => {
                let number = frame.seq.0;
                self.damage.push(format!("{name}: frame {number} holds no stretch of a lane"));
            }
        }
    }

    /// The clock and ticks in a nanosecond of the run that started at `started_unix_ns`.
    ///
    /// Without mapped files, after a power cut, the journal's anchors give it, and before the
    /// first anchor the earliest record, which is the start of the run, and this machine's rate.
    pub(crate) fn clock(&self, started_unix_ns: i64) -> (Anchor, f64) {
        if let Some(clock) = self.clock {
            return clock;
        }
        let mut earliest = Anchor { ticks: u64::MAX, unix_ns: started_unix_ns };
        let mut anchors: Option<(Anchor, Anchor)> = None;
        for (header, words) in self.lanes.values().flat_map(|lane| &lane.runs) {
            let mut at = 0;
            while let Ok(Some((record, next))) = record::read(words, at, header.seed()) {
                at = next;
                earliest.ticks = earliest.ticks.min(record.ticks);
                if let (Kind::Anchor, Some(unix_ns)) = (record.kind, record.rest.first()) {
                    let anchor = Anchor { ticks: record.ticks, unix_ns: unix_ns.cast_signed() };
                    let (first, last) = anchors.get_or_insert((anchor, anchor));
                    *first = if anchor.ticks < first.ticks { anchor } else { *first };
                    *last = if anchor.ticks > last.ticks { anchor } else { *last };
                }
            }
        }
        let (first, last) = anchors.unwrap_or((earliest, earliest));
        let (ticks, ns) = (last.ticks - first.ticks, last.unix_ns.saturating_sub(first.unix_ns));
        if ns < ANCHORS_APART_NS_MIN {
            return (first, Clock::start().ticks_per_ns());
        }
        (first, ticks as f64 / ns as f64)
    }

    /// Notes where a durable file cannot be read on. Only what was never acknowledged can be in a
    /// torn tail.
    fn end_early(&mut self, rest: &[u8], error: Option<&FrameError>, damage: String) {
        let Some(FrameError::Cut { .. }) = error else { return self.damage.push(damage) };
        let payload = rest.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        // Without even the place in its lane there is nothing in it that could be missed.
        if let Some((ChunkHeader { lane, first_seq, .. }, _)) = decode_start(payload) {
            self.torn.push(TornTail { place: Some((lane, first_seq)), damage });
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
            self.records_lost = self.records_lost.saturating_add(reader.lost_to_the_end());
            self.damage.extend(reader.damage);
        }
        for TornTail { place, damage } in self.torn.drain(..) {
            let is_missed = match place {
                Some((lane, first_seq)) => {
                    positions.get(&lane).is_none_or(|below| *below <= first_seq)
                }
                None => !self.has_lanes,
            };
            if is_missed {
                self.damage.push(damage);
            }
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
    /// One past the last record of which damage left a trace; a later stretch may still have it.
    traced_below: u64,
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
            traced_below: 0,
            damage: Vec::new(),
        };
        reader.step();
        reader
    }

    /// The sequence number below which everything was handed out.
    fn expected_below(&self) -> u64 {
        self.next.map_or(self.expected, |(_, place)| place.seq)
    }

    /// Records that are missing, those after the last one read included: exact wherever a later
    /// stretch says how many there were, and else as many as can be told from noise.
    fn lost_to_the_end(&self) -> u64 {
        self.lost.saturating_add(self.traced_below.saturating_sub(self.expected_below()))
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
                    self.place.seq = place.seq.saturating_add(1);
                    let opens = u64::from(record.kind == Kind::Open);
                    self.place.opens = place.opens.saturating_add(opens);
                    if place.seq < self.expected {
                        continue;
                    }
                    if place.seq > self.expected {
                        let missing = place.seq - self.expected;
                        self.lost = self.lost.saturating_add(missing);
                        self.damage.push(format!(
                            "lane {}: {missing} records before number {} are missing",
                            self.lane, place.seq
                        ));
                    }
                    self.expected = place.seq.saturating_add(1);
                    self.next = Some((record, place));
                }
                Err(error) => {
                    // Another stretch may hold the same records undamaged.
                    if self.place.seq >= self.expected {
                        self.damage.push(format!("lane {}: {error}", self.lane));
                        let unread = unread_records(words, at, header.seed());
                        let below = self.place.seq.saturating_add(unread);
                        self.traced_below = self.traced_below.max(below);
                    }
                    self.current = None;
                }
            }
        }
    }
}

/// The version of a file of either kind, if its header is sound and newer than what we know.
fn newer_version(bytes: &[u8]) -> Option<UnreadableVersion> {
    let (covered, rest) = bytes.split_first_chunk::<60>()?;
    if rest.first_chunk::<4>() != Some(&crc32c::crc32c(covered).to_le_bytes()) {
        return None;
    }
    let half = |at: usize| covered.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes);
    let version = FormatVersion { major: half(8)?, minor: half(10)? };
    version.check_readable_by(FormatVersion::JOURNAL, "journal").err()
}

/// Closer anchors would give a rate made of their jitter.
const ANCHORS_APART_NS_MIN: i64 = 10_000_000;
/// Said of a place that one flipped bit had damaged and that is whole again.
const MENDED: &str = "one flipped bit, mended";
