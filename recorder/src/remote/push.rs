//! Copying a finished run to another place.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload, WriteMultipart};
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::{FileEntry, Manifest};
use retake_schemas::{Digest, RunId};
use tokio::io::AsyncReadExt as _;

use super::transfer::{Meter, TRANSFERS_MAX, difference, files_of};
use super::{Remote, RemoteError, TransferProgress};
use crate::store::{MANIFEST_FILE, ManifestError, Store, StoreError, parse_manifest};

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Files sent.
    pub files_sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// Files that an earlier push had sent already.
    pub files_there: u64,
    /// Whether nothing was to be done: the copy was complete.
    pub was_complete: bool,
}

/// A run of the local store, as its manifest was when the push began.
struct LocalRun {
    folder: PathBuf,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
}

impl Remote {
    /// Copies a finished run. A push that was cut short is continued by the next: what is there
    /// already is compared and not sent again. A run that was labelled or compacted since its last
    /// push replaces its older revision.
    ///
    /// # Errors
    /// The run has not ended, a local file is damaged, the copy is newer or another one, or the
    /// place cannot be reached; then no reader sees anything of the new copy.
    pub async fn push(
        &self,
        store: &Store,
        run_id: &RunId,
        progress: &(dyn Fn(TransferProgress) + Sync),
    ) -> Result<Pushed, RemoteError> {
        let local = LocalRun::read(store, run_id)?;
        let there = self.manifest(run_id).await?;
        if let Some((bytes, manifest)) = &there {
            if *bytes == local.manifest_bytes {
                return Ok(Pushed { was_complete: true, ..Pushed::default() });
            }
            if manifest.revision >= local.manifest.revision {
                return Err(conflict(run_id, MANIFEST_FILE, NEWER_THERE));
            }
        }
        let files = files_of(&local.manifest)?;
        let old = there.as_ref().map(|(_, manifest)| files_of(manifest)).transpose()?;
        let old = old.unwrap_or_default();
        let meter = Meter::new(&files, progress);
        let sent: Vec<Option<u64>> = futures::stream::iter(&files)
            .map(|entry| self.send_unless_there(&local, entry, &old, &meter))
            .buffer_unordered(TRANSFERS_MAX)
            .try_collect()
            .await?;
        self.send_manifest(&local, there.is_some()).await?;
        self.remove_superseded(run_id, &old, &files).await;
        let bytes: Vec<u64> = sent.iter().flatten().copied().collect();
        Ok(Pushed {
            files_sent: bytes.len() as u64,
            bytes_sent: bytes.iter().sum(),
            files_there: (sent.len() - bytes.len()) as u64,
            was_complete: false,
        })
    }

    /// Sends a file; `None` when it was there.
    async fn send_unless_there(
        &self,
        local: &LocalRun,
        entry: &FileEntry,
        old: &[FileEntry],
        meter: &Meter<'_>,
    ) -> Result<Option<u64>, RemoteError> {
        // A manifest only ever appears after its files.
        let is_sent = !old.contains(entry) && self.send(local, entry, meter).await?;
        if !is_sent {
            meter.add(entry.bytes);
        }
        Ok(is_sent.then_some(entry.bytes))
    }

