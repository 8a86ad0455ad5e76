//! Repairing what a dead process left behind: its journal becomes segments, its open spans become
//! rows marked `unfinished`, and what cannot be used is moved aside, never deleted.
//!
//! Recovery needs no person and ends always; doing it twice changes nothing more. A crash during
//! recovery leaves what a crash during any seal leaves, which the next recovery repairs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::Manifest;
use retake_schemas::tables::TableName;

use crate::disk::{Disk, Kind};
use crate::fold::OpenSpans;
use crate::journal::journal_files;
use crate::reader::{JOURNAL_DIR, Writer, load_tail};
use crate::seal::{SealInput, Sealer};
use crate::store::{ManifestError, NEW_PREFIX, RunLock, Store, StoreError};

/// What recovery did to one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The run.
    pub run_id: RunId,
    /// Events that were only in the journal and are sealed now.
    pub events: u64,
    /// Rows of spans that were open when the process died.
    pub unfinished_spans: u64,
    /// Records of the journal that are missing or could not be read: exact wherever a later part
    /// of the same lane says how many there were, and else as many as could be told from noise.
    pub records_lost: u64,
    /// What could not be read, or only after mending.
    pub damage: Vec<String>,
    /// Files moved into the run's `quarantine` folder.
    pub quarantined: Vec<String>,
}

impl std::fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { run_id, events, unfinished_spans, .. } = self;
        write!(
            f,
            "recovered run {run_id}: its process had died; sealed {events} events from the \
             journal, {unfinished_spans} spans were unfinished"
        )?;
        if self.records_lost > 0 {
            write!(f, "; records lost: {}", self.records_lost)?;
        }
        for damage in &self.damage {
            write!(f, "; {damage}")?;
        }
        if !self.quarantined.is_empty() {
            write!(f, "; moved to quarantine: {}", self.quarantined.join(", "))?;
        }
        Ok(())
    }
}

/// What a store's recovery did and could not do.
#[derive(Debug, Default)]
pub struct RecoveryOutcome {
    /// Runs that were repaired.
    pub repaired: Vec<RecoveryReport>,
    /// Runs that could not be, and why. The others were not held up by them.
    pub failed: Vec<(RunId, StoreError)>,
}

impl Store {
    /// Repairs every run whose process died. Runs that are being recorded are left alone.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub fn recover(&self) -> Result<RecoveryOutcome, StoreError> {
        let mut outcome = RecoveryOutcome::default();
        remove_unborn(&self.runs_dir());
        for run_id in self.run_ids()? {
            match recover_run(self, &run_id) {
                Ok(Some(report)) => outcome.repaired.push(report),
                Ok(None) => {}
                Err(error) => outcome.failed.push((run_id, error)),
            }
        }
        Ok(outcome)
    }
}

/// Removes what processes left that died while making a run: nothing was recorded there yet.
fn remove_unborn(runs: &Path) {
    let Ok(entries) = std::fs::read_dir(runs) else { return };
    for entry in entries.flatten() {
        let is_new = entry.file_name().to_str().is_some_and(|name| name.starts_with(NEW_PREFIX));
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        // A younger one may belong to a process that is about to take its lock.
        if is_new && age.is_some_and(|age| age > UNBORN_AGE_MIN) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Repairs one run; `None` when there was nothing to do.
pub(crate) fn recover_run(
    store: &Store,
    run_id: &RunId,
) -> Result<Option<RecoveryReport>, StoreError> {
    let run = Dead { disk: store.disk(), folder: &store.run_dir(run_id) };
    let manifest = match store.manifest(run_id) {
        Ok(manifest) => manifest,
        Err(StoreError::Manifest(ManifestError::Io { source, .. }))
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return run.remove_stillborn(run_id);
        }
        Err(error) => return Err(error),
    };
    let has_journal = run.disk.kind(&run.journal()).is_some();
    if manifest.status != RunStatus::Recording && !has_journal {
        return Ok(None);
    }
    let Some(_lock) = run.lock()? else { return Ok(None) };
    // Whoever had the lock may have finished the run since we looked.
    let manifest = store.manifest(run_id)?;
    match manifest.status {
        RunStatus::Recording => return run.seal_tail(run_id, manifest).map(Some),
        // A recovery was cut short at its end. What it found damaged it had no time to move.
        RunStatus::Recovered => drop(run.quarantine_journal()?),
        _ => {}
    }
    run.remove_journal()?;
    Ok(None)
}

/// A run whose process died.
struct Dead<'a> {
    disk: &'a Arc<dyn Disk>,
    folder: &'a Path,
}

