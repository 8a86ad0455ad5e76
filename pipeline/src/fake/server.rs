//! The server itself: connections, limits, failures, and the time answers take.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use retake_replay::timer;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{self, Text, Unanswerable};
use super::draw::{Draw, Draws};
use super::settings::{FailureKind, FakeSettings, SettingError};
use crate::work::gate::Bucket;

/// The server, bound to its address.
#[derive(Debug)]
pub struct FakeServer {
    listener: TcpListener,
    addr: SocketAddr,
    state: Arc<State>,
}

/// What it did.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Served {
    /// Requests answered well, by path.
    pub answered: BTreeMap<&'static str, u64>,
    /// Requests failed on purpose, by kind.
    pub failed: BTreeMap<&'static str, u64>,
    /// Requests over a limit.
    pub rate_limited: u64,
    /// Requests that were no good.
    pub refused: u64,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Settings that cannot work.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The address is taken or not this machine's.
    #[error("listen at {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Debug)]
struct State {
    settings: FakeSettings,
    draws: Draws,
    rates: Mutex<(Option<Bucket>, Option<Bucket>)>,
    places: Option<Semaphore>,
    served: Mutex<Served>,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Reply = Result<Response<Body>, std::io::Error>;

impl FakeServer {
    /// Binds the address.
    ///
    /// # Errors
    /// The settings cannot work, or the address cannot be had.
    pub async fn bind(settings: FakeSettings) -> Result<Self, ServeError> {
        settings.check()?;
        let listen = |source| ServeError::Listen { addr: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let now = Instant::now();
        let bucket = |per_minute: u64| (per_minute > 0).then(|| Bucket::new(per_minute, now));
        let limits = &settings.limits;
        let concurrency = limits.concurrency.min(Semaphore::MAX_PERMITS);
        let state = State {
            draws: Draws::new(settings.seed),
            rates: Mutex::new((
                bucket(limits.requests_per_minute),
                bucket(limits.tokens_per_minute),
            )),
            places: (concurrency > 0).then(|| Semaphore::new(concurrency)),
            served: Mutex::default(),
            settings,
        };
        Ok(Self { listener, addr, state: Arc::new(state) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL that clients are given.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Serves until `stop`; answers under way are broken off.
    pub async fn run(self, stop: CancellationToken) -> Served {
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else {
                // Too many open files, as a rule; others may end in a moment.
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Beyond the limit the connection is closed at once, which clients see.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (state, stop) = (Arc::clone(&self.state), stop.clone());
            connections.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = connection(stream, state) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
        self.state.served.lock().clone()
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| Arc::clone(&state).reply(request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // How a connection ends is the client's matter, or was meant to be a failure.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

impl State {
    async fn reply(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_end_matches('/').to_owned();
        if head.method == Method::GET && (path.ends_with("/models") || path.ends_with("/health")) {
            return Ok(whole(
                StatusCode::OK,
                &json!({"object": "list", "status": "ok", "data": [
                {"id": "fake", "object": "model", "owned_by": "retake"}]}),
            ));
        }
        let Some(endpoint) = Endpoint::of(&path).filter(|_| head.method == Method::POST) else {
            return Ok(self.refuse(StatusCode::NOT_FOUND, &format!("no such endpoint: {path}")));
        };
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                return Ok(self.refuse(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()));
            }
        };
        let Ok(json) = serde_json::from_slice::<Json>(&body) else {
            return Ok(self.refuse(StatusCode::BAD_REQUEST, "the body is no JSON"));
        };
        let mut draw = self.draws.request(endpoint.path(), &body);
        let answer = match self.answer(endpoint, &json).await {
            Ok(answer) => answer,
            Err(Unanswerable(reason)) => return Ok(self.refuse(StatusCode::BAD_REQUEST, &reason)),
        };
        // A place is held for the time until the first token, as in a server with a queue.
        let _place = match &self.places {
            None => None,
            Some(places) => match places.try_acquire() {
                Ok(place) => Some(place),
                Err(_) => return Ok(self.limited(Duration::from_millis(100))),
            },
        };
        if let Err(wait) = self.admit(answer.tokens()) {
            return Ok(self.limited(wait));
        }
        let failure = draw.failure(&self.settings);
        if let Some(kind) = failure {
            *self.served.lock().failed.entry(kind.as_str()).or_default() += 1;
        }
        timer::sleep(draw.ttft(&self.settings.latency, answer.input_tokens())).await;
        match failure {
            Some(kind) => failed(kind, answer).await,
            None => {
                *self.served.lock().answered.entry(endpoint.path()).or_default() += 1;
                self.give(answer, draw).await
            }
        }
    }

    async fn answer(&self, endpoint: Endpoint, json: &Json) -> Result<Answer, Unanswerable> {
        let settings = &self.settings;
        Ok(match endpoint {
            Endpoint::Chat => Answer::Text(Shape::Chat, answer::chat(json, settings).await?),
            Endpoint::Completion => {
                Answer::Text(Shape::Completion, answer::completion(json, settings).await?)
            }
            Endpoint::Embeddings => Answer::Whole(answer::embeddings(json, settings)?),
            Endpoint::Rerank => Answer::Whole(answer::rerank(json, settings)?),
        })
    }

    /// Takes a request's share of the rates, or says how long to wait for it.
    fn admit(&self, tokens: u64) -> Result<(), Duration> {
        let now = Instant::now();
        let mut rates = self.rates.lock();
        let (requests, of_tokens) = &mut *rates;
        let tokens = f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
        if let Some(bucket) = requests {
            bucket.try_take(1.0, now)?;
        }
        match of_tokens {
            Some(bucket) => bucket.try_take(tokens, now),
            None => Ok(()),
        }
    }

    fn limited(&self, wait: Duration) -> Response<Body> {
        self.served.lock().rate_limited += 1;
        let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "rate limit reached");
        let left = self.rates.lock().0.as_ref().map(Bucket::left);
        let headers = reply.headers_mut();
        let number = |value: u128| HeaderValue::from_str(&value.to_string());
        // Whole seconds in the standard's header, rounded up, and exactly beside it.
        let secs = u128::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        for (name, value) in [
            (RETRY_AFTER, number(secs)),
            (RETRY_AFTER_MS, number(wait.as_millis() + 1)),
            (REMAINING, HeaderValue::from_str(&format!("{:.0}", left.unwrap_or_default().floor()))),
        ] {
            if let Ok(value) = value {
                headers.insert(name, value);
            }
        }
        reply
    }

    fn refuse(&self, status: StatusCode, reason: &str) -> Response<Body> {
        self.served.lock().refused += 1;
        error(status, reason)
    }

    async fn give(&self, answer: Answer, mut draw: Draw) -> Reply {
        match answer {
            Answer::Whole(json) => Ok(whole(StatusCode::OK, &json)),
            Answer::Text(shape, text) if text.is_streamed => {
                let latency = self.settings.latency;
                let events = shape.events(&text);
                let waits: Vec<Duration> = (0..events.len())
                    .map(|n| if n == 0 { Duration::ZERO } else { draw.inter_token(&latency) })
                    .collect();
                Ok(streamed(events.into_iter().zip(waits).map(|(event, wait)| (wait, Ok(event)))))
            }
            Answer::Text(shape, text) => {
                let tokens = text.pieces.len().saturating_sub(1);
                let wait: Duration =
                    (0..tokens).map(|_| draw.inter_token(&self.settings.latency)).sum();
                timer::sleep(wait).await;
                Ok(whole(StatusCode::OK, &shape.whole(&text)))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Chat,
    Completion,
    Embeddings,
    Rerank,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        [Self::Chat, Self::Completion, Self::Embeddings, Self::Rerank]
            .into_iter()
            .find(|endpoint| path.ends_with(endpoint.path()))
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completion => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Rerank => "/rerank",
        }
    }
}

enum Answer {
    Whole(Json),
    Text(Shape, Text),
}

impl Answer {
    fn input_tokens(&self) -> u64 {
        match self {
            Self::Text(_, text) => text.input_tokens,
            Self::Whole(json) => {
                json.pointer("/usage/prompt_tokens").and_then(Json::as_u64).unwrap_or_default()
            }
        }
    }

    fn tokens(&self) -> u64 {
        let output = match self {
            Self::Text(_, text) => text.pieces.iter().map(|piece| u64::from(piece.tokens)).sum(),
            Self::Whole(_) => 0,
        };
        self.input_tokens() + output
    }
}

/// The two forms of a text.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Chat,
    Completion,
}

impl Shape {
    fn whole(self, text: &Text) -> Json {
        let choice = match self {
            Self::Chat => json!({"index": 0, "finish_reason": text.finish_reason,
                "message": {"role": "assistant", "content": text.text()}}),
            Self::Completion => {
                json!({"index": 0, "finish_reason": text.finish_reason, "text": text.text()})
            }
        };
        json!({"id": "fake", "object": self.object(false), "model": text.model,
            "choices": [choice], "usage": text.usage()})
    }

    /// One event a token, the reason for the end, the counts if they were asked for, and the last
    /// word.
    fn events(self, text: &Text) -> Vec<Bytes> {
        let event = |choices: Json, usage: Json| {
            let mut json = json!({"id": "fake", "object": self.object(true), "model": text.model,
                "choices": choices});
            if text.counts_in_stream {
                json["usage"] = usage;
            }
            Bytes::from(format!("data: {json}\n\n"))
        };
        let choice = |part: &str, finish_reason: Json| match self {
            Self::Chat => json!([{"index": 0, "finish_reason": finish_reason,
                "delta": if part.is_empty() { json!({}) } else { json!({"content": part}) }}]),
            Self::Completion => json!([{"index": 0, "finish_reason": finish_reason, "text": part}]),
        };
        let mut events: Vec<Bytes> = text
            .pieces
            .iter()
            .map(|piece| event(choice(&piece.text, Json::Null), Json::Null))
            .collect();
        let mut end = event(choice("", json!(text.finish_reason)), Json::Null).to_vec();
        if text.counts_in_stream {
            end.extend_from_slice(&event(json!([]), text.usage()));
        }
        end.extend_from_slice(b"data: [DONE]\n\n");
        events.push(Bytes::from(end));
        events
    }

    const fn object(self, is_streamed: bool) -> &'static str {
        match (self, is_streamed) {
            (Self::Chat, true) => "chat.completion.chunk",
            (Self::Chat, false) => "chat.completion",
            (Self::Completion, _) => "text_completion",
        }
    }
}

/// Fails in the way that was drawn.
async fn failed(kind: FailureKind, answer: Answer) -> Reply {
    match kind {
        FailureKind::Internal => Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "it broke")),
        FailureKind::Unavailable => Ok(error(StatusCode::SERVICE_UNAVAILABLE, "it is overloaded")),
        FailureKind::BadRequest => Ok(error(StatusCode::BAD_REQUEST, "it does not like this")),
        FailureKind::RateLimited => {
            let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            reply.headers_mut().insert(RETRY_AFTER_MS, HeaderValue::from_static("20"));
            Ok(reply)
        }
        FailureKind::Reset => Err(gone()),
        FailureKind::Garbage => {
            let page = Full::new(Bytes::from_static(b"<html>Bad gateway</html>"));
            let body = page.map_err(|never: Infallible| match never {}).boxed_unsync();
            Ok(Response::new(body))
        }
        FailureKind::Stall => {
            sleep(STALL).await;
            Err(gone())
        }
        FailureKind::Cut => Ok(cut(answer)),
    }
}

/// The first half of an answer, and then nothing.
fn cut(answer: Answer) -> Response<Body> {
    let parts = match answer {
        Answer::Text(shape, text) if text.is_streamed => {
            let mut events = shape.events(&text);
            events.truncate(events.len() / 2);
            events
        }
        Answer::Text(shape, text) => vec![half(&shape.whole(&text))],
        Answer::Whole(json) => vec![half(&json)],
    };
    // The half must be on its way before the end, or no answer at all is seen.
    let parts = parts.into_iter().map(|part| (Duration::ZERO, Ok(part)));
    streamed(parts.chain([(CUT_AFTER, Err(gone()))]))
}

fn half(json: &Json) -> Bytes {
    let mut bytes = json.to_string().into_bytes();
    bytes.truncate(bytes.len() / 2);
    Bytes::from(bytes)
}

fn gone() -> std::io::Error {
    std::io::Error::other("failed on purpose")
}

fn streamed(
    parts: impl Iterator<Item = (Duration, Result<Bytes, std::io::Error>)> + Send + 'static,
) -> Response<Body> {
    let mut reply = Response::new(StreamBody::new(timed(parts)).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply
}

/// Gives each part its wait after the moment at which the one before was due: what is late once does
/// not make the rest late.
fn timed(
    parts: impl Iterator<Item = (Duration, Result<Bytes, std::io::Error>)> + Send + 'static,
) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send {
    stream::unfold((parts, None), |(mut parts, before)| async move {
        let (wait, part) = parts.next()?;
        // Nobody waits for a time too far to be told.
        let due = before.unwrap_or_else(std::time::Instant::now).checked_add(wait)?;
        timer::sleep_until(due).await;
        Some((part.map(Frame::data), (parts, Some(due))))
    })
}

fn whole(status: StatusCode, json: &Json) -> Response<Body> {
    let body = Full::new(Bytes::from(json.to_string()));
    let mut reply = Response::new(body.map_err(|never: Infallible| match never {}).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn error(status: StatusCode, message: &str) -> Response<Body> {
    whole(status, &json!({"error": {"message": message, "type": "fake", "code": status.as_u16()}}))
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
/// More connections than any load of one machine has.
const CONNECTIONS_MAX: usize = 4_096;
/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest a client may take to ask.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest request, bytes: a batch of the largest texts.
const BODY_BYTES_MAX: usize = 64 << 20;
/// From the half of an answer to its end.
const CUT_AFTER: Duration = Duration::from_millis(20);
/// How long a stalled answer does not come: longer than clients wait.
const STALL: Duration = Duration::from_secs(600);
