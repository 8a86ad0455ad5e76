//! `manifest.json`: what a run's folder holds, and nothing that is not in it counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{RunFacts, RunStatus};
use crate::id::{Digest, RunId};
use crate::tables::TableName;
use crate::version::FormatVersion;

/// The state of a run's folder. Replaced as a whole, atomically.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the folder.
    pub format: FormatVersion,
    /// The run.
    pub run_id: RunId,
    /// Steps by one with every replacement.
    pub revision: u64,
    /// How the run stands.
    pub status: RunStatus,
    /// Facts known at the start, and labels added later.
    pub facts: RunFacts,
    /// Time of the last event sealed, nanoseconds since the Unix epoch.
    pub last_unix_ns: i64,
    /// Events below this sequence number are in the segments or in `carry`; the journal holds the
    /// rest.
    pub sealed_below: u64,
    /// The same by lane of the journal: so many of its records are dealt with.
    #[serde(default)]
    pub lanes: BTreeMap<u32, u64>,
    /// File in the run's folder with the spans that were open at the last seal.
    #[serde(default)]
    pub carry: Option<FileEntry>,
    /// The sealed files.
    pub segments: Vec<Segment>,
    /// Traces in the run, known once it has ended.
    #[serde(default)]
    pub traces: Option<u64>,
    /// The exact accounting: offered = accepted + dropped.
    pub accounting: Accounting,
}

/// A file with its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name inside the run's folder.
    pub file: String,
    /// Size, bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: Digest,
}

/// A sealed Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The table it is a part of.
    pub table: TableName,
    /// Name inside the run's folder.
    pub file: String,
    /// Size, bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: Digest,
    /// Rows in it.
    pub rows: u64,
    /// Earliest time in it, nanoseconds since the Unix epoch.
    pub min_unix_ns: i64,
    /// Latest time in it, nanoseconds since the Unix epoch.
    pub max_unix_ns: i64,
}

/// What was offered to the recorder, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Accounting {
    /// Events offered.
    pub offered: u64,
    /// Events journalled.
    pub accepted: u64,
    /// Events lost, by cause.
    pub dropped: BTreeMap<String, u64>,
    /// Frames that could not be read back after a crash.
    pub damaged_frames: u64,
    /// Spans that were opened.
    pub spans_opened: u64,
    /// Spans that were closed.
    pub spans_closed: u64,
    /// Spans that were lost whole, because their opening was. Opened = closed + open + dropped.
    pub spans_dropped: u64,
}

impl Accounting {
    /// All events lost.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().copied().fold(0, u64::saturating_add)
    }
}

impl Manifest {
    /// A run that has just begun.
    #[must_use]
    pub fn new(run_id: RunId, facts: RunFacts) -> Self {
        Self {
            format: FormatVersion::STORE,
            run_id,
            revision: 0,
            status: RunStatus::Recording,
            last_unix_ns: facts.started_unix_ns,
            facts,
            sealed_below: 0,
            lanes: BTreeMap::new(),
            carry: None,
            segments: Vec::new(),
            traces: None,
            accounting: Accounting::default(),
        }
    }

    /// Names of all files the run has in its folder: segments, then the carry file.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let carry = self.carry.as_ref().map(|carry| carry.file.as_str());
        self.segments.iter().map(|segment| segment.file.as_str()).chain(carry)
    }

    /// Rows of a table over all segments.
    #[must_use]
    pub fn rows(&self, table: TableName) -> u64 {
        let of_table = self.segments.iter().filter(|segment| segment.table == table);
        of_table.map(|segment| segment.rows).fold(0, u64::saturating_add)
    }
}
