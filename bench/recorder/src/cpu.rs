//! CPU time of the calling thread and of the whole process.

use rustix::time::{ClockId, clock_gettime};

/// CPU time the calling thread has used, ns.
pub(crate) fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

/// CPU time all threads of this process have used, ns.
pub(crate) fn process_cpu_ns() -> u64 {
    read_ns(ClockId::ProcessCPUTime)
}

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // CPU clocks start at zero with the thread, so neither half can be negative.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
