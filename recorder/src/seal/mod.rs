//! Sealing: folded rows become immutable, digest-checked Parquet, and the journal is freed.
//!
//! The order is the guarantee. Segments and the carry file are complete under their final names
//! before the manifest names them; the manifest is replaced atomically; only then do journals go.
//! A crash at any point leaves either the old manifest with the whole journal, or the new one with
//! everything it names, so each event is read exactly once.

mod carry;
mod chunk;
mod encodings;
mod segment;
mod spans;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use retake_schemas::EventSeq;
use retake_schemas::event::{DropCause, RunStatus};
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::tables::TableName;

pub(crate) use carry::read_carry;

use crate::columns::SpanColumns;
use crate::fold::{Carried, FoldedRows, SpanCounts};
use crate::journal::LanePositions;
use crate::store::{StoreError, sync_dir, write_manifest};

/// Writes the segments of one run and keeps its manifest.
#[derive(Debug)]
pub(crate) struct Sealer {
    folder: PathBuf,
    manifest: Manifest,
    /// Number of the next seal, so that file names never repeat.
    next: u64,
    /// Threads that encode spans.
    threads: usize,
    /// Memory for the spans of a segment, used again by the next.
    columns: Option<SpanColumns>,
}

impl Sealer {
    pub(crate) fn new(folder: &Path, manifest: Manifest) -> Self {
        let used = manifest
            .segments
            .iter()
            .map(|s| s.file.as_str())
            .chain(manifest.carry.as_ref().map(|c| c.file.as_str()))
            .filter_map(|file| file.rsplit_once('-')?.1.split('.').next()?.parse::<u64>().ok())
            // A number that no seal can have come to is a stranger's; ours do not collide with it.
            .filter(|number| *number < NUMBER_MAX)
            .max();
        Self {
            folder: folder.to_owned(),
            manifest,
            next: used.map_or(1, |n| n + 1),
            threads: 1,
            columns: None,
        }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Seals one take of the fold.
    ///
    /// # Errors
    /// The disk failed. The manifest and the journal are as before, and the same input can be
    /// sealed again.
    pub(crate) fn seal(&mut self, input: &SealInput) -> Result<(), StoreError> {
        let number = self.next;
        self.next += 1;
        let mut next = self.manifest.clone();
        for table in TableName::SEALED {
            let segment = match table {
                TableName::Spans => self.spans(&input.rows, number)?,
                _ => self.table(&input.rows, table, number)?,
            };
            next.segments.extend(segment);
        }
        let previous_carry = next.carry.take();
        if !input.carried.is_empty() {
            next.carry = Some(carry::write(&self.folder, number, &input.carried)?);
        }
        sync_dir(&self.folder).map_err(StoreError::io("sync run", &self.folder))?;
        account(&mut next, input);
        write_manifest(&self.folder, &next)?;
        self.manifest = next;
        if let Some(previous) = previous_carry {
            // Left behind it is only clutter: the manifest no longer names it.
            let _ = std::fs::remove_file(self.folder.join(previous.file));
        }
        Ok(())
    }
}

impl Sealer {
    fn spans(&mut self, rows: &FoldedRows, number: u64) -> Result<Option<Segment>, StoreError> {
        if rows.span_count() == 0 {
            return Ok(None);
        }
        let columns = match &mut self.columns {
            Some(columns) => {
                rows.fill(columns);
                columns
            }
            none => none.insert(rows.span_columns()),
        };
        segment::write_spans(&self.folder, number, columns, self.threads).map(Some)
    }

    fn table(
        &self,
        rows: &FoldedRows,
        table: TableName,
        number: u64,
    ) -> Result<Option<Segment>, StoreError> {
        let batch = rows.batch(table);
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        segment::write(&self.folder, table, number, &batch).map(Some)
    }
}

/// Everything a seal writes, taken from the fold at one moment.
#[derive(Debug)]
pub(crate) struct SealInput {
    pub(crate) rows: FoldedRows,
    /// What must outlive the journal behind the seal.
    pub(crate) carried: Vec<Carried>,
    /// How far each lane is dealt with.
    pub(crate) positions: LanePositions,
    pub(crate) next_seq: EventSeq,
    pub(crate) last_unix_ns: Option<i64>,
    pub(crate) traces: u64,
    pub(crate) spans: SpanCounts,
    /// Losses stated since the last seal.
    pub(crate) drops: HashMap<DropCause, u64>,
    /// Records that could not be read.
    pub(crate) records_lost: u64,
    pub(crate) status: RunStatus,
}

fn account(manifest: &mut Manifest, input: &SealInput) {
    manifest.status = input.status;
    manifest.revision = manifest.revision.wrapping_add(1);
    manifest.sealed_below = input.next_seq.0;
    manifest.lanes.clone_from(&input.positions);
    if let Some(last) = input.last_unix_ns {
        manifest.last_unix_ns = manifest.last_unix_ns.max(last);
    }
    manifest.traces = (input.status != RunStatus::Recording).then_some(input.traces);
    let accounting = &mut manifest.accounting;
    accounting.spans_opened = input.spans.opened;
    accounting.spans_closed = input.spans.closed;
    accounting.spans_dropped = input.spans.dropped;
    accounting.accepted = input.next_seq.0;
    accounting.damaged_frames = accounting.damaged_frames.max(input.records_lost);
    for (cause, dropped) in &input.drops {
        let total = accounting.dropped.entry(cause.as_str().to_owned()).or_default();
        *total = total.saturating_add(*dropped);
    }
    accounting.offered = accounting.accepted.saturating_add(accounting.dropped_total());
}

/// More seals than a run can have.
const NUMBER_MAX: u64 = 1 << 48;
