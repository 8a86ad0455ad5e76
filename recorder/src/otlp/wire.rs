//! The wire format of Protocol Buffers, read in place.
//!
//! <https://protobuf.dev/programming-guides/encoding/>. Groups, which OTLP has never used, are
//! refused: nothing that is meant for a receiver of OTLP contains them, and JSON that was sent as
//! protobuf begins with one.

use super::DecodeError;

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of one message, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field and its number.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number =
            u32::try_from(tag >> 3).map_err(|_| malformed("a field number is too large"))?;
        if number == 0 {
            return Err(malformed("a field has the number 0"));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(cut)?;
                self.rest = rest;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(malformed("a field has a wire type that OTLP does not use")),
        };
        Ok(Some((number, field)))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(VARINT_BYTES_MAX) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                if index == VARINT_BYTES_MAX - 1 && *byte > 1 {
                    return Err(malformed("a number has more than 64 bits"));
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        if self.rest.len() < VARINT_BYTES_MAX {
            Err(cut())
        } else {
            Err(malformed("a number has more than 64 bits"))
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

impl<'a> Field<'a> {
    /// A nested message, a text, or bytes.
    pub(super) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(mistyped()),
        }
    }

    pub(super) fn varint(self) -> Result<u64, DecodeError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(mistyped()),
        }
    }

    pub(super) fn fixed64(self) -> Result<u64, DecodeError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(mistyped()),
        }
    }

    pub(super) fn double(self) -> Result<f64, DecodeError> {
        self.fixed64().map(f64::from_bits)
    }
}

fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Malformed(what.into())
}

fn cut() -> DecodeError {
    malformed("the message ends inside a field")
}

fn mistyped() -> DecodeError {
    malformed("a field has another type than OTLP gives it")
}

const VARINT_BYTES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Field<'_>)>, DecodeError> {
        let mut fields = Fields::new(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn every_wire_type_is_read() {
        let message = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 2, b'h', b'i', // 2: "hi"
            0x19, 1, 0, 0, 0, 0, 0, 0, 0, // 3: 1 in 64 bits
            0x25, 2, 0, 0, 0, // 4: 2 in 32 bits
        ];
        let expected = [
            (1, Field::Varint(150)),
            (2, Field::Bytes(b"hi")),
            (3, Field::Fixed64(1)),
            (4, Field::Fixed32(2)),
        ];
        assert_eq!(all(&message).unwrap(), expected);
        assert!(all(&[]).unwrap().is_empty());
    }

    /// Scenario: a body is cut anywhere, or lies about a length.
    /// Guarantees: O1
    #[test]
    fn cut_and_lying_messages_are_errors() {
        let message = [0x12, 2, b'h', b'i'];
        for len in 1..message.len() {
            assert!(all(&message[..len]).is_err(), "{len}");
        }
        assert!(all(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]).is_err());
        assert!(all(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(all(b"{\"resourceSpans\":[]}").is_err());
        assert!(all(&[0x00]).is_err());
    }
}
