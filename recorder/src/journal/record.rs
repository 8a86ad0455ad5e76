//! The bytes of a record in a lane's chunk. Pure: no file and no shared memory is touched here.
//!
//! A record is a row of 8-byte words. The first is its header: word count, kind, flags, and a
//! checksum of everything else in the record, seeded by the chunk it stands in. The header is
//! stored last, so a process that dies inside a record leaves a zero there, and a record that was
//! left over from an earlier use of the chunk fails the checksum.
//!
//! ```text
//! every record  [words 16 | kind 8 | flags 8 | check 32] [ticks] ...
//! Open          [key] [parent key] [callsite 32 | 4 field types] [8 field types]* values*
//! Close, Enter, Exit, Left  [key]
//! Event         [key] [callsite 32 | 4 field types] [8 field types]* values*
//! Update        [key] ([field index 32 | field type 32] value)*
//! Token         [key] [index 32 | count 32]
//! Body          [words 32 | bytes 32] [unix ns] MessagePack of an `EventBody`
//! Callsite, Thread  [words 32 | bytes 32] [number] MessagePack / name
//! Anchor        [unix ns]
//! ```
//!
//! Why a multiplicative checksum and not CRC-32C: the writer computes it on the instrumented
//! thread for every span, and two multiplications in flight cost a third of a chain of CRC
//! instructions. It finds every single flipped bit by construction (each step is a bijection of
//! 64 bits, see the test) and anything else with probability 1 - 2^-32. What must survive a power
//! cut stands in CRC-32C frames besides (`docs/format.md`).

/// Header value of the word count of records that state it in their third word.
const LONG_WORDS: u64 = 0xFFFF;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A span began.
    Open = 1,
    /// A span ended.
    Close = 2,
    /// A `tracing` event.
    Event = 3,
    /// A span's fields were filled in later.
    Update = 4,
    /// A span was entered, other than right after it was opened.
    Enter = 5,
    /// A span was left.
    Exit = 6,
    /// Output tokens arrived.
    Token = 7,
    /// Any event, in its general form.
    Body = 8,
    /// What a callsite number means.
    Callsite = 9,
    /// The lane's thread from here on.
    Thread = 10,
    /// The wall time that belongs to the record's ticks.
    Anchor = 11,
    /// A span that was entered right after it was opened was left some time ago without having
    /// ended: how long it was busy until then nobody knows.
    Left = 12,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Open,
        Self::Close,
        Self::Event,
        Self::Update,
        Self::Enter,
        Self::Exit,
        Self::Token,
        Self::Body,
        Self::Callsite,
        Self::Thread,
        Self::Anchor,
        Self::Left,
    ];

    fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }

    /// Whether it is something that happened in the program, not the journal's own bookkeeping.
    pub(crate) const fn is_event(self) -> bool {
        matches!(
            self,
            Self::Open | Self::Close | Self::Event | Self::Update | Self::Token | Self::Body
        )
    }

    /// Whether the words of the record stand after its ticks however long it is. Other kinds state
    /// them there, in a word of its own, only when the header has no room for them.
    const fn states_length(self) -> bool {
        matches!(self, Self::Body | Self::Callsite | Self::Thread)
    }

    /// Fewest words a record of this kind can have.
    const fn words_min(self) -> usize {
        match self {
            Self::Open => 5,
            Self::Event | Self::Token | Self::Body | Self::Callsite | Self::Thread => 4,
            Self::Update | Self::Close | Self::Enter | Self::Exit | Self::Anchor | Self::Left => 3,
        }
    }
}

/// Flag of a `Close`: the span was entered when it was opened and left when it ended, so it was
/// busy throughout. Entries and exits of such spans are not recorded.
pub(crate) const FLAG_THROUGHOUT: u32 = 1;
/// Flag: a field was cut at its limit.
pub(crate) const FLAG_TRUNCATED: u32 = 2;
/// Flag of an `Event`: it was written into every run that was recorded through its door, and
/// belongs to the one that knows its span.
pub(crate) const FLAG_IF_KNOWN: u32 = 4;

