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
use std::sync::Arc;

use retake_schemas::EventSeq;
use retake_schemas::event::{DropCause, RunStatus};
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::tables::TableName;

pub(crate) use carry::read_carry;

use crate::columns::SpanColumns;
use crate::disk::Disk;
use crate::fold::{Carried, FoldedRows, SpanCounts};
use crate::journal::LanePositions;
use crate::store::{StoreError, write_manifest_on};

/// Writes the segments of one run and keeps its manifest.
#[derive(Debug)]
pub(crate) struct Sealer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    manifest: Manifest,
    /// Files of a seal whose manifest could not be written, or only perhaps: they may go once a
    /// later one is in place.
    abandoned: Vec<String>,
    /// Number of the next seal, so that file names never repeat.
    next: u64,
    /// Threads that encode spans.
    threads: usize,
    /// Memory for the spans of a segment, used again by the next.
    columns: Option<SpanColumns>,
}

impl Sealer {
    pub(crate) fn new(disk: &Arc<dyn Disk>, folder: &Path, manifest: Manifest) -> Self {
        let used = manifest
            .files()
            .filter_map(|file| file.rsplit_once('-')?.1.split('.').next()?.parse::<u64>().ok())
            // A number that no seal can have come to is a stranger's; ours do not collide with it.
            .filter(|number| *number < NUMBER_MAX)
            .max();
        Self {
            disk: Arc::clone(disk),
            folder: folder.to_owned(),
            manifest,
            abandoned: Vec::new(),
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
        next.carry = None;
        if let Err(error) = self.write_files(input, number, &mut next) {
            // No manifest ever named them, and on a full disk their room is needed.
            self.remove(&new_files(&next, &self.manifest));
            return Err(error);
        }
        account(&mut next, input);
        if let Err(error) = write_manifest_on(&*self.disk, &self.folder, &next) {
            // It may have its name already, and then a crash would bring it back.
            self.abandoned.extend(new_files(&next, &self.manifest));
            return Err(error);
        }
        let previous = std::mem::replace(&mut self.manifest, next);
        let mut gone = std::mem::take(&mut self.abandoned);
        gone.extend(previous.carry.map(|carry| carry.file));
        self.remove(&gone);
        Ok(())
    }

    /// Makes everything that `next` is to name, under final names that survive a power cut.
    fn write_files(
        &mut self,
        input: &SealInput,
        number: u64,
        next: &mut Manifest,
    ) -> Result<(), StoreError> {
        for table in TableName::SEALED {
            let segment = match table {
                TableName::Spans => self.spans(&input.rows, number)?,
                _ => self.table(&input.rows, table, number)?,
            };
            next.segments.extend(segment);
        }
        if !input.carried.is_empty() {
            let carry = carry::write(&*self.disk, &self.folder, number, &input.carried)?;
            next.carry = Some(carry);
        }
        self.disk.sync_dir(&self.folder).map_err(StoreError::io("sync run", &self.folder))
    }

    /// Removes files that no manifest names: left behind they are only clutter.
    fn remove(&self, files: &[String]) {
        for file in files {
            let _ = self.disk.remove(&self.folder.join(file));
        }
    }
}

/// The files that `next` names and `before` does not.
fn new_files(next: &Manifest, before: &Manifest) -> Vec<String> {
    let segments = next.segments.iter().skip(before.segments.len()).map(|s| s.file.clone());
    segments.chain(next.carry.iter().map(|carry| carry.file.clone())).collect()
}

impl Sealer {
    fn spans(&mut self, rows: &FoldedRows, number: u64) -> Result<Option<Segment>, StoreError> {
        if rows.span_count() == 0 {
            return Ok(None);
        }
        let columns = self.columns.get_or_insert_with(|| rows.empty_columns());
        rows.fill_segment(columns);
        segment::write_spans(&*self.disk, &self.folder, number, columns, self.threads).map(Some)
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
        segment::write(&*self.disk, &self.folder, table, number, &batch).map(Some)
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
