//! The words of a record, written where they stay: in the chunk of a lane.
//!
//! Nothing here is a record before [`super::Cursor::commit`] has made it one. A record that turns
//! out not to fit is cut short, and built aside instead.

#![expect(unsafe_code, reason = "records are written in place, into mapped memory")]

use super::record::field;

/// The words of a record while it is being written in place.
#[derive(Debug)]
pub(crate) struct Body {
    pub(super) at: *mut u64,
    /// Texts end before it; between it and the end of the chunk are the reserved words.
    pub(super) text_end: *mut u64,
    /// As wide as it is read.
    pub(crate) flags: u32,
    /// Something did not fit; the record must be built aside.
    pub(crate) is_cut_short: bool,
}

impl Body {
    #[inline(always)]
    pub(crate) fn push(&mut self, word: u64) {
        if self.at < self.text_end {
            // SAFETY: inside the chunk, which this thread writes alone.
            unsafe { self.push_reserved(word) };
        } else {
            self.is_cut_short = true;
        }
    }

    /// Appends a word for which room was left from the beginning.
    ///
    /// # Safety
    /// At most [`field::FIELDS_MAX`] words of a record may be pushed so.
    #[inline(always)]
    pub(crate) unsafe fn push_reserved(&mut self, word: u64) {
        // SAFETY: before the end of the chunk, see `text_end`, which this thread writes alone.
        unsafe {
            self.at.write(word);
            self.at = self.at.add(1);
        }
    }

    /// Appends a text: its length and its bytes.
    #[inline(always)]
    pub(crate) fn push_str(&mut self, text: &str) {
        if text.len() < 8 {
            return self.push_short_str(text);
        }
        let end = put_str(self.at, self.text_end, text);
        self.is_cut_short |= end == self.at;
        self.at = end;
    }

    /// Appends a text of less than eight bytes.
    #[inline(always)]
    pub(crate) fn push_short_str(&mut self, text: &str) {
        // Numbers may have gone beyond the end for texts.
        if (self.text_end as usize) < self.at as usize + 16 {
            self.is_cut_short = true;
        } else {
            // SAFETY: there is room for two words.
            self.at = unsafe { put_short_str(self.at, text) };
        }
    }

    /// Room for a text that is formatted in place, at most `bytes_max` long.
    pub(crate) fn text(&mut self, bytes_max: usize) -> TextInPlace<'_> {
        // `finish` writes length and padding even for an empty text.
        self.is_cut_short |= (self.text_end as usize) < self.at as usize + SLACK_BYTES;
        TextInPlace { body: self, len: 0, bytes_max, is_truncated: false }
    }
}

/// How many fields a callsite has whose records can be written in place, and the words that their
/// types take after the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// At most [`field::FIELDS_MAX`].
    fields: usize,
    /// Less than [`field::TYPE_WORDS_MAX`].
    more_words: usize,
}

impl Sizes {
    /// `None` for more fields than that.
    pub(crate) const fn of(fields: usize) -> Option<Self> {
        if fields > field::FIELDS_MAX {
            return None;
        }
        Some(Self { fields, more_words: field::more_words(fields) })
    }
}

/// A record in place whose fields have their types before them, while it is being written.
#[derive(Debug)]
pub(crate) struct FieldsInPlace {
    pub(crate) body: Body,
    /// Where the types stand.
    place: *mut u64,
    /// The words of types; the low half of the first is the callsite.
    types: [u64; field::TYPE_WORDS_MAX],
    /// Fields come in order of their index; the one that may come next.
    next: usize,
    /// How many fields the callsite has.
    fields: usize,
}

impl FieldsInPlace {
    /// The fields of the callsite of that number, in a record just begun.
    #[inline(always)]
    pub(crate) fn new(mut body: Body, number: u32, sizes: Sizes) -> Self {
        let place = body.at;
        // SAFETY: a record was begun with room for the types of all fields there can be.
        body.at = unsafe { body.at.add(1 + sizes.more_words) };
        let mut types = [0; field::TYPE_WORDS_MAX];
        types[0] = u64::from(number);
        Self { body, place, types, next: 0, fields: sizes.fields }
    }

    /// Notes the type of a field; `false` when the record must be built aside, as the field is out
    /// of order.
    #[inline(always)]
    pub(crate) fn note(&mut self, index: usize, kind: u8) -> bool {
        let place = index + 4;
        match self.types.get_mut(place / 8) {
            Some(types) if index >= self.next && index < self.fields => {
                *types |= u64::from(kind) << (place % 8 * 8);
                self.next = index + 1;
                true
            }
            _ => {
                self.body.is_cut_short = true;
                false
            }
        }
    }

    /// Appends a field of one word.
    #[inline(always)]
    pub(crate) fn number(&mut self, index: usize, kind: u8, word: u64) {
        if self.note(index, kind) {
            // SAFETY: each field is noted once, and there are no more than `FIELDS_MAX`.
            unsafe { self.body.push_reserved(word) };
        }
    }

