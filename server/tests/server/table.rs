//! The table of cases of an OTLP receiver over HTTP.

use retake_server::{Encoding, Limits, ServerSettings, Signal};

use super::support::{Answer, JSON, PROTOBUF, Running, gzip, post, send, zlib};

const BODY_MAX: usize = 100_000;

fn settings() -> ServerSettings {
    let limits =
        Limits { body_bytes_max: BODY_MAX, bodies_bytes_max: 2 * BODY_MAX, ..Limits::default() };
    ServerSettings { limits, ..ServerSettings::on_free_ports() }
}

/// One case: what is sent, and the status that must come back.
struct Case {
    name: &'static str,
    content_type: &'static str,
    coding: Option<&'static str>,
    body: Vec<u8>,
    status: u16,
}

fn case(
    name: &'static str,
    content_type: &'static str,
    coding: impl Into<Option<&'static str>>,
    body: impl Into<Vec<u8>>,
    status: u16,
) -> Case {
    Case { name, content_type, coding: coding.into(), body: body.into(), status }
}

fn cases() -> Vec<Case> {
    let good = b"good body".repeat(100);
    let zstd = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
    let half = |packed: Vec<u8>| packed[..packed.len() / 2].to_vec();
    let exact = vec![b'g'; BODY_MAX];
    let over = vec![b'g'; BODY_MAX + 1];
    let members = [gzip(b"good "), gzip(b"body"), gzip(b" in three")].concat();
    vec![
        case("protobuf", PROTOBUF, None, good.clone(), 200),
        case("json", JSON, None, good.clone(), 200),
        case("charset", "application/json; charset=utf-8", None, good.clone(), 200),
        case("parameter of protobuf", "Application/X-Protobuf;v=1", None, good.clone(), 200),
        case("empty", PROTOBUF, None, "", 200),
        case("gzip", PROTOBUF, "gzip", gzip(&good), 200),
        case("GZIP", PROTOBUF, "GZIP", gzip(&good), 200),
        case("gzip members", JSON, "gzip", members, 200),
        case("zstd", JSON, "zstd", zstd(&good), 200),
        case("zstd frames", JSON, "zstd", zstd(&good).repeat(2), 200),
        case("deflate", PROTOBUF, "deflate", zlib(&good), 200),
        case("identity", PROTOBUF, "identity", good.clone(), 200),
        case("gzip of nothing", PROTOBUF, "gzip", gzip(b""), 200),
        case("at the limit", PROTOBUF, None, exact.clone(), 200),
        case("at the limit, gzip", PROTOBUF, "gzip", gzip(&exact), 200),
        case("over the limit", PROTOBUF, None, over.clone(), 413),
        case("over the limit, gzip", PROTOBUF, "gzip", gzip(&over), 413),
        case("over the limit, zstd", JSON, "zstd", zstd(&over), 413),
        case("over the limit, deflate", JSON, "deflate", zlib(&over), 413),
        case("cut gzip", PROTOBUF, "gzip", half(gzip(&good)), 400),
        case("cut zstd", PROTOBUF, "zstd", half(zstd(&good)), 400),
        case("cut deflate", PROTOBUF, "deflate", half(zlib(&good)), 400),
        case("not gzip", PROTOBUF, "gzip", good.clone(), 400),
        case("not zstd", PROTOBUF, "zstd", good.clone(), 400),
        case("no gzip at all", PROTOBUF, "gzip", "", 400),
        case("gzip and a byte", JSON, "gzip", [gzip(&good), vec![7]].concat(), 400),
        case("unknown coding", PROTOBUF, "br", good.clone(), 415),
        case("two codings", PROTOBUF, "gzip, zstd", good.clone(), 415),
        case("unknown type", "text/plain", None, good.clone(), 415),
        case("form", "application/x-www-form-urlencoded", None, good.clone(), 415),
        case("two types", "application/json, application/x-protobuf", None, good.clone(), 415),
        case("no type", "", None, good.clone(), 415),
        case("unreadable", PROTOBUF, None, "m", 400),
        case("too many spans", JSON, None, "l", 413),
        case("busy", PROTOBUF, None, "b", 429),
        case("disk full", JSON, "gzip", gzip(b"u"), 503),
        case("a bug", JSON, None, "!", 500),
        case("in part", JSON, None, "p", 200),
    ]
}

/// Scenario: each kind of body for each signal.
/// Guarantees: O1, O2 - the status says what became of it, in the body's own type; what was
/// refused was not taken, and what was taken is what was sent.
#[tokio::test]
async fn each_body_is_answered_by_the_table() {
    let running = Running::start(settings());
    for signal in Signal::ALL {
        let path = format!("/v1/{}", signal.as_str());
        for Case { name, content_type, coding, body, status } in cases() {
            let answer = post(running.http, &path, content_type, coding, &body).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            let is_json = !content_type.to_ascii_lowercase().starts_with(PROTOBUF);
            let expected_type = if is_json { JSON } else { PROTOBUF };
            assert_eq!(answer.header("content-type"), Some(expected_type), "{name}");
            assert_eq!(
                answer.header("retry-after"),
                match status {
                    429 => Some("3"),
                    503 => Some("1"),
                    _ => None,
                },
                "{name}"
            );
            let taken = running.ingest.taken();
            assert_eq!(taken.len(), usize::from(status == 200), "{name}");
            if let Some((as_signal, encoding, taken)) = taken.into_iter().next() {
                assert_eq!(as_signal, signal, "{name}");
                assert_eq!(encoding == Encoding::Json, is_json, "{name}");
                let plain = coding.is_none_or(|c| c == "identity");
                assert!(!plain || taken == body, "{name}");
            }
            if status != 200 {
                assert_is_status(&answer, is_json, name);
            }
        }
    }
    running.stop().await;
}

