//! What the writer thread has done elsewhere, because it may take long: sealing, and flushing the
//! durable journal.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use super::Progress;
use crate::door::Target;
use crate::journal::durable::JournalFile;
use crate::priority;
use crate::seal::{SealInput, Sealer};

/// Where the slow work is done.
#[derive(Debug)]
pub(crate) enum Background {
    /// On threads: one that flushes, one for each seal.
    Threads { flushes: Sender<(Arc<JournalFile>, u64)> },
    /// On the caller's thread: a flush at once, a seal when its outcome is asked for. The order of
    /// all disk operations is then the same in each run of a test.
    #[cfg(test)]
    Stepped { progress: Arc<Progress> },
}

impl Background {
    /// Starts the thread that flushes, one file at a time.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn threads(progress: Arc<Progress>) -> io::Result<Self> {
        let (flushes, inbox) = crossbeam_channel::bounded::<(Arc<JournalFile>, u64)>(1);
        std::thread::Builder::new().name("retake-sync".to_owned()).spawn(move || {
            for (file, drained) in inbox {
                flush(&file, drained, &progress);
            }
        })?;
        Ok(Self::Threads { flushes })
    }

    /// Flushes the file, in which everything below `drained` stands that is not sealed; unless the
    /// last flush is still under way.
    pub(super) fn flush(&self, file: Arc<JournalFile>, drained: u64) {
        match self {
            Self::Threads { flushes } => drop(flushes.try_send((file, drained))),
            #[cfg(test)]
            Self::Stepped { progress } => flush(&file, drained, progress),
        }
    }

    /// Starts a seal.
    ///
    /// # Errors
    /// The system has no more threads. The work is lost with them.
    pub(super) fn seal(&self, work: SealWork) -> io::Result<SealJob> {
        match self {
            Self::Threads { .. } => {
                let thread = std::thread::Builder::new().name("retake-seal".to_owned());
                let is_done = Arc::new(AtomicBool::new(false));
                let says_done = Arc::clone(&is_done);
                let thread = thread.spawn(move || {
                    let target = Arc::clone(&work.target);
                    let outcome = work.run();
                    // What waits for this seal need not wait for the next tick as well.
                    says_done.store(true, Ordering::Release);
                    target.journal.wake();
                    outcome
                })?;
                Ok(SealJob::Thread { thread, is_done })
            }
            #[cfg(test)]
            Self::Stepped { .. } => Ok(SealJob::Stepped(Box::new(work))),
        }
    }
}

fn flush(file: &JournalFile, drained: u64, progress: &Progress) {
    // A failure is the file's to remember; the writer thread asks it.
    if file.sync().is_ok() {
        progress.durable_below.fetch_max(drained, Ordering::AcqRel);
    }
}

/// A seal to do.
#[derive(Debug)]
pub(crate) struct SealWork {
    pub(super) sealer: Sealer,
    pub(super) input: SealInput,
    /// Files that it makes superfluous.
    pub(super) durable_files: Vec<PathBuf>,
    /// Whether to take no core from anybody.
    pub(super) is_idle: bool,
    /// Whose writer thread is to be woken.
    pub(super) target: Arc<Target>,
}

/// A seal that was done or failed.
#[derive(Debug)]
pub(crate) struct SealOutcome {
    pub(super) sealer: Sealer,
    pub(super) input: SealInput,
    pub(super) durable_files: Vec<PathBuf>,
    pub(super) result: Result<(), String>,
}

impl SealWork {
    fn run(self) -> SealOutcome {
        let Self { mut sealer, mut input, durable_files, is_idle, .. } = self;
        if is_idle {
            priority::make_thread_idle();
        }
        let result = sealer.seal(&input).map_err(|error| error.to_string());
        if result.is_ok() {
            // Here rather than on the writer thread, which others wait for.
            input.rows.clear();
        }
        SealOutcome { sealer, input, durable_files, result }
    }
}

/// A seal under way.
#[derive(Debug)]
pub(crate) enum SealJob {
    Thread {
        thread: JoinHandle<SealOutcome>,
        is_done: Arc<AtomicBool>,
    },
    #[cfg(test)]
    Stepped(Box<SealWork>),
}

impl SealJob {
    /// Whether [`SealJob::outcome`] would not wait.
    pub(super) fn is_finished(&self) -> bool {
        match self {
            // A thread that panicked says nothing.
            Self::Thread { thread, is_done } => {
                is_done.load(Ordering::Acquire) || thread.is_finished()
            }
            #[cfg(test)]
            Self::Stepped(_) => true,
        }
    }

    /// Waits for the seal; `None` when its thread panicked.
    pub(super) fn outcome(self) -> Option<SealOutcome> {
        match self {
            Self::Thread { thread, .. } => thread.join().ok(),
            #[cfg(test)]
            Self::Stepped(work) => Some(work.run()),
        }
    }
}