/// The header of a record whose other words are `body`.
pub(crate) fn header(seed: u64, kind: Kind, flags: u32, body: &[u64]) -> u64 {
    let words = (body.len() as u64 + 1).min(LONG_WORDS);
    header_of_words(seed, words, (kind, flags), body)
}

/// The same for a record that is written in place: no chunk is as long as the header can say.
#[inline(always)]
pub(crate) fn header_in_place(seed: u64, kind: Kind, flags: u32, body: &[u64]) -> u64 {
    debug_assert!((body.len() as u64) < LONG_WORDS - 1);
    header_of_words(seed, body.len() as u64 + 1, (kind, flags), body)
}

#[inline(always)]
fn header_of_words(seed: u64, words: u64, (kind, flags): (Kind, u32), body: &[u64]) -> u64 {
    let low = words | (kind as u64) << 16 | u64::from(flags) << 24;
    low | u64::from(checksum(seed ^ low, body)) << 32
}

/// The header of a record of `N` words after the ticks: the same, from words that are still in
/// registers.
#[inline]
pub(crate) fn header_of<const N: usize>(
    seed: u64,
    (kind, flags): (Kind, u32),
    ticks: u64,
    words: &[u64; N],
) -> u64 {
    let low = (N as u64 + 2) | (kind as u64) << 16 | u64::from(flags) << 24;
    let (mut a, mut b) = (seed ^ low ^ START_A, START_B);
    a = (a ^ ticks).wrapping_mul(MULTIPLIER_A);
    for (index, word) in words.iter().enumerate() {
        if index % 2 == 0 {
            b = (b ^ word).wrapping_mul(MULTIPLIER_B);
        } else {
            a = (a ^ word).wrapping_mul(MULTIPLIER_A);
        }
    }
    low | u64::from(finished(a, b)) << 32
}

/// The checksum of a record's words after the header.
#[inline]
fn checksum(seed: u64, body: &[u64]) -> u32 {
    let (mut a, mut b) = (seed ^ START_A, START_B);
    let (pairs, last) = body.as_chunks::<2>();
    for [first, second] in pairs {
        a = (a ^ first).wrapping_mul(MULTIPLIER_A);
        b = (b ^ second).wrapping_mul(MULTIPLIER_B);
    }
    if let [last] = last {
        a = (a ^ last).wrapping_mul(MULTIPLIER_A);
    }
    finished(a, b)
}

#[inline]
fn finished(a: u64, b: u64) -> u32 {
    ((a ^ b.rotate_left(32)).wrapping_mul(MULTIPLIER_B) >> 32) as u32
}

/// The seed of a chunk's records: by lane and by use of the chunk, so that no record of another
/// lane or an earlier use can pass.
pub(crate) fn seed(lane: u32, epoch: u32) -> u64 {
    ((u64::from(lane) << 32) | u64::from(epoch)).wrapping_mul(MULTIPLIER_A) ^ START_B
}

/// Words of a record by its header; `third` gives the third word of a long one.
#[inline]
pub(crate) fn words_stated(head: u64, third: impl FnOnce() -> u64) -> usize {
    match head & 0xFFFF {
        LONG_WORDS => (third() & 0xFFFF_FFFF) as usize,
        short => short as usize,
    }
}

/// A record as found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: u32,
    /// When, in ticks of the journal's clock.
    pub(crate) ticks: u64,
    /// The words after the ticks.
    pub(crate) rest: &'a [u64],
}

/// Why words are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// The record says it has more or fewer words than it can have.
    #[error("record at word {at} states a length of {words} words")]
    Length {
        /// Where.
        at: usize,
        /// What it says.
        words: usize,
    },
    /// There is no such kind.
    #[error("record at word {at} is of unknown kind {kind}")]
    Kind {
        /// Where.
        at: usize,
        /// What it says.
        kind: u8,
    },
    /// The checksum does not match.
    #[error("record at word {at} has a wrong checksum")]
    Checksum {
        /// Where.
        at: usize,
    },
}

