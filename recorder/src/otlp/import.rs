//! OTLP out of files: bodies as an exporter sends them, and the files that the OpenTelemetry
//! Collector's file exporter writes.

use std::io::{self, BufRead, BufReader, Read};

use super::{DecodeError, Encoding, Intake, Signal, Taken};

/// Limits of an import.
#[derive(Debug, Clone, Copy)]
pub struct ImportLimits {
    /// Decompressed bytes of one file.
    pub file_bytes_max: u64,
    /// Bytes of one body or line.
    pub body_bytes_max: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { file_bytes_max: 4 << 30, body_bytes_max: 256 << 20 }
    }
}

/// What a file gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Bodies in it.
    pub bodies: u64,
    /// Lines that were no OTLP, with their numbers from 1 and why; the rest was taken. At most a
    /// few.
    pub bad_lines: Vec<(u64, String)>,
    /// How many there were.
    pub bad_line_count: u64,
    /// What became of the items.
    pub taken: Taken,
}

impl Imported {
    /// Adds what another file gave.
    pub fn add(&mut self, other: Self) {
        self.bodies += other.bodies;
        self.bad_line_count += other.bad_line_count;
        self.taken.add(&other.taken);
        let room = BAD_LINES_TOLD_MAX.saturating_sub(self.bad_lines.len());
        self.bad_lines.extend(other.bad_lines.into_iter().take(room));
    }
}

/// A file that cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Reading failed, or it is not the compressed file it begins as.
    #[error("read: {0}")]
    Io(#[from] io::Error),
    /// It is no OTLP.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is larger than is imported at once.
    #[error("it is larger than {0} bytes; split it")]
    TooLarge(u64),
}

/// Imports one file: a body in protobuf or JSON, JSON lines, or length-prefixed protobuf; each also
/// compressed with gzip or zstd. What it is shows in its bytes. Protobuf does not say whether it
/// holds spans, log records or metrics: `signal` does, by default spans; JSON says it itself.
///
/// `on_body` hears how many decompressed bytes were read so far.
///
/// # Errors
/// See [`ImportError`]. What was taken before stays.
pub fn import(
    file: impl Read,
    signal: Signal,
    intake: &Intake,
    limits: ImportLimits,
    on_body: &mut dyn FnMut(u64),
) -> Result<Imported, ImportError> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let start = peek(&mut file)?;
    let plain: Box<dyn Read + '_> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    };
    let plain = plain.take(limits.file_bytes_max.saturating_add(1));
    let mut plain = BufReader::with_capacity(BUFFER_BYTES, plain);
    let first = peek(&mut plain)?;
    let mut importing =
        Importing { intake, limits, imported: Imported::default(), bytes: 0, on_body };
    match first.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => importing.json(&mut plain)?,
        Some(_) if is_prefixed(&first) => importing.prefixed(&mut plain, signal)?,
        _ => importing.whole(&mut plain, signal)?,
    }
    Ok(importing.imported)
}

struct Importing<'i> {
    intake: &'i Intake,
    limits: ImportLimits,
    imported: Imported,
    bytes: u64,
    on_body: &'i mut dyn FnMut(u64),
}

