//! A run: what is known when it starts, and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, RunId};

/// Facts of a run known when it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct RunFacts {
    /// Name the user gave, for people and selectors.
    pub name: String,
    /// Service under record (OTel `service.name`).
    pub service: String,
    /// Its version (OTel `service.version`).
    pub service_version: Option<String>,
    /// Commit the code was built from.
    pub git_sha: Option<String>,
    /// Branch of that commit.
    pub git_branch: Option<String>,
    /// Where it ran.
    pub host: HostFacts,
    /// Settings in force, by dotted name. Secrets never come in here.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Labels of the user's, for selecting runs.
    pub labels: BTreeMap<String, String>,
    /// The run this one replays.
    pub replay_of: Option<RunId>,
    /// How much content the run keeps.
    pub capture: Capture,
    /// Start, nanoseconds since the Unix epoch.
    pub started_unix_ns: i64,
    /// Digest of the inputs and arrival times, equal for runs of the same workload.
    pub workload: Option<Digest>,
    /// Seed of everything random in the run.
    pub seed: Option<u64>,
    /// Version of retake that recorded it.
    pub recorder_version: String,
}

/// The machine and the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct HostFacts {
    /// Host name.
    pub name: String,
    /// Operating system and its version.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Logical processors this process may use.
    pub cpus: u32,
    /// Physical memory, bytes.
    pub memory_bytes: u64,
    /// Process id.
    pub pid: u32,
}

impl HostFacts {
    /// Names the kind of machine. Runs with different keys are not compared without saying so.
    #[must_use]
    pub fn machine_key(&self) -> String {
        let gib = self.memory_bytes.div_ceil(1 << 30);
        let identity = format!("{}|{}|{gib}", self.cpu, self.cpus);
        Digest::of(identity.as_bytes()).to_string().chars().take(12).collect()
    }
}

/// How much content (prompts, answers, documents) a run keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Neither text nor digest.
    Off,
    /// Only digest and size: equal texts can be recognised, none can be read.
    #[default]
    Digest,
    /// Every text once, after the redaction rules ran on it, before it leaves the application's
    /// thread. Digest and size are those of the redacted text: a digest of the original would let
    /// anybody check a guess of what was taken out.
    Redacted,
    /// Every text once, by digest. Needed to replay.
    Full,
}

impl Capture {
    /// All policies, from the one that keeps least.
    pub const ALL: [Self; 4] = [Self::Off, Self::Digest, Self::Redacted, Self::Full];

    /// Whether texts are kept, be it redacted.
    #[must_use]
    pub const fn keeps_text(self) -> bool {
        matches!(self, Self::Redacted | Self::Full)
    }

    /// The word used in settings, manifests and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Digest => "digest",
            Self::Redacted => "redacted",
            Self::Full => "full",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Still being recorded.
    #[default]
    Recording,
    /// Ended by itself.
    Finished,
    /// Ended by the user (Ctrl-C) or a failure it reported.
    Interrupted,
    /// The process died; a later command recovered the run.
    Recovered,
}

impl RunStatus {
    /// The word used in manifests and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
            Self::Recovered => "recovered",
        }
    }
}

/// A run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFinished {
    /// How.
    pub status: RunStatus,
}
