//! Who may ask.

use std::sync::Arc;

use retake_server::{Ingest, ServeError, Server, ServerSettings, Token};

use super::support::{FakeIngest, PROTOBUF, Running, send};

const TOKEN: &str = "0123456789-abcdef";

/// Scenario: every `Host` and `Origin` a browser, a rebound name, or a rude client may send, to
/// listeners with and without a token.
/// Guarantees: O4 - only who asks this listener by its own name, not from another site, and with
/// the token if there is one, gets in; and nobody is told that a page may read the answer.
#[tokio::test]
async fn strangers_are_refused() {
    let open = Running::start(ServerSettings {
        hosts: vec!["collector.internal".to_owned()],
        ..ServerSettings::on_free_ports()
    });
    let closed = Running::start(ServerSettings {
        token: Some(Token::new(TOKEN).unwrap()),
        ..ServerSettings::on_free_ports()
    });
    let port = open.http.port();
    let own = format!("host: 127.0.0.1:{port}");
    let bearer = |scheme: &str, token: &str| format!("{own}\r\nauthorization: {scheme} {token}");
    let with = |header: &str| format!("{own}\r\n{header}");
    let cut = &TOKEN[..TOKEN.len() - 1];
    let cases: Vec<(&str, String, u16)> = vec![
        // Which name is asked.
        ("open", own.clone(), 200),
        ("open", format!("host: localhost:{port}"), 200),
        ("open", "host: LocalHost".to_owned(), 200),
        ("open", "host: [::1]:4318".to_owned(), 200),
        ("open", "host: 127.9.9.9:1".to_owned(), 200),
        ("open", "host: collector.internal:4318".to_owned(), 200),
        ("open", "host: evil.example".to_owned(), 403),
        ("open", format!("host: evil.example:{port}"), 403),
        ("open", "host: localhost.evil.example".to_owned(), 403),
        ("open", "host: 127.0.0.1.evil.example".to_owned(), 403),
        ("open", "host: evil.example#localhost".to_owned(), 400),
        ("open", "host: localhost@evil.example".to_owned(), 400),
        ("open", "host: 2130706433".to_owned(), 403),
        ("open", "host: 0.0.0.0:4318".to_owned(), 403),
        ("open", "host: 10.0.0.1:4318".to_owned(), 403),
        ("open", "host: [::ffff:10.0.0.1]".to_owned(), 403),
        ("open", "host: localhost.".to_owned(), 403),
        ("open", "host:".to_owned(), 400),
        ("open", "x: y".to_owned(), 400),
        ("open", format!("{own}\r\nhost: evil.example"), 400),
        ("open", format!("host: evil.example\r\n{own}"), 400),
        // Which page asks.
        ("open", with(&format!("origin: http://127.0.0.1:{port}")), 200),
        ("open", with("origin: http://127.0.0.1:3000"), 403),
        ("open", with(&format!("origin: http://localhost:{port}")), 403),
        ("open", with(&format!("origin: https://127.0.0.1:{port}")), 403),
        ("open", with("origin: https://evil.example"), 403),
        ("open", with("origin: null"), 403),
        ("open", with("origin:"), 403),
        ("open", with("sec-fetch-site: cross-site"), 403),
        ("open", with("sec-fetch-site: same-site"), 403),
        ("open", with("sec-fetch-site: none"), 200),
        // Who knows the token.
        ("closed", own.clone(), 401),
        ("closed", bearer("Bearer", TOKEN), 200),
        ("closed", bearer("bearer", TOKEN), 200),
        ("closed", with(&format!("x-retake-token: {TOKEN}")), 200),
        ("closed", bearer("Basic", TOKEN), 401),
        ("closed", bearer("Bearer", cut), 401),
        ("closed", bearer("Bearer", &format!("{TOKEN}0")), 401),
        ("closed", bearer("Bearer", &TOKEN.to_uppercase()), 401),
        ("closed", bearer("Bearer", ""), 401),
        ("closed", with(&format!("authorization: {TOKEN}")), 401),
        ("closed", with(&format!("cookie: token={TOKEN}")), 401),
        ("closed", format!("host: evil.example\r\nauthorization: Bearer {TOKEN}"), 403),
        ("closed", format!("{}\r\norigin: null", bearer("Bearer", TOKEN)), 403),
    ];
    assert!(cases.len() >= 30);
    for (listener, headers, status) in cases {
        let running = if listener == "open" { &open } else { &closed };
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\n{headers}\r\ncontent-type: {PROTOBUF}\r\n\
             content-length: 4\r\n\r\n"
        );
        let answer = send(running.http, &head, b"good").await;
        assert_eq!(answer.status, status, "{listener}: {headers}");
        assert_eq!(running.ingest.taken().len(), usize::from(status == 200), "{headers}");
        let readable = answer.headers.iter().find(|(name, _)| name.starts_with("access-control"));
        assert_eq!(readable, None, "{headers}");
        assert!(!answer.text().contains(cut), "the answer holds the token");
    }
    open.stop().await;
    closed.stop().await;
}

