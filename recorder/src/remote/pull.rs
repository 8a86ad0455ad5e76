//! Fetching a copy of a run into the local store.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt as _;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::FileEntry;
use retake_schemas::{Digest, RunId};

use super::transfer::{Meter, TRANSFERS_MAX, difference, files_of};
use super::{Remote, RemoteError, TransferProgress};
use crate::store::{
    MANIFEST_FILE, RunLock, Store, StoreError, create_dir, digest_file, sync_dir, write_file_synced,
};
use crate::upkeep::PULL_PREFIX;

/// What a pull did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Files fetched.
    pub files_fetched: u64,
    /// Bytes in them.
    pub bytes_fetched: u64,
    /// Files that an earlier pull had fetched already.
    pub files_there: u64,
    /// Whether nothing was to be done: the store has the run.
    pub was_complete: bool,
}

impl Remote {
    /// Fetches a run. It appears in the store when every file is there and its digest is right. A
    /// pull that was cut short is continued by the next.
    ///
    /// # Errors
    /// There is no complete copy, it is damaged, the store has another revision of the run, the
    /// disk failed, or the place cannot be reached; then the store shows nothing of it.
    pub async fn pull(
        &self,
        store: &Store,
        run_id: &RunId,
        progress: &(dyn Fn(TransferProgress) + Sync),
    ) -> Result<Pulled, RemoteError> {
        let no_run = || RemoteError::NoRun { run_id: run_id.clone(), url: self.url.clone() };
        let (manifest_bytes, manifest) = self.manifest(run_id).await?.ok_or_else(no_run)?;
        if manifest.status == RunStatus::Recording {
            return Err(no_run());
        }
        let target = store.run_dir(run_id);
        if target.exists() {
            return already_here(run_id, &target, &manifest_bytes);
        }
        let files = files_of(&manifest)?;
        let folder = store.runs_dir().join(format!("{PULL_PREFIX}{run_id}"));
        create_dir(&folder).map_err(StoreError::io("create", &folder))?;
        let _lock = RunLock::take(&folder, run_id)?;
        remove_others(&folder, &files).map_err(StoreError::io("clear", &folder))?;
        let meter = Meter::new(&files, progress);
        let fetched: Vec<Option<u64>> = futures::stream::iter(&files)
            .map(|entry| self.fetch_unless_there(run_id, &folder, entry, &meter))
            .buffer_unordered(TRANSFERS_MAX)
            .try_collect()
            .await?;
        publish(store, &folder, &target, &manifest_bytes)?;
        let bytes: Vec<u64> = fetched.iter().flatten().copied().collect();
        Ok(Pulled {
            files_fetched: bytes.len() as u64,
            bytes_fetched: bytes.iter().sum(),
            files_there: (fetched.len() - bytes.len()) as u64,
            was_complete: false,
        })
    }

    /// Fetches a file; `None` when an earlier pull had.
    async fn fetch_unless_there(
        &self,
        run_id: &RunId,
        folder: &Path,
        entry: &FileEntry,
        meter: &Meter<'_>,
    ) -> Result<Option<u64>, RemoteError> {
        let path = folder.join(&entry.file);
        if let Ok((digest, bytes)) = digest_file(&path)
            && difference(entry, digest, bytes).is_none()
        {
            meter.add(entry.bytes);
            return Ok(None);
        }
        self.fetch(run_id, &path, entry, meter).await?;
        Ok(Some(entry.bytes))
    }

    /// Fetches a file; it has its name only if its digest is right.
    async fn fetch(
        &self,
        run_id: &RunId,
        path: &Path,
        entry: &FileEntry,
        meter: &Meter<'_>,
    ) -> Result<(), RemoteError> {
        let from = self.path(run_id, &entry.file);
        let fail = |error| RemoteError::objects("download", &from)(error);
        let object = match self.objects.get(&from).await {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(self.damaged(run_id, &entry.file, "it is missing".to_owned()));
            }
            other => other.map_err(fail)?,
        };
        let mut stream = object.into_stream();
        let mut part_file = PartFile::new(path).map_err(StoreError::io("write", path))?;
        while let Some(part) = stream.next().await.transpose().map_err(fail)? {
            part_file.write(&part).map_err(StoreError::io("write", path))?;
            // Whoever keeps sending must not fill the disk.
            if part_file.bytes > entry.bytes {
                break;
            }
            meter.add(part.len() as u64);
        }
        let digest = Digest::from_bytes(*part_file.hasher.finalize().as_bytes());
        if let Some(reason) = difference(entry, digest, part_file.bytes) {
            return Err(self.damaged(run_id, &entry.file, reason));
        }
        Ok(part_file.finish(path).map_err(StoreError::io("write", path))?)
    }
}

/// A file that is being fetched, under a temporary name.
struct PartFile {
    file: File,
    temporary: PathBuf,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl PartFile {
    fn new(path: &Path) -> io::Result<Self> {
        let temporary = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        Ok(Self { file, temporary, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.hasher.update(part);
        self.bytes += part.len() as u64;
        self.file.write_all(part)
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(self.temporary, path)
    }
}

/// The store has a run of this id: the same one, or one that must not be lost.
fn already_here(
    run_id: &RunId,
    folder: &Path,
    manifest_bytes: &[u8],
) -> Result<Pulled, RemoteError> {
    let path = folder.join(MANIFEST_FILE);
    let here = std::fs::read(&path).map_err(StoreError::io("read manifest", &path))?;
    if here == manifest_bytes {
        return Ok(Pulled { was_complete: true, ..Pulled::default() });
    }
    Err(RemoteError::Conflict {
        run_id: run_id.clone(),
        file: MANIFEST_FILE.to_owned(),
        reason: format!(
            "the store has another revision of this run; `retake push` sends it if it is newer, \
             `retake runs rm {run_id}` makes room for the copy"
        ),
    })
}

/// An earlier pull may have fetched another revision, whose files must not appear in this one.
fn remove_others(folder: &Path, files: &[FileEntry]) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_wanted = files.iter().any(|file| *file.file == *name) || RunLock::is_lock(&name);
        if !is_wanted {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Gives a complete folder its name.
fn publish(
    store: &Store,
    folder: &Path,
    target: &Path,
    manifest_bytes: &[u8],
) -> Result<(), StoreError> {
    let path = folder.join(MANIFEST_FILE);
    write_file_synced(&path, manifest_bytes).map_err(StoreError::io("write manifest", &path))?;
    std::fs::rename(folder, target).map_err(StoreError::io("create run", target))?;
    sync_dir(&store.runs_dir()).map_err(StoreError::io("create run", target))
}
