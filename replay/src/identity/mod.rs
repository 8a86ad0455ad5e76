//! The identity check: a run replayed from its own recording, in virtual time, is the same run.
//!
//! What began when is taken apart into causes: an operation begins when it is due; a span when its
//! parent began or the sibling before it ended; it ends when its last child has, or its own work is
//! done; what it said came after its start, or after what it said before. Between a cause and its effect
//! stands the recorded pause. An event heap then lets all of it happen again, and the log of what
//! happened must be the recorded one: 0 ns apart in every event, whatever the number of threads.
//!
//! It shows that a recording holds everything a replay needs. A replay with one stage modelled differs
//! from this in the pauses of that stage alone.

mod causes;
mod log;
mod play;

pub use self::log::{Log, LogCounts};
pub use self::play::play;

use retake_schemas::Digest;

/// What came of the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Digest of the recorded log.
    pub recorded: Digest,
    /// Digest of what was replayed.
    pub replayed: Digest,
    /// What was compared.
    pub counts: LogCounts,
    /// Virtual time from the first event to the last, ns.
    pub span_ns: i64,
    /// The first row that differs, in words.
    pub difference: Option<String>,
}

impl Identity {
    /// Whether the replay is the recording.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.recorded == self.replayed
    }
}

/// Replays a log on so many threads and compares.
#[must_use]
pub fn check(recorded: &Log, threads: usize) -> Identity {
    let (ours, theirs) = (recorded.normalised(), play(recorded, threads).normalised());
    Identity {
        recorded: ours.digest(),
        replayed: theirs.digest(),
        counts: recorded.counts(),
        span_ns: recorded.span_ns(),
        difference: ours.first_difference(&theirs),
    }
}

#[cfg(test)]
mod tests;
