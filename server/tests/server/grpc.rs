//! OTLP over gRPC: by tonic's client as the exporters use it, and by hand where a client is
//! compressed or rude.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use retake_server::{Encoding, Limits, ServerSettings, Signal, Token};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

use super::support::{Running, gzip, zlib};

/// A gRPC answer.
#[derive(Debug)]
pub(crate) struct GrpcAnswer {
    pub(crate) http: u16,
    pub(crate) code: u16,
    headers: hyper::HeaderMap,
    body: Bytes,
}

pub(crate) fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag], &length.to_be_bytes()[..], message].concat()
}

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Calls `Export` of traces with a body as it is.
pub(crate) async fn call(address: SocketAddr, coding: Option<&str>, body: &[u8]) -> GrpcAnswer {
    let mut request = Request::post(format!("http://{address}{TRACES}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(coding) = coding {
        request = request.header("grpc-encoding", coding);
    }
    exchange(address, request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> GrpcAnswer {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let http = response.status().as_u16();
    let mut headers = response.headers().clone();
    let body = response.into_body().collect().await.expect("a body");
    headers.extend(body.trailers().cloned().unwrap_or_default());
    let code = headers.get("grpc-status").map(|code| code.to_str().unwrap().parse().unwrap());
    connection.abort();
    GrpcAnswer { http, code: code.unwrap_or(99), headers, body: body.to_bytes() }
}

/// Messages as bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Calls as a client that tonic generates does.
async fn tonic_call(
    address: SocketAddr,
    service: &str,
    message: &[u8],
    token: Option<&str>,
) -> Result<Vec<u8>, tonic::Status> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(message.to_vec());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let path = format!("/opentelemetry.proto.collector.{service}/Export");
    let response = client.unary(request, path.parse().unwrap(), Raw).await?;
    Ok(response.into_inner())
}

/// Scenario: tonic's client exports each signal, on both ports, and fails in each way.
/// Guarantees: O2 - it gets the response or the code it acts by.
#[tokio::test]
async fn tonic_clients_are_answered() {
    let running = Running::start(ServerSettings::on_free_ports());
    for (service, signal) in [
        ("trace.v1.TraceService", Signal::Traces),
        ("logs.v1.LogsService", Signal::Logs),
        ("metrics.v1.MetricsService", Signal::Metrics),
    ] {
        for address in [running.grpc, running.http] {
            let response = tonic_call(address, service, b"good", None).await;
            assert_eq!(response.unwrap(), b"");
            let taken = running.ingest.taken();
            assert_eq!(taken, [(signal, Encoding::Protobuf, b"good".to_vec())]);
        }
        let response = tonic_call(running.grpc, service, b"part", None).await.unwrap();
        assert_eq!(response, b"\x0A\x12\x08\x02\x12\x0Etwo have no id");
        running.ingest.taken();
    }
    for (body, code, message, has_retry) in [
        (&b"malformed"[..], Code::InvalidArgument, "not a message", false),
        (b"large", Code::ResourceExhausted, "too many spans", false),
        (b"busy", Code::ResourceExhausted, "there is no room now", true),
        (b"unavailable", Code::Unavailable, "the disk is full: 100 %é", true),
        (b"!", Code::Internal, "the receiver failed", false),
    ] {
        let status =
            tonic_call(running.grpc, "trace.v1.TraceService", body, None).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        assert_eq!(pushback.is_some(), has_retry, "{message}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert_eq!(details.contains("google.rpc.RetryInfo"), has_retry, "{message}");
    }
    let status = tonic_call(running.grpc, "profiles.v1.ProfilesService", b"x", None).await;
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
    assert!(running.ingest.taken().is_empty());
    let metrics = running.metrics().await;
    for line in [
        "retake_requests_total{signal=\"traces\",protocol=\"grpc\",code=\"0\"} 3",
        "retake_requests_total{signal=\"traces\",protocol=\"grpc\",code=\"8\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    running.stop().await;
}

/// Scenario: compressed messages, and every way to frame one wrongly.
/// Guarantees: O1 - whole messages are taken, everything else has its code.
#[tokio::test]
async fn messages_are_unpacked_or_refused() {
    let limits = Limits { body_bytes_max: 100_000, bodies_bytes_max: 200_000, ..Limits::default() };
    let running = Running::start(ServerSettings { limits, ..ServerSettings::on_free_ports() });
    let good = b"good body".repeat(100);
    let zstd = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
    let over = vec![b'g'; 100_001];
    for (name, coding, body, code) in [
        ("plain", None, frame(0, &good), 0),
        ("empty", None, frame(0, b""), 0),
        ("gzip", Some("gzip"), frame(1, &gzip(&good)), 0),
        ("zstd", Some("zstd"), frame(1, &zstd(&good)), 0),
        ("deflate", Some("deflate"), frame(1, &zlib(&good)), 0),
        ("not compressed after all", Some("gzip"), frame(0, &good), 0),
        ("at the limit", None, frame(0, &over[1..]), 0),
        ("over the limit", None, frame(0, &over), 8),
        ("over the limit, gzip", Some("gzip"), frame(1, &gzip(&over)), 8),
        ("over the limit, zstd", Some("zstd"), frame(1, &zstd(&over)), 8),
        ("unknown coding", Some("snappy"), frame(1, &good), 12),
        ("compressed without a coding", None, frame(1, &gzip(&good)), 3),
        ("unknown flag", Some("gzip"), frame(2, &gzip(&good)), 3),
        ("not gzip", Some("gzip"), frame(1, &good), 3),
        ("cut gzip", Some("gzip"), frame(1, &gzip(&good)[..20]), 3),
        ("no message", None, Vec::new(), 3),
        ("half a prefix", None, vec![0, 0, 0], 3),
        ("two messages", None, frame(0, &good).repeat(2), 3),
        ("shorter than stated", None, frame(0, &good)[..50].to_vec(), 3),
    ] {
        let answer = call(running.grpc, coding, &body).await;
        assert_eq!((answer.http, answer.code), (200, code), "{name}: {answer:?}");
        let taken = running.ingest.taken();
        assert_eq!(taken.len(), usize::from(code == 0), "{name}");
        if code == 0 {
            assert_eq!(answer.body, &frame(0, b"")[..], "{name}");
            assert!(["empty", "at the limit"].contains(&name) || taken[0].2 == good, "{name}");
        } else {
            assert!(answer.headers.contains_key("grpc-message"), "{name}");
        }
    }
    let busy = call(running.grpc, None, &frame(0, b"busy")).await;
    let details = busy.headers["grpc-status-details-bin"].to_str().unwrap();
    let details = base64::engine::general_purpose::STANDARD_NO_PAD.decode(details).unwrap();
    assert_eq!(details[..2], [0x08, 8]);
    assert_eq!(busy.headers["grpc-retry-pushback-ms"], "2500");
    running.stop().await;
}

/// Scenario: strangers and wrong requests over gRPC.
/// Guarantees: O4 - the same rules hold as over HTTP.
#[tokio::test]
async fn strangers_are_refused() {
    const TOKEN: &str = "0123456789-abcdef";
    let token = Some(Token::new(TOKEN).unwrap());
    let running = Running::start(ServerSettings { token, ..ServerSettings::on_free_ports() });
    let address = running.grpc;
    let service = "trace.v1.TraceService";
    let code =
        |result: Result<_, tonic::Status>| result.map_or_else(|s| s.code(), |_: Vec<u8>| Code::Ok);
    let without = tonic_call(address, service, b"good", None).await;
    assert_eq!(code(without), Code::Unauthenticated);
    let wrong = tonic_call(address, service, b"good", Some("0123456789-abcdeF")).await;
    assert_eq!(code(wrong), Code::Unauthenticated);
    assert!(running.ingest.taken().is_empty());
    let right = tonic_call(address, service, b"good", Some(TOKEN)).await;
    assert_eq!(code(right), Code::Ok);

    let request = |authority: &str, content_type: &str, method: &str| {
        Request::builder()
            .method(method)
            .uri(format!("http://{authority}{TRACES}"))
            .header("content-type", content_type)
            .header("x-retake-token", TOKEN)
    };
    let own = address.to_string();
    let body = || Full::new(Bytes::from(frame(0, b"good")));
    for (authority, content_type, method, http, code) in [
        (own.as_str(), "application/grpc", "POST", 200, 0),
        (&own, "application/grpc+proto", "POST", 200, 0),
        (&own, "application/grpc; v=1", "POST", 200, 0),
        ("evil.example", "application/grpc", "POST", 200, 7),
        (&own, "application/grpc+json", "POST", 415, 99),
        (&own, "application/grpc-web", "POST", 415, 99),
        (&own, "application/grpc", "GET", 405, 99),
    ] {
        let request = request(authority, content_type, method).body(body()).unwrap();
        let answer = exchange(address, request).await;
        assert_eq!((answer.http, answer.code), (http, code), "{authority} {content_type} {method}");
    }
    let page = request(&own, "application/grpc", "POST").header("origin", "https://evil.example");
    assert_eq!(exchange(address, page.body(body()).unwrap()).await.code, 7);
    running.stop().await;
}

/// Scenario: many calls on one connection, more than it may have streams, and OTLP over HTTP/2.
/// Guarantees: O3 - all are answered in the end, and none twice.
#[tokio::test]
async fn one_connection_carries_many_calls() {
    let limits = Limits { streams_max: 4, ..Limits::default() };
    let running = Running::start(ServerSettings { limits, ..ServerSettings::on_free_ports() });
    let stream = TokioIo::new(TcpStream::connect(running.http).await.unwrap());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = |number: u8| {
        let mut sender = sender.clone();
        let request = Request::post(format!("http://{}/v1/traces", running.http))
            .header("content-type", "application/x-protobuf")
            .body(Full::new(Bytes::from(vec![number | 0x80])))
            .unwrap();
        async move { sender.send_request(request).await.expect("an answer").status().as_u16() }
    };
    // With the first answer the client knows how many streams it may have.
    assert_eq!(call(0).await, 200);
    let calls = (1..100).map(call);
    let all = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(calls));
    assert!(all.await.expect("in time").iter().all(|status| *status == 200));
    let mut taken: Vec<_> = running.ingest.taken().into_iter().map(|(_, _, body)| body).collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 100);
    connection.abort();
    running.stop().await;
}
