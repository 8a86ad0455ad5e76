//! Stopping.

use std::time::Duration;

use retake_server::{ServerSettings, Timeouts};
use tokio::net::TcpStream;

use super::support::{PROTOBUF, Running, exchange, post};

fn settings(deadline: Duration) -> ServerSettings {
    let timeouts = Timeouts { shutdown: deadline, ..Timeouts::default() };
    ServerSettings { timeouts, ..ServerSettings::on_free_ports() }
}

/// Scenario: the receiver is told to stop while a body is being taken and a connection is idle.
/// Guarantees: O2 - the body is acknowledged, nobody new gets in, and idle connections do not
/// hold up the end.
#[tokio::test]
async fn requests_in_progress_are_finished() {
    let running = Running::start(settings(Duration::from_secs(60)));
    let (address, ingest) = (running.http, running.ingest.clone());
    ingest.shut();
    let idle = TcpStream::connect(address).await.unwrap();
    let request =
        tokio::spawn(async move { post(address, "/v1/traces", PROTOBUF, None, b"wait").await });
    ingest.waits(1).await;
    let (stop, task) = running.begin_to_stop();
    stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!task.is_finished());
    ingest.open();
    let answer = request.await.unwrap();
    assert_eq!(answer.status, 200);
    let report = task.await.unwrap();
    assert_eq!((report.answered, report.acknowledged), (1, 1));
    assert_eq!((report.cut, report.connections_cut), (0, 0));
    drop(idle);
}

/// Scenario: the deadline passes while one body is being taken and another still arrives.
/// Guarantees: both senders are told to come again, and the report counts them.
#[tokio::test]
async fn requests_beyond_the_deadline_are_told() {
    let running = Running::start(settings(Duration::from_millis(100)));
    let (address, ingest) = (running.http, running.ingest.clone());
    ingest.shut();
    let taken =
        tokio::spawn(async move { post(address, "/v1/traces", PROTOBUF, None, b"wait").await });
    let sending = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: {address}\r\ncontent-type: {PROTOBUF}\r\n\
             content-length: 100\r\n\r\nhalf"
        );
        exchange(&mut stream, &head, b"").await.expect("an answer")
    });
    ingest.waits(1).await;
    while !running.metrics().await.contains("retake_requests_in_progress 2") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let report = running.stop().await;
    for request in [taken, sending] {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!((report.answered, report.acknowledged, report.cut), (2, 0, 2));
    assert_eq!(report.connections_cut, 0);
    ingest.open();
}
