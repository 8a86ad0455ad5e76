//! What operators see.

use std::sync::atomic::Ordering;

use retake_server::{Limits, ServerSettings};

use super::support::{JSON, PROTOBUF, Running, gzip, post, send};

/// Scenario: the disk fills, and is emptied.
/// Guarantees: `/readyz` says so and why; `/healthz` stays.
#[tokio::test]
async fn readiness_says_why_not() {
    let running = Running::start(ServerSettings::on_free_ports());
    let host = running.http;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    assert_eq!(send(host, &get("/readyz"), b"").await.status, 200);
    running.ingest.is_unready.store(true, Ordering::Relaxed);
    let unready = send(host, &get("/readyz"), b"").await;
    assert_eq!((unready.status, unready.text().as_str()), (503, "the disk is full\n"));
    assert_eq!(send(host, &get("/healthz"), b"").await.status, 200);
    running.stop().await;
}

/// Scenario: requests that end in every way.
/// Guarantees: the metrics have each once, and nothing is in progress afterwards.
#[tokio::test]
async fn metrics_count_every_answer() {
    let running = Running::start(ServerSettings::on_free_ports());
    let body = b"good".repeat(50);
    for (path, content_type, coding, body) in [
        ("/v1/traces", PROTOBUF, None, body.clone()),
        ("/v1/traces", PROTOBUF, Some("gzip"), gzip(&body)),
        ("/v1/traces", JSON, None, b"p".to_vec()),
        ("/v1/traces", JSON, None, b"b".to_vec()),
        ("/v1/logs", "text/plain", None, b"x".to_vec()),
    ] {
        post(running.http, path, content_type, coding, &body).await;
    }
    let head = "GET /healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    send(running.http, head, b"").await;
    let metrics = running.metrics().await;
    let sent = 200 + gzip(&body).len() + 1 + 1;
    for line in [
        "retake_requests_total{signal=\"traces\",protocol=\"http\",code=\"200\"} 3",
        "retake_requests_total{signal=\"traces\",protocol=\"http\",code=\"429\"} 1",
        "retake_requests_total{signal=\"logs\",protocol=\"http\",code=\"415\"} 1",
        "retake_items_total{signal=\"traces\",result=\"accepted\"} 7",
        "retake_items_total{signal=\"traces\",result=\"rejected\"} 2",
        "retake_refused_total{cause=\"ingest\"} 1",
        "retake_refused_total{cause=\"unknown_format\"} 1",
        "retake_refused_total{cause=\"host\"} 1",
        &format!("retake_received_bytes_total {sent}"),
        "retake_decompressed_bytes_total 401",
        "retake_requests_in_progress 0",
        "retake_bodies_bytes 0",
        "retake_abandoned_total 0",
        "retake_ack_seconds_bucket{le=\"+Inf\"} 3",
        "retake_ack_seconds_count 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    let report = running.stop().await;
    assert_eq!((report.answered, report.acknowledged, report.cut), (5, 3, 0));
}

/// Scenario: limits under which nothing could be taken.
/// Guarantees: a typed error that names the limit, instead of a receiver that refuses everything.
#[test]
fn limits_that_cannot_work_are_refused() {
    use std::sync::Arc;

    use retake_server::{ServeError, Server};
    let limits = Limits::default();
    for (name, limits) in [
        ("body_bytes_max", Limits { body_bytes_max: 0, ..limits }),
        ("bodies_bytes_max", Limits { bodies_bytes_max: limits.body_bytes_max, ..limits }),
        ("bodies_bytes_max", Limits { bodies_bytes_max: 1 << 40, ..limits }),
        ("head_bytes_max", Limits { head_bytes_max: 100, ..limits }),
        ("connections_max", Limits { connections_max: 0, ..limits }),
        ("ingests_max", Limits { ingests_max: 0, ..limits }),
    ] {
        let settings = ServerSettings { limits, ..ServerSettings::on_free_ports() };
        let ingest = Arc::new(super::support::FakeIngest::default());
        let error = Server::bind(settings, ingest).unwrap_err();
        assert!(matches!(error, ServeError::Limit { limit, .. } if limit == name), "{error}");
    }
}
