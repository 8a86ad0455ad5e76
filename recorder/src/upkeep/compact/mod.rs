//! Compaction: many small segments of a finished run become few large ones.
//!
//! The order is that of a seal. An intent names the files to come and the files to go; the new
//! ones are complete under their final names; the manifest is replaced atomically; only then do
//! the old ones go, and the intent last. A crash leaves the manifest of before or of after, each
//! with everything it names, and [`settle`] removes what it does not name, and nothing that the
//! intent does not list. Rows keep their order, so the clustering by trace stays.

mod columns;
mod error;
mod group;
mod intent;
mod merge;

use std::path::{Path, PathBuf};

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::tables::TableName;

pub use error::CompactError;
pub(crate) use intent::settle;

use crate::store::{RunLock, Store, StoreError, sync_dir, write_manifest};
use group::{Group, groups};
use intent::Intent;

/// Segments of one table that became one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The table.
    pub table: TableName,
    /// The file that holds their rows now.
    pub file: String,
    /// How many there were.
    pub files_before: usize,
    /// Rows in them, and in the new one.
    pub rows: u64,
    /// Bytes they had.
    pub bytes_before: u64,
    /// Bytes the new one has.
    pub bytes_after: u64,
}

/// How far a compaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactProgress {
    /// Rows copied.
    pub rows_done: u64,
    /// Rows there are to copy.
    pub rows_total: u64,
}

/// Merges the segments of a finished run, table by table, into files of at most
/// [`SEGMENT_BYTES_MAX`] (by the size they have before). Returns what was merged; nothing when
/// every table has one file already.
///
/// # Errors
/// The run is being written to or was not finished, a segment is damaged, or the disk failed. The
/// run is then as it was.
pub fn compact(
    store: &Store,
    run_id: &RunId,
    progress: &mut dyn FnMut(CompactProgress),
) -> Result<Vec<Merged>, CompactError> {
    Compaction::prepare(store, run_id, SEGMENT_BYTES_MAX)?.map_or(Ok(Vec::new()), |compaction| {
        compaction.announce()?;
        let merged = compaction.write(progress)?;
        compaction.commit(&merged)?;
        compaction.clean()?;
        Ok(merged.into_iter().map(|(merged, _)| merged).collect())
    })
}

/// A compaction in its steps; tests stop between any two.
struct Compaction {
    folder: PathBuf,
    manifest: Manifest,
    groups: Vec<Group>,
    _lock: RunLock,
}

impl Compaction {
    fn prepare(
        store: &Store,
        run_id: &RunId,
        bytes_max: u64,
    ) -> Result<Option<Self>, CompactError> {
        settle(store, run_id)?;
        let folder = store.run_dir(run_id);
        // Before the lock, whose file would be made in a folder that is not there.
        store.manifest(run_id)?;
        let lock = RunLock::take(&folder, run_id)?;
        let manifest = store.manifest(run_id)?;
        if manifest.status == RunStatus::Recording {
            return Err(CompactError::Unfinished(run_id.clone()));
        }
        let groups = groups(&folder, &manifest, bytes_max)?;
        Ok((!groups.is_empty()).then_some(Self { folder, manifest, groups, _lock: lock }))
    }

    fn announce(&self) -> Result<(), CompactError> {
        let intent = Intent {
            new: self.groups.iter().map(|group| group.file.clone()).collect(),
            old: self.groups.iter().flat_map(Group::old_files).map(str::to_owned).collect(),
        };
        Ok(intent.write(&self.folder)?)
    }

    fn write(
        &self,
        progress: &mut dyn FnMut(CompactProgress),
    ) -> Result<Vec<(Merged, Segment)>, CompactError> {
        let rows_total = self.groups.iter().map(Group::rows).sum();
        let mut rows_done = 0;
        let mut on_rows = |rows: u64| {
            rows_done += rows;
            progress(CompactProgress { rows_done, rows_total });
        };
        let mut merged = Vec::new();
        for group in &self.groups {
            let segment = merge::merge(&self.folder, &self.manifest.run_id, group, &mut on_rows)?;
            merged.push((group.merged(&segment), segment));
        }
        sync_dir(&self.folder).map_err(StoreError::io("sync run", &self.folder))?;
        Ok(merged)
    }

    /// Replaces the manifest: from here on the new files count.
    fn commit(&self, merged: &[(Merged, Segment)]) -> Result<(), CompactError> {
        let mut next = self.manifest.clone();
        for (group, (_, segment)) in self.groups.iter().zip(merged) {
            let is_old = |old: &Segment| group.old_files().any(|file| file == old.file);
            let Some(place) = next.segments.iter().position(is_old) else { continue };
            next.segments.insert(place, segment.clone());
            next.segments.retain(|segment| !is_old(segment));
        }
        for table in TableName::SEALED {
            assert_eq!(next.rows(table), self.manifest.rows(table), "a compaction keeps all rows");
        }
        next.revision += 1;
        Ok(write_manifest(&self.folder, &next)?)
    }

    fn clean(&self) -> Result<(), CompactError> {
        Ok(intent::finish(&self.folder)?)
    }
}

/// The number of the next file of a run, so that names never repeat.
fn next_number(folder: &Path, manifest: &Manifest) -> u64 {
    let named = manifest.segments.iter().map(|segment| segment.file.clone());
    let there = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let there = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let number = |file: String| file.rsplit_once('-')?.1.split('.').next()?.parse::<u64>().ok();
    named.chain(there).filter_map(number).max().map_or(1, |n| n + 1)
}

/// Large enough that a reader spends its time on rows and not on footers, small enough to move.
const SEGMENT_BYTES_MAX: u64 = 512 << 20;

#[cfg(test)]
mod tests;
