//! Server-sent events, read as bytes arrive.
//!
//! Own code because the time of each arrival is what a flight recorder is for: an event is handed
//! out with the bytes that complete it, and a hostile or broken server cannot make it buffer
//! without limit. Only `data` matters to us; other fields and comments (keep-alives) are skipped.

/// Turns bytes into the payloads of events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    /// The line so far: bytes, because a character may arrive in two parts.
    line: Vec<u8>,
    /// The event's `data` lines so far.
    payload: Option<String>,
    /// Whether the last byte was a carriage return, so that a line feed after it is no new line.
    after_return: bool,
    /// Whether a line has been read, after which a byte order mark is nothing special.
    started: bool,
}

/// A stream that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SseError {
    /// A line or event beyond the limit.
    #[error("its stream has an event of more than {EVENT_BYTES_MAX} bytes")]
    TooLong,
    /// Bytes that are not text.
    #[error("its stream is not UTF-8")]
    NotUtf8,
}

impl SseParser {
    /// Takes bytes as they came and returns the payloads of the events they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, SseError> {
        let mut payloads = Vec::new();
        for byte in bytes {
            let is_second_half = *byte == b'\n' && self.after_return;
            self.after_return = *byte == b'\r';
            match byte {
                b'\n' if is_second_half => {}
                b'\n' | b'\r' => payloads.extend(self.end_line()?),
                _ if self.line.len() >= EVENT_BYTES_MAX => return Err(SseError::TooLong),
                _ => self.line.push(*byte),
            }
        }
        Ok(payloads)
    }

    /// Takes the end of the stream. Some servers forget the blank line after the last event.
    pub(super) fn finish(&mut self) -> Result<Option<String>, SseError> {
        let completed = if self.line.is_empty() { None } else { self.end_line()? };
        Ok(completed.or_else(|| self.payload.take()))
    }

    fn end_line(&mut self) -> Result<Option<String>, SseError> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = std::str::from_utf8(&bytes).map_err(|_| SseError::NotUtf8)?;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix('\u{FEFF}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.payload.take());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            self.add(value.strip_prefix(' ').unwrap_or(value))?;
        }
        Ok(None)
    }

    fn add(&mut self, value: &str) -> Result<(), SseError> {
        let Some(payload) = &mut self.payload else {
            self.payload = Some(value.to_owned());
            return Ok(());
        };
        if payload.len() + value.len() > EVENT_BYTES_MAX {
            return Err(SseError::TooLong);
        }
        payload.push('\n');
        payload.push_str(value);
        Ok(())
    }
}

/// Largest event, bytes. A token's event has some 300; a server that sends whole answers as one
/// event stays far below this too.
const EVENT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut payloads = Vec::new();
        for part in bytes.chunks(step) {
            payloads.extend(parser.push(part).expect("events"));
        }
        payloads.extend(parser.finish().expect("end"));
        payloads
    }

    /// Scenario: every shape of stream, cut into parts of every size, also inside characters.
    /// Guarantees: the same events whatever the network did.
    #[test]
    fn events_do_not_depend_on_how_bytes_arrive() {
        let stream = "\u{FEFF}: hello\n\ndata: {\"a\":\"né🦀\"}\r\n\r\nevent: x\rdata:one\rdata: two\r\r\
                      id: 1\nretry: 5\n\n: keep-alive\n\ndata\n\ndata:  kept blank\n\ndata: [DONE]";
        let expected = ["{\"a\":\"né🦀\"}", "one\ntwo", "", " kept blank", "[DONE]"];
        for step in 1..=stream.len() {
            assert_eq!(all(stream.as_bytes(), step), expected, "parts of {step}");
        }
    }

    #[test]
    fn an_event_comes_with_the_byte_that_completes_it() {
        let mut parser = SseParser::default();
        assert!(parser.push(b"data: x\n").expect("bytes").is_empty());
        assert_eq!(parser.push(b"\n").expect("bytes"), ["x"]);
        assert_eq!(parser.finish().expect("end"), None);
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut parser = SseParser::default();
        assert_eq!(parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]), Err(SseError::TooLong));
        let line = format!("data: {}\n", "x".repeat(1 << 16));
        let mut parser = SseParser::default();
        let refused = (0..20).find_map(|_| parser.push(line.as_bytes()).err());
        assert_eq!(refused, Some(SseError::TooLong));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(SseParser::default().push(b"data: \xFF\n"), Err(SseError::NotUtf8));
    }
}
