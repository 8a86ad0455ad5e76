//! An OpenAI-compatible service, or any that takes JSON over HTTP, as a replay target.
//!
//! Where requests go is decided by whoever starts the replay: the address and, if it is not one of
//! OpenAI's routes, the route. A trace decides neither (R2). Nothing is retried: a refused call is
//! a result, and a retry would be an arrival that never happened.

use std::collections::BTreeMap;
use std::sync::Once;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url, redirect};
use serde_json::{Value as Json, json};
use tracing::Instrument as _;

use super::answer::{Answer, Streamed};
use super::settings::ServiceSettings;
use super::spans::{self, Call};
use super::{Operation, OperationContext, Prepared, Target, TargetError};
use crate::prompt;

/// A request that only has to be sent.
struct Written {
    url: Url,
    route: String,
    body: Json,
    bytes: Vec<u8>,
    /// What a replay of this replay needs to send it again.
    input: String,
}

/// Calls a service.
pub struct ServiceTarget {
    client: Client,
    base: Url,
    host: String,
    key: Option<String>,
    settings: ServiceSettings,
}

impl std::fmt::Debug for ServiceTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceTarget").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Why a service cannot be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The address.
    #[error("use target {url:?}: {reason}")]
    Address {
        /// As it was given, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key.
    #[error("use the key in {0}: it holds characters that no header may hold")]
    Key(String),
    /// The HTTP client.
    #[error("prepare an HTTP client: {0}")]
    Client(String),
}

impl ServiceTarget {
    /// A service at this address, such as `http://127.0.0.1:8000`; a `/v1` at its end is left out,
    /// because the routes begin with it. Calls nobody.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub fn new(url: &str, settings: ServiceSettings) -> Result<Self, ServiceError> {
        let base = parse(url)?;
        let host = match (base.host_str(), base.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let key = std::env::var(&settings.api_key_env).ok().filter(|key| !key.is_empty());
        let client = client(key.as_deref(), &settings)?;
        Ok(Self { client, base, host, key, settings })
    }

    /// Whether it is asked at a route of its own, with operations as they were recorded, and not as
    /// a model.
    #[must_use]
    pub fn is_own_route(&self) -> bool {
        self.settings.route.is_some()
    }

    /// The route and body of an operation. `Err` says why there is none.
    fn request(&self, operation: &Operation) -> Result<(String, Json), TargetError> {
        let refused = |reason: &str| {
            TargetError::Refused(format!("replay operation {}: {reason}", operation.index))
        };
        if let Some(route) = &self.settings.route {
            if operation.input.is_null() {
                return Err(refused("it has no input to post, only its lengths are known"));
            }
            return Ok((route.clone(), operation.input.clone()));
        }
        let (route, mut body) = match &operation.input {
            Json::Null => (ROUTES[0].to_owned(), prompt::chat(operation)),
            input => {
                let route = input.get("route").and_then(Json::as_str);
                let route = route.filter(|route| ROUTES.contains(route));
                let body = input.get("body").filter(|body| body.is_object());
                match (route, body) {
                    (Some(route), Some(body)) => (route.to_owned(), body.clone()),
                    _ => {
                        return Err(refused(
                            "it is no call of a model; --set route=/PATH posts its input as it is",
                        ));
                    }
                }
            }
        };
        if let Some(body) = body.as_object_mut() {
            let is_chat = route != EMBEDDINGS;
            for (name, value) in &self.settings.body {
                if is_chat == (name != "dimensions") || name == "model" {
                    body.insert(name.clone(), value.clone());
                }
            }
            if !body.contains_key("model") {
                return Err(refused(
                    "it does not say which model to ask; set one: --set model=NAME",
                ));
            }
        }
        Ok((route, body))
    }

    /// The request in the form in which it is sent and recorded.
    fn written(&self, operation: &Operation) -> Result<Written, TargetError> {
        let (route, body) = self.request(operation)?;
        let mut url = self.base.clone();
        url.set_path(&format!("{}{route}", self.base.path().trim_end_matches('/')));
        let bytes = serde_json::to_vec(&body)
            .map_err(|error| failed("request", format!("write the request: {error}")))?;
        let input = match self.settings.route {
            // As it was, so that a replay of this replay posts the same.
            Some(_) => body.to_string(),
            None => json!({ "route": route, "body": body }).to_string(),
        };
        Ok(Written { url, route, body, bytes, input })
    }

    async fn call(&self, call: &mut Call, url: Url, bytes: Vec<u8>) -> Result<(), TargetError> {
        let request = self.client.post(url).header(CONTENT_TYPE, JSON).body(bytes);
        call.sent();
        let mut response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        if !status.is_success() {
            let body = self.body(&mut response).await.unwrap_or_default();
            let message =
                message_of(&body).map(|message| format!(": {message}")).unwrap_or_default();
            return Err(TargetError::Failed {
                error_type: status.as_u16().to_string(),
                message: self.without_key(&format!("{} answered {status}{message}", self.host)),
            });
        }
        let answer = if is_stream(response.headers()) {
            self.stream(&mut response, call).await?
        } else {
            let body = self.body(&mut response).await?;
            Answer::of_body(&body)
        };
        call.answered(&answer);
        match answer.error {
            None => Ok(()),
            Some((error_type, message)) => {
                let message = self.without_key(&message);
                Err(TargetError::Failed { error_type, message })
            }
        }
    }

