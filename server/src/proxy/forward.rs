//! Forwarding: a request goes on as it came, and so does its answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use reqwest::{Client, Url, redirect};
use retake_recorder::Dispatcher;
use retake_schemas::{Attributes, Value};

use crate::net::access::{Access, Denied, TOKEN_HEADER};
use crate::net::budget::Budget;
use crate::net::connection::Face;
use crate::net::listen::Connections;
use crate::net::reply::{Reply, reply};
use crate::proxy::ProxyReport;
use crate::proxy::call::{Call, End, Recording, TRACEPARENT, trace_flags};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::listen::{Answering, Asking};
use crate::proxy::reader::Reader;
use crate::settings::ServeError;

/// What all requests share.
pub(crate) struct Forward {
    client: Client,
    upstream: Url,
    access: Access,
    pub(crate) connections: Arc<Connections>,
    budget: Budget,
    recording: Arc<Recording>,
    passed: AtomicU64,
    refused: AtomicU64,
}

/// A call whose answer has not begun. One that is dropped was not wanted any more.
struct Waiting(Option<Arc<Call>>);

impl Forward {
    pub(crate) fn new(
        (mut upstream, provider): (Url, Option<String>),
        access: Access,
        connections: Arc<Connections>,
        dispatcher: Dispatcher,
    ) -> Result<Self, ServeError> {
        prepare(&mut upstream).map_err(|reason| ServeError::Upstream(reason.to_owned()))?;
        let client = client().map_err(|error| ServeError::Upstream(error.to_string()))?;
        let budget = Budget::new(connections.limits.bodies_bytes_max);
        let recording = Recording {
            dispatcher,
            attributes: attributes(&upstream, provider),
            reader: Reader::start().map_err(ServeError::Thread)?,
            recorded: AtomicU64::new(0),
            unread: AtomicU64::new(0),
        };
        Ok(Self {
            client,
            upstream,
            access,
            connections,
            budget,
            recording: Arc::new(recording),
            passed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Waits for what is still being read, and says what became of all.
    pub(crate) async fn end(&self) -> ProxyReport {
        self.recording.reader.stop().await;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProxyReport {
            recorded: load(&self.recording.recorded),
            unread: load(&self.recording.unread),
            passed: load(&self.passed),
            refused: load(&self.refused),
            connections_cut: 0,
        }
    }

    async fn forward(&self, parts: Parts, body: Incoming) -> Reply {
        let checked =
            self.access.check_site(&parts).and_then(|()| self.access.check_token(&parts.headers));
        if let Err(denied) = checked {
            let status = match denied {
                Denied::HostMalformed => StatusCode::BAD_REQUEST,
                Denied::HostForeign | Denied::OriginForeign => StatusCode::FORBIDDEN,
                Denied::Token => StatusCode::UNAUTHORIZED,
            };
            return self.refuse(status, denied.message());
        }
        let Some(url) = url_of(&self.upstream, &parts) else {
            return self.refuse(StatusCode::BAD_REQUEST, "the path leads out of the upstream");
        };
        let mut headers = parts.headers;
        let query = parts.uri.query();
        let call = Endpoint::of(&parts.method, parts.uri.path()).map(|endpoint| {
            let room = self.room();
            Call::open(&self.recording, endpoint, (&headers, query), room)
        });
        if call.is_none() {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
        prepare_request(&mut headers, call.as_deref());
        let mut waiting = Waiting(call.clone());
        let asking = Asking::new(body, call.clone(), self.connections.timeouts.body_idle);
        let request = self.client.request(parts.method, url).headers(headers);
        let sent = request.body(reqwest::Body::wrap(asking)).send().await;
        match sent {
            Ok(response) => {
                waiting.0 = None;
                self.pass_on(response, call)
            }
            Err(error) => {
                let (kind, message) = describe(error);
                waiting.end(End::Failed(kind, message.clone()));
                unreachable(kind, &message)
            }
        }
    }

    fn pass_on(&self, response: reqwest::Response, call: Option<Arc<Call>>) -> Reply {
        let response: Response<reqwest::Body> = response.into();
        let (mut parts, body) = response.into_parts();
        let headers = &mut parts.headers;
        let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
        if let Some(call) = &call {
            let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            let is_stream = content_type.is_some_and(|t| t.starts_with(b"text/event-stream"));
            let room = (!headers.contains_key(CONTENT_ENCODING)).then(|| self.room());
            call.answers(parts.status.as_u16(), is_stream, room);
        }
        remove_hops(headers);
        // The upstream may let pages read its answers; it does not speak for this machine.
        let cors: Vec<_> =
            headers.keys().filter(|n| n.as_str().starts_with("access-control-")).cloned().collect();
        cors.into_iter().for_each(|name| drop(headers.remove(name)));
        let mut response = Response::new(Answering::new(body, call, length).boxed_unsync());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response
    }

    fn room(&self) -> crate::net::budget::Buffer {
        self.budget.buffer(self.connections.limits.body_bytes_max)
    }

    fn refuse(&self, status: StatusCode, message: &str) -> Reply {
        self.refused.fetch_add(1, Ordering::Relaxed);
        error_reply(status, "retake_proxy_refused", message)
    }
}

impl Face for Forward {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        self.forward(parts, body).await
    }
}

impl Waiting {
    fn end(&mut self, end: End) {
        if let Some(call) = self.0.take() {
            call.end(end);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end(End::Cancelled);
    }
}

/// Makes an upstream ready for paths to be appended.
fn prepare(upstream: &mut Url) -> Result<(), &'static str> {
    if !matches!(upstream.scheme(), "http" | "https") || upstream.host_str().is_none() {
        return Err("it must begin with http:// or https://");
    }
    if !upstream.username().is_empty() || upstream.password().is_some() {
        return Err("it must not hold a user or password; programs send their own credentials");
    }
    if upstream.query().is_some() || upstream.fragment().is_some() {
        return Err("it must end with its path");
    }
    let path = upstream.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
    upstream.set_path(&path);
    Ok(())
}

/// Where the request goes; `None` if that is not below the upstream.
fn url_of(upstream: &Url, parts: &Parts) -> Option<Url> {
    let path = parts.uri.path();
    // A URL takes `..` as a way up, however its dots are written.
    let plain = path.to_ascii_lowercase().replace("%2e", ".");
    if !path.starts_with('/') || plain.split(['/', '\\']).any(|part| part == "." || part == "..") {
        return None;
    }
    let mut url = upstream.clone();
    let base = upstream.path().trim_end_matches('/');
    url.set_path(&format!("{base}{path}"));
    url.set_query(parts.uri.query());
    url.path().starts_with(base).then_some(url)
}

/// Takes out what is between the client and the proxy only.
fn prepare_request(headers: &mut HeaderMap, call: Option<&Call>) {
    let flags = trace_flags(headers).map(str::to_owned);
    remove_hops(headers);
    for name in [HOST, EXPECT, TOKEN_HEADER] {
        headers.remove(name);
    }
    let Some(call) = call else { return };
    // What is compressed cannot be read while it passes.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let traceparent = flags.and_then(|flags| HeaderValue::try_from(call.traceparent(&flags)).ok());
    if let Some(traceparent) = traceparent {
        headers.insert(TRACEPARENT, traceparent);
    }
}

/// Headers of one connection, by RFC 9110, section 7.6.1.
fn remove_hops(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let known = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].into_iter();
    let old = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];
    let old = old.into_iter().map(HeaderName::from_static);
    for name in listed.into_iter().chain(known).chain(old) {
        headers.remove(name);
    }
}

/// What every call has: whom it goes to.
fn attributes(upstream: &Url, provider: Option<String>) -> Attributes {
    let mut attributes = Attributes::new();
    let host = upstream.host_str().unwrap_or_default();
    let known = PROVIDERS.iter().find(|(end, _)| host.ends_with(end)).map(|(_, name)| *name);
    if let Some(provider) = provider.or_else(|| known.map(str::to_owned)) {
        attributes.push(("gen_ai.provider.name".into(), Value::Str(provider)));
    }
    attributes.push(("server.address".into(), Value::Str(host.to_owned())));
    let port = upstream.port_or_known_default().map(|port| Value::Int(i64::from(port)));
    attributes.extend(port.map(|port| ("server.port".into(), port)));
    attributes
}

fn client() -> Result<Client, reqwest::Error> {
    static CRYPTOGRAPHY: Once = Once::new();
    CRYPTOGRAPHY.call_once(|| {
        // It fails only if the application has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder()
        // The upstream is the one in the settings: no proxy from the environment, and no other
        // place that an answer points to.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}

/// A word for why the upstream did not answer, and what happened, without the URL: it may hold a key.
fn describe(error: reqwest::Error) -> (&'static str, String) {
    let error = error.without_url();
    let kind = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "broken_request"
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    for _ in 0..SOURCES_MAX {
        let Some(cause) = source else { break };
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    (kind, text)
}

fn unreachable(kind: &str, message: &str) -> Reply {
    let message = format!("the upstream did not answer ({kind}): {message}");
    error_reply(StatusCode::BAD_GATEWAY, "retake_proxy_upstream", &message)
}

/// An error in the form that clients of these services read.
fn error_reply(status: StatusCode, kind: &str, message: &str) -> Reply {
    let error = serde_json::json!({ "error": { "message": message, "type": kind } });
    reply(status, "application/json", error.to_string())
}

/// Names of the OpenTelemetry conventions for hosts that are one provider's.
const PROVIDERS: [(&str, &str); 10] = [
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cohere.com", "cohere"),
];
/// A host that is up answers within a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Causes shown of a chain; real ones have three or four.
const SOURCES_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Result<Url, &'static str> {
        let mut url = Url::parse(url).unwrap();
        prepare(&mut url).map(|()| url)
    }

    /// Scenario: upstreams with and without prefixes, and paths of every kind.
    /// Guarantees: O4 - a request goes below the upstream or nowhere.
    #[test]
    fn paths_stay_below_the_upstream() {
        for (base, path, expected) in [
            ("http://h:1", "/v1/models", Some("http://h:1/v1/models")),
            ("http://h:1/", "/v1/models?a=b&c", Some("http://h:1/v1/models?a=b&c")),
            ("http://h:1/v1", "/v1/models", Some("http://h:1/v1/models")),
            ("http://h:1/openai/v1/", "/v1/models", Some("http://h:1/openai/v1/models")),
            ("http://h:1/a", "/", Some("http://h:1/a/")),
            ("http://h:1/a", "/x%2Fy", Some("http://h:1/a/x%2Fy")),
            ("http://h:1/a", "//evil.example/x", Some("http://h:1/a//evil.example/x")),
            ("http://h:1/a", "/../b", None),
            ("http://h:1/a", "/x/%2e%2E/../b", None),
            ("http://h:1/a", "/.%2e/b", None),
            ("http://h:1/a", "/./b", None),
            ("http://h:1/a", "*", None),
        ] {
            let (parts, ()) = Request::builder().uri(path).body(()).unwrap().into_parts();
            let url = url_of(&upstream(base).unwrap(), &parts);
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{base} {path}");
        }
    }

    #[test]
    fn upstreams_that_cannot_be_called_are_refused() {
        for url in [
            "ftp://h/",
            "file:///etc/passwd",
            "http://user:password@h/",
            "https://h/v1?key=secret",
            "data:text/plain,x",
        ] {
            assert!(upstream(url).is_err(), "{url}");
        }
    }

    #[test]
    fn headers_of_one_connection_do_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("x-own", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
            ("x-other", "2"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        remove_hops(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-other"]);
    }
}
