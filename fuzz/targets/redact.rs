//! Redaction of arbitrary texts, with a rule of arbitrary pattern, within a time.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use retake_recorder::redact::Redactor;
use retake_schemas::redaction::{RedactRule, RedactSettings};

static BUILT_IN: LazyLock<Redactor> = LazyLock::new(|| {
    let redactor = Redactor::new(&RedactSettings::default()).expect("the built-in rules");
    // Patterns are compiled on first use.
    let _ = redactor.scrub("password=hunter2");
    redactor
});

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("redact"), |bytes: &[u8]| {
    let Ok(input) = std::str::from_utf8(bytes) else { return };
    // What follows a zero is the pattern of a rule of the user's own.
    let (text, pattern) = input.split_once('\0').unwrap_or((input, ""));
    let start = cpu_time();
    check(&BUILT_IN, text);
    let spent = cpu_time() - start;
    assert!(spent < TIME_MAX, "{spent:?} for {} bytes", text.len());
    if pattern.is_empty() {
        return;
    }
    let mut settings = RedactSettings::default();
    settings.rules.push(RedactRule { name: "own".to_owned(), pattern: pattern.to_owned() });
    if let Ok(redactor) = Redactor::new(&settings) {
        let start = cpu_time();
        let once = redactor.redact(text);
        let spent = cpu_time() - start;
        assert!(spent < TIME_MAX, "{spent:?} for {} bytes and {pattern:?}", text.len());
        assert_eq!(redactor.redact(&once), once, "redacting twice is redacting once");
    }
});

fn check(redactor: &Redactor, text: &str) {
    let scrubbed = redactor.scrub(text);
    assert_eq!(redactor.scrub(&scrubbed), scrubbed, "scrubbing twice is scrubbing once");
    let redacted = redactor.redact(text);
    assert_eq!(redactor.redact(&redacted), redacted, "redacting twice is redacting once");
    let (cut, _) = redactor.scrub_cut(text, text.len() / 2);
    assert!(cut.len() <= text.len() / 2, "{} of {}", cut.len(), text.len() / 2);
    let _ = redactor.scrub_attribute(text, text);
}

/// Time of this thread on a processor, so that a busy machine is no finding.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// What any input may take, coverage counters included.
const TIME_MAX: Duration = Duration::from_millis(100);
