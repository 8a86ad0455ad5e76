//! The receiver as a whole: bound, run, and stopped.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::ingest::Ingest;
use crate::net::access::Access;
use crate::net::listen::{Bound, Connections};
use crate::otlp::entry;
use crate::otlp::receiver::Receiver;
use crate::pages::Pages;
use crate::settings::{ServeError, ServerSettings};

/// An OTLP receiver that listens. Who connects before [`Server::run`] waits.
pub struct Server {
    http: Bound,
    grpc: Bound,
    receiver: Receiver,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("http", &self.http.address)
            .field("grpc", &self.grpc.address)
            .finish_non_exhaustive()
    }
}

/// What became of a receiver's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeReport {
    /// Requests for OTLP paths and services that were answered, whatever the answer.
    pub answered: u64,
    /// Those of them that were acknowledged: their bodies are durable.
    pub acknowledged: u64,
    /// Requests in progress at the deadline of the shutdown that were answered with "come again".
    pub cut: u64,
    /// Connections that were closed with a request on them, because their client did not even
    /// take that answer.
    pub connections_cut: u64,
}

impl Server {
    /// Listens, and does not answer yet. Needs no runtime.
    ///
    /// # Errors
    /// See [`ServeError`]; with any of them nothing listens.
    pub fn bind(settings: ServerSettings, ingest: Arc<dyn Ingest>) -> Result<Self, ServeError> {
        let ServerSettings { http, grpc, token, hosts, limits, timeouts } = settings;
        limits.check()?;
        let access = Access::new(&[http, grpc], token, &hosts)?;
        let (http, grpc) = (Bound::new(http)?, Bound::new(grpc)?);
        let connections = Connections::new(limits, timeouts);
        let receiver = Receiver::new(ingest, access, (limits, timeouts), connections);
        Ok(Self { http, grpc, receiver })
    }

    /// The same, with pages for who comes with a browser.
    #[must_use]
    pub fn with_pages(mut self, pages: Arc<dyn Pages>) -> Self {
        self.receiver.pages = Some(pages);
        self
    }

    /// Path and query of a link that lets one browser in, once and within ten minutes; an earlier
    /// one is void. `None` where no token is needed, or there are no pages.
    #[must_use]
    pub fn invitation(&self) -> Option<String> {
        let is_needed = self.receiver.access.needs_token() && self.receiver.pages.is_some();
        is_needed.then(|| {
            format!("{}?key={}", entry::PATH, self.receiver.sessions.invite(Instant::now()))
        })
    }

    /// Where OTLP over HTTP is expected.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.address
    }

    /// Where OTLP over gRPC is expected.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.address
    }

    /// Answers until `shutdown` completes. Then nobody new is let in, and requests in progress
    /// have the time of [`Timeouts::shutdown`](crate::Timeouts::shutdown) to end.
    ///
    /// A body that is being taken at that deadline is still taken if the process goes on.
    ///
    /// # Errors
    /// The runtime cannot use the listeners.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<ServeReport> {
        let Self { http, grpc, receiver } = self;
        let receiver = Arc::new(receiver);
        let connections = Arc::clone(&receiver.connections);
        let served = connections.serve(vec![http, grpc], Arc::clone(&receiver), shutdown).await;
        let connections_cut = served?;
        Ok(ServeReport {
            answered: receiver.metrics.answers(),
            acknowledged: receiver.metrics.acknowledgements(),
            cut: receiver.metrics.refused_for("cut"),
            connections_cut,
        })
    }
}
