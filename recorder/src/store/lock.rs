//! One writer per run: an advisory lock that the kernel frees when the process dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use retake_schemas::RunId;
use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::files::NO_LINKS;

/// Held while a run's folder is written to.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
    /// The process that took it. A forked child that drops its copy must not free the original.
    owner: u32,
}

impl Drop for RunLock {
    fn drop(&mut self) {
        crate::fork::forget(self.file.as_raw_fd());
        if std::process::id() == self.owner {
            release(&self.file);
        }
    }
}

/// Gives a lock up. Closing the file would not: while another thread starts a program, the child
/// has a copy of every file until it becomes that program.
fn release(file: &File) {
    // What cannot be released here is when the last copy is closed.
    let _ = flock(file, FlockOperation::Unlock);
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
        Ok(Self { file: File::open("/dev/null")?, owner: std::process::id() })
    }

    /// Takes the lock; `None` when another process (or another recorder) has it for longer than it
    /// takes to look whether somebody has it.
    pub(crate) fn try_take(folder: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_LINKS)
            .open(folder.join(LOCK_FILE))?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(BETWEEN_ATTEMPTS);
            }
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    crate::fork::watch();
                    crate::fork::release_in_children(file.as_raw_fd());
                    return Ok(Some(Self { file, owner: std::process::id() }));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
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
        let looked = flock(&file, FlockOperation::NonBlockingLockShared);
        if looked.is_ok() {
            release(&file);
        }
        looked == Err(rustix::io::Errno::WOULDBLOCK)
    }
}

const LOCK_FILE: &str = "writer.lock";
/// A reader that looks whether the lock is held has it for some microseconds itself.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(2);

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

    /// Scenario: the holder's file was copied into a child that is about to become a program; the
    /// holder gives the lock up. Then readers look all the time while a writer wants it.
    /// Guarantees: the lock is free as soon as its holder says so, and looking takes it from nobody.
    #[test]
    fn neither_copies_nor_readers_hold_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let run_id: RunId = "r".parse().unwrap();
        let lock = RunLock::take(folder.path(), &run_id).unwrap();
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(!RunLock::is_held(folder.path()));
        drop(RunLock::take(folder.path(), &run_id).unwrap());
        drop(copy);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    RunLock::is_held(folder.path());
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let taken: Vec<_> =
                (0..2_000).map(|_| RunLock::take(folder.path(), &run_id).map(drop)).collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(Result::is_ok));
        });
    }
}
