//! One body: read, decompressed, taken. The same for HTTP and gRPC.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::ingest::{Accepted, Encoding, Ingest, Signal};
use crate::net::access::{Access, Denied};
use crate::net::body;
use crate::net::budget::{Budget, Buffer};
use crate::net::connection::Face;
use crate::net::listen::Connections;
use crate::net::reply::Reply;
use crate::net::session::Sessions;
use crate::otlp::failure::{Failure, Kind};
use crate::otlp::grpc;
use crate::otlp::http;
use crate::otlp::inflate::{Coding, inflate};
use crate::otlp::metrics::Metrics;
use crate::pages::Pages;
use crate::settings::{Limits, Timeouts};

/// What all requests share.
pub(crate) struct Receiver {
    pub(crate) ingest: Arc<dyn Ingest>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) budget: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) connections: Arc<Connections>,
    pub(crate) pages: Option<Arc<dyn Pages>>,
    pub(crate) sessions: Sessions,
    requests: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// How a body lies in what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It is all of it.
    Whole(Coding),
    /// It is the one message of a gRPC call, which says whether it is compressed.
    Message(Coding),
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) signal: Signal,
    pub(crate) encoding: Encoding,
    pub(crate) framing: Framing,
}

impl Receiver {
    pub(crate) fn new(
        ingest: Arc<dyn Ingest>,
        access: Access,
        (limits, timeouts): (Limits, Timeouts),
        connections: Arc<Connections>,
    ) -> Self {
        Self {
            ingest,
            access,
            limits,
            timeouts,
            budget: Budget::new(limits.bodies_bytes_max),
            metrics: Metrics::default(),
            connections,
            pages: None,
            sessions: Sessions::new(),
            requests: Arc::new(Semaphore::new(limits.requests_max)),
            turns: Arc::new(Semaphore::new(limits.ingests_max)),
        }
    }

    /// Takes the body of one call. What is left of a body that is not read to its end is dropped
    /// with `incoming`.
    pub(crate) async fn take(
        &self,
        call: Call,
        incoming: &mut Incoming,
    ) -> Result<Accepted, Failure> {
        let start = Instant::now();
        let taken = tokio::select! {
            taken = self.read_and_ingest(call, incoming) => taken,
            () = self.connections.cut().cancelled() => Err(Failure::unavailable(
                "cut",
                "the receiver stops; the body may have been taken, and can be sent again",
            )),
        };
        match &taken {
            Ok(accepted) => self.metrics.acknowledged(call.signal, accepted, start.elapsed()),
            Err(failure) => self.metrics.refused(failure.cause),
        }
        taken
    }

    async fn read_and_ingest(
        &self,
        call: Call,
        incoming: &mut Incoming,
    ) -> Result<Accepted, Failure> {
        let request = Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| Failure::busy("requests", "too many requests are in progress"))?;
        let bytes_max = self.limits.body_bytes_max + call.framing.overhead();
        let mut sent = self.budget.buffer(bytes_max);
        let read = body::read(incoming, &mut sent, bytes_max, &self.timeouts).await;
        self.metrics.received(sent.as_slice().len());
        read.map_err(|error| Failure::unread(&error, self.limits.body_bytes_max))?;

        let turn =
            tokio::time::timeout(self.timeouts.turn, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(Failure::busy("turn", "too many bodies wait for the disk"));
        };
        let (ingest, budget) = (Arc::clone(&self.ingest), self.budget.clone());
        let body_bytes_max = self.limits.body_bytes_max;
        // Goes on when the client goes away, so what it holds is released only at its end.
        let work = tokio::task::spawn_blocking(move || {
            let _held = (turn, request);
            let mut body = budget.buffer(body_bytes_max);
            let body = unpack(call.framing, &sent, &mut body, body_bytes_max)?;
            let accepted =
                ingest.ingest(call.signal, call.encoding, body).map_err(Failure::from)?;
            Ok((accepted, body.len()))
        });
        match work.await {
            Ok(Ok((accepted, bytes))) => {
                self.metrics.decompressed(bytes);
                Ok(accepted)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::new(Kind::Internal, "panic", "the receiver failed")),
        }
    }

    pub(crate) fn denied(&self, denied: Denied) -> Failure {
        self.metrics.refused(denied.cause());
        let kind = match denied {
            Denied::HostMalformed => Kind::Malformed,
            Denied::HostForeign | Denied::OriginForeign => Kind::Forbidden,
            Denied::Token => Kind::Unauthenticated,
        };
        Failure::new(kind, denied.cause(), denied.message())
    }
}

impl Face for Receiver {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        if grpc::is_grpc(request.headers()) {
            grpc::answer(&self, request).await
        } else {
            http::answer(&self, request).await
        }
    }
}

impl Framing {
    /// Bytes of what is sent that are not the body.
    const fn overhead(self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::Message(_) => grpc::PREFIX_BYTES,
        }
    }
}

/// The body in `sent`, decompressed into `room` if need be.
fn unpack<'b>(
    framing: Framing,
    sent: &'b Buffer,
    room: &'b mut Buffer,
    bytes_max: usize,
) -> Result<&'b [u8], Failure> {
    let (coding, body) = match framing {
        Framing::Whole(coding) => (coding, sent.as_slice()),
        Framing::Message(coding) => grpc::message(sent.as_slice(), coding)?,
    };
    if coding == Coding::Identity {
        return Ok(body);
    }
    inflate(coding, body, room)
        .map_err(|error| Failure::not_inflated(error, coding.as_str(), bytes_max))?;
    Ok(room.as_slice())
}
