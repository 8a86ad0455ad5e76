//! Damage to whole runs: a real run is recorded, the journal of its "death" is copied, a bit is
//! flipped, and the store must still tell the truth.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::{Row, SpanRow};

use super::*;
use crate::disk::RealDisk;
use crate::journal::{
    ChunkHeader, DeadJournal, Frame, JournalLimits, LanePositions, RING_HEADER_BYTES, RingHeader,
    read_journal, record,
};
use crate::store::parse_manifest;
use crate::{RecorderBuilder, RunReader};

/// A run whose process is dead, in a store of its own.
struct DeadRun {
    _folder: tempfile::TempDir,
    store: Store,
    run_id: RunId,
}

impl DeadRun {
    fn folder(&self) -> PathBuf {
        self.store.run_dir(&self.run_id)
    }

    fn journal(&self, extension: &str) -> PathBuf {
        let files = journal_files(&RealDisk, &self.folder().join(JOURNAL_DIR)).unwrap();
        let is_of = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
        let mut files: Vec<_> = files.into_iter().filter(is_of).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    /// A copy, to be repaired.
    fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(self.store.root(), folder.path());
        let store = Store::open(folder.path()).unwrap();
        Self { _folder: folder, store, run_id: self.run_id.clone() }
    }

    fn look(&self) -> Seen {
        let manifest = self.store.manifest(&self.run_id).unwrap();
        let mut loaded = load_tail(&RealDisk, &self.folder(), &manifest, Writer::Dead).unwrap();
        let mut journal = read_journal(&RealDisk, &self.folder().join(JOURNAL_DIR)).unwrap();
        let mut records = 0;
        journal.replay(&LanePositions::new(), u64::MAX, |_, _| records += 1);
        let batch = loaded.fold.take(OpenSpans::Finish).batch(TableName::Spans);
        let rows: Vec<SpanRow> = SpanRow::from_batch(&batch).unwrap();
        Seen { rows, records, lost: loaded.records_lost, damage: loaded.damage }
    }
}

/// What a reader sees of a run.
struct Seen {
    rows: Vec<SpanRow>,
    records: u64,
    lost: u64,
    damage: Vec<String>,
}

impl Seen {
    /// What was there is there, or the report says exactly how much is not.
    fn agrees_with(&self, sound: &Seen, what: &str) {
        assert_eq!(self.records + self.lost, sound.records, "{what}: {:?}", self.damage);
        if self.lost == 0 {
            assert_eq!(self.rows, sound.rows, "{what}");
        } else {
            assert!(!self.damage.is_empty(), "{what}: {} records lost silently", self.lost);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Requests of nested spans with fields and a log line.
fn requests(dispatch: &tracing::Dispatch, requests: u64) {
    tracing::dispatcher::with_default(dispatch, || {
        for number in 0..requests {
            let _request = tracing::info_span!("request", number, user = "somebody").entered();
            let _search = tracing::info_span!("search", top_k = 8u64, index = "docs").entered();
            tracing::info!(score = 0.5, "ranked");
        }
    });
}

/// A dead run with a little over 48 KiB of records in two lanes besides the writer's.
fn dead_run(sync: SyncPolicy) -> DeadRun {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let settings = RecordSettings {
        sync,
        seal_secs: 3600,
        // One file, which does not grow.
        journal_bytes_max: 512 << 10,
        ..RecordSettings::default()
    };
    let limits = JournalLimits { first_file_bytes: 512 << 10, ..JournalLimits::default() };
    let recorder = RecorderBuilder::new("t", "svc")
        .record_settings(settings)
        .journal_limits(limits)
        .start(&store)
        .unwrap();
    // At the same time, so that neither goes on in the other's lane.
    let together = std::sync::Barrier::new(2);
    let dispatch = tracing::Dispatch::new(recorder.subscriber());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                requests(&dispatch, 1);
                together.wait();
                for _ in 0..REQUESTS / 2 {
                    requests(&dispatch, 2);
                    if sync != SyncPolicy::Never {
                        recorder.flush().unwrap();
                    }
                }
                together.wait();
            });
        }
    });
    if sync != SyncPolicy::Never {
        recorder.flush().unwrap();
    }
    let image = DeadRun {
        _folder: tempfile::tempdir().unwrap(),
        store: store.clone(),
        run_id: recorder.run_id().clone(),
    };
    let copied = image.copy();
    assert_eq!(copied.look().damage, Vec::<String>::new());
    copied
}

