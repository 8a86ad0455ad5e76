//! The capture policy: what becomes of contents (prompts, answers, documents).
//!
//! It is applied on the application's thread, before anything reaches the journal, so a text that
//! must not be kept never leaves the program. Kept texts are stored once each, by digest.
//!
//! | policy | digest and size | text |
//! |---|---|---|
//! | `off` | no | no |
//! | `digest` | of the text | no |
//! | `redacted` | of the *redacted* text: the original's would let anybody check a guess | redacted |
//! | `full` | of the text | whole |

use std::borrow::Cow;
use std::collections::HashSet;

use parking_lot::Mutex;
use retake_schemas::event::{Capture, Payload};
use retake_schemas::mapping::CONTENT_REF_PREFIX;
use retake_schemas::{Digest, EventBody, Value};

use crate::journal::{Lane, Offered};
use crate::redact::Redactor;

/// Applies one policy, and remembers which contents are stored. Does no I/O.
#[derive(Debug)]
pub struct CapturePolicy {
    capture: Capture,
    payload_bytes_max: usize,
    redactor: Redactor,
    /// Contents already stored, so that a system prompt costs its bytes once.
    stored: Mutex<HashSet<Digest>>,
}

/// What a policy keeps of one content.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kept {
    /// What refers to it: the digest of the content as kept. `None` when not even that may be.
    pub digest: Option<Digest>,
    /// What must be written for the reference to lead somewhere; `None` when it was before. When
    /// it is written, [`CapturePolicy::stored`] must be told, so that it is not again.
    pub payload: Option<Payload>,
}

impl CapturePolicy {
    /// A policy that keeps at most `payload_bytes_max` bytes of one content, with the default
    /// redaction.
    #[must_use]
    pub fn new(capture: Capture, payload_bytes_max: usize) -> Self {
        Self {
            capture,
            payload_bytes_max: payload_bytes_max.min(PAYLOAD_BYTES_LIMIT),
            redactor: Redactor::default(),
            stored: Mutex::default(),
        }
    }

    /// The same policy with other redaction.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// What is taken out of texts, contents or not.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// What is kept of a content.
    #[must_use]
    pub fn decide(&self, media_type: &str, text: &str) -> Kept {
        if self.capture == Capture::Off {
            return Kept::default();
        }
        let text = match self.capture {
            Capture::Redacted => self.redactor.redact(text),
            _ => Cow::Borrowed(text),
        };
        let digest = Digest::of(text.as_bytes());
        if self.stored.lock().contains(&digest) {
            return Kept { digest: Some(digest), payload: None };
        }
        let (content, truncated) = if self.capture.keeps_text() {
            // After redaction: half a key would be no key to it.
            let (kept, is_cut) = cut(&text, self.payload_bytes_max);
            (Some(kept.to_owned()), is_cut)
        } else {
            (None, false)
        };
        let bytes = text.len() as u64;
        let payload =
            Payload { digest, bytes, media_type: media_type.to_owned(), content, truncated };
        Kept { digest: Some(digest), payload: Some(payload) }
    }

    /// The payload of this digest was written.
    pub fn stored(&self, digest: Digest) {
        let mut stored = self.stored.lock();
        if stored.len() >= STORED_MAX {
            // Forgetting costs a second copy of a text, never a wrong one.
            stored.clear();
        }
        stored.insert(digest);
    }

    /// [`CapturePolicy::decide`], and what is to be written goes into `lane`.
    pub fn keep(
        &self,
        lane: &Lane,
        time_unix_ns: i64,
        media_type: &str,
        text: &str,
    ) -> Option<Digest> {
        let kept = self.decide(media_type, text);
        if let Some(payload) = kept.payload {
            let digest = payload.digest;
            if let Offered::Accepted(_) = lane.offer(time_unix_ns, &EventBody::Payload(payload)) {
                self.stored(digest);
            }
        }
        kept.digest
    }

    /// The attribute value that stands for a content in the journal.
    #[must_use]
    pub fn reference(digest: Digest) -> Value {
        Value::Str(format!("{CONTENT_REF_PREFIX}{digest}"))
    }
}

