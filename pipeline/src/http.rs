//! Calls to OpenAI-compatible services: one client, its key, its limits, and its retries.
//!
//! Only what a retry can help is retried: refused connections, 429, and 5xx. A key is read from
//! the environment, sent, and never shown: not in errors, not in `Debug`.

use std::sync::{Arc, Once};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use retake_schemas::settings::LimitSettings;
use serde::Serialize;

use crate::error::PipelineError;
use crate::work::gate::{Gate, Permit};
use crate::work::retry::{Failed, RetryPolicy, retry};

/// A service that can be called.
pub struct Service {
    client: Client,
    gate: Arc<Gate>,
    base: Url,
    host: String,
    key: Option<String>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("host", &self.host).finish_non_exhaustive()
    }
}

/// How to reach a service.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'s> {
    /// The setting that gives the URL, for messages.
    pub setting: &'static str,
    /// Base URL, such as `http://127.0.0.1:8000/v1`.
    pub url: Option<&'s str>,
    /// Environment variable with the key; a service that wants none needs none set.
    pub api_key_env: &'s str,
    /// Longest one attempt may take, its whole answer included.
    pub timeout: Duration,
    /// What the service allows.
    pub limits: &'s LimitSettings,
}

/// A successful response, and what it took.
#[derive(Debug)]
pub struct Answered {
    /// The response, its body not read yet.
    pub response: Response,
    /// Attempts after the first.
    pub retries: u32,
    /// The call's place among the concurrent ones; keep it until the body is read.
    pub permit: Permit,
}

