//! Checking a store without changing it.

use std::collections::HashSet;

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;

use crate::reader::{Writer, check_segment, load_tail};
use crate::recover::unnamed_files;
use crate::seal::read_carry;
use crate::store::{Store, StoreError};

/// What a check of one run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The run.
    pub run_id: RunId,
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
            files_ok: 0,
            bytes_ok: 0,
            journal_events: 0,
            damage: Vec::new(),
            notes: Vec::new(),
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
        for segment in &manifest.segments {
            match check_segment(&folder.join(&segment.file), segment) {
                Ok(()) => {
                    report.files_ok += 1;
                    report.bytes_ok += segment.bytes;
                }
                Err(reason) => report.damage.push(format!("{}: {reason}", segment.file)),
            }
        }
        if let Some(carry) = &manifest.carry
            && let Err(reason) = read_carry(&folder, carry)
        {
            report.damage.push(reason);
        }
        if manifest.status == RunStatus::Recording {
            let loaded = load_tail(&folder, &manifest, self.writer_of(run_id))?;
            report.journal_events = loaded.events;
            report.damage.extend(loaded.damage);
            let who = if self.is_live(run_id) {
                "is being recorded now"
            } else {
                "was never finished: its process died; the next command repairs it"
            };
            report.notes.push(who.to_owned());
        }
        let named: HashSet<&str> = manifest
            .segments
            .iter()
            .map(|segment| segment.file.as_str())
            .chain(manifest.carry.as_ref().map(|carry| carry.file.as_str()))
            .collect();
        if !self.is_live(run_id) {
            for path in unnamed_files(&folder, &named).unwrap_or_default() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                report.notes.push(format!("{name}: no manifest names it; not read"));
            }
        }
        let accounting = &manifest.accounting;
        if accounting.offered != accounting.accepted + accounting.dropped_total() {
            report.damage.push("accounting: offered is not accepted + dropped".to_owned());
        }
        if accounting.dropped_total() > 0 {
            let dropped = accounting.dropped_total();
            report.notes.push(format!("{dropped} events were dropped while recording"));
        }
        Ok(report)
    }
}