/// The longest start of `text` within `max_bytes` that does not split a character, and whether
/// that is less than all of it.
#[must_use]
pub fn cut(text: &str, max_bytes: usize) -> (&str, bool) {
    if text.len() <= max_bytes {
        return (text, false);
    }
    let end = text.floor_char_boundary(max_bytes);
    (text.get(..end).unwrap_or_default(), true)
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

    /// What one content becomes, and what an equal one becomes after it was stored.
    fn decide_twice(capture: Capture, max: usize, text: &str) -> (Kept, Kept) {
        let policy = CapturePolicy::new(capture, max);
        let first = policy.decide("text/plain", text);
        if let Some(digest) = first.digest {
            policy.stored(digest);
        }
        (first, policy.decide("text/plain", text))
    }

    /// Guarantees: P1 - with the default policy there is a digest and a size, and no text.
    #[test]
    fn the_default_policy_keeps_no_text() {
        let (kept, _) = decide_twice(Capture::default(), 100, "secret");
        assert_eq!(kept.digest, Some(Digest::of(b"secret")));
        let payload = kept.payload.unwrap();
        assert_eq!((payload.content, payload.bytes, payload.truncated), (None, 6, false));
    }

    #[test]
    fn nothing_is_kept_when_capture_is_off() {
        assert_eq!(decide_twice(Capture::Off, 100, "x"), (Kept::default(), Kept::default()));
    }

    /// Scenario: a prompt with an e-mail address under `redacted`, twice.
    /// Guarantees: P1 - neither text nor digest nor size is that of the original.
    #[test]
    fn a_redacted_content_is_known_by_its_redacted_text() {
        let text = "write to jane@example.org";
        let (kept, again) = decide_twice(Capture::Redacted, 100, text);
        let redacted = "write to [redacted:email]";
        assert_eq!(kept.digest, Some(Digest::of(redacted.as_bytes())));
        let payload = kept.payload.unwrap();
        assert_eq!(payload.content.as_deref(), Some(redacted));
        assert_eq!(payload.bytes, redacted.len() as u64);
        assert_eq!(again, Kept { digest: kept.digest, payload: None });
    }

    /// Scenario: the size limit falls into a key.
    /// Guarantees: P1 - redaction comes first, so no half of the key is kept.
    #[test]
    fn a_key_across_the_size_limit_is_taken_out() {
        let text = format!("key ghp_{}", "a1".repeat(18));
        let (kept, _) = decide_twice(Capture::Redacted, 12, &text);
        assert_eq!(kept.payload.unwrap().content.as_deref(), Some("key [redacte"));
    }

    #[test]
    fn equal_texts_are_stored_once_and_long_ones_are_cut_between_characters() {
        let (kept, again) = decide_twice(Capture::Full, 4, "aé€");
        let payload = kept.payload.unwrap();
        assert_eq!(payload.content.as_deref(), Some("aé"));
        assert!(payload.truncated);
        assert_eq!((payload.bytes, payload.digest), (6, Digest::of("aé€".as_bytes())));
        assert_eq!(again.payload, None);
    }

    #[test]
    fn cuts_fall_on_characters_and_an_exact_fit_is_no_cut() {
        for (max, kept, is_cut) in [
            (0, "", true),
            (1, "a", true),
            (2, "a", true),
            (3, "aé", true),
            (5, "aé", true),
            (6, "aé€", false),
            (7, "aé€", false),
        ] {
            assert_eq!(cut("aé€", max), (kept, is_cut), "{max}");
        }
        assert_eq!(cut("", 0), ("", false));
    }

    #[test]
    fn a_content_goes_into_the_journal_once() {
        let folder = tempfile::tempdir().unwrap();
        let limits = LaneLimits::default();
        let lane = Lane::new(folder.path(), WriterId(0), EventSeq(0), limits, Clock::start());
        let policy = CapturePolicy::new(Capture::Full, 100);
        for text in ["one", "two", "one"] {
            assert_eq!(
                policy.keep(&lane, 0, "text/plain", text),
                Some(Digest::of(text.as_bytes()))
            );
        }
        let mut texts = Vec::new();
        for path in journal_files(folder.path()).unwrap() {
            for event in read_journal(&path, EventSeq(0)).unwrap().events {
                if let EventBody::Payload(payload) = event.body {
                    texts.push(payload.content.unwrap());
                }
            }
        }
        assert_eq!(texts, ["one", "two"]);
    }
}
