//! What the tests share: an `Ingest` that does as it is told, a running receiver, and a client
//! that can also be rude.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use retake_server::{
    Accepted, Encoding, Health, Ingest, Refused, ServeReport, Server, ServerSettings, Signal,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Keeps what it is given, and answers by the first byte of the body.
#[derive(Default)]
pub(crate) struct FakeIngest {
    pub(crate) bodies: Mutex<Vec<(Signal, Encoding, Vec<u8>)>>,
    pub(crate) is_unready: AtomicBool,
    /// While it is held shut, bodies that begin with `w` wait.
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
struct Gate {
    is_shut: bool,
    waiting: usize,
}

impl FakeIngest {
    pub(crate) fn shut(&self) {
        self.gate.lock().unwrap().is_shut = true;
    }

    pub(crate) fn open(&self) {
        self.gate.lock().unwrap().is_shut = false;
        self.moved.notify_all();
    }

    /// Waits until so many bodies wait.
    pub(crate) async fn waits(&self, count: usize) {
        while self.gate.lock().unwrap().waiting < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn taken(&self) -> Vec<(Signal, Encoding, Vec<u8>)> {
        std::mem::take(&mut self.bodies.lock().unwrap())
    }
}

impl Ingest for FakeIngest {
    fn ingest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Accepted, Refused> {
        let accepted = match body.first() {
            Some(b'm') => return Err(Refused::Malformed("not a message".to_owned())),
            Some(b'l') => return Err(Refused::TooLarge("too many spans".to_owned())),
            Some(b'b') => {
                return Err(Refused::Busy { retry_after: Duration::from_millis(2500) });
            }
            Some(b'u') => return Err(Refused::Unavailable("the disk is full: 100 %é".to_owned())),
            Some(b'p') => {
                Accepted { accepted: 5, rejected: 2, message: "two have no id".to_owned() }
            }
            Some(b'!') => panic!("an ingest that fails"),
            Some(b'w') => {
                let mut gate = self.gate.lock().unwrap();
                gate.waiting += 1;
                // A test that failed opens nothing, and must still end.
                let is_shut = |gate: &mut Gate| gate.is_shut;
                let waited = self.moved.wait_timeout_while(gate, Duration::from_secs(30), is_shut);
                gate = waited.unwrap().0;
                gate.waiting -= 1;
                Accepted { accepted: 1, ..Accepted::default() }
            }
            _ => Accepted { accepted: 1, ..Accepted::default() },
        };
        self.bodies.lock().unwrap().push((signal, encoding, body.to_vec()));
        Ok(accepted)
    }

    fn health(&self) -> Health {
        if self.is_unready.load(Ordering::Relaxed) {
            Health::Unready("the disk is full".to_owned())
        } else {
            Health::Ready
        }
    }
}

/// A receiver that answers.
pub(crate) struct Running {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) ingest: Arc<FakeIngest>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<ServeReport>,
}

impl Running {
    pub(crate) fn start(settings: ServerSettings) -> Self {
        let ingest = Arc::new(FakeIngest::default());
        let server = Server::bind(settings, Arc::clone(&ingest) as Arc<dyn Ingest>).unwrap();
        let (http, grpc) = (server.http_addr(), server.grpc_addr());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.run(shutdown).await.unwrap()
        });
        Self { http, grpc, ingest, stop, task }
    }

    pub(crate) async fn stop(self) -> ServeReport {
        let (stop, task) = self.begin_to_stop();
        let _ = stop.send(());
        task.await.unwrap()
    }

    /// For stopping by hand.
    pub(crate) fn begin_to_stop(self) -> (oneshot::Sender<()>, JoinHandle<ServeReport>) {
        (self.stop, self.task)
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        send(self.http, &format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", self.http), b"")
            .await
            .text()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// A connection whose small writes go out at once, as clients of HTTP have it.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Posts a body of the given type and coding.
pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    content_type: &str,
    coding: Option<&str>,
    body: &[u8],
) -> Answer {
    let coding = coding.map_or(String::new(), |coding| format!("content-encoding: {coding}\r\n"));
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\n{coding}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    send(address, &head, body).await
}

/// Sends a head and a body as they are, and reads one answer.
pub(crate) async fn send(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut stream = connect(address).await;
    exchange(&mut stream, head, body).await.expect("an answer")
}

/// The same on a connection that is there. `None` if it was closed without an answer.
pub(crate) async fn exchange(stream: &mut TcpStream, head: &str, body: &[u8]) -> Option<Answer> {
    let (mut reading, mut writing) = stream.split();
    let write = async {
        // Who is refused early may be cut while it still sends.
        let _ = writing.write_all(head.as_bytes()).await;
        let _ = writing.write_all(body).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = read_answer(&mut reading) => answer,
        () = write => None,
    }
}

/// Reads one answer with a stated length.
pub(crate) async fn read_answer(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    if status == 100 {
        return Box::pin(read_answer(stream)).await;
    }
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    answer.body = vec![0; length];
    stream.read_exact(&mut answer.body).await.ok()?;
    Some(answer)
}

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";