/// Flips a bit of a file and back.
fn with_flipped_bit<T>(file: &File, bit: u64, look: impl FnOnce() -> T) -> T {
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    let good = byte;
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
    let seen = look();
    file.write_all_at(&good, bit / 8).unwrap();
    seen
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn seeded() -> StdRng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Bits of a mapped file that hold something: its header, and of each chunk the header and the
/// records with the mark of their end.
fn used_bits(bytes: &[u8]) -> Vec<u64> {
    let mut bits: Vec<u64> = (0..64 * 8).collect();
    let chunks = bytes[RING_HEADER_BYTES..].chunks(64 << 10);
    for (number, chunk) in chunks.enumerate() {
        let start = RING_HEADER_BYTES + number * (64 << 10);
        let end = chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 9);
        bits.extend((start as u64 * 8)..((start + end) as u64 * 8));
    }
    bits
}

/// Scenario: one bit of the mapped lanes flips, any of the headers' and thousands of the
/// records', before a dead run is opened.
/// Guarantees: J5 - what is read is what was recorded, or the report counts what is missing.
#[test]
fn a_flipped_bit_in_the_lanes_of_a_run_is_counted_exactly() {
    let run = dead_run(SyncPolicy::Never);
    let sound = run.look();
    let path = run.journal("lanes");
    let bits = used_bits(&fs::read(&path).unwrap());
    assert!(bits.len() >= 48 << 13, "{} bits are used", bits.len());
    let file = open(&path);
    let mut random = seeded();
    let headers = bits.iter().enumerate().filter(|(at, bit)| {
        *at < 64 * 8 || (**bit / 8).wrapping_sub(RING_HEADER_BYTES as u64) % (64 << 10) < 64
    });
    let mut looked_at: Vec<u64> = headers.map(|(_, bit)| *bit).collect();
    looked_at.extend((0..WHOLE_RUN_FLIPS).map(|_| bits[random.random_range(0..bits.len())]));
    let mut reported = 0;
    for bit in &looked_at {
        let seen = with_flipped_bit(&file, *bit, || run.look());
        seen.agrees_with(&sound, &format!("bit {bit}"));
        reported += u64::from(!seen.damage.is_empty());
    }
    // The only bits that may say nothing are those of header words nobody uses.
    println!("{reported} of {} flips were reported, the others are harmless", looked_at.len());
    assert!(reported * 2 > looked_at.len() as u64);
}

