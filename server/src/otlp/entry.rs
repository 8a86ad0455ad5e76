//! `/in`: where a browser is let in, by a key or by the token.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::net::body;
use crate::net::reply::{Reply, TEXT, reply};
use crate::otlp::http::method_not_allowed;
use crate::otlp::receiver::Receiver;
use crate::pages::{self, Pages};

/// Where browsers come in.
pub(crate) const PATH: &str = "/in";

/// Answers a request for [`PATH`].
pub(crate) async fn answer(
    receiver: &Receiver,
    pages: &Arc<dyn Pages>,
    parts: &Parts,
    body: Incoming,
) -> Reply {
    let problem = match parts.method {
        Method::GET if is_fetched_ahead(parts) => None,
        Method::GET => match field(parts.uri.query().unwrap_or_default().as_bytes(), "key") {
            Some(key) if receiver.sessions.redeem(key.as_bytes(), Instant::now()) => {
                return let_in(receiver);
            }
            Some(_) => Some(USED),
            None => None,
        },
        Method::POST => match posted(receiver, parts, body).await {
            Some(token) if receiver.access.is_token(token.as_bytes()) => return let_in(receiver),
            _ => Some(WRONG),
        },
        Method::HEAD => None,
        _ => return method_not_allowed("GET, HEAD, POST"),
    };
    if problem.is_some() {
        receiver.metrics.refused("token");
    }
    refused(pages, problem)
}

/// The page that asks for the token.
pub(crate) fn refused(pages: &Arc<dyn Pages>, problem: Option<&'static str>) -> Reply {
    let mut response = pages::whole_page(pages.entry(problem));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Whether a person looks, rather than a program that would not know what to do with a page.
pub(crate) fn is_browser(parts: &Parts) -> bool {
    let accepted = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    is_read && accepted.into_iter().any(|value| value.contains("text/html"))
}

/// A browser that fetches what might be wanted must not use up the key.
fn is_fetched_ahead(parts: &Parts) -> bool {
    ["sec-purpose", "purpose"].into_iter().any(|name| {
        let values = parts.headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).any(|value| value.contains("prefetch"))
    })
}

fn let_in(receiver: &Receiver) -> Reply {
    let Some(cookie) = receiver.sessions.open(Instant::now()) else {
        return reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no cookie could be made\n");
    };
    // To an address without the key, which therefore stays in no history.
    let mut response = reply(StatusCode::SEE_OTHER, TEXT, "");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/"));
    headers.insert(SET_COOKIE, cookie);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    response
}

/// The token of the form.
async fn posted(receiver: &Receiver, parts: &Parts, mut body: Incoming) -> Option<String> {
    let stated = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    if !stated.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return None;
    }
    let mut sent = receiver.budget.buffer(FORM_BYTES_MAX);
    body::read(&mut body, &mut sent, FORM_BYTES_MAX, &receiver.timeouts).await.ok()?;
    // People paste line ends and spaces along.
    field(sent.as_slice(), "token").map(|token| token.trim().to_owned())
}

fn field(form: &[u8], name: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(form);
    fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

const USED: &str = "This link was used before, or is older than ten minutes.";
const WRONG: &str = "That is not the token.";
/// A token and what a browser writes around it.
const FORM_BYTES_MAX: usize = 4096;
