//! The disk, as far as it decides what survives a power cut.
//!
//! Everything whose order matters goes through [`Disk`]: the durable journal, segments, the carry
//! file, the manifest, and recovery. That makes the rules checkable: the tests run the same code on
//! a disk that keeps what was written apart from what was flushed, and cut the power after every
//! operation.
//!
//! The rules that callers keep:
//! * a file's bytes survive once [`DiskFile::sync`] has returned, its name once
//!   [`Disk::sync_dir`] of its folder has;
//! * after a failed flush the file is done with: the system may have dropped the bytes and call
//!   the next flush a success, so what was written is written again, to another file.
//!
//! The mapped lanes are not here: a power cut may leave them as any bytes at all. Nor are copies of
//! finished runs, compaction, and removal, which change nothing that is not also elsewhere.

#[cfg(test)]
pub(crate) mod fault;
mod real;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use real::RealDisk;

use crate::store::RunLock;

/// Files and folders by path.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Makes a file that only its owner may read: prompts are sensitive.
    fn create(&self, path: &Path, present: Present) -> io::Result<Box<dyn DiskFile>>;

    /// The whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Gives a file or folder another name, in place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and its parents, for their owner only. It may be there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder and everything in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// What the path itself is, links not followed; `None` when there is nothing.
    fn kind(&self, path: &Path) -> Option<Kind>;

    /// Takes the lock of the run in this folder; `None` when somebody has it.
    fn lock(&self, folder: &Path) -> io::Result<Option<RunLock>>;
}

/// A file open for writing. Several threads may use it.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Appends.
    fn write(&self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// What to do about a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    /// It is an error.
    Refuse,
    /// It is emptied. Links are refused.
    Replace,
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) kind: Kind,
}

/// What something in a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A link, pipe, or device.
    Other,
}

/// The disk of the machine.
pub(crate) fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// Writes a file whole or not at all: temporary name, flush, rename. The name survives a power cut
/// when the folder is flushed next.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || {
        let file = disk.create(&temporary, Present::Replace)?;
        file.write(bytes)?;
        file.sync()?;
        disk.rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Half a file is of no use, and on a full disk its room is.
        let _ = disk.remove(&temporary);
    })
}

/// The same, and the name survives a power cut too.
pub(crate) fn write_synced(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(disk, path, bytes)?;
    path.parent().map_or(Ok(()), |folder| disk.sync_dir(folder))
}

/// Makes a folder and its parents, so that their names survive a power cut. The names of the folder
/// and of its parent are flushed also when they were there: who made them may have had no time to.
pub(crate) fn create_dir_synced(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let folders = path.ancestors().filter(|folder| folder.file_name().is_some());
    let missing = folders.clone().take_while(|folder| disk.kind(folder).is_none()).count();
    disk.create_dir(path)?;
    for folder in folders.take(missing.max(2)) {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        match disk.sync_dir(parent.unwrap_or(Path::new("."))) {
            // A folder that we may enter but not read cannot be flushed by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}
