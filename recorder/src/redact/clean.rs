//! Texts that were looked through and hold no secret.
//!
//! Attribute values repeat: models, indexes, tenants. Looking through one costs a pass of an
//! automaton over its bytes, on the instrumented thread; comparing it with one that was found
//! clean before costs some nanoseconds. Compared are whole texts, not hashes: a text that passes
//! as another one would be a secret on the disk.

/// The texts found clean lately, of one thread and one redactor.
#[derive(Debug)]
pub(crate) struct CleanTexts {
    slots: Box<[Slot]>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    len: u8,
    bytes: [u8; TEXT_BYTES_MAX],
}

impl Default for CleanTexts {
    fn default() -> Self {
        let empty = Slot { len: 0, bytes: [0; TEXT_BYTES_MAX] };
        Self { slots: vec![empty; SLOTS].into_boxed_slice() }
    }
}

impl CleanTexts {
    /// Whether the text was found clean before. `false` says nothing.
    #[inline]
    pub(crate) fn has(&self, text: &str) -> bool {
        let Some(slot) = self.slots.get(place_of(text)) else { return false };
        usize::from(slot.len) == text.len() && slot.bytes.get(..text.len()) == Some(text.as_bytes())
    }

    /// Remembers a clean text, in place of another one; nothing if it is long.
    pub(crate) fn add(&mut self, text: &str) {
        let Some(slot) = self.slots.get_mut(place_of(text)) else { return };
        if let Some(place) = slot.bytes.get_mut(..text.len()) {
            place.copy_from_slice(text.as_bytes());
            slot.len = text.len() as u8;
        }
    }
}

/// A place by the length and the ends of the text. Texts without eight bytes are not looked
/// through in the first place.
#[inline]
fn place_of(text: &str) -> usize {
    let bytes = text.as_bytes();
    let first = bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let last = bytes.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed = (first ^ last.rotate_left(23) ^ bytes.len() as u64).wrapping_mul(MULTIPLIER);
    (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// Texts remembered: 4 KiB a thread.
const SLOTS: usize = 64;
/// Longest text remembered, bytes: with its length a cache line.
const TEXT_BYTES_MAX: usize = 63;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: texts of all lengths, those of one place after each other.
    #[test]
    fn only_texts_that_were_added_are_known() {
        let mut clean = CleanTexts::default();
        let texts: Vec<String> = (0..200).map(|len| "x".repeat(len)).collect();
        for text in &texts {
            assert!(!clean.has(text) || text.is_empty(), "{} bytes", text.len());
            clean.add(text);
            assert_eq!(clean.has(text), text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
        }
        let (one, other) = ("a-model-AAAA-of-somebody", "a-model-BBBB-of-somebody");
        clean.add(one);
        assert!(clean.has(one));
        assert!(!clean.has(other), "the same ends and length are not the same text");
    }
}