impl Importing<'_> {
    /// JSON: a document a line, or one document over several lines.
    fn json(&mut self, file: &mut impl BufRead) -> Result<(), ImportError> {
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            self.read_line(file, &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if number == 1 && serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_err() {
                // Written for people, over many lines.
                self.rest(file, &mut line)?;
                return self.body(json_signal(&line), Encoding::Json, &line);
            }
            match self.body(json_signal(&line), Encoding::Json, &line) {
                Ok(()) => {}
                Err(ImportError::Decode(error)) => {
                    self.imported.bad_line_count += 1;
                    if self.imported.bad_lines.len() < BAD_LINES_TOLD_MAX {
                        self.imported.bad_lines.push((number, error.to_string()));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bodies in protobuf, each behind its length in four bytes, highest first.
    fn prefixed(&mut self, file: &mut impl BufRead, signal: Signal) -> Result<(), ImportError> {
        let mut body = Vec::new();
        let mut prefix = [0_u8; 4];
        while !file.fill_buf()?.is_empty() {
            file.read_exact(&mut prefix)?;
            let len = u32::from_be_bytes(prefix) as usize;
            self.count(4 + len as u64)?;
            if len > self.limits.body_bytes_max {
                return Err(ImportError::TooLarge(self.limits.body_bytes_max as u64));
            }
            body.clear();
            (&mut *file).take(len as u64).read_to_end(&mut body)?;
            if body.len() < len {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.body(signal, Encoding::Protobuf, &body)?;
        }
        Ok(())
    }

    fn whole(&mut self, file: &mut impl BufRead, signal: Signal) -> Result<(), ImportError> {
        let mut body = Vec::new();
        self.rest(file, &mut body)?;
        self.body(signal, Encoding::Protobuf, &body)
    }

    fn body(&mut self, signal: Signal, encoding: Encoding, body: &[u8]) -> Result<(), ImportError> {
        let taken = self.intake.take(signal, encoding, body)?;
        self.imported.taken.add(&taken);
        self.imported.bodies += 1;
        (self.on_body)(self.bytes);
        Ok(())
    }

    fn read_line(
        &mut self,
        file: &mut impl BufRead,
        line: &mut Vec<u8>,
    ) -> Result<(), ImportError> {
        let max = self.limits.body_bytes_max as u64;
        let read = file.take(max.saturating_add(1)).read_until(b'\n', line)?;
        self.count(read as u64)?;
        if read as u64 > max {
            return Err(ImportError::TooLarge(max));
        }
        Ok(())
    }

    fn rest(&mut self, file: &mut impl BufRead, body: &mut Vec<u8>) -> Result<(), ImportError> {
        let max = self.limits.body_bytes_max as u64;
        let read = file.take(max.saturating_add(1)).read_to_end(body)?;
        self.count(read as u64)?;
        if body.len() as u64 > max {
            return Err(ImportError::TooLarge(max));
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), ImportError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.file_bytes_max {
            return Err(ImportError::TooLarge(self.limits.file_bytes_max));
        }
        Ok(())
    }
}

/// The first bytes, which stay unread.
fn peek(file: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let bytes = file.fill_buf()?;
    Ok(bytes.get(..bytes.len().min(4)).unwrap_or_default().to_vec())
}

/// A body in protobuf begins with the tag of its first field, a length prefix with a zero.
fn is_prefixed(first: &[u8]) -> bool {
    matches!(first, [0, ..])
}

/// Which service a JSON body is for: the name of its one list.
fn json_signal(body: &[u8]) -> Signal {
    #[derive(serde::Deserialize)]
    struct Lists {
        #[serde(alias = "resource_logs", rename = "resourceLogs")]
        logs: Option<serde::de::IgnoredAny>,
        #[serde(alias = "resource_metrics", rename = "resourceMetrics")]
        metrics: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Lists>(body) {
        Ok(Lists { logs: Some(_), .. }) => Signal::Logs,
        Ok(Lists { metrics: Some(_), .. }) => Signal::Metrics,
        _ => Signal::Traces,
    }
}

const BUFFER_BYTES: usize = 256 << 10;
const BAD_LINES_TOLD_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::otlp::IntakeSettings;
    use crate::{RecorderBuilder, Store};

    const LINE: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"ID","name":"s","startTimeUnixNano":"1790000000000000000","endTimeUnixNano":"1790000000000000001"}]}]}]}"#;

    fn line(id: u64) -> String {
        LINE.replace("ID", &format!("{id:016x}"))
    }

    fn imported(bytes: &[u8]) -> Result<Imported, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let recorder = RecorderBuilder::new("r", "s").start(&store).unwrap();
        let intake = Intake::new(recorder.dispatcher(), "s", IntakeSettings::default());
        import(bytes, Signal::Traces, &intake, ImportLimits::default(), &mut |_| {})
    }

    /// Scenario: the shapes files come in: lines, one document for people, compressed either way.
    /// Guarantees: each gives its spans; a line that is none costs only itself.
    #[test]
    fn files_of_every_shape_are_read() {
        let lines = format!("{}\n\nnot json\n{}\n", line(1), line(2));
        let found = imported(lines.as_bytes()).unwrap();
        assert_eq!((found.bodies, found.taken.accepted, found.bad_line_count), (2, 2, 1));
        assert_eq!(found.bad_lines[0].0, 3);

        let document: serde_json::Value = serde_json::from_str(&line(1)).unwrap();
        let pretty = serde_json::to_string_pretty(&document).unwrap();
        assert_eq!(imported(pretty.as_bytes()).unwrap().taken.accepted, 1);

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(lines.as_bytes()).unwrap();
        assert_eq!(imported(&gzip.finish().unwrap()).unwrap().taken.accepted, 2);
        let zstd = zstd::stream::encode_all(lines.as_bytes(), 1).unwrap();
        assert_eq!(imported(&zstd).unwrap().taken.accepted, 2);
    }

    /// Scenario: the Collector's `format: proto`, whole and cut.
    #[test]
    fn length_prefixed_bodies_are_read() {
        let id = [0x12, 8, 0, 0, 0, 0, 0, 0, 0, 1];
        let mut span = vec![0x0a, 16];
        span.extend([7; 16]);
        span.extend(id);
        let wrap = |inner: &[u8], tag: u8| [&[tag, inner.len() as u8], inner].concat();
        let body = wrap(&wrap(&wrap(&span, 0x12), 0x12), 0x0a);
        let prefixed = [&(body.len() as u32).to_be_bytes(), body.as_slice()].concat();
        assert_eq!(imported(&prefixed).unwrap().taken.accepted, 1);
        assert_eq!(imported(&body).unwrap().taken.accepted, 1);
        assert!(matches!(imported(&prefixed[..prefixed.len() - 1]), Err(ImportError::Io(_))));
        assert!(matches!(imported(b"what is this"), Err(ImportError::Decode(_))));
        assert_eq!(imported(b"").unwrap().taken.accepted, 0);
    }
}
