//! Where a listener listens, who may use it, and how much of anything it takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::net::access::Token;

/// Settings of an OTLP receiver. The default is what OpenTelemetry SDKs send to when nobody told
/// them where: the loopback ports 4317 and 4318, open to this machine only.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where OTLP over HTTP is expected. Port 0 takes a free one.
    pub http: SocketAddr,
    /// Where OTLP over gRPC is expected. Port 0 takes a free one.
    ///
    /// Both listeners understand both: a wrong port is the most frequent mistake of a set-up.
    pub grpc: SocketAddr,
    /// What a client must know. Without one, only loopback addresses can be listened on.
    pub token: Option<Token>,
    /// Names, besides `localhost` and addresses, by which clients reach the listener, such as the
    /// service's name in a container network. A `Host` that is not known is refused: it may be
    /// another site's name that was pointed at this machine.
    pub hosts: Vec<String>,
    /// How much of anything.
    pub limits: Limits,
    /// How long for anything.
    pub timeouts: Timeouts,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4318),
            grpc: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4317),
            token: None,
            hosts: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl ServerSettings {
    /// The default on free ports of the loopback address.
    #[must_use]
    pub fn on_free_ports() -> Self {
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self { http: free, grpc: free, ..Self::default() }
    }
}

/// How much of anything a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body, as sent and decompressed alike.
    pub body_bytes_max: usize,
    /// Bytes of all bodies in memory together. Beyond that senders are told to come again.
    pub bodies_bytes_max: usize,
    /// Requests in progress together.
    pub requests_max: usize,
    /// Calls of [`Ingest::ingest`](crate::Ingest::ingest) at once; others wait for their turn.
    pub ingests_max: usize,
    /// Open connections. Beyond that the one that has been idle for longest is closed.
    pub connections_max: usize,
    /// Requests in progress on one HTTP/2 connection.
    pub streams_max: u32,
    /// Bytes of one request's head.
    pub head_bytes_max: usize,
    /// Headers of one request.
    pub headers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // What the collector accepts, four times over; SDK batches have some 500 KB.
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 64 << 20,
            requests_max: 1024,
            // They wait for the disk together, so more of them at once cost no more.
            ingests_max: 16,
            // Below the usual limit of 1,024 open files, with room for those of the run.
            connections_max: 768,
            // What clients assume until they are told; fewer would refuse their first calls.
            streams_max: 100,
            head_bytes_max: 16 << 10,
            headers_max: 64,
        }
    }
}

/// How long a listener waits for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between two parts of a body.
    pub body_idle: Duration,
    /// For a whole body.
    pub body_total: Duration,
    /// For a connection without a request. Longer than the minute between two exports of metrics.
    pub idle: Duration,
    /// For a turn of [`Ingest::ingest`](crate::Ingest::ingest).
    pub turn: Duration,
    /// For requests in progress when the listener is told to stop.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body_idle: Duration::from_secs(10),
            body_total: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            // Exporters give up after ten seconds.
            turn: Duration::from_secs(8),
            shutdown: Duration::from_secs(10),
        }
    }
}

/// A listener that could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address that others can reach, and no token to keep them out.
    #[error("listen on {address}: machines other than this one can reach it, so set a token")]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// The address is taken, not this machine's, or not ours to use.
    #[error("listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A limit with which nothing could ever be taken.
    #[error("use limit {limit}: {reason}")]
    Limit {
        /// Its name.
        limit: &'static str,
        /// Why not.
        reason: String,
    },
    /// The system has no thread to give.
    #[error("start thread: {0}")]
    Thread(std::io::Error),
    /// An upstream that cannot be called.
    #[error("use upstream: {0}")]
    Upstream(String),
}

impl Limits {
    /// Checks that something can be taken at all.
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let counts = [
            ("body_bytes_max", self.body_bytes_max),
            ("requests_max", self.requests_max),
            ("ingests_max", self.ingests_max),
            ("connections_max", self.connections_max),
            ("streams_max", self.streams_max as usize),
            ("headers_max", self.headers_max),
        ];
        if let Some((limit, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ServeError::Limit { limit, reason: "it must not be 0".to_owned() });
        }
        if self.head_bytes_max < HEAD_BYTES_MIN {
            let reason = format!("it must be at least {HEAD_BYTES_MIN}");
            return Err(ServeError::Limit { limit: "head_bytes_max", reason });
        }
        // A compressed body is held twice, as sent and decompressed.
        if self.bodies_bytes_max / 2 < self.body_bytes_max {
            let reason = "it must be at least twice body_bytes_max".to_owned();
            return Err(ServeError::Limit { limit: "bodies_bytes_max", reason });
        }
        if self.bodies_bytes_max > tokio::sync::Semaphore::MAX_PERMITS.min(u32::MAX as usize) {
            let reason = "it must be below 4 GiB".to_owned();
            return Err(ServeError::Limit { limit: "bodies_bytes_max", reason });
        }
        Ok(())
    }
}

/// The least that hyper reads a head into.
const HEAD_BYTES_MIN: usize = 8192;
