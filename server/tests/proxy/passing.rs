//! Requests that are not recorded, and requests that are refused.

use bytes::Bytes;
use retake_schemas::event::Capture;
use retake_server::proxy::{Proxy, ProxySettings, Url};
use retake_server::{ServeError, Token};

use super::support::{Recorded, Seen, Upstream, ask, whole};

/// Scenario: other paths, other methods, and a redirect of the upstream's.
/// Guarantees: they pass in both directions without becoming a part of the run, and no place an
/// answer points to is visited.
#[tokio::test]
async fn other_requests_pass_unrecorded() {
    let upstream = Upstream::start(|seen: Seen| {
        let mut response =
            whole(302, "text/plain", Bytes::from(format!("you said {:?}", seen.body)));
        response.headers_mut().insert("location", "http://127.0.0.1:1/".parse().unwrap());
        response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        std::future::ready(response)
    })
    .await;
    let recorded = Recorded::start(upstream.url(), Capture::Full);
    let lines = [
        "GET /v1/models",
        "GET /v1/chat/completions",
        "DELETE /v1/files/f-1?purge=true",
        "POST /v1/audio/speech",
        "PATCH /anything/at%20all",
    ];
    for line in lines {
        let headers =
            [("accept-encoding", "br"), ("x-own", "1"), ("connection", "x-hop"), ("x-hop", "2")];
        let mut answer = ask(recorded.address, line, &headers, "hello").await;
        assert_eq!(answer.status, 302);
        assert_eq!(answer.headers["location"], "http://127.0.0.1:1/");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert_eq!(answer.text().await.unwrap(), "you said b\"hello\"");
    }
    let seen = upstream.seen();
    assert_eq!(seen.iter().map(|seen| seen.line.as_str()).collect::<Vec<_>>(), lines);
    for seen in &seen {
        assert_eq!(
            (&seen.headers["accept-encoding"], &seen.headers["x-own"]),
            (&"br".parse().unwrap(), &"1".parse().unwrap())
        );
        assert!(!seen.headers.contains_key("x-hop") && !seen.headers.contains_key("traceparent"));
    }
    let rows = recorded.end().await;
    assert_eq!((rows.report.passed, rows.report.recorded, rows.spans.len()), (5, 0, 0));
}

/// Scenario: strangers, pages of other sites, programs with and without the token.
/// Guarantees: O4 - who is refused reaches neither the upstream nor the run; the token stays with
/// the proxy, and `Authorization` goes to the upstream.
#[tokio::test]
async fn strangers_do_not_pass() {
    const TOKEN: &str = "0123456789-abcdef";
    let upstream = Upstream::saying(200, "application/json", "{}").await;
    let settings = ProxySettings {
        token: Some(Token::new(TOKEN).unwrap()),
        ..ProxySettings::new(upstream.url())
    };
    let recorded = Recorded::with(settings, Capture::Full);
    let bearer = format!("Bearer {TOKEN}");
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", bearer.as_str())], 401),
        (vec![("x-retake-token", "wrong-0123456789")], 401),
        (vec![("x-retake-token", TOKEN), ("host", "evil.example")], 403),
        (vec![("x-retake-token", TOKEN), ("origin", "https://evil.example")], 403),
        (vec![("x-retake-token", TOKEN), ("sec-fetch-site", "cross-site")], 403),
        (vec![("x-retake-token", TOKEN), ("authorization", "Bearer upstream-key")], 200),
    ] {
        let answer = ask(recorded.address, "POST /v1/embeddings", &headers, "{}").await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    let up =
        ask(recorded.address, "GET /v1/%2e%2e/%2e%2e/secret", &[("x-retake-token", TOKEN)], "")
            .await;
    assert_eq!(up.status, 400);
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers["authorization"], "Bearer upstream-key");
    assert!(!seen[0].headers.contains_key("x-retake-token"));
    let rows = recorded.end().await;
    assert_eq!((rows.report.refused, rows.report.recorded, rows.spans.len()), (7, 1, 1));
}

/// Scenario: an exposed address without a token, and upstreams that cannot be.
/// Guarantees: O4 - typed errors, and nothing listens.
#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let recorded = Recorded::start(Url::parse("http://127.0.0.1:9").unwrap(), Capture::Off);
    let bind =
        |settings| Proxy::bind(settings, recorded.recorder.dispatcher().clone()).unwrap_err();
    let good = ProxySettings::new(Url::parse("http://127.0.0.1:9").unwrap());
    let exposed = ProxySettings { listen: "0.0.0.0:0".parse().unwrap(), ..good };
    assert!(matches!(bind(exposed), ServeError::Exposed { .. }));
    for url in ["http://user:secret@h/", "ftp://h/"] {
        let error = bind(ProxySettings::new(Url::parse(url).unwrap()));
        assert!(matches!(error, ServeError::Upstream(_)));
        assert!(!error.to_string().contains("secret"));
    }
    recorded.end().await;
}
