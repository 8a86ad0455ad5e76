//! File operations whose order matters for what survives a power cut.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use retake_schemas::Digest;

/// Makes a folder (and its parents) that only its owner may enter: prompts are sensitive.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file whole or not at all: temporary name, flush, rename, flush of the folder.
pub(crate) fn write_file_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(NO_LINKS)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a file that was not there.
pub(crate) fn create_new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Flushes a folder, so that a rename in it survives a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The digest and size of a file.
pub(crate) fn digest_file(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = OpenOptions::new().read(true).custom_flags(NO_LINKS).open(path)?;
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
pub(super) const NO_LINKS: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
/// Large enough that BLAKE3 uses its widest vectors.
const READ_BYTES: usize = 256 << 10;
