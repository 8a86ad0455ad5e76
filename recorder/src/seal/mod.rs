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

use std::path::{Path, PathBuf};

use retake_schemas::EventSeq;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::Manifest;
use retake_schemas::tables::TableName;

pub(crate) use carry::read_carry;

use crate::fold::{Fold, OpenSpans};
use crate::store::{StoreError, sync_dir, write_manifest};

/// Writes the segments of one run and keeps its manifest.
#[derive(Debug)]
pub(crate) struct Sealer {
    folder: PathBuf,
    manifest: Manifest,
    /// Number of the next seal, so that file names never repeat.
    next: u64,
}

impl Sealer {
    pub(crate) fn new(folder: &Path, manifest: Manifest) -> Self {
        let used = manifest
            .segments
            .iter()
            .map(|s| s.file.as_str())
            .chain(manifest.carry.as_ref().map(|c| c.file.as_str()))
            .filter_map(|file| file.rsplit_once('-')?.1.split('.').next()?.parse::<u64>().ok())
            .max();
        Self { folder: folder.to_owned(), manifest, next: used.map_or(1, |n| n + 1) }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Seals what the fold holds. With [`OpenSpans::Finish`] open spans become unfinished rows.
    ///
    /// # Errors
    /// The disk failed. The manifest and the journal are as before, but the fold's rows are spent:
    /// load it again with [`crate::reader::load_tail`].
    pub(crate) fn seal(
        &mut self,
        fold: &mut Fold,
        open_spans: OpenSpans,
        status: RunStatus,
    ) -> Result<EventSeq, StoreError> {
        let number = self.next;
        self.next += 1;
        let mut next = self.manifest.clone();
        let rows = fold.take(open_spans);
        for table in TableName::SEALED {
            let batch = rows.batch(table);
            if batch.num_rows() > 0 {
                next.segments.push(segment::write(&self.folder, table, number, &batch)?);
            }
        }
        let previous_carry = next.carry.take();
        let open: Vec<_> = fold.open_spans().collect();
        if !open.is_empty() {
            next.carry = Some(carry::write(&self.folder, number, &open)?);
        }
        sync_dir(&self.folder).map_err(StoreError::io("sync run", &self.folder))?;
        account(&mut next, fold, status);
        write_manifest(&self.folder, &next)?;
        self.manifest = next;
        if let Some(previous) = previous_carry {
            // Left behind it is only clutter: the manifest no longer names it.
            let _ = std::fs::remove_file(self.folder.join(previous.file));
        }
        Ok(fold.next_seq())
    }
}

fn account(manifest: &mut Manifest, fold: &mut Fold, status: RunStatus) {
    manifest.status = status;
    manifest.revision += 1;
    manifest.sealed_below = fold.next_seq().0;
    if let Some(last) = fold.last_unix_ns() {
        manifest.last_unix_ns = manifest.last_unix_ns.max(last);
    }
    manifest.traces = (status != RunStatus::Recording).then(|| fold.traces());
    let (opened, closed) = fold.span_counts();
    let accounting = &mut manifest.accounting;
    accounting.spans_opened = opened;
    accounting.spans_closed = closed;
    accounting.accepted = fold.next_seq().0;
    for (cause, dropped) in fold.take_stated_drops() {
        *accounting.dropped.entry(cause.as_str().to_owned()).or_default() += dropped;
    }
    accounting.offered = accounting.accepted + accounting.dropped_total();
}
