//! The capture policy: how much of a prompt, an answer or a document leaves the program.
//!
//! It is applied on the thread that emits, before anything reaches the journal: what the policy
//! does not keep was never written anywhere.

use std::collections::HashSet;

use parking_lot::Mutex;
use retake_schemas::event::{Capture, Payload};
use retake_schemas::mapping::CONTENT_REF_PREFIX;
use retake_schemas::{Digest, EventBody, Value};

use crate::journal::{Lane, Offered};

/// Applies one policy, and stores each content once.
#[derive(Debug)]
pub struct CapturePolicy {
    capture: Capture,
    payload_bytes_max: usize,
    /// Contents already stored, so that a system prompt costs its bytes once.
    stored: Mutex<HashSet<Digest>>,
}

impl CapturePolicy {
    /// A policy that keeps at most `payload_bytes_max` bytes of one content.
    #[must_use]
    pub fn new(capture: Capture, payload_bytes_max: usize) -> Self {
        Self {
            capture,
            payload_bytes_max: payload_bytes_max.min(PAYLOAD_BYTES_LIMIT),
            stored: Mutex::default(),
        }
    }

    /// Stores a content as the policy allows, and gives the attribute value that refers to it:
    /// `None` when not even a digest may be kept.
    pub fn keep(
        &self,
        lane: &Lane,
        time_unix_ns: i64,
        media_type: &str,
        text: &str,
    ) -> Option<Digest> {
        if self.capture == Capture::Off {
            return None;
        }
        let digest = Digest::of(text.as_bytes());
        if self.stored.lock().contains(&digest) {
            return Some(digest);
        }
        let cut = self.cut(text);
        let payload = Payload {
            digest,
            bytes: text.len() as u64,
            media_type: media_type.to_owned(),
            content: (self.capture == Capture::Full).then(|| cut.to_owned()),
            truncated: self.capture == Capture::Full && cut.len() < text.len(),
        };
        if let Offered::Accepted(_) = lane.offer(time_unix_ns, &EventBody::Payload(payload)) {
            let mut stored = self.stored.lock();
            if stored.len() >= STORED_MAX {
                // Forgetting costs a second copy of a text, never a wrong one.
                stored.clear();
            }
            stored.insert(digest);
        }
        Some(digest)
    }

    /// The attribute value that stands for a content in the journal.
    #[must_use]
    pub fn reference(digest: Digest) -> Value {
        Value::Str(format!("{CONTENT_REF_PREFIX}{digest}"))
    }

    /// The longest start of `text` within the limit that does not split a character.
    fn cut<'a>(&self, text: &'a str) -> &'a str {
        let end = (0..=self.payload_bytes_max.min(text.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.get(..end).unwrap_or_default()
    }
}

/// Digests remembered: 32 MB at the most.
const STORED_MAX: usize = 1 << 20;
/// A payload must fit a journal file together with its frame.
const PAYLOAD_BYTES_LIMIT: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::journal::{LaneLimits, journal_files, read_journal};
    use retake_schemas::{EventSeq, WriterId};

    fn kept(capture: Capture, limit: usize, texts: &[&str]) -> (Vec<Option<Digest>>, Vec<Payload>) {
        let folder = tempfile::tempdir().unwrap();
        let lane = Lane::new(
            folder.path(),
            WriterId(0),
            EventSeq(0),
            LaneLimits::default(),
            Clock::start(),
        );
        let policy = CapturePolicy::new(capture, limit);
        let digests = texts.iter().map(|text| policy.keep(&lane, 0, "text/plain", text)).collect();
        let mut payloads = Vec::new();
        for path in journal_files(folder.path()).unwrap() {
            for event in read_journal(&path, EventSeq(0)).unwrap().events {
                if let EventBody::Payload(payload) = event.body {
                    payloads.push(payload);
                }
            }
        }
        (digests, payloads)
    }

    /// Guarantees: P1 - with the default policy no text reaches the journal.
    #[test]
    fn the_default_policy_writes_no_text() {
        let (digests, payloads) = kept(Capture::default(), 100, &["secret"]);
        assert_eq!(digests, [Some(Digest::of(b"secret"))]);
        assert_eq!(payloads[0].content, None);
        assert_eq!(payloads[0].bytes, 6);
    }

    #[test]
    fn nothing_is_kept_when_capture_is_off() {
        assert_eq!(kept(Capture::Off, 100, &["secret"]), (vec![None], vec![]));
    }

    #[test]
    fn equal_texts_are_stored_once_and_long_ones_are_cut_between_characters() {
        let (_, payloads) = kept(Capture::Full, 4, &["aé€", "aé€", "b"]);
        assert_eq!(payloads.len(), 2);
        assert_eq!(payloads[0].content.as_deref(), Some("aé"));
        assert!(payloads[0].truncated);
        assert_eq!(payloads[0].bytes, 6);
        assert!(!payloads[1].truncated);
    }
}