/// Reads the record at word `at`, and gives the place of the next one. `None` at the end.
#[inline]
pub(crate) fn read(
    words: &[u64],
    at: usize,
    seed: u64,
) -> Result<Option<(Record<'_>, usize)>, RecordError> {
    let Some(&head) = words.get(at) else { return Ok(None) };
    if head == 0 {
        return Ok(None);
    }
    let kind = (head >> 16) as u8;
    let kind = Kind::from_u8(kind).ok_or(RecordError::Kind { at, kind })?;
    let count = words_stated(head, || words.get(at + 2).copied().unwrap_or(0));
    let length = RecordError::Length { at, words: count };
    if count < kind.words_min() {
        return Err(length);
    }
    let body = words.get(at + 1..at.saturating_add(count)).ok_or(length)?;
    if checksum(seed ^ (head & 0xFFFF_FFFF), body) != (head >> 32) as u32 {
        return Err(RecordError::Checksum { at });
    }
    let (&ticks, rest) = body.split_first().ok_or(length)?;
    let has_length_word = head & 0xFFFF == LONG_WORDS && !kind.states_length();
    let rest = if has_length_word { rest.get(1..).unwrap_or_default() } else { rest };
    let record = Record { kind, flags: (head >> 24) as u32 & 0xFF, ticks, rest };
    Ok(Some((record, at + count)))
}

/// Types of fields, one byte each.
pub(crate) mod field {
    /// Not given.
    pub(crate) const ABSENT: u8 = 0;
    /// One word.
    pub(crate) const U64: u8 = 1;
    /// One word.
    pub(crate) const I64: u8 = 2;
    /// One word, the bits of an `f64`.
    pub(crate) const F64: u8 = 3;
    /// No word.
    pub(crate) const FALSE: u8 = 4;
    /// No word.
    pub(crate) const TRUE: u8 = 5;
    /// Length (32 bits) and UTF-8 bytes, padded to a word.
    pub(crate) const STR: u8 = 6;

    /// Descriptor words after the one that shares its place with the callsite.
    pub(crate) const fn more_words(fields: usize) -> usize {
        fields.saturating_sub(4).div_ceil(8)
    }

    /// The word before a value of an update.
    pub(crate) const fn inline(index: usize, kind: u8) -> u64 {
        index as u64 & 0xFFFF_FFFF | (kind as u64) << 32
    }

    /// Up to eight bytes of a text as a word.
    #[inline]
    pub(crate) fn word_of(bytes: &[u8]) -> u64 {
        if let Some(all) = bytes.first_chunk::<8>() {
            return u64::from_le_bytes(*all);
        }
        let len = bytes.len();
        if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            // They overlap, and agree where they do.
            let last = u64::from(u32::from_le_bytes(*last)) << ((len - 4) * 8);
            return u64::from(u32::from_le_bytes(*first)) | last;
        }
        let at = |place: usize| bytes.get(place).map_or(0, |byte| u64::from(*byte) << (place * 8));
        if len == 0 { 0 } else { at(0) | at(len / 2) | at(len - 1) }
    }

    /// Fields a record in place may have, as many as `tracing` allows.
    pub(crate) const FIELDS_MAX: usize = 32;
    /// Descriptor words for so many, with the one that shares its place with the callsite.
    pub(crate) const TYPE_WORDS_MAX: usize = 1 + more_words(FIELDS_MAX);

    /// Words a text takes.
    pub(crate) const fn str_words(bytes: usize) -> usize {
        (4 + bytes).div_ceil(8)
    }
}

/// A field's value, borrowed from its record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FieldValue<'a> {
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
    Str(&'a str),
}

/// The given fields of an `Open` or `Event`, by index, from the words that start with the
/// callsite's. `fields` is how many the callsite has.
pub(crate) fn fields(words: &[u64], fields: usize) -> FieldIter<'_> {
    let more = field::more_words(fields);
    let types = words.get(..=more).unwrap_or_default();
    FieldIter { types, values: words.get(1 + more..).unwrap_or_default(), next: 0, fields }
}

/// The fields of an `Update`, from the words after the span's.
pub(crate) fn inline_fields(words: &[u64]) -> FieldIter<'_> {
    FieldIter { types: &[], values: words, next: 0, fields: 0 }
}

/// See [`fields`].
#[derive(Debug)]
pub(crate) struct FieldIter<'a> {
    types: &'a [u64],
    values: &'a [u64],
    next: usize,
    fields: usize,
}

