//! Pages for people, beside the paths that receive.
//!
//! The receiver knows nothing of what they show: it checks who asks, as for everything else, and
//! hands the path on. Pages are only read, so only `GET` and `HEAD` reach them.

use std::sync::Arc;

use futures::future::BoxFuture;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::net::reply::{Reply, whole};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// The path, as sent: percent-encoded, beginning with `/`.
    pub path: String,
    /// What follows `?`, as sent.
    pub query: String,
    /// The version that the client has already.
    pub known: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// What is shown.
    pub body: String,
    /// What changes when the page does: visible ASCII without quotes. A client that has it already
    /// is answered 304 by whoever made the page, with an empty body.
    pub version: Option<String>,
}

/// Who makes the pages.
pub trait Pages: Send + Sync + 'static {
    /// Answers; a page that does not exist is an answer too.
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Page>;

    /// Asks for the token: a form that posts `token` to `/in`. `problem` says why somebody who tried
    /// is asked again.
    fn entry(&self, problem: Option<&str>) -> Page;
}

/// Answers a request for a page.
pub(crate) async fn answer(pages: &Arc<dyn Pages>, parts: &Parts) -> Reply {
    whole_page(pages.page(request(parts)).await)
}

/// A page as a response.
pub(crate) fn whole_page(page: Page) -> Reply {
    let mut response = Response::new(whole(page.body));
    *response.status_mut() =
        StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    let version = page.version.map(|version| HeaderValue::try_from(format!("\"{version}\"")));
    if let Some(Ok(version)) = version {
        headers.insert(ETAG, version);
    }
    protect(headers);
    response
}

fn request(parts: &Parts) -> PageRequest {
    let known = parts.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    PageRequest {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        known: known
            .map(|value| value.trim().trim_start_matches("W/").trim_matches('"').to_owned()),
    }
}

/// What a page cannot say about itself: nobody may frame it, keep it, or learn where it was.
fn protect(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}
