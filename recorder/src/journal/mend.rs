//! What can be made of damaged places of a journal: headers with one flipped bit are mended, and
//! records behind damage are counted.
//!
//! A flipped bit in a header would cost everything behind it, so it is worth finding. Where the
//! checksum passes again after flipping one bit back, that bit was it: the checksums tell any two
//! of the few bits of a header apart. Records are not mended: they cost no more than themselves.
//! What else is damaged stays damaged, is said, and is counted as far as it can be.

use super::frame::{FRAME_HEADER_BYTES, Frame, checksum};
use super::record::{self, RecordError};
use super::ring::ChunkHeader;

/// What `decode` makes of a file's 64-byte header with one bit flipped back.
pub(super) fn mend_header<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut header = *bytes.first_chunk::<FILE_HEADER_BYTES>()?;
    (0..header.len() * 8).find_map(|bit| {
        flip(&mut header, bit);
        let found = decode(&header);
        flip(&mut header, bit);
        found
    })
}

/// The header of a chunk with one bit flipped back.
///
/// Its checksum finds every flipped bit, but does not tell all of them apart: a bit of the lane
/// from the same bit of the epoch, or the highest bits of a count from those of the checksum. What
/// follows from the header does: the first record must pass, and no more spans were opened than
/// there were records. A header that could still be two stays damaged.
pub(super) fn mend_chunk_header(words: &[u64], records: &[u64]) -> Option<ChunkHeader> {
    let header = *words.first_chunk::<CHUNK_HEADER_WORDS_USED>()?;
    let mut candidates = (0..header.len() * 64).filter_map(|bit| {
        let mut header = header;
        *header.get_mut(bit / 64)? ^= 1 << (bit % 64);
        let found = ChunkHeader::decode(&header)?;
        let is_followed = record::read(records, 0, found.seed()).is_ok();
        (is_followed && found.first_open <= found.first_seq).then_some(found)
    });
    let only = candidates.next()?;
    candidates.next().is_none().then_some(only)
}

/// The frame at the start of `bytes` with one bit flipped back.
pub(super) fn mend_frame(bytes: &[u8]) -> Option<Vec<u8>> {
    let stated = u32::from_le_bytes(*bytes.first_chunk()?);
    if let Some(frame) = whole(bytes, stated)
        && let Some(bit) = flipped_bit(frame)
    {
        let mut mended = frame.to_vec();
        flip(&mut mended, bit);
        return Frame::decode(&mended, 0).ok()?.is_some().then_some(mended);
    }
    // The checksum does not cover the length; a wrong one shows by what it cuts out.
    (0..u32::BITS).find_map(|bit| {
        let length = stated ^ 1 << bit;
        let mut mended = whole(bytes, length)?.to_vec();
        mended.get_mut(..4)?.copy_from_slice(&length.to_le_bytes());
        Frame::decode(&mended, 0).ok()?.is_some().then_some(mended)
    })
}

/// The first `length` bytes, if a frame can have so many.
fn whole(bytes: &[u8], length: u32) -> Option<&[u8]> {
    let length = length as usize;
    (length > FRAME_HEADER_BYTES).then(|| bytes.get(..length)).flatten()
}

/// The one bit of a frame that its checksum says is wrong, if it is one bit.
///
/// A CRC is linear: a flipped bit changes it in a way that only depends on how many bits follow.
/// Walking from the last bit to the first, each step of the register gives the change that the
/// next one would make, and no two are the same in frames below 2^31 bits.
fn flipped_bit(frame: &[u8]) -> Option<usize> {
    let (header, payload) = frame.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let (stated, covered) = header.get(4..)?.split_first_chunk::<4>()?;
    let change = u32::from_le_bytes(*stated) ^ checksum(payload, covered);
    if change.count_ones() == 1 {
        return Some(32 + change.trailing_zeros() as usize);
    }
    let bits_before = (FRAME_HEADER_BYTES - covered.len()) * 8;
    let bits = bits_before..frame.len() * 8;
    // The checksum runs over the payload first, and then over what stands before it.
    let in_order_back =
        (bits_before..FRAME_HEADER_BYTES * 8).rev().chain((FRAME_HEADER_BYTES * 8..bits.end).rev());
    let mut step = 1;
    for bit in in_order_back {
        step = (step >> 1) ^ if step & 1 == 1 { CRC32C_REVERSED } else { 0 };
        if step == change {
            return Some(bit);
        }
    }
    None
}