impl Service {
    /// A service at `endpoint`. Calls nobody.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] for a URL or a key that cannot work.
    pub fn new(endpoint: &Endpoint<'_>) -> Result<Self, PipelineError> {
        let setting = endpoint.setting;
        let base = endpoint.url.filter(|url| !url.is_empty()).ok_or_else(|| {
            PipelineError::Configuration(format!(
                "use setting {setting}: give the base URL of an OpenAI-compatible service, such as \
                 http://127.0.0.1:8000/v1"
            ))
        })?;
        let base = parse_base(base).map_err(|reason| {
            PipelineError::Configuration(format!("use setting {setting}: {reason}"))
        })?;
        let host = match (base.host_str(), base.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let key = std::env::var(endpoint.api_key_env).ok().filter(|key| !key.is_empty());
        let client = client(key.as_deref(), endpoint)?;
        let gate = Gate::shared(&host, endpoint.limits);
        Ok(Self { client, gate, base, host, key })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the service limits tokens, so that calls must say how many they need.
    #[must_use]
    pub fn limits_tokens(&self) -> bool {
        self.gate.limits_tokens()
    }

    /// Posts `body` to `path` under the base URL, until it succeeds or a retry cannot help.
    /// `tokens` is what the call is expected to count, for the limit of tokens a minute.
    ///
    /// # Errors
    /// [`PipelineError::Service`] with the last attempt's failure.
    pub async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        tokens: u64,
    ) -> Result<Answered, PipelineError> {
        let policy = RetryPolicy::default();
        match retry(&policy, &self.gate, tokens, || self.attempt(path, body)).await {
            Ok(done) => {
                Ok(Answered { response: done.value, retries: done.retries, permit: done.permit })
            }
            Err(gave_up) => {
                let too_long = gave_up.failed.wait.filter(|wait| *wait > policy.wait_max);
                let Failure { status, cause } = gave_up.failed.error;
                let reason = match (gave_up.retries, too_long) {
                    (_, Some(wait)) => format!("{cause}; it asks to wait {} s", wait.as_secs()),
                    (0, None) => cause,
                    (retries, None) => format!("{cause} (after {retries} retries)"),
                };
                Err(self.error(status, &reason))
            }
        }
    }

    /// Reads a whole body, at most [`BODY_BYTES_MAX`] of it.
    ///
    /// # Errors
    /// [`PipelineError::Service`] if it is larger or breaks off.
    pub async fn body(&self, mut response: Response) -> Result<Vec<u8>, PipelineError> {
        let mut body = Vec::new();
        loop {
            let part = response.chunk().await;
            let Some(part) = part.map_err(|error| self.broken(error))? else {
                return Ok(body);
            };
            if body.len() + part.len() > BODY_BYTES_MAX {
                let reason = format!("its response is larger than {BODY_BYTES_MAX} bytes");
                return Err(self.error(None, &reason));
            }
            body.extend_from_slice(&part);
        }
    }

    /// The error of a response that broke off or could not be used.
    #[must_use]
    pub fn broken(&self, error: reqwest::Error) -> PipelineError {
        self.error(None, &describe(error))
    }

    /// An error of this service, with its key taken out of the reason.
    #[must_use]
    pub fn error(&self, status: Option<StatusCode>, reason: &str) -> PipelineError {
        PipelineError::Service {
            service: self.host.clone(),
            status: status.map(|status| status.as_u16()),
            reason: self.without_key(reason),
        }
    }

    /// The message in an error body, short enough for a line and without the key.
    pub(crate) fn message_of(&self, body: &[u8]) -> Option<String> {
        let json: serde_json::Value = serde_json::from_slice(body).ok()?;
        let message = ["/error/message", "/error", "/message", "/detail"]
            .iter()
            .find_map(|place| json.pointer(place)?.as_str())?;
        // The key goes first: cutting could leave a part of it that no longer looks like one.
        Some(self.without_key(message).chars().take(MESSAGE_CHARS_MAX).collect())
    }

    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_owned(),
        }
    }

    async fn attempt(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, Failed<Failure>> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let sent = self.client.post(url).json(body).send().await;
        let response = sent.map_err(|error| Failed {
            // One that was closed before any answer came has not been answered; asking again is
            // as safe as asking for the first time.
            is_transient: error.is_connect() || is_closed_early(&error),
            wait: None,
            error: Failure { status: None, cause: describe(error) },
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = retry_after(response.headers());
        let message = self.body(response).await.ok().and_then(|body| self.message_of(&body));
        Err(Failed {
            is_transient: status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            wait,
            error: Failure {
                status: Some(status),
                cause: message.map_or_else(
                    || format!("it answered {status}"),
                    |message| format!("it answered {status}: {message}"),
                ),
            },
        })
    }
}

/// Why an attempt failed.
struct Failure {
    status: Option<StatusCode>,
    cause: String,
}

/// Whether the connection ended before the first byte of an answer.
fn is_closed_early(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    for _ in 0..SOURCES_MAX {
        let Some(cause) = source else { return false };
        let text = cause.to_string();
        if text.contains("connection closed before message completed")
            || text.contains("Connection reset by peer")
        {
            return !error.is_timeout() && !error.is_body() && !error.is_decode();
        }
        source = cause.source();
    }
    false
}

fn parse_base(url: &str) -> Result<Url, String> {
    let mut base = Url::parse(url).map_err(|error| format!("it is not a URL: {error}"))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err("it must begin with http:// or https://".to_owned());
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err("it must not hold a user or password; give the key by environment".to_owned());
    }
    base.set_fragment(None);
    Ok(base)
}

/// A client that carries the key.
fn client(key: Option<&str>, endpoint: &Endpoint<'_>) -> Result<Client, PipelineError> {
    install_cryptography();
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            PipelineError::Configuration(format!(
                "use the key in {}: it holds characters that no header may hold",
                endpoint.api_key_env
            ))
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Client::builder()
        .default_headers(headers)
        // The service is the one in the settings: no proxy from the environment or the system,
        // and no other place that an answer points to.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT.min(endpoint.timeout))
        .timeout(endpoint.timeout)
        .build()
        .map_err(|error| {
            PipelineError::Configuration(format!("prepare an HTTP client: {}", describe(error)))
        })
}

/// Gives `rustls` its cryptography, once per process.
pub(crate) fn install_cryptography() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // It fails only if the application has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What went wrong, down to its cause, without the URL (it may hold a key as a parameter).
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    for _ in 0..SOURCES_MAX {
        let Some(cause) = source else { break };
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// `Retry-After` in seconds, or `retry-after-ms`. Services of this kind give no dates.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let secs =
        number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(secs).ok()
}

/// Longest wait for a connection: a host that is up answers within a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body read, bytes: a batch of 512 vectors of 4,096 numbers in JSON has about 45 MB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest message taken over from a service, characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// Causes shown of a chain; real ones have three or four.
const SOURCES_MAX: usize = 6;

#[cfg(test)]
mod tests;
