//! Bytes as a source of choices: every byte string is an input, and cutting one short still
//! leaves one, so that a fuzzer's mutations stay meaningful.

use retake_schemas::{Attributes, Value};

/// What is left of an input. At its end every choice is zero, and so the first one.
#[derive(Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    /// At most `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// A place below `end`, which must not be 0.
    pub(super) fn place(&mut self, end: usize) -> usize {
        self.word() as usize % end
    }

    fn word(&mut self) -> u64 {
        self.take(8).iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// A number: mostly a small one, or any, or one at an edge.
    pub(super) fn number(&mut self) -> u64 {
        match self.below(8) {
            0..5 => u64::from(self.byte()),
            5 => EDGES.get(self.place(EDGES.len())).copied().unwrap_or(0),
            _ => self.word(),
        }
    }

    pub(super) fn signed(&mut self) -> i64 {
        self.number().cast_signed()
    }

    pub(super) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    pub(super) fn text(&mut self) -> String {
        let len = usize::from(self.below(24));
        String::from_utf8_lossy(self.take(len)).into_owned()
    }

    /// The name of an attribute: one that means something, or any text.
    pub(super) fn key(&mut self) -> String {
        match KEYS.get(usize::from(self.below(KEYS.len() as u8 * 2))) {
            Some(key) => (*key).to_owned(),
            None => self.text(),
        }
    }

    pub(super) fn value(&mut self, depth: u8) -> Value {
        match self.below(if depth > 3 { 5 } else { 7 }) {
            0 => Value::Int(self.signed()),
            1 => Value::Str(self.text()),
            2 => Value::Bool(self.flag()),
            3 => Value::Float(f64::from_bits(self.word())),
            4 => Value::Str(self.signed().to_string()),
            _ => {
                let len = self.below(4);
                Value::List((0..len).map(|_| self.value(depth + 1)).collect())
            }
        }
    }

    pub(super) fn attributes(&mut self) -> Attributes {
        let len = self.below(5);
        (0..len).map(|_| (self.key().into(), self.value(0))).collect()
    }
}

/// Where arithmetic breaks, if it does.
const EDGES: [u64; 8] = [
    u64::MAX,
    1 << 63,
    (1 << 63) - 1,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    1_700_000_000_000_000_000,
    1 << 53,
    0xFFFF,
];

/// Names that columns, statuses, or events are made of.
const KEYS: [&str; 20] = [
    "otel.name",
    "otel.kind",
    "otel.status_code",
    "retake.cancelled",
    "retake.stage",
    "error",
    "error.type",
    "exception.message",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.request.model",
    "message",
    "index",
    "count",
    "value",
    "name",
    "unit",
    "source",
    "content",
    "input.value",
];
