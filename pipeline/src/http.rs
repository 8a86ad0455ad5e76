//! Calls to OpenAI-compatible services: one client, its key, its limits, and its retries.
//!
//! Only what a retry can help is retried: refused connections, 429, and 5xx. A key is read from
//! the environment, sent, and never shown: not in errors, not in `Debug`.

use std::sync::Once;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::Serialize;

use crate::error::PipelineError;

/// A service that can be called.
pub struct Service {
    client: Client,
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
}

/// A successful response, and what it took.
#[derive(Debug)]
pub struct Answered {
    /// The response, its body not read yet.
    pub response: Response,
    /// Attempts after the first.
    pub retries: u32,
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
        Ok(Self { client, base, host, key })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Posts `body` to `path` under the base URL, until it succeeds or a retry cannot help.
    ///
    /// # Errors
    /// [`PipelineError::Service`] with the last attempt's failure.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answered, PipelineError> {
        let mut delays = Delays::new();
        let mut retries = 0;
        loop {
            let failure = match self.attempt(path, body).await {
                Ok(response) => return Ok(Answered { response, retries }),
                Err(failure) => failure,
            };
            let delay = failure.is_transient.then(|| delays.next(failure.wait)).flatten();
            let Some(delay) = delay else {
                return Err(self.error(failure.status, &failure.reason(retries)));
            };
            tokio::time::sleep(delay).await;
            retries += 1;
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

    async fn attempt(&self, path: &str, body: &impl Serialize) -> Result<Response, Failure> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let sent = self.client.post(url).json(body).send().await;
        let response = sent.map_err(|error| Failure {
            status: None,
            is_transient: error.is_connect(),
            wait: None,
            cause: describe(error),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = retry_after(response.headers());
        let message = self.body(response).await.ok().and_then(|body| self.message_of(&body));
        Err(Failure {
            status: Some(status),
            is_transient: status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            wait,
            cause: message.map_or_else(
                || format!("it answered {status}"),
                |message| format!("it answered {status}: {message}"),
            ),
        })
    }
}

/// One attempt that failed.
struct Failure {
    status: Option<StatusCode>,
    is_transient: bool,
    wait: Option<Duration>,
    cause: String,
}

impl Failure {
    fn reason(&self, retries: u32) -> String {
        match (retries, self.wait.filter(|wait| *wait > RETRY_AFTER_MAX)) {
            (_, Some(wait)) => format!("{}; it asks to wait {} s", self.cause, wait.as_secs()),
            (0, None) => self.cause.clone(),
            (retries, None) => format!("{} (after {retries} retries)", self.cause),
        }
    }
}

/// How long to wait before each retry.
struct Delays {
    backoff: backon::ExponentialBackoff,
    /// The part of the next delay that `backon` does not draw.
    base: Duration,
}

impl Delays {
    fn new() -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(DELAY_MAX)
            .with_max_times(RETRIES_MAX)
            .with_jitter()
            .build();
        Self { backoff, base: DELAY_MIN }
    }

    /// The next delay, or nothing if it is time to give up.
    ///
    /// `backon` draws from base to twice the base. Full jitter draws from zero to the base, which
    /// spreads many clients better: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let drawn = self.backoff.next()?.saturating_sub(self.base);
        self.base = (self.base * 2).min(DELAY_MAX);
        match asked {
            Some(wait) if wait > RETRY_AFTER_MAX => None,
            // Those who were told the same time should not all come back in the same moment.
            Some(wait) => Some(wait + drawn.min(DELAY_MIN)),
            None => Some(drawn),
        }
    }
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
fn install_cryptography() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // It fails only if the application has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What went wrong, down to its cause, without the URL (it may hold a key as a parameter).
fn describe(error: reqwest::Error) -> String {
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
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let secs =
        number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(secs).ok()
}

/// Retries of one call. With the delays below, some four seconds of patience on average.
const RETRIES_MAX: usize = 4;
/// Upper end of the first delay.
const DELAY_MIN: Duration = Duration::from_millis(500);
/// Upper end of any delay.
const DELAY_MAX: Duration = Duration::from_secs(8);
/// Longest wait a service may ask for; longer ones are reported instead of slept through.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
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
