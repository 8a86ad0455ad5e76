//! Decompression that stops at a limit.

use std::io::{self, Read};

use crate::net::budget::{Buffer, Full};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
    /// RFC 1950, which HTTP calls deflate.
    Deflate,
}

impl Coding {
    /// Reads the name that HTTP and gRPC share.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let known = [
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("zstd", Self::Zstd),
            ("deflate", Self::Deflate),
        ];
        known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, c)| c)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }
}

/// Why a body could not be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// What comes out has no room.
    Full(Full),
    /// It is cut, or not what it says.
    Broken,
}

/// Decompresses all of `body` into `into`. Nothing is inflated beyond what `into` takes and one
/// step more.
pub(crate) fn inflate(
    coding: Coding,
    mut body: &[u8],
    into: &mut Buffer,
) -> Result<(), InflateError> {
    if coding == Coding::Identity {
        return into.append(body).map_err(InflateError::Full);
    }
    // A decoder has nothing to complain about before the first byte.
    if body.is_empty() {
        return Err(InflateError::Broken);
    }
    match coding {
        Coding::Identity => Ok(()),
        Coding::Gzip => copy(flate2::bufread::MultiGzDecoder::new(body), into),
        Coding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body).map_err(|_| InflateError::Broken)?;
            // A frame states the memory it wants; without a limit that is up to 2 GiB.
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| InflateError::Broken)?;
            copy(decoder, into)
        }
        Coding::Deflate => {
            copy(flate2::bufread::ZlibDecoder::new(&mut body), into)?;
            // It has one stream, so what follows is not ours.
            if body.is_empty() { Ok(()) } else { Err(InflateError::Broken) }
        }
    }
}

fn copy(mut decoder: impl Read, into: &mut Buffer) -> Result<(), InflateError> {
    let mut step = vec![0u8; STEP_BYTES];
    loop {
        match decoder.read(&mut step) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                let came = step.get(..len).unwrap_or_default();
                into.append(came).map_err(InflateError::Full)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(InflateError::Broken),
        }
    }
}

/// What is inflated before the limit is looked at.
const STEP_BYTES: usize = 32 << 10;
/// 8 MiB, what RFC 8878 recommends that every decoder takes.
const WINDOW_LOG_MAX: u32 = 23;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::net::budget::Budget;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(coding: Coding, body: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
        let mut buffer = Budget::new(1 << 20).buffer(max);
        inflate(coding, body, &mut buffer).map(|()| buffer.as_slice().to_vec())
    }

    /// Scenario: each coding, whole, in several members, cut anywhere, and with a byte more.
    /// Guarantees: O1 - what is not whole is broken, never short.
    #[test]
    fn only_whole_streams_are_taken() {
        let text: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        let packed = [
            (Coding::Gzip, gzip(&text)),
            (Coding::Zstd, zstd::encode_all(&text[..], 3).unwrap()),
            (Coding::Deflate, zlib(&text)),
        ];
        for (coding, packed) in packed {
            assert_eq!(inflated(coding, &packed, 1 << 19).as_ref(), Ok(&text), "{coding:?}");
            for cut in (0..packed.len()).step_by(97).chain([packed.len() - 1]) {
                let found = inflated(coding, &packed[..cut], 1 << 19);
                assert_eq!(found, Err(InflateError::Broken), "{coding:?} cut at {cut}");
            }
            let trailing = [&packed[..], b"x"].concat();
            let found = inflated(coding, &trailing, 1 << 19);
            assert_eq!(found, Err(InflateError::Broken), "{coding:?} and a byte");
            let twice = inflated(coding, &packed.repeat(2), 1 << 19);
            match coding {
                Coding::Deflate => assert_eq!(twice, Err(InflateError::Broken)),
                _ => assert_eq!(twice, Ok(text.repeat(2)), "{coding:?} twice"),
            }
            let exact = inflated(coding, &packed, text.len());
            assert_eq!(exact.as_ref(), Ok(&text), "{coding:?} at the limit");
            let over = inflated(coding, &packed, text.len() - 1);
            assert_eq!(over, Err(InflateError::Full(Full::TooLarge)), "{coding:?} over it");
            assert_eq!(inflated(coding, b"\xFFgarbage", 100), Err(InflateError::Broken));
        }
    }

    /// Scenario: a zstd frame that asks for a window of 128 MiB.
    /// Guarantees: O1 - it does not get it.
    #[test]
    fn a_frame_does_not_choose_our_memory() {
        // Magic number, no checksum, no single segment, window of 2^27, one empty last block.
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, (27 - 10) << 3, 0x01, 0x00, 0x00];
        assert_eq!(inflated(Coding::Zstd, &frame, 100), Err(InflateError::Broken));
        let modest = [0x28, 0xB5, 0x2F, 0xFD, 0x00, (20 - 10) << 3, 0x01, 0x00, 0x00];
        assert_eq!(inflated(Coding::Zstd, &modest, 100), Ok(Vec::new()));
    }
}
