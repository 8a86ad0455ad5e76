//! Responses.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// Whatever ends a response's body early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A response's body: whole or streamed.
pub(crate) type ReplyBody = UnsyncBoxBody<Bytes, BodyError>;
/// A response.
pub(crate) type Reply = Response<ReplyBody>;

/// A body that is there already.
pub(crate) fn whole(body: impl Into<Bytes>) -> ReplyBody {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A response of `status` with a whole body of type `content_type`.
pub(crate) fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A browser that came here by hand must not take a text for a page.
    headers.insert(NO_SNIFFING, HeaderValue::from_static("nosniff"));
    response
}

const NO_SNIFFING: HeaderName = HeaderName::from_static("x-content-type-options");
/// Plain text, for people.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