    /// Reads a stream; every piece of output is noted when it comes.
    async fn stream(
        &self,
        response: &mut Response,
        call: &mut Call,
    ) -> Result<Answer, TargetError> {
        let mut streamed = Streamed::default();
        loop {
            let part = response.chunk().await.map_err(|error| self.broken(error))?;
            let is_end = part.is_none();
            let pieces = streamed.push(part.as_deref());
            let pieces =
                pieces.map_err(|()| failed("too_large", "an event is too long".to_owned()))?;
            call.tokens(pieces);
            if is_end {
                return Ok(streamed.finish());
            }
        }
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, TargetError> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + part.len() > BODY_BYTES_MAX {
                let message = format!("its answer is larger than {BODY_BYTES_MAX} bytes");
                return Err(failed("too_large", message));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    /// A connection that failed or broke off.
    fn broken(&self, error: reqwest::Error) -> TargetError {
        let kind = match &error {
            e if e.is_timeout() => "timeout",
            e if e.is_connect() => "connect",
            _ => "broken",
        };
        // Without the URL, which may hold a key as a parameter.
        let error = error.without_url();
        let mut text = format!("{}: {error}", self.host);
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source.filter(|_| text.len() < MESSAGE_CHARS_MAX) {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        failed(kind, self.without_key(&text))
    }

    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_owned(),
        }
    }
}

#[async_trait]
impl Target for ServiceTarget {
    fn name(&self) -> &str {
        &self.host
    }

    fn settings(&self) -> BTreeMap<String, Json> {
        let mut settings = self.settings.recordable();
        settings.insert("target".to_owned(), self.base.as_str().into());
        settings
    }

    fn waits_on_io(&self) -> bool {
        true
    }

    fn prepare(&self, operation: &Operation) -> Prepared {
        // What is refused is refused when it is due.
        self.written(operation).map(Prepared::new).unwrap_or_default()
    }

    async fn execute(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError> {
        let written = match context.prepared.take() {
            Some(written) => written,
            None => self.written(operation)?,
        };
        let Written { url, route, body, bytes, input } = written;
        let sent = spans::Sent { input: &input, body: &body, route: &route, host: &self.host };
        let span = spans::call(operation, context, sent);
        let mut call = Call::new(span.clone());
        let outcome = tokio::select! {
            biased;
            () = context.cancellation.cancelled() => Err(TargetError::Cancelled),
            outcome = self.call(&mut call, url, bytes).instrument(span) => outcome,
        };
        call.end(&outcome);
        outcome
    }
}

fn parse(text: &str) -> Result<Url, ServiceError> {
    let wrong = |url: &str, reason: &str| ServiceError::Address {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(text).map_err(|error| wrong(text, &error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("", "it must not hold a user or password; give the key by environment"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong(text, "it must begin with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(text, "it must not hold parameters"));
    }
    let path = url.path().trim_end_matches('/').trim_end_matches("/v1").to_owned();
    url.set_path(&path);
    Ok(url)
}

fn client(key: Option<&str>, settings: &ServiceSettings) -> Result<Client, ServiceError> {
    install_cryptography();
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| ServiceError::Key(settings.api_key_env.clone()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Client::builder()
        .default_headers(headers)
        // The service is the one that was named: no proxy from the environment, and no other place
        // that an answer points to.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
        .timeout(settings.timeout)
        // Small requests must not wait for more to send.
        .tcp_nodelay(true)
        .build()
        .map_err(|error| ServiceError::Client(error.to_string()))
}

/// Gives `rustls` its cryptography, once per process.
fn install_cryptography() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // It fails only if the application has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn message_of(body: &[u8]) -> Option<String> {
    let json: Json = serde_json::from_slice(body).ok()?;
    let places = ["/error/message", "/error", "/message", "/detail"];
    let message = places.iter().find_map(|place| json.pointer(place)?.as_str())?;
    Some(message.chars().take(MESSAGE_CHARS_MAX).collect())
}

fn failed(error_type: &str, message: String) -> TargetError {
    TargetError::Failed { error_type: error_type.to_owned(), message }
}

/// The routes that are ever asked, chat first.
const ROUTES: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/responses", EMBEDDINGS, "/v1/rerank"];
const EMBEDDINGS: &str = "/v1/embeddings";
const JSON: &str = "application/json";
/// Longest wait for a connection: a host that is up answers within a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body read, bytes: a batch of 512 vectors of 4,096 numbers in JSON has about 45 MB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest message taken over from a service, characters.
const MESSAGE_CHARS_MAX: usize = 300;
