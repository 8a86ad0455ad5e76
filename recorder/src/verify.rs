//! Checking a store without changing it.

use std::collections::HashSet;
use std::path::Path;

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::Segment;
use retake_schemas::tables::TableName;

use crate::reader::{Writer, load_tail};
use crate::recover::unnamed_files;
use crate::seal::read_carry;
use crate::sealed_file::check_segment;
use crate::store::{Store, StoreError};

/// What a check of one run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The run.
    pub run_id: RunId,
    /// Every sealed file that the manifest names, in its order.
    pub files: Vec<CheckedSegment>,
    /// Sealed files whose digest is right.
    pub files_ok: u64,
    /// Bytes in them.
    pub bytes_ok: u64,
    /// Events in the journal that can be read.
    pub journal_events: u64,
    /// What is damaged: file, and what is wrong with it.
    pub damage: Vec<String>,
    /// What is odd, but not damage.
    pub notes: Vec<String>,
    /// Whether its process died, so that recovery has something to do.
    pub needs_recovery: bool,
}

/// One sealed file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedSegment {
    /// The table it is a part of.
    pub table: TableName,
    /// Name inside the run's folder.
    pub file: String,
    /// Bytes it should have.
    pub bytes: u64,
    /// Rows it should have.
    pub rows: u64,
    /// How it is.
    pub verdict: FileVerdict,
}

/// How a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileVerdict {
    /// As it was sealed.
    Sound,
    /// Not there.
    Missing,
    /// There, and not what was sealed: says how.
    Damaged(String),
}

impl FileVerdict {
    /// For machines: `sound`, `missing` or `damaged`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Missing => "missing",
            Self::Damaged(_) => "damaged",
        }
    }
}

impl VerifyReport {
    /// Whether everything is as it was recorded.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Store {
    fn writer_of(&self, run_id: &RunId) -> Writer {
        if self.is_live(run_id) { Writer::Alive } else { Writer::Dead }
    }

    /// Checks one run: its manifest, the digest of every sealed file, and the journal.
    ///
    /// # Errors
    /// There is no such run. Damage is not an error, it is the answer.
    pub fn verify(&self, run_id: &RunId) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport {
            run_id: run_id.clone(),
            files: Vec::new(),
            files_ok: 0,
            bytes_ok: 0,
            journal_events: 0,
            damage: Vec::new(),
            notes: Vec::new(),
            needs_recovery: false,
        };
        let manifest = match self.manifest(run_id) {
            Ok(manifest) => manifest,
            Err(error @ StoreError::NoRun(_)) => return Err(error),
            Err(error) => {
                report.damage.push(error.to_string());
                return Ok(report);
            }
        };
        let folder = self.run_dir(run_id);
        check_files(&mut report, &folder, &manifest.segments);
        if let Some(carry) = &manifest.carry
            && let Err(reason) = read_carry(&**self.disk(), &folder, carry)
        {
            report.damage.push(reason);
        }
        if manifest.status == RunStatus::Recording {
            let loaded = load_tail(&**self.disk(), &folder, &manifest, self.writer_of(run_id))?;
            report.journal_events = loaded.events;
            report.damage.extend(loaded.damage);
            let who = if self.is_live(run_id) {
                "is being recorded now"
            } else {
                report.needs_recovery = true;
                "was never finished: its process died; `retake recover` repairs it"
            };
            report.notes.push(who.to_owned());
        }
        let named: HashSet<&str> = manifest.files().collect();
        if !self.is_live(run_id) {
            for path in unnamed_files(&**self.disk(), &folder, &named).unwrap_or_default() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                report.notes.push(format!("{name}: no manifest names it; not read"));
            }
        }
        let accounting = &manifest.accounting;
        if accounting.offered != accounting.accepted.saturating_add(accounting.dropped_total()) {
            report.damage.push("accounting: offered is not accepted + dropped".to_owned());
        }
        if accounting.dropped_total() > 0 {
            let dropped = accounting.dropped_total();
            report.notes.push(format!("{dropped} events were dropped while recording"));
        }
        Ok(report)
    }
}

fn check_files(report: &mut VerifyReport, folder: &Path, segments: &[Segment]) {
    for segment in segments {
        let checked = check_file(folder, segment);
        let reason = match &checked.verdict {
            FileVerdict::Sound => {
                report.files_ok += 1;
                report.bytes_ok = report.bytes_ok.saturating_add(segment.bytes);
                None
            }
            FileVerdict::Missing => Some("it is missing"),
            FileVerdict::Damaged(reason) => Some(reason.as_str()),
        };
        report.damage.extend(reason.map(|reason| format!("{}: {reason}", segment.file)));
        report.files.push(checked);
    }
}

fn check_file(folder: &Path, segment: &Segment) -> CheckedSegment {
    let path = folder.join(&segment.file);
    let verdict = match check_segment(&path, segment) {
        Ok(()) => FileVerdict::Sound,
        Err(_) if !path.exists() => FileVerdict::Missing,
        Err(reason) => FileVerdict::Damaged(reason),
    };
    let Segment { table, bytes, rows, .. } = *segment;
    CheckedSegment { table, file: segment.file.clone(), bytes, rows, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::testing::{finished_run, store};

    /// Scenario: of the files of a run one is cut short and one removed.
    /// Guarantees: J5 - each file has a verdict of its own, and the others are sound.
    #[test]
    fn every_file_has_its_own_verdict() {
        let (_folder, store) = store();
        let run_id = finished_run(&store, "a", 2);
        let folder = store.run_dir(&run_id);
        std::fs::write(folder.join("events-000001.parquet"), "PAR1").unwrap();
        std::fs::remove_file(folder.join("spans-000002.parquet")).unwrap();
        let report = store.verify(&run_id).unwrap();
        assert!(!report.is_sound());
        let verdict = |name: &str| {
            let file = report.files.iter().find(|checked| checked.file == name).unwrap();
            file.verdict.as_str()
        };
        assert_eq!(verdict("events-000001.parquet"), "damaged");
        assert_eq!(verdict("spans-000002.parquet"), "missing");
        assert_eq!(report.files.iter().filter(|f| f.verdict == FileVerdict::Sound).count(), 4);
        assert_eq!((report.files_ok, report.damage.len()), (4, 2));
    }
}
