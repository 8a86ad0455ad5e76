//! A store: a folder of runs, each a folder and a fault domain of its own.
//!
//! ```text
//! <store>/runs/<run_id>/manifest.json        facts, segments with digests, exact accounting
//! <store>/runs/<run_id>/writer.lock          locked while a process records the run
//! <store>/runs/<run_id>/journal/*.journal    events not sealed yet
//! <store>/runs/<run_id>/carry-<n>.bin        spans that were open at the last seal
//! <store>/runs/<run_id>/spans-<n>.parquet    and tokens-, events-, documents-, payloads-, measures-
//! <store>/runs/<run_id>/quarantine/          what recovery moved aside; nothing is deleted
//! ```

mod files;
mod lock;
mod manifest_file;
mod plain;
mod select;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retake_schemas::RunId;
use retake_schemas::manifest::Manifest;
use retake_schemas::version::UnreadableVersion;

#[cfg(feature = "remote")]
pub(crate) use files::create_dir;
pub(crate) use files::{NO_LINKS, digest_file, digest_of, sync_dir, write_file_synced};
pub(crate) use lock::RunLock;
#[cfg(feature = "remote")]
pub(crate) use manifest_file::MANIFEST_FILE;
#[cfg(any(test, feature = "remote", feature = "fuzzing"))]
pub(crate) use manifest_file::parse_manifest;
pub use manifest_file::{ManifestError, read_manifest};
pub(crate) use manifest_file::{read_manifest_on, write_manifest, write_manifest_on};
pub use select::{SelectError, Selector, select_among, select_set_among};

use crate::disk::{self, Disk};

/// Begins the name of a folder in which a run is being made. Not the start of any run id.
pub(crate) const NEW_PREFIX: &str = ".new-";

/// Why a store or a run in it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A redaction rule cannot be used.
    #[error(transparent)]
    Redact(#[from] crate::redact::RedactError),
    /// There is no store there.
    #[error("open store: no store at {}; record something first, or name one with --store", .0.display())]
    NoStore(PathBuf),
    /// There is no such run.
    #[error("find run: no run {0} in this store; `retake runs` lists them")]
    NoRun(RunId),
    /// The disk or its permissions.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `write manifest`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The manifest is damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another process records this run.
    #[error("open run {0} for writing: another process is recording it")]
    Busy(RunId),
    /// The run was written by a newer retake.
    #[error(transparent)]
    Version(#[from] UnreadableVersion),
}

impl StoreError {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// A run as the store lists it.
#[derive(Debug)]
pub struct RunEntry {
    /// The run.
    pub run_id: RunId,
    /// Its manifest, or why it cannot be read. One bad run never hides the others.
    pub manifest: Result<Manifest, StoreError>,
}

/// A folder of runs.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Store {
    /// Opens a store, making its folders if they are not there.
    ///
    /// # Errors
    /// The folders cannot be made.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        Self::create_on(disk::real(), root)
    }

    /// The same on any disk.
    pub(crate) fn create_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned(), disk };
        disk::create_dir_synced(&*store.disk, &store.runs_dir())
            .map_err(StoreError::io("create store", root))?;
        Ok(store)
    }

    /// A store that was made before, or is to be found so.
    #[cfg(test)]
    pub(crate) fn on(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { root: root.to_owned(), disk }
    }

    /// What the store is on.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Opens a store that is there.
    ///
    /// # Errors
    /// [`StoreError::NoStore`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned(), disk: disk::real() };
        if store.runs_dir().is_dir() {
            Ok(store)
        } else {
            Err(StoreError::NoStore(root.to_owned()))
        }
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of all runs.
    #[must_use]
    pub fn runs_dir(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The folder of what analyses keep of finished runs. Nothing in it is needed, and it may not
    /// be there.
    #[must_use]
    pub fn history_dir(&self) -> PathBuf {
        self.root.join("history")
    }

    /// The folder of one run. Run ids cannot name anything outside it.
    #[must_use]
    pub fn run_dir(&self, run_id: &RunId) -> PathBuf {
        self.runs_dir().join(run_id.as_str())
    }

    /// The ids of all runs, oldest first. Folders whose name is no run id are not ours.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn run_ids(&self) -> Result<Vec<RunId>, StoreError> {
        let folder = self.runs_dir();
        let list = || -> io::Result<Vec<RunId>> {
            let mut ids = Vec::new();
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let is_folder = entry.file_type()?.is_dir();
                if let Some(Ok(run_id)) = entry.file_name().to_str().map(str::parse)
                    && is_folder
                {
                    ids.push(run_id);
                }
            }
            Ok(ids)
        };
        let mut ids = list().map_err(StoreError::io("list runs in", &folder))?;
        ids.sort();
        Ok(ids)
    }

    /// All runs with their manifests, oldest first.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn runs(&self) -> Result<Vec<RunEntry>, StoreError> {
        let mut entries: Vec<RunEntry> = self
            .run_ids()?
            .into_iter()
            .map(|run_id| RunEntry { manifest: self.manifest(&run_id), run_id })
            .collect();
        entries.sort_by_cached_key(|entry| {
            let started = entry.manifest.as_ref().map_or(i64::MIN, |m| m.facts.started_unix_ns);
            (started, entry.run_id.clone())
        });
        Ok(entries)
    }

    /// The manifest of a run.
    ///
    /// # Errors
    /// There is no such run, or its manifest is damaged.
    pub fn manifest(&self, run_id: &RunId) -> Result<Manifest, StoreError> {
        let folder = self.run_dir(run_id);
        if self.disk.kind(&folder) != Some(disk::Kind::Folder) {
            return Err(StoreError::NoRun(run_id.clone()));
        }
        Ok(read_manifest_on(&*self.disk, &folder)?)
    }

    /// Whether a process is recording the run now.
    #[must_use]
    pub fn is_live(&self, run_id: &RunId) -> bool {
        RunLock::is_held(&self.run_dir(run_id))
    }

    /// Changes the manifest of a run that nobody is recording.
    ///
    /// # Errors
    /// The run is being recorded, or its manifest cannot be read or written.
    pub fn update_manifest(
        &self,
        run_id: &RunId,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), StoreError> {
        let folder = self.run_dir(run_id);
        // Before the lock, which would make its file in any folder: is there such a run at all?
        self.manifest(run_id)?;
        let _lock = RunLock::take(&folder, run_id)?;
        let mut manifest = self.manifest(run_id)?;
        change(&mut manifest);
        manifest.revision += 1;
        write_manifest(&folder, &manifest)
    }

    /// Removes a run that nobody is recording, so that a crash leaves no half of it.
    ///
    /// # Errors
    /// There is no such run, it is being recorded, or its folder cannot be removed.
    pub fn remove(&self, run_id: &RunId) -> Result<(), StoreError> {
        crate::upkeep::remove_run(self, run_id)
    }
}
