//! Attributes of spans in memory: one growing byte buffer, no allocation per attribute.
//!
//! Each entry is the key's symbol (4 bytes), a tag, and the value: `Bool` 1 byte, `Int` and
//! `Float` 8, `Str` a length (4) and its bytes, `List` a length (4) and MessagePack. This form
//! never leaves the process.

use retake_schemas::Value;

use crate::symbols::{Sym, Symbols};

/// A value, borrowed from the buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ValueRef<'a> {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float, possibly not finite.
    Float(f64),
    /// Text.
    Str(&'a str),
    /// A list, as MessagePack of a [`Value`].
    List(&'a [u8]),
}

impl ValueRef<'_> {
    /// The owned value; a list that cannot be decoded is an empty one.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Bool(v) => Value::Bool(v),
            Self::Int(v) => Value::Int(v),
            Self::Float(v) => Value::Float(v),
            Self::Str(text) => Value::Str(text.to_owned()),
            Self::List(bytes) => {
                rmp_serde::from_slice(bytes).unwrap_or_else(|_| Value::List(Vec::new()))
            }
        }
    }
}

/// Appends an attribute.
pub(crate) fn push(out: &mut Vec<u8>, key: Sym, value: ValueRef<'_>) {
    out.extend_from_slice(&key.to_u32().to_le_bytes());
    match value {
        ValueRef::Bool(v) => out.extend_from_slice(&[TAG_BOOL, u8::from(v)]),
        ValueRef::Int(v) => {
            out.push(TAG_INT);
            out.extend_from_slice(&v.to_le_bytes());
        }
        ValueRef::Float(v) => {
            out.push(TAG_FLOAT);
            out.extend_from_slice(&v.to_le_bytes());
        }
        ValueRef::Str(text) => push_bytes(out, TAG_STR, text.as_bytes()),
        ValueRef::List(bytes) => push_bytes(out, TAG_LIST, bytes),
    }
}

/// Appends an owned attribute.
pub(crate) fn push_value(out: &mut Vec<u8>, key: Sym, value: &Value) {
    match value {
        Value::Bool(v) => push(out, key, ValueRef::Bool(*v)),
        Value::Int(v) => push(out, key, ValueRef::Int(*v)),
        Value::Float(v) => push(out, key, ValueRef::Float(*v)),
        Value::Str(text) => push(out, key, ValueRef::Str(text)),
        // A list of values always encodes; were it not to, the attribute would be an empty list.
        Value::List(_) => {
            push(out, key, ValueRef::List(&rmp_serde::to_vec(value).unwrap_or_default()));
        }
    }
}

fn push_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    // Values are cut far below 4 GiB where they enter.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The attributes of a buffer, in the order they were appended.
pub(crate) fn iter(bytes: &[u8]) -> AttrIter<'_> {
    AttrIter { rest: bytes }
}

/// The keys of a buffer, in the order they were appended, without looking at the values.
pub(crate) fn keys(bytes: &[u8]) -> impl Iterator<Item = Sym> {
    let mut attributes = iter(bytes);
    std::iter::from_fn(move || attributes.next_key())
}

/// The owned attributes of a buffer, for the carry file.
pub(crate) fn to_attributes(bytes: &[u8], symbols: &Symbols) -> retake_schemas::Attributes {
    iter(bytes)
        .map(|(key, value)| (symbols.text(key).to_owned().into(), value.to_value()))
        .collect()
}

/// See [`iter`].
#[derive(Debug, Clone)]
pub(crate) struct AttrIter<'a> {
    rest: &'a [u8],
}

impl<'a> AttrIter<'a> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.take()?) as usize;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }
}

impl AttrIter<'_> {
    /// The next key; its value is skipped.
    #[inline]
    fn next_key(&mut self) -> Option<Sym> {
        let key = Sym::from_u32(u32::from_le_bytes(self.take()?))?;
        let [tag] = self.take()?;
        match tag {
            TAG_BOOL => self.take::<1>().map(|_| key),
            TAG_INT | TAG_FLOAT => self.take::<8>().map(|_| key),
            TAG_STR | TAG_LIST => self.bytes().map(|_| key),
            _ => None,
        }
    }
}

impl<'a> Iterator for AttrIter<'a> {
    type Item = (Sym, ValueRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let key = Sym::from_u32(u32::from_le_bytes(self.take()?))?;
        let [tag] = self.take()?;
        let value = match tag {
            TAG_BOOL => ValueRef::Bool(self.take::<1>()? != [0]),
            TAG_INT => ValueRef::Int(i64::from_le_bytes(self.take()?)),
            TAG_FLOAT => ValueRef::Float(f64::from_le_bytes(self.take()?)),
            TAG_STR => ValueRef::Str(std::str::from_utf8(self.bytes()?).unwrap_or_default()),
            TAG_LIST => ValueRef::List(self.bytes()?),
            _ => return None,
        };
        Some((key, value))
    }
}

const TAG_BOOL: u8 = 1;
const TAG_INT: u8 = 2;
const TAG_FLOAT: u8 = 3;
const TAG_STR: u8 = 4;
const TAG_LIST: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_in_order_with_their_types() {
        let mut symbols = Symbols::default();
        let attributes: retake_schemas::Attributes = vec![
            ("a".into(), Value::Bool(true)),
            ("b".into(), Value::Int(-7)),
            ("c".into(), Value::Float(0.25)),
            ("d".into(), Value::Str("text".into())),
            ("e".into(), Value::List(vec![Value::Int(1), Value::Str("x".into())])),
            ("a".into(), Value::Bool(false)),
        ];
        let mut bytes = Vec::new();
        for (key, value) in &attributes {
            push_value(&mut bytes, symbols.intern(key), value);
        }
        assert_eq!(to_attributes(&bytes, &symbols), attributes);
        let keys: Vec<_> = keys(&bytes).map(|key| symbols.text(key)).collect();
        assert_eq!(keys, ["a", "b", "c", "d", "e", "a"]);
    }

    #[test]
    fn a_cut_buffer_ends_early_and_does_not_panic() {
        let mut symbols = Symbols::default();
        let mut bytes = Vec::new();
        push(&mut bytes, symbols.intern("a"), ValueRef::Str("text"));
        for end in 0..bytes.len() {
            assert_eq!(iter(bytes.get(..end).unwrap()).count(), 0, "cut at {end}");
            assert_eq!(keys(bytes.get(..end).unwrap()).count(), 0, "cut at {end}");
        }
    }
}
