//! One writer per run: an advisory lock that the kernel frees when the process dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use retake_schemas::RunId;
use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::files::NO_LINKS;

/// Held while a run's folder is written to.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
}

impl Drop for RunLock {
    fn drop(&mut self) {
        crate::fork::forget(self.file.as_raw_fd());
    }
}

impl RunLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// [`StoreError::Busy`], or the lock file cannot be made.
    pub(crate) fn take(folder: &Path, run_id: &RunId) -> Result<Self, StoreError> {
        match Self::try_take(folder) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(StoreError::Busy(run_id.clone())),
            Err(source) => {
                Err(StoreError::Io { action: "lock run", path: folder.to_owned(), source })
            }
        }
    }

    /// A lock of nothing, for disks that exist in memory only.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> io::Result<Self> {
        crate::fork::watch();
        Ok(Self { file: File::open("/dev/null")? })
    }

    /// Takes the lock; `None` when another process (or another recorder) has it.
    pub(crate) fn try_take(folder: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_LINKS)
            .open(folder.join(LOCK_FILE))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                crate::fork::watch();
                crate::fork::release_in_children(file.as_raw_fd());
                Ok(Some(Self { file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a file of this name is the lock.
    #[cfg(feature = "remote")]
    pub(crate) fn is_lock(name: &std::ffi::OsStr) -> bool {
        name == LOCK_FILE
    }

    /// Whether somebody has the lock now.
    pub(crate) fn is_held(folder: &Path) -> bool {
        let Ok(file) = File::open(folder.join(LOCK_FILE)) else { return false };
        // A shared lock is refused exactly while a writer has the exclusive one, and several
        // readers may look at the same time.
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }
}

const LOCK_FILE: &str = "writer.lock";

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: J11 - a second writer gets a typed error, and the lock is free again after.
    #[test]
    fn a_run_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let run_id: RunId = "r".parse().unwrap();
        assert!(!RunLock::is_held(folder.path()));
        let lock = RunLock::take(folder.path(), &run_id).unwrap();
        assert!(RunLock::is_held(folder.path()));
        assert!(matches!(RunLock::take(folder.path(), &run_id), Err(StoreError::Busy(_))));
        drop(lock);
        assert!(!RunLock::is_held(folder.path()));
        assert!(RunLock::take(folder.path(), &run_id).is_ok());
    }
}