/// Scenario: the request line names another site than `Host` does.
/// Guarantees: O4 - both are checked.
#[tokio::test]
async fn a_foreign_request_line_is_refused() {
    let running = Running::start(ServerSettings::on_free_ports());
    let host = running.http;
    let asked = |target: String| format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let foreign = asked("http://evil.example/healthz".to_owned());
    assert_eq!(send(host, &foreign, b"").await.status, 403);
    let own = asked(format!("http://{host}/healthz"));
    assert_eq!(send(host, &own, b"").await.status, 200);
    running.stop().await;
}

/// Scenario: a page of another site asks what it may do.
/// Guarantees: O4 - it learns nothing.
#[tokio::test]
async fn preflights_are_not_answered() {
    let running = Running::start(ServerSettings::on_free_ports());
    let host = running.http;
    for (headers, status) in [
        ("", 405),
        ("origin: https://evil.example\r\naccess-control-request-method: POST\r\n", 403),
    ] {
        let head = format!("OPTIONS /v1/traces HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
        let answer = send(host, &head, b"").await;
        assert_eq!(answer.status, status);
        assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")));
    }
    running.stop().await;
}

/// Scenario: paths of operators on a listener with a token.
/// Guarantees: O4 - without it one learns that the process is alive, and no more.
#[tokio::test]
async fn only_liveness_needs_no_token() {
    let running = Running::start(ServerSettings {
        token: Some(Token::new(TOKEN).unwrap()),
        ..ServerSettings::on_free_ports()
    });
    let host = running.http;
    for (path, without, with) in [
        ("/healthz", 200, 200),
        ("/readyz", 401, 200),
        ("/metrics", 401, 200),
        ("/anything", 401, 404),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n");
        let answer = send(host, &format!("{head}\r\n"), b"").await;
        assert_eq!(answer.status, without, "{path}");
        assert_eq!(answer.header("www-authenticate"), (without == 401).then_some("Bearer"));
        let answer = send(host, &format!("{head}x-retake-token: {TOKEN}\r\n\r\n"), b"").await;
        assert_eq!(answer.status, with, "{path}");
    }
    running.stop().await;
}

/// Scenario: an address that other machines reach, without a token, for either listener.
/// Guarantees: O4 - a typed error, and nothing listens.
#[test]
fn an_exposed_address_needs_a_token() {
    let free = ServerSettings::on_free_ports();
    let exposed = "0.0.0.0:0".parse().unwrap();
    for settings in [
        ServerSettings { http: exposed, ..free.clone() },
        ServerSettings { grpc: exposed, ..free.clone() },
    ] {
        let ingest = Arc::new(FakeIngest::default()) as Arc<dyn Ingest>;
        let error = Server::bind(settings, ingest).unwrap_err();
        assert!(matches!(error, ServeError::Exposed { address } if address == exposed));
    }
}