/// Scenario: every bit of everything in the mapped lanes of a dead run, one after the other.
/// Guarantees: J5 - each is found where it stands, by the checksum of what it belongs to. (What
/// then becomes of a run is the test before: reading a lane ends at the first such place.)
#[test]
fn every_flipped_bit_of_the_lanes_of_a_run_is_found() {
    let run = dead_run(SyncPolicy::Never);
    let bytes = fs::read(run.journal("lanes")).unwrap();
    let mut bits = 0;
    let ring = RingHeader::decode(&bytes).unwrap();
    for bit in 0..64 * 8 {
        let mut bad = bytes[..64].to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(RingHeader::decode(&bad).is_err(), "bit {bit} of the header");
        bits += 1;
    }
    for chunk in bytes[RING_HEADER_BYTES..].chunks(ring.chunk_bytes as usize) {
        let mut words = record::words_of(chunk);
        let Some(header) = ChunkHeader::decode(&words) else { continue };
        for bit in 0..4 * 64 {
            words[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(ChunkHeader::decode(&words), None, "bit {bit} of a chunk's header");
            words[bit / 64] ^= 1 << (bit % 64);
            bits += 1;
        }
        let (mut at, mut words) = (0, words.split_off(8));
        loop {
            // The mark of the end is a word of zeros.
            let read = |words: &[u64]| {
                record::read(words, at, header.seed()).map(|found| found.map(|(_, next)| next))
            };
            let next = read(&words).unwrap().unwrap_or(at + 1);
            for bit in at * 64..next * 64 {
                words[bit / 64] ^= 1 << (bit % 64);
                assert!(read(&words).is_err(), "bit {bit} of the records");
                words[bit / 64] ^= 1 << (bit % 64);
                bits += 1;
            }
            if words[at] == 0 {
                break;
            }
            at = next;
        }
    }
    println!("{bits} bits");
    assert!(bits >= 48 << 13, "{bits} bits are less than 48 KiB");
}

/// Scenario: the same, and the run is repaired.
/// Guarantees: J5 - the recovery report and the run's accounting give the exact count, and the
/// damaged journal is kept; J3 - a second recovery finds nothing to do.
#[test]
fn recovery_counts_what_damage_cost() {
    let run = dead_run(SyncPolicy::Never);
    let sound = run.look();
    let bits = used_bits(&fs::read(run.journal("lanes")).unwrap());
    let mut random = seeded();
    for _ in 0..RECOVERIES {
        let bit = bits[random.random_range(0..bits.len())];
        let copy = run.copy();
        let file = open(&copy.journal("lanes"));
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
        let seen = copy.look();
        let outcome = copy.store.recover().unwrap();
        let report = &outcome.repaired[0];
        assert_eq!(report.records_lost, sound.records - seen.records, "bit {bit}: {report}");
        assert_eq!(report.damage, seen.damage, "bit {bit}");
        assert_eq!(report.quarantined.len(), usize::from(!seen.damage.is_empty()), "bit {bit}");
        let manifest = copy.store.manifest(&copy.run_id).unwrap();
        assert_eq!(manifest.accounting.damaged_frames, report.records_lost, "bit {bit}");
        let rows: Vec<SpanRow> =
            RunReader::open(&copy.store, &copy.run_id).unwrap().rows().unwrap();
        assert_eq!(rows, seen.rows, "bit {bit}");
        assert!(copy.store.recover().unwrap().repaired.is_empty(), "bit {bit}");
    }
}

/// Scenario: power fails, so that only the durable journal is there, and one bit of it has
/// flipped.
/// Guarantees: J5, J2 - the bit is found and said, and nothing is lost.
#[test]
fn a_flipped_bit_in_the_durable_journal_costs_nothing() {
    let run = dead_run(SyncPolicy::Batch);
    let with_lanes = run.look();
    fs::remove_file(run.journal("lanes")).unwrap();
    let sound = run.look();
    assert_eq!(sound.damage, Vec::<String>::new());
    assert_eq!((sound.records, sound.rows.len()), (with_lanes.records, with_lanes.rows.len()));
    for (row, with_lanes) in sound.rows.iter().zip(&with_lanes.rows) {
        assert_eq!(row.span_id, with_lanes.span_id);
        // The lanes state the clock; without them the journal's anchors give nearly the same.
        let apart = row.start_unix_ns.abs_diff(with_lanes.start_unix_ns);
        assert!(apart < 2_000_000, "{apart} ns apart");
    }
    let path = run.journal("journal");
    let bits = fs::metadata(&path).unwrap().len() * 8;
    assert!(bits >= 48 << 13, "{bits} bits");
    let file = open(&path);
    let mut random = seeded();
    for n in 0..64 * 8 + WHOLE_RUN_FLIPS {
        let bit = if n < 64 * 8 { n as u64 } else { random.random_range(0..bits) };
        let seen = with_flipped_bit(&file, bit, || run.look());
        assert_eq!(seen.damage.len(), 1, "bit {bit}: {:?}", seen.damage);
        assert_eq!((seen.lost, seen.records), (0, sound.records), "bit {bit}");
        assert_eq!(seen.rows, sound.rows, "bit {bit}");
    }
}

/// Scenario: every bit of the durable journal of a dead run, one after the other.
/// Guarantees: J5 - each is found, said, and mended.
#[test]
fn every_flipped_bit_of_the_durable_journal_of_a_run_is_found() {
    let run = dead_run(SyncPolicy::Batch);
    let bytes = fs::read(run.journal("journal")).unwrap();
    let (header, frames) = bytes.split_at(64);
    let read = |file: &[u8], before: &LanePositions| {
        let mut journal = DeadJournal::default();
        journal.add_durable_file("durable-000000.journal", file);
        let mut records = Vec::new();
        journal.replay(before, u64::MAX, |place, record| {
            records.push((place, record.kind, record.flags, record.ticks, record.rest.to_vec()));
        });
        (records, journal.damage.len())
    };
    let (mut bits, mut offset) = (0, 0);
    while let Some(frame) = Frame::decode(frames, offset).unwrap() {
        let end = frame.next_offset(offset);
        // A file of this frame alone: what stands before it was read, what follows is read after.
        let mut file = [header, &frames[offset..end]].concat();
        let (lane, first_seq) = (frame.payload[..4].try_into(), frame.payload[8..16].try_into());
        let lane = u32::from_le_bytes(lane.unwrap());
        let before = [(lane, u64::from_le_bytes(first_seq.unwrap()))].into();
        let sound = read(&file, &before);
        assert!(!sound.0.is_empty() && sound.1 == 0);
        let first = if offset == 0 { 0 } else { header.len() * 8 };
        for bit in first..file.len() * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            let (records, damage) = read(&file, &before);
            assert_eq!((records == sound.0, damage), (true, 1), "bit {bit} at {offset}");
            file[bit / 8] ^= 1 << (bit % 8);
            bits += 1;
        }
        offset = end;
    }
    println!("{bits} bits");
    assert!(bits >= 48 << 13, "{bits} bits are less than 48 KiB");
}

