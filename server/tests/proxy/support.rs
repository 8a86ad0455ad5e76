//! What the tests share: an upstream that answers as it is told, a proxy that records into a run,
//! and a client that reads frame by frame.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use retake_recorder::{Recorder, RecorderBuilder, RunReader, Store};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::{DocumentRow, PayloadRow, SpanRow, TokenRow};
use retake_server::proxy::{Proxy, ProxyReport, ProxySettings, Url};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) type UpstreamBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A service that answers each request by the same function.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start<A>(answer: impl Fn(Seen) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Response<UpstreamBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, all) = (Arc::new(answer), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, all) = (Arc::clone(&answer), Arc::clone(&all));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, all) = (Arc::clone(&answer), Arc::clone(&all));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                        let line = format!("{} {}", parts.method, parts.uri);
                        let seen = Seen { line, headers: parts.headers, body };
                        all.lock().unwrap().push(seen.clone());
                        Ok::<_, Infallible>(answer(seen).await)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
        });
        Self { address, seen, task }
    }

    /// An upstream that says the same to everybody.
    pub(crate) async fn saying(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let (content_type, body) = (content_type.to_owned(), body.into());
        Self::start(move |_| std::future::ready(whole(status, &content_type, body.clone()))).await
    }

    pub(crate) fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn whole(status: u16, content_type: &str, body: Bytes) -> Response<UpstreamBody> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

/// A streamed answer, and what feeds it: a text is a chunk, an error breaks it off.
pub(crate) fn streamed() -> (mpsc::Sender<std::io::Result<String>>, Response<UpstreamBody>) {
    let (sender, receiver) = mpsc::channel::<std::io::Result<String>>(64);
    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
        let text = receiver.recv().await?;
        Some((text.map(|text| Frame::data(Bytes::from(text))), receiver))
    });
    let response = Response::builder()
        .header("content-type", "text/event-stream; charset=utf-8")
        .body(StreamBody::new(frames).boxed_unsync())
        .unwrap();
    (sender, response)
}

/// A proxy that records.
pub(crate) struct Recorded {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) recorder: Recorder,
    store: Store,
    stop: oneshot::Sender<()>,
    task: JoinHandle<ProxyReport>,
}

/// What a run holds at its end.
pub(crate) struct Rows {
    pub(crate) report: ProxyReport,
    pub(crate) spans: Vec<SpanRow>,
    pub(crate) tokens: Vec<TokenRow>,
    pub(crate) documents: Vec<DocumentRow>,
    pub(crate) payloads: Vec<PayloadRow>,
    /// The run itself, until it is dropped.
    pub(crate) folder: tempfile::TempDir,
}

impl Recorded {
    pub(crate) fn start(upstream: Url, capture: Capture) -> Self {
        Self::with(ProxySettings::new(upstream), capture)
    }

    pub(crate) fn with(settings: ProxySettings, capture: Capture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let record = RecordSettings { capture, ..RecordSettings::default() };
        let recorder =
            RecorderBuilder::new("t", "svc").record_settings(record).start(&store).unwrap();
        let proxy = Proxy::bind(settings, recorder.dispatcher().clone()).unwrap();
        let address = proxy.addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            proxy.run(shutdown).await.unwrap()
        });
        Self { address, folder, recorder, store, stop, task }
    }

    /// Stops the proxy, ends the run, and reads it.
    pub(crate) async fn end(self) -> Rows {
        let Self { folder, recorder, store, stop, task, .. } = self;
        let _ = stop.send(());
        let report = task.await.unwrap();
        let run_id = recorder.run_id().clone();
        let summary = recorder.finish(RunStatus::Finished);
        assert_eq!((summary.dropped, summary.unsealed), (0, None));
        let reader = RunReader::open(&store, &run_id).unwrap();
        Rows {
            report,
            spans: reader.rows().unwrap(),
            tokens: reader.rows().unwrap(),
            documents: reader.rows().unwrap(),
            payloads: reader.rows().unwrap(),
            folder,
        }
    }
}

impl Rows {
    /// The only span.
    pub(crate) fn span(&self) -> &SpanRow {
        assert_eq!(self.spans.len(), 1, "{:?}", self.spans);
        &self.spans[0]
    }

    /// The content that a reference leads to.
    pub(crate) fn content(&self, reference: &Option<String>) -> Option<&str> {
        let digest = reference.as_deref()?;
        let payload = self.payloads.iter().find(|payload| payload.digest == digest);
        payload.expect("the payload").content.as_deref()
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<serde_json::Value> {
        let attributes: serde_json::Value =
            serde_json::from_str(self.span().attributes.as_deref()?).unwrap();
        attributes.get(name).cloned()
    }
}

/// An answer that is being read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    _connection: AbortOnDrop,
}

/// A connection that ends with its answer.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// The next frame; `None` at the end, an error if it was broken off.
    pub(crate) async fn frame(&mut self) -> Option<Result<String, hyper::Error>> {
        let frame = self.body.frame().await?;
        Some(frame.map(|frame| {
            let bytes = frame.into_data().unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        }))
    }

    /// All that is left.
    pub(crate) async fn text(&mut self) -> Result<String, hyper::Error> {
        let mut text = String::new();
        while let Some(frame) = self.frame().await {
            text.push_str(&frame?);
        }
        Ok(text)
    }
}

/// Asks the proxy.
pub(crate) async fn ask(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let connection = AbortOnDrop(connection);
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let response = sender.send_request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body, _connection: connection }
}

/// Posts JSON, as a client of such services does.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &serde_json::Value) -> Answer {
    let headers = [("content-type", "application/json"), ("authorization", "Bearer some-odd-key")];
    ask(address, &format!("POST {path}"), &headers, body.to_string()).await
}

/// A future that can be named.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<UpstreamBody>> + Send>>;
