//! Accepting connections, and stopping.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::activity::{Activity, Expiry};
use crate::net::connection::{self, Face};
use crate::settings::{Limits, ServeError, Timeouts};

/// A socket that listens, before there is a runtime.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: std::net::TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    pub(crate) fn new(address: SocketAddr) -> Result<Self, ServeError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().map_err(|source| ServeError::Bind { address, source })
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    /// Requests in progress are the last.
    stop: CancellationToken,
    /// Requests in progress have to be answered now.
    cut: CancellationToken,
    /// Connections are closed, whatever they do.
    kill: CancellationToken,
    pub(crate) counts: Counts,
}

/// What became of connections.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) head_timeouts: AtomicU64,
    pub(crate) idle_timeouts: AtomicU64,
}

impl Connections {
    pub(crate) fn new(limits: Limits, timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self {
            limits,
            timeouts,
            open: Mutex::default(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            kill: CancellationToken::new(),
            counts: Counts::default(),
        })
    }

    /// Completes when requests in progress have to be answered now.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Whether requests in progress are the last.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// Serves until `shutdown` completes; then lets requests in progress end, up to the deadline.
    /// Says how many connections had to be closed with a request on them.
    ///
    /// # Errors
    /// A listener cannot be used by the runtime.
    pub(crate) async fn serve<F: Face>(
        self: Arc<Self>,
        listeners: Vec<Bound>,
        face: Arc<F>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<u64> {
        let tasks = TaskTracker::new();
        let mut accepting = Vec::new();
        for bound in listeners {
            let listener = TcpListener::from_std(bound.listener)?;
            accepting.push(self.accept(listener, Arc::clone(&face), tasks.clone()));
        }
        // Leaving this scope closes the listeners: who comes now is refused by the system.
        tokio::select! {
            _ = join_all(accepting) => {}
            () = shutdown => {}
        }
        self.stop.cancel();
        tasks.close();
        if tokio::time::timeout(self.timeouts.shutdown, tasks.wait()).await.is_ok() {
            return Ok(0);
        }
        self.cut.cancel();
        // For telling who is cut.
        let _ = tokio::time::timeout(TELLING_MAX, tasks.wait()).await;
        let cut = self.open.lock().values().filter(|a| a.idle_since().is_none()).count();
        self.kill.cancel();
        tasks.wait().await;
        Ok(cut as u64)
    }

    /// Accepts for good.
    async fn accept<F: Face>(
        self: &Arc<Self>,
        listener: TcpListener,
        face: Arc<F>,
        tasks: TaskTracker,
    ) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(place) = self.admit() {
                        tasks.spawn(Arc::clone(self).connection(stream, Arc::clone(&face), place));
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Makes room for a connection: one that does nothing has to go for one that may. Otherwise
    /// a few idle clients could lock everybody out.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let number = self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if open.len() >= self.limits.connections_max {
            let idle = open.iter().filter_map(|(n, activity)| Some((activity.idle_since()?, *n)));
            let Some(evicted) = idle.min().and_then(|(_, number)| open.remove(&number)) else {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            evicted.evict();
        }
        let activity = Activity::new();
        open.insert(number, Arc::clone(&activity));
        Some(Place { number, activity, connections: Arc::clone(self) })
    }

    async fn connection<F: Face>(self: Arc<Self>, stream: TcpStream, face: Arc<F>, place: Place) {
        let activity = Arc::clone(&place.activity);
        let stop = self.stop.clone();
        let served = connection::serve(stream, face, Arc::clone(&activity), &self.limits, stop);
        let counter = tokio::select! {
            () = served => return,
            () = self.kill.cancelled() => return,
            expiry = activity.expired(&self.timeouts) => match expiry {
                Expiry::Head => &self.counts.head_timeouts,
                Expiry::Idle => &self.counts.idle_timeouts,
                Expiry::Evicted => &self.counts.evicted,
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection's place among the open ones.
struct Place {
    number: u64,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
    }
}

/// Answers to those who are cut are on their way within this.
const TELLING_MAX: Duration = Duration::from_millis(500);
/// When the system has no more files, some are free again soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
