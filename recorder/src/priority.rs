//! Giving way to the instrumented program.

#![expect(unsafe_code, reason = "the scheduling policy has no safe interface")]

/// Lets waking the calling thread interrupt nobody: it starts when a core is free or its turn has
/// come. Without this a wake-up may put it in place of the very thread that recorded (measured:
/// samples of 2.5 to 4 times the usual time, half of them). Needs no privileges.
pub(crate) fn make_thread_patient() {
    #[cfg(target_os = "linux")]
    set_policy(libc::SCHED_BATCH);
}

/// Lets the calling thread run only when no other thread wants its core. Cannot be taken back
/// without privileges, so threads that must keep up are not made idle in the first place.
pub(crate) fn make_thread_idle() {
    #[cfg(target_os = "linux")]
    set_policy(libc::SCHED_IDLE);
}

#[cfg(target_os = "linux")]
fn set_policy(policy: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, the parameters are valid for both policies. When the
    // system refuses, the thread keeps its priority, which is no error.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
}
