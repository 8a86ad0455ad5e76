//! Server-sent events of an answer, out of bytes as they come.

/// Turns bytes into the payloads of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The line so far: bytes, because a character may come in two parts.
    line: Vec<u8>,
    payload: Vec<u8>,
}

impl Events {
    /// Takes bytes and calls `work` with each payload they complete. `Err` when a line or an event
    /// is longer than any service sends.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut work: impl FnMut(&[u8]),
    ) -> Result<(), TooLong> {
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() >= EVENT_BYTES_MAX {
                    return Err(TooLong);
                }
                self.line.push(*byte);
                continue;
            }
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if line.is_empty() {
                if !self.payload.is_empty() {
                    work(&self.payload);
                    self.payload.clear();
                }
            } else if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                if self.payload.len() + value.len() > EVENT_BYTES_MAX {
                    return Err(TooLong);
                }
                if !self.payload.is_empty() {
                    self.payload.push(b'\n');
                }
                self.payload.extend_from_slice(value);
            }
            self.line.clear();
        }
        Ok(())
    }

    /// Takes the end of the stream. Some servers forget the blank line after the last event.
    pub(super) fn finish(&mut self, work: impl FnMut(&[u8])) -> Result<(), TooLong> {
        self.push(b"\n\n", work)
    }
}

/// A line or an event over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Largest line and event, bytes: a token's event has some 300, a last event may repeat all.
const EVENT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a stream cut into parts of every size, also inside characters.
    /// Guarantees: the same events whatever the network did.
    #[test]
    fn events_do_not_depend_on_how_bytes_arrive() {
        let stream = "data: {\"a\":\"n\u{e9}\"}\r\n\r\n: alive\n\nevent: x\ndata:one\ndata: two\n\ndata: [DONE]";
        for step in 1..=stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            let mut keep =
                |payload: &[u8]| found.push(String::from_utf8_lossy(payload).into_owned());
            for part in stream.as_bytes().chunks(step) {
                events.push(part, &mut keep).unwrap();
            }
            events.finish(&mut keep).unwrap();
            assert_eq!(found, ["{\"a\":\"n\u{e9}\"}", "one\ntwo", "[DONE]"], "parts of {step}");
        }
        assert_eq!(Events::default().push(&vec![b'x'; EVENT_BYTES_MAX + 1], |_| ()), Err(TooLong));
    }
}
