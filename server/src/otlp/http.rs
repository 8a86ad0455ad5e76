//! OTLP over HTTP, and the paths for operators.

use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, WWW_AUTHENTICATE};
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};

use crate::ingest::{Encoding, Health, Signal};
use crate::net::body::drain;
use crate::net::reply::{Reply, TEXT, reply};
use crate::otlp::entry;
use crate::otlp::failure::{Failure, Kind};
use crate::otlp::inflate::Coding;
use crate::otlp::metrics::Protocol;
use crate::otlp::receiver::{Call, Framing, Receiver};
use crate::otlp::wire;
use crate::pages;

/// Answers a request that is not gRPC.
pub(crate) async fn answer(receiver: &Receiver, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    if let Err(denied) = receiver.access.check_site(&parts) {
        return failed(&receiver.denied(denied), encoding_or_json(&parts.headers));
    }
    let path = parts.uri.path();
    if path == "/healthz" {
        return match only_get(&parts) {
            Some(refusal) => refusal,
            None => reply(StatusCode::OK, TEXT, "alive\n"),
        };
    }
    if let (Some(pages), true, entry::PATH) = (&receiver.pages, receiver.access.needs_token(), path)
    {
        return entry::answer(receiver, pages, &parts, body).await;
    }
    if let Err(denied) = receiver.access.check_token(&parts.headers) {
        // A browser that was let in may look. What programs ask and send takes the token itself.
        if let (Some(pages), false, None) =
            (&receiver.pages, is_of_programs(path), only_get(&parts))
        {
            if receiver.sessions.is_open(&parts.headers, Instant::now()) {
                return pages::answer(pages, &parts).await;
            }
            if entry::is_browser(&parts) {
                receiver.metrics.refused(denied.cause());
                return entry::refused(pages, None);
            }
        }
        let mut response = failed(&receiver.denied(denied), encoding_or_json(&parts.headers));
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    let signal = match path {
        "/v1/traces" => Signal::Traces,
        "/v1/logs" => Signal::Logs,
        "/v1/metrics" => Signal::Metrics,
        "/readyz" => return only_get(&parts).unwrap_or_else(|| ready(receiver)),
        "/metrics" => return only_get(&parts).unwrap_or_else(|| metrics(receiver)),
        _ => {
            if let (Some(pages), None) = (&receiver.pages, only_get(&parts)) {
                return pages::answer(pages, &parts).await;
            }
            let known = "paths are /v1/traces, /v1/logs, /v1/metrics, /healthz, /readyz, /metrics";
            let failure = Failure::new(Kind::UnknownMethod, "path", known);
            receiver.metrics.refused(failure.cause);
            return failed(&failure, encoding_or_json(&parts.headers));
        }
    };
    if parts.method != Method::POST {
        return method_not_allowed("POST");
    }
    export(receiver, signal, &parts, body).await
}

/// Whether a path is none of the pages.
fn is_of_programs(path: &str) -> bool {
    path.starts_with("/v1/") || matches!(path, "/readyz" | "/metrics")
}

async fn export(receiver: &Receiver, signal: Signal, parts: &Parts, mut body: Incoming) -> Reply {
    let counted = receiver.metrics.begin();
    let call = call_of(signal, &parts.headers);
    let taken = match call {
        Ok(call) => receiver.take(call, &mut body).await,
        Err(failure) => {
            receiver.metrics.refused(failure.cause);
            Err(failure)
        }
    };
    let encoding = encoding_or_json(&parts.headers);
    let response = match &taken {
        Ok(accepted) => {
            let body = wire::export_response(signal, encoding, accepted);
            reply(StatusCode::OK, media_type(encoding), body)
        }
        Err(failure) => {
            if parts.version < Version::HTTP_2 && failure.cause != "cut" {
                let bytes_max = receiver.limits.body_bytes_max.saturating_mul(DRAIN_BODIES);
                tokio::spawn(drain(body, bytes_max));
            }
            failed(failure, encoding)
        }
    };
    receiver.metrics.answered(signal, Protocol::Http, response.status().as_u16());
    counted.answered();
    response
}

fn call_of(signal: Signal, headers: &HeaderMap) -> Result<Call, Failure> {
    let unknown = |message| Failure::new(Kind::UnknownFormat, "unknown_format", message);
    let encoding = encoding(headers).ok_or_else(|| {
        unknown("content-type must be application/x-protobuf or application/json")
    })?;
    let coding = coding(headers)
        .ok_or_else(|| unknown("content-encoding must be gzip, zstd, deflate, or absent"))?;
    let framing = Framing::Whole(coding);
    Ok(Call { signal, encoding, framing })
}

/// What the body is, if it is one of the two and said once.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (stated, None) = (types.next()?, types.next()) else { return None };
    // Parameters such as a charset change nothing: JSON is UTF-8, and protobuf is no text.
    let essence = stated.to_str().ok()?.split(';').next()?.trim();
    match essence {
        _ if essence.eq_ignore_ascii_case(PROTOBUF) => Some(Encoding::Protobuf),
        _ if essence.eq_ignore_ascii_case(JSON) => Some(Encoding::Json),
        _ => None,
    }
}

/// What to answer in. Who sent something else can at least read JSON.
fn encoding_or_json(headers: &HeaderMap) -> Encoding {
    encoding(headers).unwrap_or(Encoding::Json)
}

/// How the body is compressed, if that is known and only once.
fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Some(Coding::Identity),
        (Some(name), None) => Coding::parse(name.to_str().ok()?.trim()),
        (Some(_), Some(_)) => None,
    }
}

/// The answer to a body that was not taken.
fn failed(failure: &Failure, encoding: Encoding) -> Reply {
    let Failure { kind, message, retry_after, .. } = failure;
    let body = wire::status(encoding, kind.grpc(), message, *retry_after);
    let mut response = reply(kind.http(), media_type(encoding), body);
    let headers = response.headers_mut();
    if let Some(secs) = failure.retry_after_secs() {
        headers.insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    if *kind == Kind::UnknownFormat {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, deflate"));
    }
    response
}

fn only_get(parts: &Parts) -> Option<Reply> {
    let is_get = parts.method == Method::GET || parts.method == Method::HEAD;
    (!is_get).then(|| method_not_allowed("GET, HEAD"))
}

pub(crate) fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut response =
        reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("only {allowed} is allowed\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn ready(receiver: &Receiver) -> Reply {
    let unready = if receiver.connections.is_stopping() {
        Some("stopping".to_owned())
    } else {
        match receiver.ingest.health() {
            Health::Ready => None,
            Health::Unready(reason) => Some(reason),
        }
    };
    match unready {
        None => reply(StatusCode::OK, TEXT, "ready\n"),
        Some(reason) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn metrics(receiver: &Receiver) -> Reply {
    let gauges = [
        (
            "retake_requests_in_progress",
            "OTLP requests in progress",
            receiver.metrics.in_progress() as u64,
        ),
        ("retake_bodies_bytes", "Memory of bodies in progress", receiver.budget.used() as u64),
        ("retake_connections", "Open connections", receiver.connections.open() as u64),
    ];
    let text = receiver.metrics.text(&receiver.connections.counts, &gauges);
    reply(StatusCode::OK, EXPOSITION, text)
}

const fn media_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => PROTOBUF,
        Encoding::Json => JSON,
    }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Bodies of the largest size that are read and forgotten, so that their sender reads why.
const DRAIN_BODIES: usize = 4;