impl<'a> FieldIter<'a> {
    fn type_of(&self, index: usize) -> u8 {
        // The first descriptor word holds the callsite in its low half.
        let place = index + 4;
        self.types.get(place / 8).map_or(field::ABSENT, |word| (word >> (place % 8 * 8)) as u8)
    }

    #[inline]
    fn value(&mut self, kind: u8) -> Option<FieldValue<'a>> {
        Some(match kind {
            field::U64 => FieldValue::U64(self.word()?),
            field::I64 => FieldValue::I64(self.word()?.cast_signed()),
            field::F64 => FieldValue::F64(f64::from_bits(self.word()?)),
            field::FALSE => FieldValue::Bool(false),
            field::TRUE => FieldValue::Bool(true),
            field::STR => FieldValue::Str(self.text()?),
            // A type of a newer retake: its size is unknown, so are all places after it.
            _ => return None,
        })
    }

    fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.values.split_first()?;
        self.values = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<&'a str> {
        let bytes = bytes_of(self.values);
        let (len, bytes) = bytes.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len) as usize;
        let text = std::str::from_utf8(bytes.get(..len)?).ok()?;
        self.values = self.values.get(field::str_words(len)..)?;
        Some(text)
    }
}

impl<'a> Iterator for FieldIter<'a> {
    type Item = (usize, FieldValue<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.types.is_empty() {
            let head = self.word()?;
            return Some(((head & 0xFFFF_FFFF) as usize, self.value((head >> 32) as u8)?));
        }
        while self.next < self.fields {
            let index = self.next;
            self.next += 1;
            let kind = self.type_of(index);
            if kind != field::ABSENT {
                return Some((index, self.value(kind)?));
            }
        }
        None
    }
}

/// The bytes of words, in the order they have in the file.
pub(crate) fn bytes_of(words: &[u64]) -> &[u8] {
    // Journals are read on the machine that wrote them; `lib.rs` refuses big-endian ones.
    bytemuck::cast_slice(words)
}

/// Bytes as words; what does not fill a word is left out.
pub(crate) fn words_of(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes);
    bytes.chunks_exact(8).map(word).collect()
}

/// The byte payload of a `Body`, `Callsite` or `Thread` record and its number word.
pub(crate) fn payload<'a>(record: &Record<'a>) -> Option<(u64, &'a [u8])> {
    let (lengths, rest) = record.rest.split_first()?;
    let (number, rest) = rest.split_first()?;
    let len = usize::try_from(lengths >> 32).ok()?;
    Some((*number, bytes_of(rest).get(..len)?))
}

/// Encodes a record that carries bytes, into a buffer.
pub(crate) fn with_payload(kind: Kind, ticks: u64, number: u64, bytes: &[u8]) -> Vec<u64> {
    let count = PAYLOAD_WORDS + bytes.len().div_ceil(8);
    let mut words = Vec::with_capacity(count);
    words.push((kind as u64) << 16);
    words.push(ticks);
    words.push(count as u64 | (bytes.len() as u64) << 32);
    words.push(number);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        if let Some(part) = word.get_mut(..chunk.len()) {
            part.copy_from_slice(chunk);
        }
        words.push(u64::from_le_bytes(word));
    }
    words
}

