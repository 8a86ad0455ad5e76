//! One connection: HTTP/1.1 or HTTP/2, whichever the client begins with.
//!
//! hyper-util can tell them apart too, but waits for the first bytes for as long as the client
//! likes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::net::activity::{Activity, InProgress};
use crate::net::reply::{BodyError, Reply, ReplyBody};
use crate::settings::Limits;

/// Answers requests.
pub(crate) trait Face: Send + Sync + 'static {
    /// Answers one. Never fails: whatever goes wrong becomes an answer.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Reply> + Send + 'static;
}

/// Serves one connection until it ends. When `stop` is cancelled, requests in progress are the
/// last.
pub(crate) async fn serve<F: Face>(
    stream: TcpStream,
    face: Arc<F>,
    activity: Arc<Activity>,
    limits: &Limits,
    stop: CancellationToken,
) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let mut stream =
        Watched { stream, begun: Vec::new(), given: 0, activity: Arc::clone(&activity) };
    let is_http2 = tokio::select! {
        found = stream.begins_with_http2() => match found {
            Ok(is_http2) => is_http2,
            // It went away before it asked.
            Err(_) => return,
        },
        () = stop.cancelled() => return,
    };
    let service = service_fn({
        let activity = Arc::clone(&activity);
        move |request| {
            let progress = activity.begin();
            let answer = Arc::clone(&face).answer(request);
            async move {
                let (parts, body) = answer.await.into_parts();
                let body = Tracked { body, _progress: progress };
                Ok::<_, std::convert::Infallible>(Response::from_parts(parts, body))
            }
        }
    });
    // How a connection ends is the client's matter: there is nobody to tell.
    if is_http2 {
        activity.is_multiplexed();
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // See `Activity`.
            .header_read_timeout(None)
            .max_headers(limits.headers_max)
            .max_buf_size(limits.head_bytes_max);
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// A stream that tells when bytes come, and gives back those that were looked at.
struct Watched {
    stream: TcpStream,
    /// The first bytes, read to tell the protocol.
    begun: Vec<u8>,
    /// How many of them were given on.
    given: usize,
    activity: Arc<Activity>,
}

impl Watched {
    /// Reads no more than is needed to tell.
    async fn begins_with_http2(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; HTTP2_PREFACE.len()];
        let mut len = 0;
        loop {
            let (seen, rest) = buffer.split_at_mut(len);
            if !HTTP2_PREFACE.starts_with(seen) || rest.is_empty() {
                let is_http2 = *seen == *HTTP2_PREFACE;
                self.begun = seen.to_vec();
                return Ok(is_http2);
            }
            match self.stream.read(rest).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => len += more,
            }
            self.activity.bytes_came();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(rest) = this.begun.get(this.given..).filter(|rest| !rest.is_empty()) {
            let len = rest.len().min(buffer.remaining());
            buffer.put_slice(rest.get(..len).unwrap_or_default());
            this.given += len;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            this.activity.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A response's body; its request is in progress until it was sent or given up.
struct Tracked {
    body: ReplyBody,
    _progress: InProgress,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client may send on one stream before it is read: a batch of most exporters.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// The same for all streams of a connection together; it bounds what a connection can make us hold.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What is held of answers that a client does not read.
const SEND_BUFFER_BYTES: usize = 64 << 10;