    /// Appends a field that is a text of less than eight bytes.
    #[inline(always)]
    pub(crate) fn short_text(&mut self, index: usize, text: &str) {
        if self.note(index, field::STR) {
            self.body.push_short_str(text);
        }
    }

    /// Appends a field that is a text.
    #[inline(always)]
    pub(crate) fn text(&mut self, index: usize, text: &str) {
        if self.note(index, field::STR) {
            self.body.push_str(text);
        }
    }

    /// The record, with the types of its fields. `sizes` are those it was made with: where they
    /// are known beforehand, all of this can stay in registers.
    #[inline(always)]
    pub(crate) fn finish(&self, sizes: Sizes) -> &Body {
        // SAFETY: the first word, and then those left out behind it; at the least they are in the
        // chunk.
        unsafe { self.place.write(self.types[0]) };
        if sizes.more_words > 0 {
            for (index, word) in self.types.iter().enumerate().take(1 + sizes.more_words).skip(1) {
                // SAFETY: as before.
                unsafe { self.place.add(index).write(*word) };
            }
        }
        &self.body
    }
}

/// See [`Body::text`].
#[derive(Debug)]
pub(crate) struct TextInPlace<'a> {
    body: &'a mut Body,
    len: usize,
    bytes_max: usize,
    is_truncated: bool,
}

impl TextInPlace<'_> {
    /// Takes back what was written, and leaves none of it in the memory: it may be a secret.
    pub(crate) fn clear(&mut self) {
        // SAFETY: `write_str` has written `len` bytes there.
        unsafe { self.body.at.cast::<u8>().add(4).write_bytes(0, self.len) };
        self.len = 0;
    }

    /// The text so far.
    pub(crate) fn as_str(&self) -> &str {
        // SAFETY: `write_str` has copied `len` bytes of whole characters there.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.body.at.cast::<u8>().add(4).cast_const(), self.len)
        };
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Replaces the text.
    pub(crate) fn replace(&mut self, text: &str) {
        self.clear();
        let _ = std::fmt::Write::write_str(self, text);
    }

    /// Makes the text a part of the record; `true` when it was cut.
    pub(crate) fn finish(mut self) -> bool {
        if self.body.is_cut_short {
            self.clear();
            return false;
        }
        let words = field::str_words(self.len);
        // SAFETY: `write_str` keeps a word of slack before the end.
        unsafe {
            let bytes = self.body.at.cast::<u8>();
            let used = 4 + self.len;
            bytes.add(used).write_bytes(0, words * 8 - used);
            bytes.cast::<u32>().write(self.len as u32);
            self.body.at = self.body.at.add(words);
        }
        self.is_truncated
    }
}

impl std::fmt::Write for TextInPlace<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let (kept, is_cut) = crate::capture::cut(text, self.bytes_max.saturating_sub(self.len));
        self.is_truncated |= is_cut;
        let room = (self.body.text_end as usize).saturating_sub(self.body.at as usize);
        if self.len + kept.len() + SLACK_BYTES > room {
            self.body.is_cut_short = true;
            return Err(std::fmt::Error);
        }
        // SAFETY: there is room, see above.
        unsafe {
            let target = self.body.at.cast::<u8>().add(4 + self.len);
            std::ptr::copy_nonoverlapping(kept.as_ptr(), target, kept.len());
        }
        self.len += kept.len();
        Ok(())
    }
}

/// Writes a text of less than eight bytes at `to`: its length and its bytes. Gives the place behind
/// it. One function for all places, which keeps these small; everything it takes and gives is in
/// registers.
///
/// # Safety
/// There must be room for two words.
#[inline(never)]
unsafe fn put_short_str(to: *mut u64, text: &str) -> *mut u64 {
    debug_assert!(text.len() < 8);
    let bytes = field::word_of(text.as_bytes());
    // SAFETY: as the caller says. The second word is only a part of the text when it says
    // something; else it is yet to be written.
    unsafe {
        // The first four bytes are the length's neighbours, the other three a word.
        to.write(text.len() as u64 | bytes << 32);
        to.add(1).write(bytes >> 32);
        to.add(1 + usize::from(text.len() > 4))
    }
}

/// Writes a text of eight bytes or more at `to`. Gives the place behind it, or `to` when it does
/// not fit before `end`.
#[inline(never)]
fn put_str(to: *mut u64, end: *mut u64, text: &str) -> *mut u64 {
    let words = field::str_words(text.len());
    // Numbers may have gone beyond the end for texts.
    if (end as usize) < to as usize + words * 8 {
        return to;
    }
    // SAFETY: there is room for all words; the text is not in the chunk.
    unsafe {
        if text.len() > COPIED_BY_WORDS {
            // Cleared first, so that no byte of an earlier use of the chunk stays in it.
            to.add(words - 1).write(0);
            to.cast::<u32>().write(text.len() as u32);
            let bytes = to.cast::<u8>().add(4);
            std::ptr::copy_nonoverlapping(text.as_ptr(), bytes, text.len());
        } else {
            write_words(text.as_bytes(), to);
        }
        to.add(words)
    }
}

