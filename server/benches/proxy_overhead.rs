//! What the proxy adds to a call: direct and proxied calls of the same upstream on the loopback
//! address, in turns, so that a busy machine slows both alike.
//!
//! `cargo bench -p retake-server` prints a table. It asserts nothing: the figures are the machine's.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::Capture;
use retake_schemas::settings::RecordSettings;
use retake_server::proxy::{Proxy, ProxySettings, Url};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Set for a program that is one of the others: `upstream`, or the URL to be a proxy of.
const ROLE: &str = "RETAKE_BENCH_ROLE";
/// Calls of each kind, each way.
const CALLS: usize = 3000;
/// Pieces of a streamed answer.
const PIECES: usize = 20;
/// Calls that open connections and fill caches, and are not counted.
const WARM_UP: usize = 50;
/// Bytes of a prompt and of an answer.
const TEXT_BYTES: usize = 4000;

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("upstream") => {
            be(async { (upstream().await, Box::pin(std::future::pending()) as Task) })
        }
        Ok(url) => be(proxy(url.to_owned())),
        Err(_) => compare(),
    }
}

/// Each of the three has a process of its own, as it would have, so that none waits for another's
/// memory.
fn compare() {
    let upstream = Role::start("upstream");
    let proxy = Role::start(&format!("http://{}", upstream.address));
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(async {
        println!("{CALLS} of each, each way; microseconds");
        println!("{:<28}{:>9}{:>9}{:>9}", "", "p50", "p99", "p99.9");
        let (upstream, proxy) = (upstream.address, proxy.address);
        measure("whole answers", upstream, proxy, (CALLS, &body(false))).await;
        measure("pieces of streams", upstream, proxy, (CALLS / PIECES, &body(true))).await;
    });
}

/// This program as one of the others; it ends when its input does.
struct Role {
    child: Child,
    address: SocketAddr,
}

impl Role {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

fn be(role: impl Future<Output = (SocketAddr, Task)>) {
    Runtime::new().unwrap().block_on(async {
        let (address, task) = role.await;
        println!("{address}");
        let input_ends = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        tokio::select! {
            () = task => {}
            _ = input_ends => {}
        }
    });
}

async fn proxy(upstream: String) -> (SocketAddr, Task) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let settings = RecordSettings { capture: Capture::Redacted, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("bench", "bench").record_settings(settings).start(&store).unwrap();
    let settings = ProxySettings::new(Url::parse(&upstream).unwrap());
    let proxy = Proxy::bind(settings, recorder.dispatcher().clone()).unwrap();
    let address = proxy.addr();
    let task = async move {
        let _kept = (folder, recorder);
        proxy.run(std::future::pending()).await.unwrap();
    };
    (address, Box::pin(task))
}

async fn measure(
    name: &str,
    upstream: SocketAddr,
    proxy: SocketAddr,
    (calls, body): (usize, &Bytes),
) {
    let mut direct = Client::connect(upstream).await;
    let mut proxied = Client::connect(proxy).await;
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..calls + WARM_UP {
        for (client, took) in [&mut direct, &mut proxied].into_iter().zip(&mut took) {
            let times = client.call(body).await;
            if round >= WARM_UP {
                took.extend(times);
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

    /// The time of a whole call, or of each piece from the upstream to here.
    async fn call(&mut self, body: &Bytes) -> Vec<Duration> {
        let request = Request::post("/v1/chat/completions")
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("authorization", "Bearer some-key-or-other")
            .body(Full::new(body.clone()))
            .unwrap();
        self.sender.ready().await.unwrap();
        let start = Instant::now();
        let mut answer = self.sender.send_request(request).await.unwrap().into_body();
        let mut took = Vec::new();
        while let Some(frame) = answer.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            took.extend(sent_at(&piece).map(|sent| unix_time().saturating_sub(sent)));
        }
        if took.is_empty() { vec![start.elapsed()] } else { took }
    }
}

/// When the upstream sent a piece, if it says so: all three share the machine's clock.
fn sent_at(piece: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(piece).ok()?;
    let (_, rest) = text.split_once("sent at ")?;
    Some(Duration::from_nanos(rest.split_once(' ')?.0.parse().ok()?))
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
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
    let frames = futures::stream::unfold(0, |sent| async move {
        // A fast model's pace, and slow enough for pieces not to wait for each other.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let content = format!("sent at {} ", unix_time().as_nanos());
        let piece =
            serde_json::json!({ "choices": [{ "index": 0, "delta": { "content": content } }] });
        let frame = Frame::data(Bytes::from(format!("data: {piece}\n\n")));
        (sent < PIECES).then_some((Ok(frame), sent + 1))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
}
