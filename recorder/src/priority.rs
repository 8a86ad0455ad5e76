//! Giving way to the instrumented program.

#![expect(unsafe_code, reason = "the scheduling policy has no safe interface")]

/// Lets the calling thread run only when no other thread wants its core. Cannot be taken back
/// without privileges, so threads that must keep up are not made idle in the first place.
pub(crate) fn make_thread_idle() {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread, the parameters are valid for the policy. When the
        // system refuses, the thread keeps its priority, which is no error.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    }
}
