//! Server-sent events, read as bytes pass.
//!
//! The pipeline has a reader of its own, which fails where a stream is wrong. This one looks over a
//! shoulder: it skips what it cannot read, and goes on.

/// Turns bytes into the payloads of events.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    /// The line so far: bytes, because a character may come in two parts.
    line: Vec<u8>,
    /// The event's `data` lines so far.
    payload: Vec<u8>,
    /// Whether the last byte was a carriage return, so that a line feed after it is no new line.
    after_return: bool,
    /// Whether a line or event was over the limit. What is left of it is skipped.
    pub(crate) has_skipped: bool,
}

impl SseReader {
    /// Takes bytes as they came, and calls `work` with the payload of each event they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], mut work: impl FnMut(&[u8])) {
        for byte in bytes {
            let is_second_half = *byte == b'\n' && self.after_return;
            self.after_return = *byte == b'\r';
            match byte {
                b'\n' if is_second_half => {}
                b'\n' | b'\r' => self.end_line(&mut work),
                _ if self.line.len() >= EVENT_BYTES_MAX => self.has_skipped = true,
                _ => self.line.push(*byte),
            }
        }
    }

    /// Takes the end of the stream. Some servers forget the blank line after the last event.
    pub(crate) fn finish(&mut self, mut work: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.end_line(&mut work);
        }
        self.end_event(&mut work);
    }

    fn end_line(&mut self, work: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            return self.end_event(work);
        }
        let line = self.line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.line);
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if self.payload.len() + value.len() > EVENT_BYTES_MAX {
                self.has_skipped = true;
            } else {
                if !self.payload.is_empty() {
                    self.payload.push(b'\n');
                }
                self.payload.extend_from_slice(value);
            }
        }
        self.line.clear();
    }

    fn end_event(&mut self, work: &mut impl FnMut(&[u8])) {
        if !self.payload.is_empty() {
            work(&self.payload);
            self.payload.clear();
        }
    }
}

/// Largest line and event, bytes. A token's event has some 300; the last event of a response
/// repeats all of it.
const EVENT_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Vec<String> {
        let mut reader = SseReader::default();
        let mut found = Vec::new();
        let mut keep = |payload: &[u8]| found.push(String::from_utf8_lossy(payload).into_owned());
        for part in bytes.chunks(step) {
            reader.push(part, &mut keep);
        }
        reader.finish(&mut keep);
        found
    }

    /// Scenario: every shape of stream, cut into parts of every size, also inside characters.
    /// Guarantees: the same events whatever the network did.
    #[test]
    fn events_do_not_depend_on_how_bytes_arrive() {
        let stream = "\u{FEFF}data: {\"a\":\"né🦀\"}\r\n\r\nevent: x\rdata:one\rdata: two\r\r\
                      id: 1\nretry: 5\n: keep-alive\n\ndata:  kept blank\n\ndata: [DONE]";
        let expected = ["{\"a\":\"né🦀\"}", "one\ntwo", " kept blank", "[DONE]"];
        for step in 1..=stream.len() {
            assert_eq!(all(stream.as_bytes(), step), expected, "parts of {step}");
        }
    }

    #[test]
    fn what_is_too_long_is_skipped_and_the_rest_read() {
        let long = "x".repeat(EVENT_BYTES_MAX + 1);
        let mut reader = SseReader::default();
        let mut found = Vec::new();
        let stream = format!("data: {long}\n\ndata: y\n\n");
        reader.push(stream.as_bytes(), |payload| found.push(payload.to_vec()));
        assert!(reader.has_skipped);
        assert_eq!(found.last().map(Vec::as_slice), Some(&b"y"[..]));
    }
}
