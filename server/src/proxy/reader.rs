//! The thread that reads what has passed.
//!
//! Reading a prompt and taking secrets out of it can take a millisecond, which is more than the
//! proxy may add to a call. A pool of threads does that too, but at the priority of those that
//! forward: on a busy machine these waited for it (measured: 4 ms at the 99th percentile).

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::proxy::call::{Call, End};

/// Work for the thread, in the order in which it came.
#[derive(Debug)]
pub(crate) struct Reader(SyncSender<Job>);

#[derive(Debug)]
enum Job {
    /// A request has passed.
    Question(Arc<Call>),
    /// A call has ended, at this time.
    Close(Arc<Call>, i64, End),
    /// There is no more.
    Stop(oneshot::Sender<()>),
}

impl Reader {
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, jobs) = sync_channel(JOBS_MAX);
        std::thread::Builder::new()
            .name("retake-proxy-reader".to_owned())
            .spawn(move || run(&jobs))?;
        Ok(Self(sender))
    }

    /// One that has ended, as if its thread had died.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        Self(sync_channel(1).0)
    }

    /// Reads a request soon. Without room it is read when the call ends.
    pub(crate) fn question(&self, call: Arc<Call>) {
        let _ = self.0.try_send(Job::Question(call));
    }

    /// Closes a call soon. Without room it is closed now, and not read.
    pub(crate) fn close(&self, call: &Arc<Call>, time_unix_ns: i64, end: End) {
        if let Err(error) = self.0.try_send(Job::Close(Arc::clone(call), time_unix_ns, end)) {
            let (std::sync::mpsc::TrySendError::Full(job)
            | std::sync::mpsc::TrySendError::Disconnected(job)) = error;
            if let Job::Close(call, time_unix_ns, end) = job {
                call.forget();
                call.close(time_unix_ns, &end);
            }
        }
    }

    /// Completes when all that came before was read.
    pub(crate) async fn stop(&self) {
        let (done, is_done) = oneshot::channel();
        let sender = self.0.clone();
        // It waits for room, which there is when the thread has done something.
        let sent = tokio::task::spawn_blocking(move || sender.send(Job::Stop(done)).is_ok());
        if sent.await.unwrap_or(false) {
            let _ = is_done.await;
        }
    }
}

fn run(jobs: &Receiver<Job>) {
    // On Linux this is about the calling thread; elsewhere it would be about the program.
    #[cfg(target_os = "linux")]
    {
        // A program that has given way already keeps its priority.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    for job in jobs {
        // One call that cannot be read must not leave the others unread.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| match job {
            Job::Question(call) => call.read_question(),
            Job::Close(call, time_unix_ns, end) => call.close(time_unix_ns, &end),
            Job::Stop(done) => drop(done.send(())),
        }));
    }
}

/// Calls that wait to be read. What their bodies take is bounded by the budget of all bodies.
const JOBS_MAX: usize = 4096;
/// Half way down: it waits for those who forward, and still gets its turn among others.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
