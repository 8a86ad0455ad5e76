//! Knowing that the process was forked.
//!
//! A child inherits the mapped journal and the lock of its parent's run, and must touch neither:
//! two processes would write into one lane, and a child that outlives its parent would make the
//! dead parent's run look alive. A handler that runs in the child before `fork` returns makes
//! every recorder in it refuse, and gives the inherited locks up.

#![expect(unsafe_code, reason = "fork handlers are a C interface")]

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The process as of the last fork. As cheap as a load.
#[inline]
pub(crate) fn current_pid() -> u32 {
    PID.load(Ordering::Relaxed)
}

/// Begins to watch for forks. Later calls do nothing.
pub(crate) fn watch() {
    WATCH.call_once(|| {
        PID.store(std::process::id(), Ordering::Relaxed);
        // SAFETY: the path is a C string, the call has no other precondition.
        let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        NULL_FD.store(null, Ordering::Relaxed);
        // SAFETY: `in_child` only stores to atomics and calls functions that are safe in a child.
        // Without memory for the handler forks go unnoticed, as in a program that never forks.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Lets children give up the lock held through this descriptor.
pub(crate) fn release_in_children(fd: RawFd) {
    for place in &LOCK_FDS {
        if place.compare_exchange(NO_FD, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
    // More runs at once than places: their locks stay with forked children until those end.
}

/// The descriptor is about to be closed.
pub(crate) fn forget(fd: RawFd) {
    for place in &LOCK_FDS {
        let _ = place.compare_exchange(fd, NO_FD, Ordering::AcqRel, Ordering::Relaxed);
    }
}

extern "C" fn in_child() {
    // SAFETY: `getpid` and `dup2` are async-signal-safe.
    unsafe {
        PID.store(libc::getpid().cast_unsigned(), Ordering::Relaxed);
        // The thread that forked writes into its lane without asking; it must ask again.
        crate::door::forget_last();
        let null = NULL_FD.load(Ordering::Relaxed);
        for place in &LOCK_FDS {
            let fd = place.swap(NO_FD, Ordering::Relaxed);
            if fd != NO_FD && null != NO_FD {
                // Another file under the number, not a closed number: whoever still holds it
                // may close it without closing somebody else's.
                libc::dup2(null, fd);
            }
        }
    }
}

static WATCH: Once = Once::new();
static PID: AtomicU32 = AtomicU32::new(0);
static NULL_FD: AtomicI32 = AtomicI32::new(NO_FD);
static LOCK_FDS: [AtomicI32; LOCKS_MAX] = [const { AtomicI32::new(NO_FD) }; LOCKS_MAX];
const NO_FD: i32 = -1;
/// Runs that one process records at once and that a fork lets go.
const LOCKS_MAX: usize = 64;
