//! Tests of calls, against a server of this process.

use std::time::Instant;

use serde_json::json;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

fn service(url: &str, api_key_env: &str) -> Result<Service, PipelineError> {
    Service::new(&Endpoint {
        setting: "embed.url",
        url: Some(url),
        api_key_env,
        timeout: Duration::from_secs(5),
        limits: &LimitSettings::default(),
    })
}

async fn server(responses: Vec<(ResponseTemplate, u64)>) -> MockServer {
    let server = MockServer::start().await;
    for (response, times) in responses {
        Mock::given(method("POST"))
            .and(path("/v1/embeddings"))
            .respond_with(response)
            .up_to_n_times(times)
            .mount(&server)
            .await;
    }
    server
}

async fn call(server: &MockServer) -> Result<Answered, PipelineError> {
    let service = service(&format!("{}/v1/", server.uri()), "RETAKE_TEST_NO_KEY").expect("service");
    service.post("embeddings", &json!({"input": "x"}), 1).await
}

/// Scenario: the service is busy, says for how long, and then answers.
/// Guarantees: the wait is honoured and the retry counted.
#[tokio::test]
async fn a_busy_service_is_asked_again_after_the_time_it_says() {
    let busy = ResponseTemplate::new(429).insert_header("Retry-After", "1");
    let server = server(vec![(busy, 1), (ResponseTemplate::new(200), 1)]).await;
    let start = Instant::now();
    let answered = call(&server).await.expect("answer");
    assert_eq!(answered.retries, 1);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_reported_instead() {
    let busy = ResponseTemplate::new(429).insert_header("Retry-After", "3600");
    let server = server(vec![(busy, 9)]).await;
    let start = Instant::now();
    let error = call(&server).await.expect_err("busy");
    assert!(error.to_string().ends_with("it asks to wait 3600 s"), "{error}");
    assert_eq!(error.error_type(), "rate_limited");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Scenario: the service fails for good.
/// Guarantees: bounded attempts, then a typed error with its message.
#[tokio::test]
async fn a_failing_service_is_given_up_after_four_retries() {
    let broken = ResponseTemplate::new(503)
        .insert_header("retry-after-ms", "1")
        .set_body_json(json!({"error": {"message": "loading model"}}));
    let server = server(vec![(broken, 99)]).await;
    let error = call(&server).await.expect_err("broken");
    assert_eq!(error.error_type(), "service_unavailable");
    let expected = "it answered 503 Service Unavailable: loading model (after 4 retries)";
    assert!(error.to_string().ends_with(expected), "{error}");
    assert_eq!(server.received_requests().await.expect("requests").len(), 5);
}

#[tokio::test]
async fn a_refusal_is_not_retried() {
    for status in [400, 401, 404, 302] {
        let server = server(vec![(ResponseTemplate::new(status), 9)]).await;
        let error = call(&server).await.expect_err("refused");
        assert_eq!(error.error_type(), "service");
        assert_eq!(server.received_requests().await.expect("requests").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_with_the_host() {
    let free_port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("port")
        .port();
    let service = service(&format!("http://127.0.0.1:{free_port}/v1"), "RETAKE_TEST_NO_KEY");
    let error = service.expect("service").post("x", &json!({}), 1).await.expect_err("nobody");
    assert!(error.to_string().starts_with(&format!("call 127.0.0.1:{free_port}: ")), "{error}");
    assert!(error.to_string().ends_with("(after 4 retries)"), "{error}");
}

/// Scenario: a service answers with the key in its message, as some do.
/// Guarantees: the key is sent and never shown.
#[tokio::test]
async fn the_key_is_sent_and_never_shown() {
    // A variable every process has stands in for one with a key: tests must not set variables.
    let key = std::env::var("PATH").expect("variable");
    let server = MockServer::start().await;
    Mock::given(header("authorization", format!("Bearer {key}").as_str()))
        .respond_with(
            ResponseTemplate::new(401)
                .set_body_json(json!({"error": {"message": format!("bad key {key}.")}})),
        )
        .mount(&server)
        .await;
    let service = service(&server.uri(), "PATH").expect("service");
    let error = service.post("x", &json!({}), 1).await.expect_err("refused");
    assert!(!error.to_string().contains(&key), "{error}");
    assert!(!format!("{service:?}{error:?}").contains(&key));
}

#[test]
fn urls_that_cannot_work_are_refused() {
    for (url, expected) in [
        ("", "give the base URL"),
        ("127.0.0.1:8000", "not a URL"),
        ("ftp://host/v1", "must begin with http"),
        ("http://user:secret@host/v1", "must not hold a user or password"),
    ] {
        let error = service(url, "RETAKE_TEST_NO_KEY").expect_err("refused");
        assert_eq!(error.error_type(), "configuration");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
}
