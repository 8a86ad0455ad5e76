//! Journals as lanes write them, damaged in known ways: what is read must be what was written, or
//! be reported.

use std::collections::HashMap;

use retake_schemas::version::FormatVersion;
use retake_schemas::{EventSeq, WriterId};

use super::input::Input;
use crate::clock::Anchor;
use crate::journal::record::{self, Kind};
use crate::journal::{
    ChunkHeader, DeadJournal, JournalHeader, LanePositions, RING_HEADER_BYTES, RingHeader,
    write_frame,
};

/// A journal with damage: one flipped bit, or a range that was zeroed or overwritten, or a cut.
pub fn damaged_journal(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_ring = input.flag();
    let damage = input.below(4);
    let place = input.place(usize::MAX);
    let stretches = stretches(&mut input);
    let good = if is_ring { ring(&stretches) } else { durable(&stretches) };
    let expected = read(is_ring, &good);
    assert_eq!((expected.damage.len(), expected.lost), (0, 0), "{:?}", expected.damage);
    let mut bad = good.clone();
    hurt(&mut bad, damage, place, &mut input);
    let found = read(is_ring, &bad);
    for (place, record) in &found.records {
        assert_eq!(Some(record), expected.records.get(place), "other data at {place:?}");
    }
    let lost = (expected.records.len() - found.records.len()) as u64;
    if damage == 0 {
        assert!(lost == 0 || !found.damage.is_empty(), "{lost} records were lost silently");
        assert_eq!(found.lost, lost, "{:?}", found.damage);
    }
}

/// Where a record stands: lane, number, spans opened before it.
type Place = (u32, u64, u64);

struct Found {
    /// Kind, flags, ticks and words.
    records: HashMap<Place, (Kind, u32, u64, Vec<u64>)>,
    damage: Vec<String>,
    lost: u64,
}

fn read(is_ring: bool, bytes: &[u8]) -> Found {
    let mut journal = DeadJournal::default();
    if is_ring {
        journal.add_ring_file("ring-0000.lanes", bytes);
    } else {
        journal.add_durable_file("durable-000000.journal", bytes);
    }
    let mut records = HashMap::new();
    journal.replay(&LanePositions::new(), u64::MAX, |place, record| {
        let words = (record.kind, record.flags, record.ticks, record.rest.to_vec());
        let twice = records.insert((place.lane, place.seq, place.opens), words);
        assert!(twice.is_none(), "a record is read once");
    });
    Found { records, damage: journal.damage, lost: journal.records_lost }
}

fn hurt(bytes: &mut Vec<u8>, damage: u8, place: usize, input: &mut Input<'_>) {
    let at = place % bytes.len();
    match damage {
        0 => bytes[at] ^= 1 << (place / bytes.len() % 8),
        1 => bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0),
        2 => bytes.truncate(at),
        _ => {
            let noise = input.take(64);
            bytes.iter_mut().skip(at).zip(noise).for_each(|(byte, noise)| *byte = *noise);
        }
    }
}

/// Up to three lanes with up to four stretches each.
pub(super) fn stretches(input: &mut Input<'_>) -> Vec<(ChunkHeader, Vec<u64>)> {
    let mut stretches = Vec::new();
    let mut epoch = 0;
    for lane in 0..=u32::from(input.below(3)) {
        let (mut first_seq, mut first_open) = (0, 0);
        for _ in 0..=input.below(4) {
            epoch += 1;
            let header = ChunkHeader { epoch, lane, first_seq, first_open };
            let mut words = Vec::new();
            for _ in 0..input.below(6) {
                let kind = if input.flag() { Kind::Open } else { Kind::Token };
                let mut body = vec![first_seq];
                body.extend((0..4 + input.below(7)).map(|_| input.number()));
                words.push(record::header(header.seed(), kind, u32::from(input.below(4)), &body));
                words.extend(body);
                first_seq += 1;
                first_open += u64::from(kind == Kind::Open);
            }
            if !words.is_empty() {
                stretches.push((header, words));
            }
        }
    }
    stretches
}

pub(super) fn ring(stretches: &[(ChunkHeader, Vec<u64>)]) -> Vec<u8> {
    let header = RingHeader {
        chunk_bytes: CHUNK_WORDS as u32 * 8,
        chunks: stretches.len() as u32 + 1,
        clock: Anchor { ticks: 5, unix_ns: super::START_UNIX_NS },
        ticks_per_ns: 1.0,
    };
    let mut file = header.encode().to_vec();
    file.resize(RING_HEADER_BYTES, 0);
    for (header, words) in stretches {
        let mut chunk = header.words().to_vec();
        chunk.resize(8, 0);
        chunk.extend(words);
        chunk.resize(CHUNK_WORDS, 0);
        file.extend_from_slice(record::bytes_of(&chunk));
    }
    file.resize(file.len() + CHUNK_WORDS * 8, 0);
    file
}

pub(super) fn durable(stretches: &[(ChunkHeader, Vec<u64>)]) -> Vec<u8> {
    let header = JournalHeader {
        version: FormatVersion::JOURNAL,
        writer_id: WriterId(0),
        first_seq: EventSeq(0),
        created_unix_ns: super::START_UNIX_NS,
        clock: None,
    };
    let mut file = header.encode().to_vec();
    for (number, (header, words)) in stretches.iter().enumerate() {
        let mut payload = header.lane.to_le_bytes().to_vec();
        payload.extend_from_slice(&header.epoch.to_le_bytes());
        payload.extend_from_slice(&header.first_seq.to_le_bytes());
        payload.extend_from_slice(&header.first_open.to_le_bytes());
        payload.extend_from_slice(record::bytes_of(words));
        write_frame(&mut file, EventSeq(number as u64), 0, &payload);
    }
    file
}

/// Words of a chunk here: header, and five records at most.
const CHUNK_WORDS: usize = 80;