/// Words of a record with a payload before its bytes: header, ticks, lengths, number.
const PAYLOAD_WORDS: usize = 4;
const START_A: u64 = 0x9E37_79B9_7F4A_7C15;
const START_B: u64 = 0xC2B2_AE3D_27D4_EB4F;
const MULTIPLIER_A: u64 = 0xD6E8_FEB8_6659_FD93;
const MULTIPLIER_B: u64 = 0xA076_1D64_78BD_642F;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records one after the other, as a chunk holds them.
    fn words(records: &[(u32, Vec<u64>)], seed: u64) -> Vec<u64> {
        let mut words = Vec::new();
        for (flags, body) in records {
            let kind = if body.len() >= 4 { Kind::Open } else { Kind::Close };
            words.push(header(seed, kind, *flags, body));
            words.extend(body);
        }
        words.push(0);
        words
    }

    fn read_all(words: &[u64], seed: u64) -> Result<Vec<(u64, Vec<u64>)>, RecordError> {
        let (mut at, mut records) = (0, Vec::new());
        while let Some((record, next)) = read(words, at, seed)? {
            records.push((record.ticks, record.rest.to_vec()));
            at = next;
        }
        Ok(records)
    }

    fn record() -> impl Strategy<Value = (u32, Vec<u64>)> {
        (0..4u32, prop::collection::vec(any::<u64>(), 2..12))
    }

    /// Guarantees: J5 - every single flipped bit of a chunk's records is an error, or ends the
    /// chunk early, and never reads as another record.
    #[test]
    fn every_flipped_bit_is_found() {
        let seed = seed(3, 9);
        let body = |n: u64| (0, (0..n).map(|i| i.wrapping_mul(0x1234_5678_9ABC_DEF1)).collect());
        let good = words(&[body(6), body(2), body(11), body(3)], seed);
        let expected = read_all(&good, seed).unwrap();
        assert_eq!(expected.len(), 4);
        for bit in 0..good.len() * 64 {
            let mut bad = good.clone();
            bad[bit / 64] ^= 1 << (bit % 64);
            if let Ok(found) = read_all(&bad, seed) {
                assert!(expected.starts_with(&found), "bit {bit}");
            }
        }
    }

    /// Guarantees: J5 - both ways to a header give the same one.
    #[test]
    fn words_in_registers_have_the_header_of_words_in_memory() {
        let words: [u64; 4] = std::array::from_fn(|i| (i as u64 + 3).wrapping_mul(START_A));
        let of = |kind, words: &[u64]| header(7, kind, FLAG_THROUGHOUT, words);
        let [ticks, a, b, c] = words;
        let flagged = |kind| (kind, FLAG_THROUGHOUT);
        assert_eq!(header_of(7, flagged(Kind::Close), ticks, &[a]), of(Kind::Close, &words[..2]));
        let token = header_of(7, flagged(Kind::Token), ticks, &[a, b]);
        assert_eq!(token, of(Kind::Token, &words[..3]));
        assert_eq!(header_of(7, flagged(Kind::Open), ticks, &[a, b, c]), of(Kind::Open, &words));
    }

    #[test]
    fn a_word_holds_the_bytes_of_a_text_and_zeros() {
        for len in 0..=8 {
            let bytes: Vec<u8> = (1..=len).collect();
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(&bytes);
            assert_eq!(field::word_of(&bytes), u64::from_le_bytes(padded), "{len} bytes");
        }
    }

    proptest! {
        /// Guarantees: J4 - what was written is read back, each once, in order.
        #[test]
        fn records_survive(records in prop::collection::vec(record(), 0..20), seed in any::<u64>()) {
            let found = read_all(&words(&records, seed), seed).unwrap();
            let expected: Vec<_> =
                records.into_iter().map(|(_, body)| (body[0], body[1..].to_vec())).collect();
            prop_assert_eq!(found, expected);
        }

        /// Guarantees: J5 - records of another lane, or of an earlier use of the chunk, never pass.
        #[test]
        fn records_of_another_use_never_pass(record in record(), lane in 0..9u32, epoch in 1..99u32) {
            let there = words(&[record], seed(lane, epoch));
            prop_assert!(read_all(&there, seed(lane, epoch + 1)).is_err());
            prop_assert!(read_all(&there, seed(lane + 1, epoch)).is_err());
        }

        /// Guarantees: F1 - no words panic the reader.
        #[test]
        fn no_words_panic_the_reader(
            words in prop::collection::vec(any::<u64>(), 0..60), at in 0..80usize, kind in 0..16u64,
        ) {
            let _ = read(&words, at, 0);
            let _ = fields(&words, 40).count();
            let _ = inline_fields(&words).count();
            // A header that passes leads into everything behind it.
            let mut framed = words.clone();
            if let Some((first, body)) = framed.split_first_mut() {
                let count = (body.len() as u64 + 1) & 0xFFFF;
                let low = count | kind << 16;
                *first = low | u64::from(checksum(low, body)) << 32;
            }
            if let Ok(Some((record, _))) = read(&framed, 0, 0) {
                let _ = payload(&record);
            }
        }
    }
}
