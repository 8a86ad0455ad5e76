//! Protocol buffers' wire format, as far as an export writes it.
//!
//! Two formats of a few messages each need no generated code: a field is its number and kind, and
//! a message is a field whose length stands before it.

/// Bytes of a message under construction.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// The bytes so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the fields, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// `uint32`, `uint64`, and enums.
    pub(super) fn uint(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field << 3 | VARINT));
        self.varint(value);
    }

    /// `int32` and `int64`.
    pub(super) fn int(&mut self, field: u32, value: i64) {
        self.uint(field, value as u64);
    }

    /// `bool`.
    pub(super) fn bool(&mut self, field: u32, value: bool) {
        self.uint(field, u64::from(value));
    }

    /// `double`.
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// `fixed64`.
    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field << 3 | FIXED64));
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// `string`.
    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.raw(field, value.as_bytes());
    }

    /// `bytes`, and messages that are encoded already.
    pub(super) fn raw(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field << 3 | LENGTH_DELIMITED));
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A message inside this one. `write` must only append.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field << 3 | LENGTH_DELIMITED));
        let start = self.bytes.len();
        // Most messages are shorter than 128 bytes, whose length takes one.
        self.bytes.push(0);
        write(self);
        let length = (self.bytes.len() - start - 1) as u64;
        let mut prefix = Self::default();
        prefix.varint(length);
        self.bytes.splice(start..=start, prefix.bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
