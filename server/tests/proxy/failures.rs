//! Calls that fail, and calls that cannot be read.

use std::time::Duration;

use bytes::Bytes;
use retake_schemas::event::Capture;
use retake_server::Limits;
use retake_server::proxy::{ProxySettings, Url};
use serde_json::{Value as Json, json};

use super::support::{Answering, Recorded, Seen, Upstream, ask, post, streamed, whole};

fn question() -> Json {
    json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
}

/// Scenario: the service is overloaded.
/// Guarantees: its status, headers and body pass unchanged, and the call is recorded as failed.
#[tokio::test]
async fn errors_of_the_upstream_pass_and_are_recorded() {
    let body = json!({"error": {"message": "try again", "type": "overloaded_error"}}).to_string();
    let sent = body.clone();
    let upstream = Upstream::start(move |_| {
        let mut response = whole(503, "application/json", Bytes::from(sent.clone()));
        response.headers_mut().insert("retry-after", "7".parse().unwrap());
        response.headers_mut().insert("x-request-id", "abc".parse().unwrap());
        std::future::ready(response)
    })
    .await;
    let recorded = Recorded::start(upstream.url(), Capture::Digest);
    let mut answer = post(recorded.address, "/v1/chat/completions", &question()).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["retry-after"], "7");
    assert_eq!(answer.headers["x-request-id"], "abc");
    assert_eq!(answer.text().await.unwrap(), body);
    let rows = recorded.end().await;
    let span = rows.span();
    assert_eq!(span.status, "error");
    assert_eq!(span.error_type.as_deref(), Some("503"));
    assert_eq!(span.error_message.as_deref(), Some("try again"));
    assert_eq!(span.model_request.as_deref(), Some("m"));
    assert_eq!(rows.report.unread, 0);
}

/// Scenario: nobody listens where the upstream should be.
/// Guarantees: the client gets 502 in the form it reads, and the call is recorded.
#[tokio::test]
async fn an_upstream_that_is_not_there_is_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", free.local_addr().unwrap())).unwrap();
    drop(free);
    let recorded = Recorded::start(url, Capture::Digest);
    let path = "/v1/chat/completions?api_key=odd-key-in-a-query";
    let mut answer = post(recorded.address, path, &question()).await;
    assert_eq!(answer.status, 502);
    let error: Json = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(error["error"]["type"], "retake_proxy_upstream");
    assert!(!error.to_string().contains("odd-key"), "{error}");
    let rows = recorded.end().await;
    assert_eq!(rows.span().status, "error");
    assert_eq!(rows.span().error_type.as_deref(), Some("connect"));
}

/// Scenario: the client goes away before the service has answered.
/// Guarantees: the request to the upstream is dropped, and the call is recorded as cancelled.
#[tokio::test]
async fn a_client_that_does_not_wait_cancels_its_call() {
    let (asked, mut was_asked) = tokio::sync::mpsc::channel::<()>(1);
    let (let_go, mut was_let_go) = tokio::sync::mpsc::channel::<()>(1);
    let upstream = Upstream::start(move |_: Seen| {
        let (asked, let_go) = (asked.clone(), LetGo(let_go.clone()));
        Box::pin(async move {
            asked.send(()).await.unwrap();
            std::future::pending::<()>().await;
            drop(let_go);
            streamed().1
        }) as Answering
    })
    .await;
    struct LetGo(tokio::sync::mpsc::Sender<()>);
    impl Drop for LetGo {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let recorded = Recorded::start(upstream.url(), Capture::Digest);
    let address = recorded.address;
    let client =
        tokio::spawn(
            async move { post(address, "/v1/chat/completions", &question()).await.status },
        );
    was_asked.recv().await.unwrap();
    client.abort();
    let let_go = tokio::time::timeout(Duration::from_secs(30), was_let_go.recv());
    let_go.await.expect("the upstream is let go").unwrap();
    let rows = recorded.end().await;
    assert_eq!(rows.span().status, "cancelled");
    assert_eq!(rows.span().model_request.as_deref(), Some("m"));
}

/// Scenario: bodies that are no JSON, are larger than is read, or are compressed.
/// Guarantees: they pass to the last byte; the call is recorded without what could not be read,
/// and the report says how many there were.
#[tokio::test]
async fn what_cannot_be_read_passes() {
    let large = vec![b'x'; 300_000];
    let answer = Bytes::from(large.clone());
    let upstream = Upstream::start(move |seen: Seen| {
        let mut response = whole(200, "application/json", answer.clone());
        if seen.line.contains("gzip") {
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        }
        std::future::ready(response)
    })
    .await;
    let limits = Limits { body_bytes_max: 100_000, bodies_bytes_max: 200_000, ..Limits::default() };
    let settings = ProxySettings { limits, ..ProxySettings::new(upstream.url()) };
    let recorded = Recorded::with(settings, Capture::Full);
    for (line, body) in [
        ("POST /v1/chat/completions", b"no JSON".to_vec()),
        ("POST /v1/embeddings?gzip", b"{}".to_vec()),
        ("POST /v1/chat/completions", large.clone()),
    ] {
        let mut answer =
            ask(recorded.address, line, &[("accept-encoding", "gzip, br")], body).await;
        assert_eq!(answer.text().await.unwrap().len(), large.len());
    }
    let seen = upstream.seen();
    assert_eq!(seen[2].body, large);
    assert!(seen.iter().all(|seen| seen.headers["accept-encoding"] == "identity"));
    let rows = recorded.end().await;
    assert_eq!((rows.report.recorded, rows.report.unread), (3, 3));
    assert!(rows.spans.iter().all(|span| span.status == "ok" && span.output_ref.is_none()));
    assert_eq!(rows.spans.len(), 3);
}