    /// Sends a file unless one of the same content is there; whether it was sent.
    async fn send(
        &self,
        local: &LocalRun,
        entry: &FileEntry,
        meter: &Meter<'_>,
    ) -> Result<bool, RemoteError> {
        if entry.bytes > self.part_bytes as u64 {
            return self.send_in_parts(local, entry, meter).await;
        }
        let run_id = &local.manifest.run_id;
        let to = self.path(run_id, &entry.file);
        let content = tokio::fs::read(local.folder.join(&entry.file)).await;
        let content = content.map_err(|error| local.damaged(entry, error.to_string()))?;
        let digest = Digest::of(&content);
        if let Some(reason) = difference(entry, digest, content.len() as u64) {
            return Err(local.damaged(entry, reason));
        }
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&to, PutPayload::from(content), create).await {
            Ok(_) => {
                meter.add(entry.bytes);
                Ok(true)
            }
            Err(error) if is_there(&error) => self.compare(run_id, entry).await.map(|()| false),
            Err(error) => Err(RemoteError::objects("upload", &to)(error)),
        }
    }

    /// The same for a large file. No service has a put-if-absent for parts, so absence is looked
    /// up first; two pushes at once then send the same bytes under the same name.
    async fn send_in_parts(
        &self,
        local: &LocalRun,
        entry: &FileEntry,
        meter: &Meter<'_>,
    ) -> Result<bool, RemoteError> {
        let run_id = &local.manifest.run_id;
        let to = self.path(run_id, &entry.file);
        let fail = |error| RemoteError::objects("upload", &to)(error);
        match self.objects.head(&to).await {
            Ok(_) => return self.compare(run_id, entry).await.map(|()| false),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(fail(error)),
        }
        let parts = self.objects.put_multipart(&to).await.map_err(fail)?;
        let mut upload = WriteMultipart::new_with_chunk_size(parts, self.part_bytes);
        match self.write_parts(local, entry, &mut upload, meter).await {
            Ok(()) => upload.finish().await.map(|_| true).map_err(fail),
            Err(error) => {
                // What cannot be withdrawn is no object either, and the next push begins anew.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    async fn write_parts(
        &self,
        local: &LocalRun,
        entry: &FileEntry,
        upload: &mut WriteMultipart,
        meter: &Meter<'_>,
    ) -> Result<(), RemoteError> {
        let unreadable = |error: std::io::Error| local.damaged(entry, error.to_string());
        let path = local.folder.join(&entry.file);
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        let mut buffer = vec![0; self.part_bytes];
        loop {
            let read = file.read(&mut buffer).await.map_err(unreadable)?;
            let part = buffer.get(..read).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            hasher.update(part);
            bytes += read as u64;
            let to = self.path(&local.manifest.run_id, &entry.file);
            let ready = upload.wait_for_capacity(PARTS_MAX).await;
            ready.map_err(|error| RemoteError::objects("upload", &to)(error))?;
            upload.write(part);
            meter.add(read as u64);
        }
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        difference(entry, digest, bytes).map_or(Ok(()), |reason| Err(local.damaged(entry, reason)))
    }

    /// Compares what is there under a file's name with the file.
    async fn compare(&self, run_id: &RunId, entry: &FileEntry) -> Result<(), RemoteError> {
        let path = self.path(run_id, &entry.file);
        let (digest, bytes) = self
            .digest_of(&path, entry.bytes)
            .await
            .map_err(|error| RemoteError::objects("read back", &path)(error))?;
        match difference(entry, digest, bytes) {
            None => Ok(()),
            Some(reason) => {
                let reason = format!("another file of that name is at {}: {reason}", self.url);
                Err(conflict(run_id, &entry.file, &reason))
            }
        }
    }

    /// The last step: from here on readers see the run.
    async fn send_manifest(&self, local: &LocalRun, replaces: bool) -> Result<(), RemoteError> {
        let run_id = &local.manifest.run_id;
        let to = self.path(run_id, MANIFEST_FILE);
        let mode = if replaces { PutMode::Overwrite } else { PutMode::Create };
        let options = PutOptions { mode, ..PutOptions::default() };
        let content = PutPayload::from(local.manifest_bytes.clone());
        match self.objects.put_opts(&to, content, options).await {
            Ok(_) => Ok(()),
            // Another push of the same run was faster, or our own first try had arrived.
            Err(error) if is_there(&error) => match self.manifest(run_id).await? {
                Some((bytes, _)) if bytes == local.manifest_bytes => Ok(()),
                _ => Err(conflict(run_id, MANIFEST_FILE, NEWER_THERE)),
            },
            Err(error) => Err(RemoteError::objects("upload", &to)(error)),
        }
    }

    /// Removes the files that only the manifest of before named. Left behind they are clutter.
    async fn remove_superseded(&self, run_id: &RunId, old: &[FileEntry], new: &[FileEntry]) {
        for entry in old.iter().filter(|entry| new.iter().all(|kept| kept.file != entry.file)) {
            let _ = self.objects.delete(&self.path(run_id, &entry.file)).await;
        }
    }
}

impl LocalRun {
    fn read(store: &Store, run_id: &RunId) -> Result<Self, RemoteError> {
        let folder = store.run_dir(run_id);
        if !folder.is_dir() {
            return Err(StoreError::NoRun(run_id.clone()).into());
        }
        let path = folder.join(MANIFEST_FILE);
        let manifest_bytes = std::fs::read(&path)
            .map_err(|source| ManifestError::Io { path: path.clone(), source })
            .map_err(StoreError::from)?;
        let manifest = parse_manifest(&path, &manifest_bytes).map_err(StoreError::from)?;
        if manifest.status == RunStatus::Recording || manifest.run_id != *run_id {
            return Err(RemoteError::NotClosed(run_id.clone()));
        }
        Ok(Self { folder, manifest_bytes, manifest })
    }

    fn damaged(&self, entry: &FileEntry, reason: String) -> RemoteError {
        RemoteError::Damaged {
            run_id: self.manifest.run_id.clone(),
            file: entry.file.clone(),
            place: "in the store".to_owned(),
            reason,
        }
    }
}

fn conflict(run_id: &RunId, file: &str, reason: &str) -> RemoteError {
    RemoteError::Conflict {
        run_id: run_id.clone(),
        file: file.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Services word the refusal of a put-if-absent in two ways.
fn is_there(error: &object_store::Error) -> bool {
    matches!(
        error,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
    )
}

const NEWER_THERE: &str = "the copy is newer than the run in the store, or another run; \
                           `retake runs rm` and `retake pull` fetch it";
/// Parts of one file on their way at the same time.
const PARTS_MAX: usize = 4;
