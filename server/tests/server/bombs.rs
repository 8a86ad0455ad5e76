//! Bodies made to take the machine.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use retake_server::{Server, ServerSettings};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::grpc::{call, frame};
use super::support::{FakeIngest, PROTOBUF, Running, exchange, post, read_answer};

/// Set for the program that is the receiver: the file it writes its addresses to.
const ADDRESS_FILE: &str = "RETAKE_TEST_ADDRESS_FILE";
const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

/// A receiver in a process of its own, whose memory can be measured.
struct Bombed {
    child: Child,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Bombed {
    fn start(folder: &Path) -> Self {
        let file = folder.join("addresses");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["bombs::bombs_are_refused_in_time_and_memory", "--exact", "--nocapture"])
            .env(ADDRESS_FILE, &file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let child = child.spawn().unwrap();
        let (http, grpc) = Self::addresses(&file);
        Self { child, http, grpc }
    }

    /// Waits until the child has written where it listens.
    fn addresses(file: &Path) -> (SocketAddr, SocketAddr) {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if let Some((http, grpc)) = text.strip_suffix(';').and_then(|t| t.split_once(' ')) {
                return (http.parse().unwrap(), grpc.parse().unwrap());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Is what the child is: a receiver until its input ends.
    async fn be(file: std::ffi::OsString) {
        let settings = ServerSettings::on_free_ports();
        let server = Server::bind(settings, Arc::new(FakeIngest::default())).unwrap();
        let text = format!("{} {};", server.http_addr(), server.grpc_addr());
        std::fs::write(file, text).unwrap();
        let input_ends = tokio::task::spawn_blocking(|| {
            let _ = std::io::stdin().read(&mut [0]);
        });
        server.run(async { input_ends.await.unwrap() }).await.unwrap();
    }

    /// Bytes of memory now, and the most since the last call of `forget_peak`.
    fn memory(&self) -> (usize, usize) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<usize>().unwrap()
        };
        (kib("VmRSS") * 1024, kib("VmHWM") * 1024)
    }

    fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }
}

impl Drop for Bombed {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// A gibibyte of zeros, in gzip: about a mebibyte.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    let zeros = vec![0; MIB];
    for _ in 0..GIB / MIB {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// A gibibyte of zeros in zstd, in a thousand frames: less than a tenth of that.
fn zstd_bomb() -> Vec<u8> {
    let frame = zstd::encode_all(&vec![0; MIB][..], 1).unwrap();
    frame.repeat(GIB / MIB)
}

/// Sends chunks until it is refused.
async fn endless_chunks(address: SocketAddr, chunk: usize) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: {PROTOBUF}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunk = format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk));
    let chunks = chunk.repeat((1 << 16) / chunk.len() + 1);
    let write = async {
        let _ = writing.write_all(head.as_bytes()).await;
        while writing.write_all(chunks.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = read_answer(&mut reading) => answer.map_or(0, |answer| answer.status),
        () = write => 0,
    }
}

/// States a length and sends another.
async fn lie(address: SocketAddr, length: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: {PROTOBUF}\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_answer(&mut stream).await.map_or(0, |answer| answer.status)
}

/// Scenario: a gibibyte from a mebibyte in gzip and zstd, over HTTP and gRPC; bodies without end
/// in large and small chunks; lengths that are lies.
/// Guarantees: O1 - each is refused within a second and with at most 32 MiB of memory more,
/// and the receiver still answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_refused_in_time_and_memory() {
    if let Some(file) = std::env::var_os(ADDRESS_FILE) {
        return Bombed::be(file).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let bombed = Bombed::start(folder.path());
    let (http, grpc) = (bombed.http, bombed.grpc);
    assert_eq!(post(http, "/v1/traces", PROTOBUF, None, b"good").await.status, 200);
    let (before, _) = bombed.memory();
    let (gzip, zstd) = (gzip_bomb(), zstd_bomb());
    for name in [
        "gzip",
        "zstd",
        "gRPC gzip",
        "gRPC zstd",
        "chunks",
        "small chunks",
        "long",
        "longer",
        "longest",
        "negative",
        "too long for what follows",
        "gRPC lying length",
    ] {
        bombed.forget_peak();
        let start = Instant::now();
        let (status, expected): (u16, &[u16]) = match name {
            "gzip" => {
                (post(http, "/v1/traces", PROTOBUF, Some("gzip"), &gzip).await.status, &[413])
            }
            "zstd" => {
                (post(http, "/v1/traces", PROTOBUF, Some("zstd"), &zstd).await.status, &[413])
            }
            "gRPC gzip" => (call(grpc, Some("gzip"), &frame(1, &gzip)).await.code, &[8]),
            "gRPC zstd" => (call(grpc, Some("zstd"), &frame(1, &zstd)).await.code, &[8]),
            "gRPC lying length" => {
                let lying = [&[0, 0xFF, 0xFF, 0xFF, 0xFF], &b"short"[..]].concat();
                (call(grpc, None, &lying).await.code, &[3])
            }
            "chunks" => (endless_chunks(http, 16 << 10).await, &[413]),
            "small chunks" => (endless_chunks(http, 16).await, &[413]),
            "long" => (lie(http, "1073741824", b"x").await, &[413]),
            "longer" => (lie(http, "18446744073709551610", b"x").await, &[413]),
            "longest" => (lie(http, "99999999999999999999999", b"x").await, &[400]),
            "negative" => (lie(http, "-1", b"x").await, &[400]),
            _ => (lie(http, "100", b"x").await, &[400, 0]),
        };
        let took = start.elapsed();
        let (_, peak) = bombed.memory();
        let grown = peak.saturating_sub(before) / 1024;
        println!("{name}: {status} in {took:?}, {grown} KiB more");
        assert!(expected.contains(&status), "{name}: {status}");
        assert!(took < Duration::from_secs(1), "{name} took {took:?}");
        assert!(grown <= 32 << 10, "{name} took {grown} KiB");
    }
    assert_eq!(post(http, "/v1/traces", PROTOBUF, None, b"good").await.status, 200);
}

/// Scenario: a client asks before it sends a body that is too large.
/// Guarantees: O1 - it is not told to go on.
#[tokio::test]
async fn a_stated_length_over_the_limit_is_refused_before_it_is_sent() {
    let running = Running::start(ServerSettings::on_free_ports());
    let address = running.http;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: {PROTOBUF}\r\n\
         expect: 100-continue\r\ncontent-length: 999999999\r\n\r\n"
    );
    let answer = exchange(&mut stream, &head, b"").await.expect("an answer");
    assert_eq!(answer.status, 413);
    running.stop().await;
}
