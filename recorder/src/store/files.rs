//! File operations of the machine's own disk, for what does not go through [`crate::disk`]: copies
//! of finished runs, and reading segments that may be large.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use retake_schemas::Digest;

use crate::disk::{self, Disk, RealDisk};

/// Makes a folder (and its parents) that only its owner may enter: prompts are sensitive.
#[cfg(feature = "remote")]
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    RealDisk.create_dir(path)
}

/// Writes a file whole or not at all: temporary name, flush, rename, flush of the folder.
pub(crate) fn write_file_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk::write_synced(&RealDisk, path, bytes)
}

/// Flushes a folder, so that a rename in it survives a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    RealDisk.sync_dir(path)
}

/// The digest and size of a file.
pub(crate) fn digest_file(path: &Path) -> io::Result<(Digest, u64)> {
    digest_of(&mut OpenOptions::new().read(true).custom_flags(NO_LINKS).open(path)?)
}

/// The digest and size of what `file` has from where it stands.
pub(crate) fn digest_of(file: &mut std::fs::File) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), bytes));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

/// A link in a run's folder may lead anywhere, so opening one is an error.
pub(crate) const NO_LINKS: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
/// Large enough that BLAKE3 uses its widest vectors.
const READ_BYTES: usize = 256 << 10;
