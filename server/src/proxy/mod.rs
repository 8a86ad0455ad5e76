//! A recording proxy for services with OpenAI's interface: what any program in any language asks a
//! model, without instrumenting it.
//!
//! ```text
//! program ──► forward ──► upstream        the bytes pass as they come, in both directions
//!               │ listens
//!               ▼
//!             call ──► Dispatcher         opened, tokens as they arrive, usage, closed
//! ```
//!
//! Bytes are never held back to be read: they are copied while they pass, up to a limit, and read
//! on another thread. A failure to read or to record changes nothing of what passes. What it adds
//! is measured by `benches/proxy_overhead.rs`: in five runs of an unoptimized build on two busy cores
//! 0.11 to 0.16 ms to a call and 0.08 to 0.12 ms to a piece of a stream at the median, 0.16 to
//! 1.3 ms and 0.18 to 0.84 ms at the 99th percentile.
//!
//! Credentials pass and are not stored: no header and no query is recorded, and the message of an
//! error is recorded without those that its request came with.

mod answer;
mod call;
mod document;
mod endpoint;
mod forward;
mod listen;
mod question;
mod reader;
mod secrets;
mod sse;
mod stream;
mod usage;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub use reqwest::Url;
use retake_recorder::Dispatcher;

use crate::net::access::{Access, Token};
use crate::net::listen::{Bound, Connections};
use crate::proxy::forward::Forward;
use crate::settings::{Limits, ServeError, Timeouts};

/// Settings of a proxy.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Where programs ask. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The service, such as `https://api.openai.com`. Paths of requests are appended; a `/v1` at
    /// its end is left out, because those paths begin with it.
    pub upstream: Url,
    /// The name of the service's provider (`gen_ai.provider.name`), if its host does not tell.
    pub provider: Option<String>,
    /// What a program must send as `x-retake-token`; `Authorization` belongs to the upstream.
    /// Without one, only loopback addresses can be listened on.
    pub token: Option<Token>,
    /// Names, besides `localhost` and addresses, by which programs reach the proxy.
    pub hosts: Vec<String>,
    /// How much of anything. A body that is larger than [`Limits::body_bytes_max`], or for which
    /// [`Limits::bodies_bytes_max`] has no room, passes and is not read.
    pub limits: Limits,
    /// How long for anything. An answer may take as long as it likes.
    pub timeouts: Timeouts,
}

impl ProxySettings {
    /// A proxy for `upstream` on a free port of the loopback address.
    #[must_use]
    pub fn new(upstream: Url) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            upstream,
            provider: None,
            token: None,
            hosts: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// A proxy that listens. Who connects before [`Proxy::run`] waits.
pub struct Proxy {
    bound: Bound,
    forward: Arc<Forward>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("listen", &self.bound.address).finish_non_exhaustive()
    }
}

/// What became of a proxy's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProxyReport {
    /// Calls that were recorded, however they ended.
    pub recorded: u64,
    /// Those of them of which the request or the answer could not be read: too large, compressed,
    /// or not what the interface says.
    pub unread: u64,
    /// Requests that passed without being recorded.
    pub passed: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Connections that were closed at the deadline of the shutdown with a request on them; such
    /// calls are recorded as cancelled.
    pub connections_cut: u64,
}

impl Proxy {
    /// Listens, and does not answer yet. What passes is recorded through `dispatcher`.
    ///
    /// # Errors
    /// See [`ServeError`]; with any of them nothing listens.
    pub fn bind(settings: ProxySettings, dispatcher: Dispatcher) -> Result<Self, ServeError> {
        let ProxySettings { listen, upstream, provider, token, hosts, limits, timeouts } = settings;
        limits.check()?;
        let access = Access::new(&[listen], token, &hosts)?.leaving_authorization();
        let connections = Connections::new(limits, timeouts);
        let forward = Forward::new((upstream, provider), access, connections, dispatcher)?;
        Ok(Self { bound: Bound::new(listen)?, forward: Arc::new(forward) })
    }

    /// Where programs ask.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.bound.address
    }

    /// Forwards until `shutdown` completes. Then nobody new is let in, and calls in progress have
    /// the time of [`Timeouts::shutdown`] to end. When this returns, all calls are in the run.
    ///
    /// # Errors
    /// The runtime cannot use the listener.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<ProxyReport> {
        let Self { bound, forward } = self;
        let connections = Arc::clone(&forward.connections);
        let connections_cut =
            connections.serve(vec![bound], Arc::clone(&forward), shutdown).await?;
        Ok(ProxyReport { connections_cut, ..forward.end().await })
    }
}
