//! OTLP over gRPC: unary calls of three services, framed by hand.
//!
//! A whole gRPC library would be a second HTTP server with limits of its own.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::ingest::{Encoding, Signal};
use crate::net::reply::{Reply, TEXT, reply, whole};
use crate::otlp::failure::{Failure, Kind};
use crate::otlp::http::method_not_allowed;
use crate::otlp::inflate::Coding;
use crate::otlp::metrics::Protocol;
use crate::otlp::receiver::{Call, Framing, Receiver};
use crate::otlp::wire;

/// Whether the request means to be gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let stated = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    stated
        .and_then(|t| t.get(..GRPC.len()))
        .is_some_and(|t| t.eq_ignore_ascii_case(GRPC.as_bytes()))
}

/// Answers a call.
pub(crate) async fn answer(receiver: &Receiver, request: Request<Incoming>) -> Reply {
    let (parts, mut body) = request.into_parts();
    if parts.version < Version::HTTP_2 {
        let needs = "gRPC needs HTTP/2\n";
        return reply(StatusCode::HTTP_VERSION_NOT_SUPPORTED, TEXT, needs);
    }
    let checked = receiver
        .access
        .check_site(&parts)
        .and_then(|()| receiver.access.check_token(&parts.headers));
    if let Err(denied) = checked {
        return failed(&receiver.denied(denied));
    }
    if parts.method != Method::POST {
        return method_not_allowed("POST");
    }
    if !is_protobuf(&parts.headers) {
        let only = "content-type must be application/grpc or application/grpc+proto\n";
        return reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT, only);
    }
    let Some(signal) = signal_of(parts.uri.path()) else {
        let failure = Failure::new(Kind::UnknownMethod, "path", "only OTLP's Export is here");
        receiver.metrics.refused(failure.cause);
        return failed(&failure);
    };
    let counted = receiver.metrics.begin();
    let (response, code) = match call_of(signal, &parts) {
        Ok(call) => match receiver.take(call, &mut body).await {
            Ok(accepted) => {
                let message = wire::export_response(signal, Encoding::Protobuf, &accepted);
                (succeeded(&message), 0)
            }
            Err(failure) => (failed(&failure), failure.kind.grpc()),
        },
        Err(failure) => {
            receiver.metrics.refused(failure.cause);
            (failed(&failure), failure.kind.grpc())
        }
    };
    receiver.metrics.answered(signal, Protocol::Grpc, code);
    counted.answered();
    response
}

fn signal_of(path: &str) -> Option<Signal> {
    let path = path.strip_prefix("/opentelemetry.proto.collector.")?.strip_suffix("/Export")?;
    match path {
        "trace.v1.TraceService" => Some(Signal::Traces),
        "logs.v1.LogsService" => Some(Signal::Logs),
        "metrics.v1.MetricsService" => Some(Signal::Metrics),
        _ => None,
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let stated = headers.get(CONTENT_TYPE).and_then(|stated| stated.to_str().ok());
    let rest = stated.and_then(|t| t.split(';').next()?.trim().get(GRPC.len()..));
    rest.is_some_and(|rest| rest.is_empty() || rest.eq_ignore_ascii_case("+proto"))
}

fn call_of(signal: Signal, parts: &Parts) -> Result<Call, Failure> {
    let coding = match parts.headers.get(GRPC_ENCODING) {
        None => Some(Coding::Identity),
        Some(name) => name.to_str().ok().and_then(Coding::parse),
    };
    let coding = coding.ok_or_else(|| {
        let message = "grpc-encoding must be gzip, zstd, deflate, or identity";
        Failure::new(Kind::UnknownFormat, "unknown_format", message)
    })?;
    let framing = Framing::Message(coding);
    Ok(Call { signal, encoding: Encoding::Protobuf, framing })
}

/// The one message in the body of a unary call, and how it is compressed.
pub(crate) fn message(sent: &[u8], coding: Coding) -> Result<(Coding, &[u8]), Failure> {
    let malformed = |message: &str| Failure::new(Kind::Malformed, "malformed", message);
    let (prefix, message) = sent
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or_else(|| malformed("the call has no message"))?;
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if message.len() != length {
        return Err(malformed("the call must have one message of the length it states"));
    }
    match flag {
        0 => Ok((Coding::Identity, message)),
        1 if coding != Coding::Identity => Ok((coding, message)),
        _ => Err(malformed("the message is compressed, and the call does not say how")),
    }
}

fn succeeded(message: &[u8]) -> Reply {
    let mut frame = Vec::with_capacity(PREFIX_BYTES + message.len());
    frame.push(0);
    // Responses are some bytes and an error message.
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// An answer of headers only. Its status is 200: gRPC has its own.
fn failed(failure: &Failure) -> Reply {
    let mut response = Response::new(whole(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(GRPC_STATUS, HeaderValue::from(failure.kind.grpc()));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&failure.message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if failure.kind == Kind::UnknownFormat {
        let known = HeaderValue::from_static("identity,gzip,zstd,deflate");
        headers.insert(GRPC_ACCEPT_ENCODING, known);
    }
    if let Some(wait) = failure.retry_after {
        put_retry(headers, failure, wait);
    }
    response
}

/// gRPC clients retry by the one, OTLP exporters by the other.
fn put_retry(headers: &mut HeaderMap, failure: &Failure, wait: Duration) {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(wait_ms));
    let code = failure.kind.grpc();
    let status = wire::status(Encoding::Protobuf, code, &failure.message, Some(wait));
    if let Ok(status) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(status)) {
        headers.insert(GRPC_STATUS_DETAILS, status);
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// One byte of flags and four of length.
pub(crate) const PREFIX_BYTES: usize = 5;
const GRPC: &str = "application/grpc";
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