/// A `google.rpc.Status` with a code and a message.
fn assert_is_status(answer: &Answer, is_json: bool, name: &str) {
    if is_json {
        let status = answer.json();
        assert!(status["code"].as_u64().is_some_and(|code| code > 0), "{name}: {status}");
        assert!(status["message"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
    } else {
        assert_eq!(answer.body[0], 0x08, "{name}");
        assert_eq!(answer.body[2], 0x12, "{name}");
        assert!(answer.body.len() > 4, "{name}");
    }
}

/// Scenario: a batch of which some spans are refused.
/// Guarantees: O2 - `partial_success` has the exact count, in both encodings.
#[tokio::test]
async fn partial_success_is_told_exactly() {
    let running = Running::start(settings());
    let json = post(running.http, "/v1/traces", JSON, None, b"p").await.json();
    let partial = &json["partialSuccess"];
    assert_eq!(partial["rejectedSpans"], "2");
    assert_eq!(partial["errorMessage"], "two have no id");
    let protobuf = post(running.http, "/v1/traces", PROTOBUF, Some("gzip"), &gzip(b"p")).await;
    assert_eq!(protobuf.body, b"\x0A\x12\x08\x02\x12\x0Etwo have no id");
    let whole = post(running.http, "/v1/metrics", PROTOBUF, None, b"g").await;
    assert_eq!((whole.status, whole.body.len()), (200, 0));
    let whole = post(running.http, "/v1/metrics", JSON, None, b"g").await;
    assert_eq!(whole.text(), "{}");
    running.stop().await;
}

/// Scenario: wrong methods, unknown paths, and heads that are no heads.
/// Guarantees: O4 - each has its status, and none is a way in.
#[tokio::test]
async fn what_is_not_otlp_is_refused() {
    let running = Running::start(settings());
    let host = running.http;
    let long = "x".repeat(20_000);
    let many = "a: b\r\n".repeat(100);
    for (line, status) in [
        ("GET /v1/traces HTTP/1.1", 405),
        ("PUT /v1/logs HTTP/1.1", 405),
        ("OPTIONS /v1/traces HTTP/1.1", 405),
        ("DELETE /v1/metrics HTTP/1.1", 405),
        ("POST /metrics HTTP/1.1", 405),
        ("POST /healthz HTTP/1.1", 405),
        ("GET / HTTP/1.1", 404),
        ("POST /v1/traces/ HTTP/1.1", 404),
        ("POST /v1/../v1/traces HTTP/1.1", 404),
        ("POST //v1/traces HTTP/1.1", 404),
        ("POST /v1/profiles HTTP/1.1", 404),
        ("POST /v1/trac%65s HTTP/1.1", 404),
        ("GET /healthz HTTP/1.1", 200),
        ("GET /healthz HTTP/1.0", 200),
        ("GARBAGE", 400),
        ("GET /healthz HTTP/9.9", 400),
        (&format!("GET /{long} HTTP/1.1"), 431),
        (&format!("GET /healthz HTTP/1.1\r\nx: {long}"), 431),
        (&format!("GET /healthz HTTP/1.1\r\n{many}c: d"), 431),
    ] {
        let shown = line.get(..40).unwrap_or(line);
        let head = format!("{line}\r\nhost: {host}\r\n\r\n");
        let answer = send(running.http, &head, b"").await;
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{shown}");
    }
    running.stop().await;
}

/// Scenario: two requests on one connection, the first refused before its body was read.
/// Guarantees: the refusal arrives although its body was still being sent, and the next request
/// on the connection is answered.
#[tokio::test]
async fn a_refused_body_does_not_spoil_its_connection() {
    let running = Running::start(settings());
    let host = running.http;
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let body = vec![b'x'; 3 * BODY_MAX];
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {host}\r\ncontent-type: {PROTOBUF}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let (mut reading, mut writing) = stream.split();
    use tokio::io::AsyncWriteExt as _;
    // All of it is sent before the answer is looked at, as many clients do.
    writing.write_all(head.as_bytes()).await.unwrap();
    writing.write_all(&body).await.unwrap();
    let refused = super::support::read_answer(&mut reading).await.expect("an answer");
    assert_eq!(refused.status, 413);
    writing
        .write_all(format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let next = super::support::read_answer(&mut reading).await.expect("an answer");
    assert_eq!(next.status, 200);
    running.stop().await;
}
