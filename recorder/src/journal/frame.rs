//! The bytes of a frame and of a journal's header. Pure: no file is touched here.

use retake_schemas::event::EventBody;
use retake_schemas::version::{FormatVersion, UnreadableVersion};
use retake_schemas::{EventSeq, WriterId};

use crate::clock::Anchor;

/// First bytes of a journal file.
pub(crate) const MAGIC: [u8; 8] = *b"RETAKEJ\0";
/// Bytes of a journal's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of a frame before its payload: length, checksum, sequence, time.
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// Frames start at multiples of this, so that the length can be published in one store.
pub(crate) const ALIGN: usize = 8;

/// Why bytes are not a frame or a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Fewer bytes than the frame says it has.
    #[error("frame of {length} bytes at {offset} runs past the end of the journal")]
    Cut {
        /// Where the frame starts.
        offset: usize,
        /// The length it states.
        length: usize,
    },
    /// The checksum does not match.
    #[error("frame at {offset} has checksum {found:08x}, its bytes give {expected:08x}")]
    Checksum {
        /// Where the frame starts.
        offset: usize,
        /// The checksum it states.
        found: u32,
        /// The checksum of its bytes.
        expected: u32,
    },
    /// The header is not a journal's, or is damaged.
    #[error("journal header is damaged: {0}")]
    Header(&'static str),
    /// The journal was written by a newer retake.
    #[error(transparent)]
    Version(#[from] UnreadableVersion),
}

/// Facts about a journal file as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JournalHeader {
    /// Format of the file.
    pub version: FormatVersion,
    /// Who writes it.
    pub writer_id: WriterId,
    /// Sequence number of the first frame.
    pub first_seq: EventSeq,
    /// When it was made, ns since the Unix epoch.
    pub created_unix_ns: i64,
    /// The clock when the run started, and the ticks in a nanosecond, as far as they are stated:
    /// what gives the records their times where the lanes are gone.
    pub clock: Option<(Anchor, f64)>,
}

impl JournalHeader {
    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = Writer { bytes: &mut bytes, at: 0 };
        put.all(&MAGIC);
        put.all(&self.version.major.to_le_bytes());
        put.all(&self.version.minor.to_le_bytes());
        put.all(&self.writer_id.0.to_le_bytes());
        put.all(&self.first_seq.0.to_le_bytes());
        put.all(&self.created_unix_ns.to_le_bytes());
        if let Some((start, ticks_per_ns)) = &self.clock {
            put.all(&start.ticks.to_le_bytes());
            put.all(&start.unix_ns.to_le_bytes());
            put.all(&ticks_per_ns.to_le_bytes());
        }
        let (covered, checksum) = bytes.split_at_mut(HEADER_BYTES - 4);
        checksum.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Not a journal, damaged, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let header: &[u8; HEADER_BYTES] = bytes
            .get(..HEADER_BYTES)
            .and_then(|b| b.try_into().ok())
            .ok_or(FrameError::Header("shorter than 64 bytes"))?;
        if !header.starts_with(&MAGIC) {
            return Err(FrameError::Header("wrong magic bytes"));
        }
        let (covered, checksum) = header.split_at(HEADER_BYTES - 4);
        if checksum != crc32c::crc32c(covered).to_le_bytes() {
            return Err(FrameError::Header("wrong checksum"));
        }
        let version = FormatVersion {
            major: u16::from_le_bytes(at(header, 8)),
            minor: u16::from_le_bytes(at(header, 10)),
        };
        version.check_readable_by(FormatVersion::JOURNAL, "journal")?;
        let ticks_per_ns = f64::from_le_bytes(at(header, 48));
        Ok(Self {
            version,
            writer_id: WriterId(u32::from_le_bytes(at(header, 12))),
            first_seq: EventSeq(u64::from_le_bytes(at(header, 16))),
            created_unix_ns: i64::from_le_bytes(at(header, 24)),
            clock: (ticks_per_ns.is_finite() && ticks_per_ns > 0.0).then_some((
                Anchor {
                    ticks: u64::from_le_bytes(at(header, 32)),
                    unix_ns: i64::from_le_bytes(at(header, 40)),
                },
                ticks_per_ns,
            )),
        })
    }
}

/// One frame as found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Position in the writer's sequence.
    pub seq: EventSeq,
    /// Time of the event, ns since the Unix epoch.
    pub time_unix_ns: i64,
    /// The encoded event body.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Bytes a frame with this payload takes in the file.
    #[must_use]
    pub const fn bytes_for(payload_bytes: usize) -> usize {
        (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN)
    }

    /// Reads the frame at `offset`; `None` at the end of the journal.
    ///
    /// # Errors
    /// The bytes there are not a whole frame.
    pub fn decode(bytes: &'a [u8], offset: usize) -> Result<Option<Self>, FrameError> {
        let Some(header) = bytes.get(offset..offset.saturating_add(FRAME_HEADER_BYTES)) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(at(header, 0)) as usize;
        if length == 0 {
            return Ok(None);
        }
        let payload_bytes = length.checked_sub(FRAME_HEADER_BYTES);
        let payload = payload_bytes
            .and_then(|n| bytes.get(offset + FRAME_HEADER_BYTES..)?.get(..n))
            .ok_or(FrameError::Cut { offset, length })?;
        let found = u32::from_le_bytes(at(header, 4));
        let expected = checksum(payload, &header[8..FRAME_HEADER_BYTES]);
        if found != expected {
            return Err(FrameError::Checksum { offset, found, expected });
        }
        Ok(Some(Self {
            seq: EventSeq(u64::from_le_bytes(at(header, 8))),
            time_unix_ns: i64::from_le_bytes(at(header, 16)),
            payload,
        }))
    }

    /// Where the next frame starts, after this one at `offset`.
    #[must_use]
    pub const fn next_offset(&self, offset: usize) -> usize {
        offset + Self::bytes_for(self.payload.len())
    }
}

