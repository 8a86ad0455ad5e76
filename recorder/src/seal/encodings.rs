//! Parquet's value encodings, as far as segments use them.
//!
//! The Parquet crate encodes whatever Arrow holds, and hashes every text of every row for its
//! dictionaries. A segment's texts are numbers already, so encoding them here costs a tenth. The
//! formats: <https://github.com/apache/parquet-format/blob/master/Encodings.md>.

use crate::hex::hex;

/// Appends values of `width` bits each, lowest bits first, and fills the last byte with zeros.
pub(super) fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let mut pending: u128 = 0;
    let mut bits = 0;
    for value in values {
        pending |= u128::from(value) << bits;
        bits += width;
        if bits >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            bits -= 64;
        }
    }
    let rest = pending.to_le_bytes();
    out.extend_from_slice(rest.get(..bits.div_ceil(8) as usize).unwrap_or_default());
}

/// RLE and bit packing mixed, as dictionary codes and definition levels are written: runs where
/// they pay, else groups of eight.
pub(super) fn hybrid(values: &[u32], width: u32, out: &mut Vec<u8>) {
    let value_bytes = width.div_ceil(8) as usize;
    let changes = values.iter().zip(values.iter().skip(1)).filter(|(a, b)| a != b).count();
    // Runs of any length where they are shorter than packing all: columns that hardly change, and
    // traces, whose runs do not begin at a group.
    if (changes + 1) * (1 + value_bytes) * 8 <= values.len() * width as usize {
        for run in values.chunk_by(|a, b| a == b) {
            rle_run(run, value_bytes, out);
        }
        return;
    }
    let mut rest = values;
    while !rest.is_empty() {
        let packed = groups_before_run(rest);
        let (literals, after) = rest.split_at_checked(packed).unwrap_or((rest, &[]));
        if !literals.is_empty() {
            let groups = literals.len().div_ceil(GROUP);
            varint((groups as u64) << 1 | 1, out);
            let padding = groups * GROUP - literals.len();
            let padded = literals.iter().copied().chain(std::iter::repeat_n(0, padding));
            pack(padded.map(u64::from), width, out);
        }
        let run = after.chunk_by(|a, b| a == b).next().unwrap_or_default();
        if !run.is_empty() {
            rle_run(run, value_bytes, out);
        }
        rest = after.get(run.len()..).unwrap_or_default();
    }
}

/// How many values to pack before the next run that is worth one; a multiple of the group unless
/// the values end.
fn groups_before_run(values: &[u32]) -> usize {
    let mut packed = 0;
    for group in values.chunks(GROUP) {
        let first = group.first();
        let is_run = group.len() == GROUP
            && group.iter().all(|value| Some(value) == first)
            // One group of a run saves less than the header of the packing after it costs.
            && values.get(packed + GROUP..packed + 2 * GROUP).is_none_or(|next| {
                next.iter().all(|value| Some(value) == first)
            });
        if is_run {
            break;
        }
        packed += group.len();
    }
    packed
}

fn rle_run(run: &[u32], value_bytes: usize, out: &mut Vec<u8>) {
    varint((run.len() as u64) << 1, out);
    let value = run.first().copied().unwrap_or_default().to_le_bytes();
    out.extend_from_slice(value.get(..value_bytes).unwrap_or(&value));
}

/// Definition levels of a page whose present rows are `rows`, counted from `first`, with their
/// length in front.
pub(super) fn levels_of_rows(rows: &[u32], first: usize, len: usize, out: &mut Vec<u8>) {
    let groups = len.div_ceil(GROUP);
    let mut bitmap = vec![0_u8; groups];
    for row in rows {
        let row = *row as usize - first;
        if let Some(byte) = bitmap.get_mut(row / GROUP) {
            *byte |= 1 << (row % GROUP);
        }
    }
    let mut header = Vec::with_capacity(5);
    varint((groups as u64) << 1 | 1, &mut header);
    out.extend_from_slice(&((header.len() + groups) as u32).to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&bitmap);
}

/// Definition levels of a page whose first `present` rows have a value, with their length in front.
pub(super) fn levels_of_first(present: usize, len: usize, out: &mut Vec<u8>) {
    let mut levels = Vec::with_capacity(8);
    for (level, count) in [(1_u8, present), (0, len - present)] {
        if count > 0 {
            varint((count as u64) << 1, &mut levels);
            levels.push(level);
        }
    }
    out.extend_from_slice(&(levels.len() as u32).to_le_bytes());
    out.extend_from_slice(&levels);
}

/// `DELTA_BINARY_PACKED`: differences to the value before, packed by blocks.
pub(super) fn delta(values: &[i64], out: &mut Vec<u8>) {
    delta_by(values, i64::wrapping_sub, out);
}

/// The same for a column of 32 bits, whose readers take no wider difference.
pub(super) fn delta_32(values: &[i64], out: &mut Vec<u8>) {
    delta_by(values, |value, before| i64::from((value as i32).wrapping_sub(before as i32)), out);
}

fn delta_by(values: &[i64], difference: impl Fn(i64, i64) -> i64, out: &mut Vec<u8>) {
    for header in [BLOCK, BLOCK / MINIBLOCK, values.len()] {
        varint(header as u64, out);
    }
    let mut before = values.first().copied().unwrap_or_default();
    zigzag(before, out);
    let mut deltas = [0_i64; BLOCK];
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        let mut least = i64::MAX;
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = difference(*value, before);
            before = *value;
            least = least.min(*delta);
        }
        zigzag(least, out);
        let deltas = deltas.get(..block.len()).unwrap_or_default();
        let above = |delta: &i64| delta.wrapping_sub(least) as u64;
        let widths_at = out.len();
        out.extend_from_slice(&[0; BLOCK / MINIBLOCK]);
        for (index, miniblock) in deltas.chunks(MINIBLOCK).enumerate() {
            let width = 64 - miniblock.iter().map(above).fold(0, |a, b| a | b).leading_zeros();
            if let Some(place) = out.get_mut(widths_at + index) {
                *place = width as u8;
            }
            let padding = std::iter::repeat_n(0, MINIBLOCK - miniblock.len());
            pack(miniblock.iter().map(above).chain(padding), width, out);
        }
    }
}

/// `DELTA_BYTE_ARRAY` of ids as 16 hex digits: only the digits that differ from the id before.
pub(super) fn hex_ids(ids: &[u64], out: &mut Vec<u8>) {
    let mut shared = Vec::with_capacity(ids.len());
    let mut lengths = Vec::with_capacity(ids.len());
    let mut digits = Vec::with_capacity(ids.len() * 2);
    let mut before = None;
    for id in ids {
        let same = before.map_or(0, |before: u64| (before ^ id).leading_zeros() / 4);
        before = Some(*id);
        shared.push(i64::from(same));
        lengths.push(i64::from(HEX_DIGITS - same));
        digits.extend_from_slice(hex(*id).get(same as usize..).unwrap_or_default());
    }
    delta(&shared, out);
    delta(&lengths, out);
    out.extend_from_slice(&digits);
}

/// `BYTE_STREAM_SPLIT` of 64 bits: all first bytes, all second bytes, and so on.
pub(super) fn split(values: impl Iterator<Item = u64> + Clone, out: &mut Vec<u8>) {
    for place in 0..8 {
        out.extend(values.clone().map(|value| (value >> (8 * place)) as u8));
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint((value << 1 ^ value >> 63) as u64, out);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Values per group of bit packing.
const GROUP: usize = 8;
/// Deltas per block and per miniblock: what every reader has met.
const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;
const HEX_DIGITS: u32 = 16;