/// How many records stand from the damage at word `at` on, as far as they can be told from noise:
/// the damaged one, and those behind it whose checksum passes.
pub(super) fn unread_records(words: &[u64], at: usize, seed: u64) -> u64 {
    // A record's header has two bits set at least, so a single one was the mark of the end.
    let is_record = |at: usize| words.get(at).is_some_and(|head| head.count_ones() > 1);
    let mut count = u64::from(is_record(at));
    let mut steps_left = STEPS_MAX;
    let mut is_behind_record = false;
    let mut at = at + 1;
    while at < words.len() && steps_left > 0 {
        let found = record::read(words, at, seed);
        match found {
            Ok(Some((_, next))) => {
                count += 1;
                at = next;
                is_behind_record = true;
                continue;
            }
            Ok(None) if is_behind_record => break,
            Err(_) if is_behind_record => count += u64::from(is_record(at)),
            _ => {}
        }
        let third = || words.get(at + 2).copied().unwrap_or(0);
        let steps = match (found, words.get(at)) {
            (Err(RecordError::Checksum { .. }), Some(head)) => record::words_stated(*head, third),
            _ => 1,
        };
        steps_left = steps_left.saturating_sub(steps);
        is_behind_record = false;
        at += 1;
    }
    count
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Bytes of the header of either kind of file.
const FILE_HEADER_BYTES: usize = 64;
/// Words of a chunk's header that mean something.
const CHUNK_HEADER_WORDS_USED: usize = 4;
/// The polynomial of CRC-32C, lowest power in the highest bit.
const CRC32C_REVERSED: u32 = 0x82F6_3B78;
/// Words that are read at most to find a record behind damage, some milliseconds' worth: noise may
/// read as lengths.
const STEPS_MAX: usize = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::Kind;
    use retake_schemas::EventSeq;

    /// Guarantees: J5 - whichever bit of a frame is flipped, it is found and flipped back.
    #[test]
    fn any_one_flipped_bit_of_a_frame_is_mended() {
        let payload: Vec<u8> = (0..100u8).collect();
        let mut good = Vec::new();
        crate::journal::write_frame(&mut good, EventSeq(3), 0, &payload);
        let padding = good.len() - (FRAME_HEADER_BYTES + payload.len());
        good.extend_from_slice(&[0xA5; 40]);
        for bit in 0..(good.len() - 40 - padding) * 8 {
            let mut bad = good.clone();
            flip(&mut bad, bit);
            let mended = mend_frame(&bad).unwrap_or_else(|| panic!("bit {bit}"));
            let frame = Frame::decode(&mended, 0).unwrap().unwrap();
            assert_eq!((frame.seq.0, frame.payload), (3, payload.as_slice()), "bit {bit}");
        }
    }

    /// Scenario: a record in the middle of others is damaged in one word.
    #[test]
    fn records_behind_damage_are_counted() {
        let seed = record::seed(1, 2);
        let mut words = Vec::new();
        for number in 0..5u64 {
            let body = [number, 7, number * 31];
            words.push(record::header(seed, Kind::Token, 0, &body));
            words.extend(body);
        }
        words.push(0);
        for word in 0..20 {
            let mut bad = words.clone();
            bad[word] ^= 0x0100_0010_0000;
            let at = word / 4 * 4;
            assert_eq!(unread_records(&bad, at, seed), 5 - at as u64 / 4, "word {word}");
        }
        words[20] = 1 << 40;
        assert_eq!(unread_records(&words, 20, seed), 0, "the mark of the end is no record");
    }
}
