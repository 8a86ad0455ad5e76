//! Slow clients, many clients, and full queues.

use std::time::{Duration, Instant};

use retake_server::{Limits, ServerSettings, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{PROTOBUF, Running, connect, exchange, post};

fn with(limits: Limits, timeouts: Timeouts) -> ServerSettings {
    ServerSettings { limits, timeouts, ..ServerSettings::on_free_ports() }
}

fn good_head(address: std::net::SocketAddr) -> String {
    format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: {PROTOBUF}\r\n\
         content-length: 4\r\n\r\n"
    )
}

/// Scenario: 500 connections that say nothing and 50 that send a head or a body byte by byte,
/// and a good client among them.
/// Guarantees: O3 - the good client's 99th percentile stays below 250 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_do_not_slow_a_good_one() {
    let running = Running::start(ServerSettings::on_free_ports());
    let address = running.http;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut slow = Vec::new();
    for number in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        slow.push(tokio::spawn(async move {
            let start = if number % 2 == 0 { String::new() } else { good_head(address) };
            let _ = stream.write_all(start.as_bytes()).await;
            for byte in format!("POST /v1/traces HTTP/1.1\r\nhost: {address}\r\n").into_bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    let mut good = connect(address).await;
    let mut took = Vec::new();
    for _ in 0..300 {
        let start = Instant::now();
        let answer = exchange(&mut good, &good_head(address), b"good").await.expect("an answer");
        assert_eq!(answer.status, 200);
        took.push(start.elapsed());
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100 - 1];
    println!("p50 {:?}, p99 {p99:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(p99 < Duration::from_millis(250), "p99 is {p99:?}");
    let metrics = running.metrics().await;
    let open = metrics.lines().find_map(|l| l.strip_prefix("retake_connections ")).unwrap();
    assert!(open.parse::<u64>().unwrap() >= 500, "{open} connections are open");
    for slow in slow {
        slow.abort();
    }
    drop((idle, good));
    running.stop().await;
}

/// Scenario: a head, a body, and a connection that never go on, over HTTP/1 and HTTP/2.
/// Guarantees: O3 - each is given up; the body's sender is told.
#[tokio::test]
async fn what_never_goes_on_is_given_up() {
    let short = Duration::from_millis(150);
    let timeouts =
        Timeouts { head: short, body_idle: short, idle: 3 * short, ..Timeouts::default() };
    let running = Running::start(with(Limits::default(), timeouts));
    let address = running.http;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for start in ["", "POST /v1/tra", "PRI * HT", preface] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
        let _ = end.await.unwrap_or_else(|_| panic!("{start:?} is still open"));
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{start:?}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = exchange(&mut stream, &good_head(address), b"go").await.expect("an answer");
    assert_eq!(answer.status, 408);
    let metrics = running.metrics().await;
    for line in [
        "retake_connections_total{fate=\"head_timeout\"} 2",
        "retake_connections_total{fate=\"idle_timeout\"} 2",
        "retake_refused_total{cause=\"slow\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    running.stop().await;
}

/// Scenario: a body that trickles fast enough to never be idle.
/// Guarantees: O3 - it has a total time too.
#[tokio::test]
async fn a_trickling_body_is_given_up() {
    let total = Duration::from_millis(200);
    let timeouts = Timeouts { body_total: total, ..Timeouts::default() };
    let running = Running::start(with(Limits::default(), timeouts));
    let address = running.http;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let head = good_head(address).replace("content-length: 4", "content-length: 1000000");
    let trickle = tokio::spawn(async move {
        writing.write_all(head.as_bytes()).await.unwrap();
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let answer = super::support::read_answer(&mut reading).await.expect("an answer");
    assert_eq!(answer.status, 408);
    trickle.abort();
    running.stop().await;
}

/// Scenario: a connection more than there may be, once while all others are idle and once while
/// all are busy.
/// Guarantees: O3 - the idlest makes room; a busy one is never cut for a newcomer.
#[tokio::test]
async fn idle_connections_make_room() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let running = Running::start(with(limits, Timeouts::default()));
    let address = running.http;
    let mut oldest = TcpStream::connect(address).await.unwrap();
    let _others =
        [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    assert_eq!(post(address, "/v1/traces", PROTOBUF, None, b"good").await.status, 200);
    let read = oldest.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "the oldest connection is open");

    running.ingest.shut();
    let busy: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn(async move { post(address, "/v1/traces", PROTOBUF, None, b"wait").await })
        })
        .collect();
    running.ingest.waits(3).await;
    let mut newcomer = TcpStream::connect(address).await.unwrap();
    assert!(exchange(&mut newcomer, &good_head(address), b"good").await.is_none());
    running.ingest.open();
    for request in busy {
        assert_eq!(request.await.unwrap().status, 200);
    }
    running.stop().await;
}

/// Scenario: more requests than may be in progress, more than get a turn, and more bytes of
/// bodies than there is memory for.
/// Guarantees: O3 - those too many are told when to come again and nothing of them is kept; when
/// there is room, they are taken.
#[tokio::test]
async fn what_is_too_much_is_told_to_come_again() {
    let limits = Limits {
        body_bytes_max: 100_000,
        // Room for two large ones and some small ones.
        bodies_bytes_max: 230_000,
        requests_max: 5,
        ingests_max: 4,
        ..Limits::default()
    };
    let timeouts = Timeouts { turn: Duration::from_millis(50), ..Timeouts::default() };
    let running = Running::start(with(limits, timeouts));
    let (address, ingest) = (running.http, running.ingest.clone());
    ingest.shut();
    let wait = |body: Vec<u8>| {
        tokio::spawn(async move { post(address, "/v1/traces", PROTOBUF, None, &body).await })
    };
    let large = [b"w".to_vec(), vec![b'x'; 95_000]].concat();
    let mut waiting = vec![wait(large.clone()), wait(large.clone())];
    ingest.waits(2).await;
    let refused = post(address, "/v1/traces", PROTOBUF, None, &large).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));

    waiting.extend([wait(b"w".to_vec()), wait(b"w".to_vec())]);
    ingest.waits(4).await;
    let refused = post(address, "/v1/traces", PROTOBUF, None, b"no turn").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let half = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        exchange(&mut stream, &good_head(address), b"go").await
    });
    while !running.metrics().await.contains("retake_requests_in_progress 5") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let refused = post(address, "/v1/traces", PROTOBUF, None, b"one more").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let metrics = running.metrics().await;
    for cause in ["bodies", "turn", "requests"] {
        let line = format!("retake_refused_total{{cause=\"{cause}\"}} 1");
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }

    half.abort();
    ingest.open();
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(post(address, "/v1/traces", PROTOBUF, None, &large).await.status, 200);
    while !running.metrics().await.contains("retake_bodies_bytes 0") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running.stop().await;
}

/// Scenario: a client goes away while its body is being taken.
/// Guarantees: O2 - the body is taken all the same: the client may have been acknowledged, as far
/// as it can tell, and will send it again if not.
#[tokio::test]
async fn a_body_outlives_its_client() {
    let running = Running::start(ServerSettings::on_free_ports());
    let (address, ingest) = (running.http, running.ingest.clone());
    ingest.shut();
    let client =
        tokio::spawn(async move { post(address, "/v1/traces", PROTOBUF, None, b"wait").await });
    ingest.waits(1).await;
    client.abort();
    while !running.metrics().await.contains("retake_abandoned_total 1") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(ingest.taken().is_empty());
    ingest.open();
    while ingest.taken().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running.stop().await;
}