/// Scenario: every bit of a real run's manifest, one after the other.
/// Guarantees: J5 - the digest tells, or nothing has changed.
#[test]
fn every_flipped_bit_of_a_runs_manifest_is_found_or_harmless() {
    let run = finished_run();
    let path = run.folder().join("manifest.json");
    let good = fs::read(&path).unwrap();
    let manifest = parse_manifest(&path, &good).unwrap();
    assert!(manifest.segments.len() >= 2);
    let mut harmless = 0;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = parse_manifest(&path, &bad) {
            assert_eq!(read, manifest, "bit {bit}");
            harmless += 1;
        }
    }
    println!("{} bits, {harmless} of them harmless", good.len() * 8);
}

/// Scenario: segments of a finished run with a flipped bit, at random and at every sector, or
/// cut at every sector.
/// Guarantees: J5 - all of it is found before a reader sees a row.
#[test]
fn no_row_of_a_damaged_segment_is_read() {
    let run = finished_run();
    let reader = RunReader::open(&run.store, &run.run_id).unwrap();
    let mut random = seeded();
    let segments = reader.manifest().segments.clone();
    let flips_each = SEGMENT_FLIPS / segments.len() + 1;
    let mut damaged = BTreeMap::new();
    for segment in &segments {
        let path = run.folder().join(&segment.file);
        let good = fs::read(&path).unwrap();
        let file = open(&path);
        let is_refused = |what: &str| {
            assert!(reader.checked_files(segment.table).is_err(), "{}: {what}", segment.file);
        };
        let sectors = (0..good.len() as u64).step_by(512);
        let mut places: Vec<u64> =
            sectors.clone().map(|byte| byte * 8 + random.random_range(0..8)).collect();
        let bits = good.len() as u64 * 8;
        places.extend((0..flips_each).map(|_| random.random_range(0..bits)));
        for bit in &places {
            with_flipped_bit(&file, *bit, || is_refused(&format!("bit {bit}")));
        }
        for bytes in sectors {
            file.set_len(bytes).unwrap();
            is_refused(&format!("cut to {bytes} bytes"));
            file.write_all_at(&good[bytes as usize..], bytes).unwrap();
        }
        assert!(reader.checked_files(segment.table).is_ok(), "{} is as it was", segment.file);
        damaged.insert(segment.file.clone(), places.len());
    }
    println!("flips: {damaged:?}");
    assert!(damaged.values().sum::<usize>() >= SEGMENT_FLIPS);
}

fn finished_run() -> DeadRun {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    requests(&tracing::Dispatch::new(recorder.subscriber()), 400);
    assert_eq!(recorder.finish(RunStatus::Finished).unsealed, None);
    DeadRun { _folder: folder, store, run_id }
}

/// Requests of each thread: with these the two lanes hold some 50 KiB.
const REQUESTS: u64 = 136;
/// Single bits of a whole run's records that are flipped, besides all of the headers'.
const WHOLE_RUN_FLIPS: usize = 2000;
/// Of these, each is followed by a recovery, which flushes files.
const RECOVERIES: usize = 40;
const SEGMENT_FLIPS: usize = 10_000;
