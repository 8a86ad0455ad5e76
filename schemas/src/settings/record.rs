//! `[record]`: what is recorded, and how it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BudgetSettings, OutOfRange};
use crate::event::Capture;
use crate::redaction::RedactSettings;

/// Settings of recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordSettings {
    /// How much content a run keeps: `off`, `digest`, `redacted` or `full`. Replays need `full`.
    pub capture: Capture,
    /// What redaction takes out.
    pub redact: RedactSettings,
    /// Longest text of one attribute kept in its span, bytes; longer ones are cut and flagged.
    pub attribute_bytes_max: usize,
    /// Largest content kept whole, bytes; longer ones are cut and flagged.
    pub payload_bytes_max: usize,
    /// Unsealed journal on disk, bytes; above it events are dropped and counted.
    pub journal_bytes_max: u64,
    /// Seal after this many journalled events.
    pub seal_events: u64,
    /// Seal at least this often while events arrive, seconds.
    pub seal_secs: u64,
    /// What a power cut may cost: with `never` (a killed process still loses nothing) what is not
    /// sealed, with `interval` the last `sync_ms`, with `batch` the last few hundredths of a second.
    pub sync: SyncPolicy,
    /// How often `sync = "interval"` flushes to the disk, ms.
    pub sync_ms: u64,
    /// What becomes of an event when the journal is full: `drop-new` counts and drops it, `block`
    /// lets its thread wait.
    pub when_full: WhenFull,
    /// How long a thread waits at most with `when_full = "block"`, ms.
    pub block_ms_max: u64,
    /// Seal on a thread that runs only when no other wants its core, as long as it keeps up.
    pub seal_idle: bool,
    /// Sample processor, memory, files and GPU this often, ms; 0 takes no samples.
    pub sample_ms: u64,
    /// How long a trace whose spans come from other processes must have been quiet before it is
    /// sealed, ms: its spans come children first and in several batches. 0 seals them as they come.
    pub trace_wait_ms: u64,
    /// Attribute names of an application's own, and the names of the attribute mapping they stand
    /// for: `"app.prompt_tokens" = "gen_ai.usage.input_tokens"`. For spans that come by OTLP.
    pub alias: BTreeMap<String, String>,
    /// Limits on the tokens of a run; without it there are none.
    pub budget: Option<BudgetSettings>,
    /// Where finished runs are copied to, such as `s3://bucket/prefix`; without it they stay here.
    /// Credentials come from the environment, never from settings.
    pub upload: Option<String>,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self {
            capture: Capture::Digest,
            redact: RedactSettings::default(),
            attribute_bytes_max: 16 << 10,
            payload_bytes_max: 1 << 20,
            journal_bytes_max: 512 << 20,
            seal_events: 262_144,
            seal_secs: 30,
            sync: SyncPolicy::Never,
            sync_ms: 1000,
            when_full: WhenFull::DropNew,
            block_ms_max: 10_000,
            seal_idle: true,
            sample_ms: 1000,
            trace_wait_ms: 0,
            alias: BTreeMap::new(),
            budget: None,
            upload: None,
        }
    }
}

/// What a recording does for the power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum SyncPolicy {
    /// Only sealed segments are flushed to the disk.
    #[default]
    Never,
    /// The journal is flushed every `sync_ms`.
    Interval,
    /// The journal is flushed whenever the last flush is done.
    Batch,
}

/// What becomes of an event when the journal is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is counted and dropped; whole spans only, never half of one.
    #[default]
    DropNew,
    /// Its thread waits for room, up to a limit.
    Block,
}

impl RecordSettings {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        if self.sample_ms != 0 && !(SAMPLE_MS_MIN..=SAMPLE_MS_MAX).contains(&self.sample_ms) {
            return Err(OutOfRange {
                name: "record.sample_ms",
                reason: format!(
                    "must be 0 (no samples) or {SAMPLE_MS_MIN} to {SAMPLE_MS_MAX}, not {}",
                    self.sample_ms
                ),
            });
        }
        self.budget.as_ref().map_or(Ok(()), BudgetSettings::check)
    }
}

/// More often than this, the samples themselves would show in what they measure.
const SAMPLE_MS_MIN: u64 = 10;
/// A run with a sample less often than once an hour is better off without.
const SAMPLE_MS_MAX: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_off_or_at_a_bearable_rate() {
        let with = |sample_ms| RecordSettings { sample_ms, ..RecordSettings::default() };
        for good in [0, 10, 1000, 3_600_000] {
            assert_eq!(with(good).check(), Ok(()), "{good}");
        }
        for bad in [1, 9, 3_600_001] {
            let error = with(bad).check().unwrap_err().to_string();
            assert!(error.contains("record.sample_ms") && error.contains("10 to"), "{error}");
        }
    }
}
