//! Many URLs at once, each with a result of its own.
//!
//! LlamaIndex's tool of the name posts to one company's service, makes documents of errors, and
//! makes nothing of exceptions. Here every URL has a [`Fetched`] or a [`FetchError`], and a span.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url, redirect};
use retake_schemas::settings::LimitSettings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};

use super::gate::Gate;
use super::pool::{self, Outcome};
use super::retry::{Failed, RetryPolicy, retry};
use crate::http::{describe, install_cryptography, retry_after};

/// How to fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// URLs fetched at the same time.
    pub workers: usize,
    /// Longest one attempt may take, its whole body included.
    pub timeout: Duration,
    /// Largest body, bytes.
    pub body_bytes_max: usize,
    /// How often again.
    pub retry: RetryPolicy,
    /// What each host allows.
    pub limits: LimitSettings,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            workers: 8,
            timeout: Duration::from_secs(30),
            body_bytes_max: 32 << 20,
            retry: RetryPolicy::default(),
            // A host that did not ask to be fetched from is not to be overrun.
            limits: LimitSettings { concurrency: 4, ..LimitSettings::default() },
        }
    }
}

/// What a URL gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The URL as it was asked for.
    pub url: String,
    /// Where it led to.
    pub final_url: String,
    /// Media type, as the server says.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// Attempts after the first.
    pub retries: u32,
    /// How long it took, waiting included.
    pub took: Duration,
}

/// Why a URL gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It is none, or not of the web.
    #[error("fetch {url}: {reason}; give an address that begins with http:// or https://")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server answered something else than success.
    #[error("fetch {url}: it answered {status}")]
    Status {
        /// As given, without what follows `?`.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The body is larger than allowed.
    #[error("fetch {url}: it is larger than {bytes_max} bytes")]
    TooLarge {
        /// As given, without what follows `?`.
        url: String,
        /// The limit.
        bytes_max: usize,
    },
    /// It took too long.
    #[error("fetch {url}: no whole answer within {} ms", timeout.as_millis())]
    TimedOut {
        /// As given, without what follows `?`.
        url: String,
        /// The limit.
        timeout: Duration,
    },
    /// The network, or this machine.
    #[error("fetch {url}: {reason}")]
    Network {
        /// As given, without what follows `?`.
        url: String,
        /// Why.
        reason: String,
    },
}

impl FetchError {
    /// The class recorded as `error.type`.
    #[must_use]
    pub const fn error_type(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "bad_url",
            Self::Status { .. } => "http_status",
            Self::TooLarge { .. } => "too_large",
            Self::TimedOut { .. } => "timeout",
            Self::Network { .. } => "network",
        }
    }
}

/// Fetches `urls`; outcomes come as they are ready, [`Outcome::index`] says of which URL.
///
/// # Errors
/// [`FetchError::Network`] if no HTTP client can be made; what a URL fails with is its own outcome.
pub fn fetch_all(
    urls: Vec<String>,
    options: FetchOptions,
    cancel: CancellationToken,
) -> Result<impl Stream<Item = Outcome<Result<Fetched, FetchError>>> + Send, FetchError> {
    let fetcher = Arc::new(Fetcher::new(options)?);
    let workers = fetcher.options.workers;
    Ok(pool::run(stream::iter(urls), workers, cancel, move |url| Arc::clone(&fetcher).fetch(url)))
}

struct Fetcher {
    client: Client,
    options: FetchOptions,
}

