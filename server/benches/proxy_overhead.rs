//! What the proxy adds to a call: direct and proxied calls of the same upstream on the loopback
//! address, in turns, so that a busy machine slows both alike.
//!
//! `cargo bench -p retake-server` prints a table. It asserts nothing: the figures are the machine's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use retake_recorder::{Recorder, RecorderBuilder, Store};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;
use retake_server::proxy::{Proxy, ProxySettings, Url};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// Calls of each kind, each way.
const CALLS: usize = 3000;
/// Pieces of a streamed answer.
const PIECES: usize = 20;
/// Bytes of a prompt and of an answer.
const TEXT_BYTES: usize = 4000;

fn main() {
    // The upstream has threads of its own, as it would have a machine of its own.
    let upstreams = Runtime::new().unwrap();
    let upstream = upstreams.block_on(upstream());
    let folder = tempfile::tempdir().unwrap();
    let proxies = Runtime::new().unwrap();
    let (recorder, proxy, stop) = {
        let _inside = proxies.enter();
        proxy(folder.path(), upstream)
    };
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(async {
        println!("{CALLS} calls each way; microseconds");
        println!("{:<28}{:>9}{:>9}{:>9}", "", "p50", "p99", "p99.9");
        measure("chat, whole answer", upstream, proxy, &body(false)).await;
        measure("chat, first piece", upstream, proxy, &body(true)).await;
    });
    let _ = stop.send(());
    let summary = recorder.finish(RunStatus::Finished);
    println!("{} spans recorded, {} events dropped", summary.spans, summary.dropped);
}

fn proxy(
    folder: &std::path::Path,
    upstream: SocketAddr,
) -> (Recorder, SocketAddr, oneshot::Sender<()>) {
    let store = Store::create(folder).unwrap();
    let settings = RecordSettings { capture: Capture::Redacted, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("bench", "bench").record_settings(settings).start(&store).unwrap();
    let url = Url::parse(&format!("http://{upstream}")).unwrap();
    let proxy = Proxy::bind(ProxySettings::new(url), recorder.dispatcher().clone()).unwrap();
    let address = proxy.addr();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(proxy.run(async {
        let _ = stopped.await;
    }));
    (recorder, address, stop)
}

async fn measure(name: &str, upstream: SocketAddr, proxy: SocketAddr, body: &Bytes) {
    let mut direct = Client::connect(upstream).await;
    let mut proxied = Client::connect(proxy).await;
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..CALLS + 200 {
        for (client, took) in [&mut direct, &mut proxied].into_iter().zip(&mut took) {
            let time = client.call(body).await;
            // The first calls open connections and fill caches.
            if round >= 200 {
                took.push(time);
            }
        }
    }
    let [direct, proxied] = took.map(Percentiles::of);
    direct.print(&format!("{name}, direct"));
    proxied.print(&format!("{name}, proxied"));
    proxied.minus(&direct).print("  added");
}

struct Client {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { address, sender }
    }

    /// Time to the first part of the answer, which is all of one that is not streamed.
    async fn call(&mut self, body: &Bytes) -> Duration {
        let request = Request::post("/v1/chat/completions")
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("authorization", "Bearer some-key-or-other")
            .body(Full::new(body.clone()))
            .unwrap();
        self.sender.ready().await.unwrap();
        let start = Instant::now();
        let mut answer = self.sender.send_request(request).await.unwrap().into_body();
        answer.frame().await.unwrap().unwrap();
        let took = start.elapsed();
        answer.collect().await.unwrap();
        took
    }
}

#[derive(Clone, Copy)]
struct Percentiles([f64; 3]);

impl Percentiles {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        Self([at(0.5), at(0.99), at(0.999)])
    }

    fn minus(self, other: &Self) -> Self {
        let mut difference = self.0;
        difference.iter_mut().zip(other.0).for_each(|(own, other)| *own -= other);
        Self(difference)
    }

    fn print(self, name: &str) {
        let [p50, p99, p999] = self.0;
        println!("{name:<28}{p50:>9.0}{p99:>9.0}{p999:>9.0}");
    }
}

fn body(stream: bool) -> Bytes {
    let text = "a word ".repeat(TEXT_BYTES / 7);
    let messages = [serde_json::json!({ "role": "user", "content": text })];
    serde_json::json!({ "model": "m", "messages": messages, "stream": stream }).to_string().into()
}

async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    });
    address
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let is_stream = asked.ends_with(b"\"stream\":true}");
    if !is_stream {
        let message = serde_json::json!({ "role": "assistant", "content": "b".repeat(TEXT_BYTES) });
        let answer = serde_json::json!({
            "model": "m", "choices": [{ "message": message, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 1000, "completion_tokens": 1000 },
        });
        let body = Full::new(Bytes::from(answer.to_string())).boxed_unsync();
        return Ok(Response::builder()
            .header("content-type", "application/json")
            .body(body)
            .unwrap());
    }
    let piece = serde_json::json!({ "choices": [{ "index": 0, "delta": { "content": "word " } }] });
    let piece = Bytes::from(format!("data: {piece}\n\n"));
    let frames = futures::stream::iter((0..PIECES).map(move |_| Ok(Frame::data(piece.clone()))));
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
}