impl Dead<'_> {
    fn journal(&self) -> PathBuf {
        self.folder.join(JOURNAL_DIR)
    }

    fn lock(&self) -> Result<Option<RunLock>, StoreError> {
        self.disk.lock(self.folder).map_err(StoreError::io("lock run", self.folder))
    }

    fn seal_tail(&self, run_id: &RunId, manifest: Manifest) -> Result<RecoveryReport, StoreError> {
        let mut loaded = load_tail(&**self.disk, self.folder, &manifest, Writer::Dead)?;
        if let Some(newer) = loaded.newer {
            // A newer retake loses nothing of it, so nothing is changed.
            return Err(newer.into());
        }
        let quarantined = self.quarantine_unnamed(&manifest)?;
        let unfinished_before = loaded.fold.open_count() as u64;
        let mut sealer = Sealer::new(self.disk, self.folder, manifest);
        let fold = &mut loaded.fold;
        let input = SealInput {
            rows: fold.take(OpenSpans::Finish),
            carried: Vec::new(),
            positions: loaded.positions,
            next_seq: fold.next_seq(),
            last_unix_ns: fold.last_unix_ns(),
            traces: fold.traces(),
            spans: fold.span_counts(),
            drops: fold.take_stated_drops(),
            records_lost: loaded.records_lost,
            status: RunStatus::Recovered,
        };
        sealer.seal(&input)?;
        let mut report = RecoveryReport {
            run_id: run_id.clone(),
            events: loaded.events,
            unfinished_spans: unfinished_before,
            records_lost: loaded.records_lost,
            damage: loaded.damage,
            quarantined,
        };
        if !report.damage.is_empty() {
            report.quarantined.extend(self.quarantine_journal()?);
        }
        self.remove_journal()?;
        Ok(report)
    }

    /// Files that no manifest names: a seal was cut short. Their events are still in the journal.
    fn quarantine_unnamed(&self, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
        let named: HashSet<&str> = manifest.files().collect();
        let unnamed = unnamed_files(&**self.disk, self.folder, &named)
            .map_err(StoreError::io("list run", self.folder))?;
        self.quarantine(&unnamed)
    }

    /// Moves the journal aside.
    fn quarantine_journal(&self) -> Result<Vec<String>, StoreError> {
        let journal = self.journal();
        let files = journal_files(&**self.disk, &journal)
            .map_err(StoreError::io("list journal", &journal))?;
        self.quarantine(&files)
    }

    /// Moves files aside, so that a power cut at any moment leaves each in its old place or in its
    /// new one.
    fn quarantine(&self, files: &[PathBuf]) -> Result<Vec<String>, StoreError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let aside = self.folder.join(QUARANTINE_DIR);
        let sync =
            |folder: &Path| self.disk.sync_dir(folder).map_err(StoreError::io("sync", folder));
        self.disk.create_dir(&aside).map_err(StoreError::io("create", &aside))?;
        // Before anything is in it that would be lost with its name.
        sync(self.folder)?;
        let moved = files.iter().map(|path| self.move_to(&aside, path)).collect();
        sync(&aside)?;
        // A move is safe when both folders are: the one it came from may be removed next.
        files.first().and_then(|path| path.parent()).map_or(Ok(()), sync)?;
        moved
    }

    fn move_to(&self, aside: &Path, path: &Path) -> Result<String, StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // An earlier recovery may have moved a file of this name; both are kept.
        let target = (0..)
            .map(|n| aside.join(if n == 0 { name.clone() } else { format!("{name}.{n}") }))
            .find(|target| self.disk.kind(target).is_none())
            .unwrap_or_else(|| aside.join(&name));
        self.disk.rename(path, &target).map_err(StoreError::io("move to quarantine", path))?;
        Ok(name)
    }

    /// A folder without a manifest belongs to a process that died while making the run: nothing
    /// was recorded yet. One that holds anything of value is left for a person.
    fn remove_stillborn(&self, run_id: &RunId) -> Result<Option<RecoveryReport>, StoreError> {
        let Some(_lock) = self.lock()? else { return Ok(None) };
        let unnamed = unnamed_files(&**self.disk, self.folder, &HashSet::new()).unwrap_or_default();
        let journals = journal_files(&**self.disk, &self.journal()).unwrap_or_default();
        if unnamed.iter().all(|path| path.extension().is_some_and(|e| e == "tmp"))
            && journals.is_empty()
        {
            let removed = self.disk.remove_dir(self.folder);
            removed.map_err(StoreError::io("remove empty run", self.folder))?;
            return Ok(None);
        }
        Err(StoreError::Manifest(ManifestError::Damaged {
            path: self.folder.join("manifest.json"),
            reason: format!("it is missing although run {run_id} has data"),
        }))
    }

    fn remove_journal(&self) -> Result<(), StoreError> {
        let journal = self.journal();
        match self.disk.remove_dir(&journal) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove journal", &journal)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Segment, carry and temporary files in a run's folder that `named` does not hold, sorted.
pub(crate) fn unnamed_files(
    disk: &dyn Disk,
    folder: &Path,
    named: &HashSet<&str>,
) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in disk.list(folder)? {
        let name = entry.name.to_string_lossy();
        let is_table_file = TableName::SEALED.iter().any(|t| name.starts_with(t.as_str()));
        let is_ours = is_table_file || name.starts_with("carry-") || name.ends_with(".tmp");
        if is_ours && entry.kind == Kind::File && !named.contains(&*name) {
            files.push(folder.join(&entry.name));
        }
    }
    files.sort();
    Ok(files)
}

/// Folder of what was moved aside, inside the run's folder.
const QUARANTINE_DIR: &str = "quarantine";
/// Making a run takes milliseconds.
const UNBORN_AGE_MIN: std::time::Duration = std::time::Duration::from_secs(3600);

#[cfg(test)]
mod tests;