impl Fetcher {
    fn new(options: FetchOptions) -> Result<Self, FetchError> {
        install_cryptography();
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::limited(REDIRECTS_MAX))
            .connect_timeout(options.timeout)
            .timeout(options.timeout)
            .build()
            .map_err(|error| FetchError::Network { url: String::new(), reason: describe(error) })?;
        Ok(Self { client, options })
    }

    async fn fetch(self: Arc<Self>, given: String) -> Result<Fetched, FetchError> {
        let shown = shown(&given);
        let span = tracing::info_span!(
            "fetch",
            "retake.stage" = "fetch",
            "url.full" = shown,
            "http.response.status_code" = field::Empty,
            "http.response.body.size" = field::Empty,
            "retake.retries" = field::Empty,
            "error.type" = field::Empty,
            "otel.status_code" = field::Empty,
        );
        let result = self.fetch_in_span(given, &shown).instrument(span.clone()).await;
        match &result {
            Ok(fetched) => {
                span.record("http.response.body.size", fetched.body.len());
                span.record("retake.retries", fetched.retries);
            }
            Err(error) => {
                span.record("error.type", error.error_type());
                span.record("otel.status_code", "ERROR");
            }
        }
        result
    }

    async fn fetch_in_span(&self, given: String, shown: &str) -> Result<Fetched, FetchError> {
        let started = Instant::now();
        let url =
            parse(&given).map_err(|reason| FetchError::BadUrl { url: shown.to_owned(), reason })?;
        let gate = Gate::shared(url.host_str().unwrap_or_default(), &self.options.limits);
        let attempt = || self.attempt(url.clone(), shown);
        match retry(&self.options.retry, &gate, 0, attempt).await {
            Ok(done) => Ok(Fetched {
                url: given,
                retries: done.retries,
                took: started.elapsed(),
                ..done.value
            }),
            Err(gave_up) => Err(gave_up.failed.error),
        }
    }

    async fn attempt(&self, url: Url, shown: &str) -> Result<Fetched, Failed<FetchError>> {
        let response = self.client.get(url).send().await.map_err(|e| self.failed(shown, e))?;
        let status = response.status();
        Span::current().record("http.response.status_code", status.as_u16());
        if !status.is_success() {
            return Err(Failed {
                error: FetchError::Status { url: shown.to_owned(), status: status.as_u16() },
                is_transient: status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
                wait: retry_after(response.headers()),
            });
        }
        let final_url = response.url().to_string();
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = self.body(response, shown).await?;
        Ok(Fetched {
            url: String::new(),
            final_url,
            content_type,
            body,
            retries: 0,
            took: Duration::ZERO,
        })
    }

    async fn body(
        &self,
        mut response: reqwest::Response,
        shown: &str,
    ) -> Result<Vec<u8>, Failed<FetchError>> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.failed(shown, error))? {
            if body.len() + part.len() > self.options.body_bytes_max {
                let bytes_max = self.options.body_bytes_max;
                let error = FetchError::TooLarge { url: shown.to_owned(), bytes_max };
                return Err(Failed { error, is_transient: false, wait: None });
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn failed(&self, shown: &str, error: reqwest::Error) -> Failed<FetchError> {
        let url = shown.to_owned();
        // To get a page twice changes nothing, so whatever the network did may be tried again.
        let is_transient = !error.is_builder() && !error.is_redirect() && !error.is_timeout();
        let error = if error.is_timeout() {
            FetchError::TimedOut { url, timeout: self.options.timeout }
        } else {
            FetchError::Network { url, reason: describe(error) }
        };
        Failed { error, is_transient, wait: None }
    }
}

fn parse(url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        scheme => Err(format!("{scheme}: is not fetched")),
    }
}

/// A URL as it may be shown: what follows `?` and a password may be secrets.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return url.chars().take(SHOWN_CHARS_MAX).collect();
    };
    parsed.set_query(None);
    parsed.set_fragment(None);
    let _ = parsed.set_password(None);
    let _ = parsed.set_username("");
    parsed.as_str().chars().take(SHOWN_CHARS_MAX).collect()
}

const USER_AGENT: &str = concat!("retake/", env!("CARGO_PKG_VERSION"));
/// As many as browsers follow for a page that is well.
const REDIRECTS_MAX: usize = 10;
/// Longest URL in a message.
const SHOWN_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use wiremock::matchers::path;
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    async fn server() -> MockServer {
        let server = MockServer::start().await;
        let answer = |status: u16| ResponseTemplate::new(status).set_body_string("page");
        for (place, response) in [
            ("/ok", answer(200).insert_header("content-type", "text/plain")),
            ("/gone", answer(404)),
            ("/slow", answer(200).set_delay(Duration::from_secs(60))),
            ("/large", ResponseTemplate::new(200).set_body_bytes(vec![0; 2_000])),
            ("/moved", ResponseTemplate::new(302).insert_header("location", "/ok")),
        ] {
            Mock::given(path(place)).respond_with(response).mount(&server).await;
        }
        let busy = ResponseTemplate::new(429).insert_header("retry-after-ms", "1");
        Mock::given(path("/busy")).respond_with(busy).up_to_n_times(1).mount(&server).await;
        Mock::given(path("/busy")).respond_with(answer(200)).mount(&server).await;
        server
    }

    /// Scenario: URLs that work, fail, stall, are too large, move, are busy, and are none.
    /// Guarantees: each has its own result, in the end of all; a failure is an error and not a
    /// document; nothing that may be a secret is shown.
    #[tokio::test]
    async fn every_url_has_a_result_of_its_own() {
        let server = server().await;
        let url = |path: &str| format!("{}{path}", server.uri());
        let urls = vec![
            url("/ok?key=secret"),
            url("/gone?key=secret"),
            url("/slow"),
            url("/large"),
            url("/moved"),
            url("/busy"),
            "ftp://host/file".to_owned(),
            "not a url".to_owned(),
        ];
        let options = FetchOptions {
            timeout: Duration::from_millis(1_500),
            body_bytes_max: 1_000,
            ..FetchOptions::default()
        };
        let outcomes = fetch_all(urls, options, CancellationToken::new()).expect("client");
        let outcomes = pool::collect(outcomes).await;
        let classes: Vec<&str> = outcomes
            .iter()
            .map(|outcome| match outcome.result.as_ref().expect("no panic") {
                Ok(fetched) => {
                    assert_eq!(fetched.body, b"page");
                    "ok"
                }
                Err(error) => {
                    assert!(!error.to_string().contains("secret"), "{error}");
                    error.error_type()
                }
            })
            .collect();
        assert_eq!(
            classes,
            ["ok", "http_status", "timeout", "too_large", "ok", "ok", "bad_url", "bad_url"]
        );
        let fetched = |n: usize| outcomes[n].result.clone().expect("done").expect("fetched");
        assert_eq!(fetched(0).content_type.as_deref(), Some("text/plain"));
        assert!(fetched(4).final_url.ends_with("/ok"));
        assert_eq!(fetched(5).retries, 1);
    }
}