/// The checksum of a frame: over the payload first, so that the writer can compute that part
/// before it takes the lock, then over sequence and time.
pub(crate) fn checksum(payload: &[u8], seq_and_time: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(payload), seq_and_time)
}

/// The header of a frame whose payload has the checksum `payload_crc`.
pub(crate) fn frame_header(
    payload_bytes: usize,
    payload_crc: u32,
    seq: EventSeq,
    time_unix_ns: i64,
) -> [u8; FRAME_HEADER_BYTES] {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let length = u32::try_from(FRAME_HEADER_BYTES + payload_bytes).unwrap_or(u32::MAX);
    let (lengths, seq_and_time) = bytes.split_at_mut(8);
    let mut put = Writer { bytes: seq_and_time, at: 0 };
    put.all(&seq.0.to_le_bytes());
    put.all(&time_unix_ns.to_le_bytes());
    let crc = crc32c::crc32c_append(payload_crc, seq_and_time);
    let mut put = Writer { bytes: lengths, at: 0 };
    put.all(&length.to_le_bytes());
    put.all(&crc.to_le_bytes());
    bytes
}

/// Appends a whole frame to a buffer, for files that are written in one go.
pub(crate) fn write_frame(out: &mut Vec<u8>, seq: EventSeq, time_unix_ns: i64, payload: &[u8]) {
    let header = frame_header(payload.len(), crc32c::crc32c(payload), seq, time_unix_ns);
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// Encodes an event body: MessagePack with field names, so that a newer reader understands it.
pub(crate) fn encode_body(
    body: &EventBody,
    out: &mut Vec<u8>,
) -> Result<(), rmp_serde::encode::Error> {
    rmp_serde::encode::write_named(out, body)
}

/// Decodes an event body.
pub(crate) fn decode_body(payload: &[u8]) -> Result<EventBody, rmp_serde::decode::Error> {
    rmp_serde::from_slice(payload)
}

struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn all(&mut self, part: &[u8]) {
        let end = self.at + part.len();
        self.bytes[self.at..end].copy_from_slice(part);
        self.at = end;
    }
}

/// `N` bytes at `offset` of a slice whose length the caller has checked.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[offset..offset + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            write_frame(&mut bytes, EventSeq(index as u64), -(index as i64), payload);
        }
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<(u64, i64, Vec<u8>)>, FrameError> {
        let (mut offset, mut frames) = (0, Vec::new());
        while let Some(frame) = Frame::decode(bytes, offset)? {
            frames.push((frame.seq.0, frame.time_unix_ns, frame.payload.to_vec()));
            offset = frame.next_offset(offset);
        }
        Ok(frames)
    }

    #[test]
    fn headers_survive() {
        let header = JournalHeader {
            version: FormatVersion::JOURNAL,
            writer_id: WriterId(7),
            first_seq: EventSeq(u64::MAX),
            created_unix_ns: -3,
            clock: Some((Anchor { ticks: 7, unix_ns: -9 }, 2.5)),
        };
        assert_eq!(JournalHeader::decode(&header.encode()), Ok(header));
        let without = JournalHeader { clock: None, ..header };
        assert_eq!(JournalHeader::decode(&without.encode()), Ok(without));
        assert!(JournalHeader::decode(&header.encode()[..63]).is_err());
    }

    proptest! {
        /// Guarantees: J4 - what was framed is read back, each once, in order.
        #[test]
        fn frames_survive(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20)) {
            let frames = read_all(&file(&payloads)).unwrap();
            prop_assert_eq!(frames.len(), payloads.len());
            for (index, (seq, time, payload)) in frames.into_iter().enumerate() {
                prop_assert_eq!((seq, time), (index as u64, -(index as i64)));
                prop_assert_eq!(&payload, &payloads[index]);
            }
        }

        /// Guarantees: J5 - a flipped bit is an error or ends the journal early, never other data.
        #[test]
        fn flipped_bits_never_read_back_as_other_data(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..6),
            flip in any::<prop::sample::Index>(),
        ) {
            let good = file(&payloads);
            let expected = read_all(&good).unwrap();
            let mut bad = good;
            let bit = flip.index(bad.len() * 8);
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(frames) = read_all(&bad) {
                prop_assert!(expected.starts_with(&frames));
            }
        }

        /// Guarantees: F1 - no bytes panic the decoder.
        #[test]
        fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300), offset in 0usize..400) {
            let _ = Frame::decode(&bytes, offset);
            let _ = JournalHeader::decode(&bytes);
            let _ = decode_body(&bytes);
        }
    }
}
