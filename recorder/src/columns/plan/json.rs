//! The JSON of attributes that have no column, written at the end of the column's bytes: the same
//! text as `serde_json::Value` gives, without building one.

use std::io::Write as _;

use super::super::cells::Cells;
use crate::attrs::ValueRef;
use crate::symbols::{Sym, Symbols};

/// The object of the span at hand. Its memory is used again by the next.
#[derive(Debug, Default)]
pub(super) struct JsonObject {
    entries: Vec<Entry>,
    /// The entries in another order.
    sorted: Vec<u8>,
}

/// An entry without the sign before it; it ends before the sign of the next.
#[derive(Debug)]
struct Entry {
    key: Sym,
    /// Place in the column's bytes.
    start: usize,
    end: usize,
}

impl JsonObject {
    pub(super) fn push(
        &mut self,
        (key, json_key): (Sym, &[u8]),
        value: ValueRef<'_>,
        out: &mut Vec<u8>,
    ) {
        out.push(if self.entries.is_empty() { b'{' } else { b',' });
        let start = out.len();
        out.extend_from_slice(json_key);
        let written = match value {
            ValueRef::Bool(v) => out.write_all(if v { b"true" } else { b"false" }),
            ValueRef::Int(v) => serde_json::to_writer(&mut *out, &v).map_err(Into::into),
            ValueRef::Float(v) if v.is_finite() => {
                serde_json::to_writer(&mut *out, &v).map_err(Into::into)
            }
            ValueRef::Str(text) => serde_json::to_writer(&mut *out, text).map_err(Into::into),
            other => write!(out, "{}", other.to_value().to_json()),
        };
        // Writing into memory does not fail; were it to, the object must still be one.
        if written.is_err() {
            out.extend_from_slice(b"null");
        }
        self.entries.push(Entry { key, start, end: out.len() });
    }

    /// Ends the object, in the order of its keys, and makes it the row's. None is made of nothing.
    pub(super) fn close(&mut self, row: u32, cells: &mut Cells, symbols: &Symbols) {
        if self.entries.is_empty() {
            return;
        }
        let bytes = cells.attributes.buffer();
        if !self.entries.is_sorted_by_key(|entry| symbols.text(entry.key)) {
            self.sort(bytes, symbols);
        }
        bytes.push(b'}');
        cells.attributes.close(row);
        self.entries.clear();
    }

    /// A segment's columns do not know in which order attributes were recorded, so no reader does.
    fn sort(&mut self, bytes: &mut Vec<u8>, symbols: &Symbols) {
        let Some(start) = self.entries.first().map(|entry| entry.start) else { return };
        self.entries.sort_by_key(|entry| symbols.text(entry.key));
        self.sorted.clear();
        for Entry { start, end, .. } in &self.entries {
            if !self.sorted.is_empty() {
                self.sorted.push(b',');
            }
            self.sorted.extend_from_slice(bytes.get(*start..*end).unwrap_or_default());
        }
        bytes.truncate(start);
        bytes.extend_from_slice(&self.sorted);
    }
}