/// Writes the length of a text and its bytes in whole words: their checksum is about to be read,
/// and a word that was stored in parts can only be read when it has reached the cache.
///
/// # Safety
/// There must be room for the text's words at `to`, outside of the text, which has eight bytes or
/// more.
#[inline(always)]
unsafe fn write_words(text: &[u8], to: *mut u64) {
    let (len, from) = (text.len(), text.as_ptr());
    // SAFETY: what is read lies in the text, what is written in its words.
    unsafe {
        to.write(len as u64 | u64::from(from.cast::<u32>().read_unaligned()) << 32);
        let (mut at, mut to) = (4, to.add(1));
        while at + 8 <= len {
            to.write(from.add(at).cast::<u64>().read_unaligned());
            (at, to) = (at + 8, to.add(1));
        }
        if at < len {
            let last = from.add(len - 8).cast::<u64>().read_unaligned();
            to.write(last >> ((8 - (len - at)) * 8));
        }
    }
}

/// Words kept for the numbers of a record in place, whatever its texts take.
pub(super) const RESERVED_WORDS: usize = field::FIELDS_MAX;
/// Longest text that is not worth a call of `memcpy`, bytes.
const COPIED_BY_WORDS: usize = 64;
/// Length and padding of a text.
const SLACK_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::record::{FieldValue, fields};
    use super::*;

    /// Scenario: a record begun in the last room there is for one, whose first field is a text of
    /// any length up to far too long, and whose others are as many numbers as a record may have.
    /// Guarantees: J5 - what fits is read back, and nothing is written beyond the chunk.
    #[test]
    fn numbers_behind_a_text_of_any_length_stay_in_the_chunk() {
        let sizes = Sizes::of(field::FIELDS_MAX).unwrap();
        let mut cut_short = 0;
        for len in 0..1_200 {
            let text = "x".repeat(len);
            let mut words = vec![BEYOND; ROOM_WORDS + 8];
            let chunk = words.as_mut_ptr();
            // SAFETY: both places are in `words`.
            let (at, text_end) =
                unsafe { (chunk.add(HEAD_WORDS), chunk.add(ROOM_WORDS - RESERVED_WORDS)) };
            let body = Body { at, text_end, flags: 0, is_cut_short: false };
            let mut record = FieldsInPlace::new(body, 7, sizes);
            record.text(0, &text);
            (1..field::FIELDS_MAX).for_each(|i| record.number(i, field::U64, i as u64));
            let is_cut_short = record.finish(sizes).is_cut_short;
            assert!(words[ROOM_WORDS..].iter().all(|word| *word == BEYOND), "{len} bytes");
            cut_short += usize::from(is_cut_short);
            if is_cut_short {
                continue;
            }
            let read: Vec<_> = fields(&words[HEAD_WORDS..], field::FIELDS_MAX).collect();
            assert_eq!(read.first(), Some(&(0, FieldValue::Str(&text))));
            let numbers = (1..field::FIELDS_MAX).map(|i| (i, FieldValue::U64(i as u64)));
            assert!(read.iter().skip(1).copied().eq(numbers), "{len} bytes");
        }
        assert!(cut_short > 0 && cut_short < 1_000, "{cut_short} of 1200 did not fit");
    }

    /// Scenario: fields out of their order, twice, and of no such index.
    /// Guarantees: J5 - the record is cut short rather than written as something else.
    #[test]
    fn fields_out_of_order_cut_a_record_short() {
        for indexes in [[1, 0], [1, 1], [0, 3]] {
            let mut words = vec![0; ROOM_WORDS];
            let chunk = words.as_mut_ptr();
            // SAFETY: the end is in `words`.
            let text_end = unsafe { chunk.add(ROOM_WORDS - RESERVED_WORDS) };
            let body = Body { at: chunk, text_end, flags: 0, is_cut_short: false };
            let sizes = Sizes::of(3).unwrap();
            let mut record = FieldsInPlace::new(body, 7, sizes);
            indexes.into_iter().for_each(|index| record.number(index, field::I64, 1));
            assert!(record.finish(sizes).is_cut_short, "{indexes:?}");
        }
        assert!(Sizes::of(field::FIELDS_MAX + 1).is_none());
    }

    /// Header, ticks, span, parent.
    const HEAD_WORDS: usize = 4;
    /// As many as a record is begun in at the least.
    const ROOM_WORDS: usize = 128;
    const BEYOND: u64 = 0xDEAD_BEEF_DEAD_BEEF;
}
