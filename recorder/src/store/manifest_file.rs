//! `manifest.json` on disk: readable by people, replaced atomically, and with a digest of itself,
//! because a flipped bit in a sequence number would otherwise go unnoticed.

use std::io;
use std::path::{Path, PathBuf};

use retake_schemas::Digest;
use retake_schemas::manifest::Manifest;
use retake_schemas::version::{FormatVersion, UnreadableVersion};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{StoreError, plain};
use crate::disk::{Disk, RealDisk, write_synced};

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It cannot be opened.
    #[error("read manifest {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not what retake wrote.
    #[error("read manifest {}: {reason}; `retake verify` says what else is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A link, pipe or device among the run's files: following one leads out of the store.
    #[error(
        "read run: {} is no plain file or folder; retake makes none and follows none; remove it",
        path.display()
    )]
    NotPlain {
        /// What it is that does not belong there.
        path: PathBuf,
    },
    /// It was written by a newer retake.
    #[error(transparent)]
    Version(#[from] UnreadableVersion),
}

#[derive(Serialize, Deserialize)]
struct File {
    /// BLAKE3 of the text of `manifest`.
    blake3: Digest,
    manifest: Box<RawValue>,
}

/// Just enough to refuse a format before reading it.
#[derive(Deserialize)]
struct Format {
    format: FormatVersion,
}

/// Reads a run's manifest and checks its digest.
///
/// # Errors
/// See [`ManifestError`].
pub fn read_manifest(folder: &Path) -> Result<Manifest, ManifestError> {
    read_manifest_on(&RealDisk, folder)
}

/// The same on any disk.
pub(crate) fn read_manifest_on(disk: &dyn Disk, folder: &Path) -> Result<Manifest, ManifestError> {
    let path = folder.join(MANIFEST_FILE);
    let io = |source| ManifestError::Io { path: path.clone(), source };
    if let Some(stranger) = plain::first_stranger(disk, folder).map_err(io)? {
        return Err(ManifestError::NotPlain { path: stranger });
    }
    let bytes = disk.read(&path).map_err(io)?;
    parse_manifest(&path, &bytes)
}

/// Reads a manifest from the bytes of its file, wherever that is, and checks its digest.
pub(crate) fn parse_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let damaged = |reason: String| ManifestError::Damaged { path: path.to_owned(), reason };
    let file: File = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    let body = file.manifest.get();
    let found = Digest::of(body.as_bytes());
    if found != file.blake3 {
        return Err(damaged(format!("digest is {found}, the file says {}", file.blake3)));
    }
    let format: Format = serde_json::from_str(body).map_err(|e| damaged(e.to_string()))?;
    format.format.check_readable_by(FormatVersion::STORE, "run")?;
    let manifest: Manifest = serde_json::from_str(body).map_err(|e| damaged(e.to_string()))?;
    let segments = manifest.segments.iter().map(|segment| &segment.file);
    let carried = manifest.carry.iter().map(|carry| &carry.file);
    match segments.chain(carried).find(|name| !plain::is_file_name(name)) {
        Some(name) => Err(damaged(format!("it names {name:?}, which is no file of this folder"))),
        None => Ok(manifest),
    }
}

/// Replaces a run's manifest.
pub(crate) fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    write_manifest_on(&RealDisk, folder, manifest)
}

/// The same on any disk.
pub(crate) fn write_manifest_on(
    disk: &dyn Disk,
    folder: &Path,
    manifest: &Manifest,
) -> Result<(), StoreError> {
    let path = folder.join(MANIFEST_FILE);
    let write = || -> io::Result<()> {
        let body = RawValue::from_string(serde_json::to_string_pretty(manifest)?)?;
        let file = File { blake3: Digest::of(body.get().as_bytes()), manifest: body };
        write_synced(disk, &path, &serde_json::to_vec(&file)?)
    };
    write().map_err(StoreError::io("write manifest", &path))
}

/// Name of the manifest, inside the run's folder.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

#[cfg(test)]
mod tests {
    use super::*;
    use retake_schemas::event::RunFacts;

    fn written() -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::new("r".parse().unwrap(), RunFacts::default());
        write_manifest(folder.path(), &manifest).unwrap();
        (folder, manifest)
    }

    #[test]
    fn manifests_survive() {
        let (folder, manifest) = written();
        assert_eq!(read_manifest(folder.path()).unwrap(), manifest);
    }

    /// Guarantees: J5 - every flipped bit of a manifest is found, or changes nothing.
    #[test]
    fn every_flipped_bit_is_found_or_harmless() {
        let (folder, manifest) = written();
        let path = folder.path().join(MANIFEST_FILE);
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            if let Ok(read) = read_manifest(folder.path()) {
                assert_eq!(read, manifest, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_what_to_do() {
        let (folder, mut manifest) = written();
        manifest.format.major += 1;
        write_manifest(folder.path(), &manifest).unwrap();
        let error = read_manifest(folder.path()).unwrap_err();
        assert!(matches!(error, ManifestError::Version(_)), "{error}");
    }
}
