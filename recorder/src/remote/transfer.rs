//! What push and pull share: the list of a run's files, and how far along they are.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use retake_schemas::manifest::{FileEntry, Manifest};
use retake_schemas::{Digest, RunId};

use super::{Remote, RemoteError};
use crate::store::{MANIFEST_FILE, parse_manifest};

/// How far a push or a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferProgress {
    /// Bytes done, sent or found to be there.
    pub bytes_done: u64,
    /// Bytes of all files of the run.
    pub bytes_total: u64,
}

/// Counts bytes over files that go side by side, and tells whoever wants to know.
pub(super) struct Meter<'a> {
    done: AtomicU64,
    bytes_total: u64,
    tell: &'a (dyn Fn(TransferProgress) + Sync),
}

impl<'a> Meter<'a> {
    pub(super) fn new(files: &[FileEntry], tell: &'a (dyn Fn(TransferProgress) + Sync)) -> Self {
        let bytes_total = files.iter().map(|file| file.bytes).sum();
        Self { done: AtomicU64::new(0), bytes_total, tell }
    }

    pub(super) fn add(&self, bytes: u64) {
        let bytes_done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.tell)(TransferProgress { bytes_done, bytes_total: self.bytes_total });
    }
}

/// The files of a run apart from its manifest.
///
/// # Errors
/// A name is no plain file name, or stands twice: such a manifest was not written by retake, and
/// its files could end up anywhere.
pub(super) fn files_of(manifest: &Manifest) -> Result<Vec<FileEntry>, RemoteError> {
    let segments = manifest.segments.iter().map(|segment| FileEntry {
        file: segment.file.clone(),
        bytes: segment.bytes,
        blake3: segment.blake3,
    });
    let files: Vec<FileEntry> = segments.chain(manifest.carry.clone()).collect();
    let mut names = HashSet::new();
    for entry in &files {
        if !is_plain(&entry.file) || !names.insert(entry.file.as_str()) {
            return Err(RemoteError::Conflict {
                run_id: manifest.run_id.clone(),
                file: entry.file.clone(),
                reason: "the manifest names it, but no file of a run is called that".to_owned(),
            });
        }
    }
    Ok(files)
}

fn is_plain(name: &str) -> bool {
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_data = [".parquet", ".bin"].iter().any(|end| name.ends_with(end));
    name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.bytes().all(is_ours) && is_data
}

impl Remote {
    /// The manifest of a copy, with the bytes it has there; `None` when there is none.
    pub(super) async fn manifest(
        &self,
        run_id: &RunId,
    ) -> Result<Option<(Vec<u8>, Manifest)>, RemoteError> {
        let path = self.path(run_id, MANIFEST_FILE);
        let fail = |error| RemoteError::objects("read", &path)(error);
        let found = match self.objects.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(fail)?,
        };
        let damaged = |reason: String| self.damaged(run_id, MANIFEST_FILE, reason);
        if found.meta.size > MANIFEST_BYTES_MAX {
            return Err(damaged(format!("it has {} bytes", found.meta.size)));
        }
        let bytes = found.bytes().await.map_err(fail)?.to_vec();
        let manifest = parse_manifest(std::path::Path::new(path.as_ref()), &bytes)
            .map_err(|error| damaged(error.to_string()))?;
        if manifest.run_id != *run_id {
            return Err(damaged(format!("it is that of run {}", manifest.run_id)));
        }
        Ok(Some((bytes, manifest)))
    }

    /// Digest and size of an object, read to its end, or as far as it can still be right.
    pub(super) async fn digest_of(
        &self,
        path: &Path,
        bytes_max: u64,
    ) -> Result<(Digest, u64), object_store::Error> {
        let mut stream = self.objects.get(path).await?.into_stream();
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        while let Some(part) = stream.next().await.transpose()? {
            hasher.update(&part);
            bytes += part.len() as u64;
            if bytes > bytes_max {
                break;
            }
        }
        Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), bytes))
    }

    pub(super) fn damaged(&self, run_id: &RunId, file: &str, reason: String) -> RemoteError {
        let (run_id, file) = (run_id.clone(), file.to_owned());
        RemoteError::Damaged { run_id, file, place: format!("at {}", self.url), reason }
    }
}

/// What is wrong with a file of this digest and size, if anything.
pub(super) fn difference(entry: &FileEntry, digest: Digest, bytes: u64) -> Option<String> {
    if bytes != entry.bytes {
        return Some(format!("it has {bytes} bytes, the manifest says {}", entry.bytes));
    }
    (digest != entry.blake3)
        .then(|| format!("its digest is {digest}, the manifest says {}", entry.blake3))
}

/// Files on their way at the same time: enough to fill a line, few enough for little memory.
pub(super) const TRANSFERS_MAX: usize = 4;
/// A manifest of a hundred thousand segments; what is larger was not written by retake.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// The longest name any file system takes.
const NAME_BYTES_MAX: usize = 255;
