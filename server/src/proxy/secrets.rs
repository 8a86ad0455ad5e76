//! The credentials of one request, so that its error can be recorded without them.
//!
//! Services repeat what they did not accept. The recorder's rules know the shapes of many keys; this
//! knows the very ones that were sent, whatever their shape.

use std::fmt;

use hyper::header::HeaderMap;

/// Texts that must not be recorded.
#[derive(Default)]
pub(crate) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// The values of all headers that may be credentials, and of all parameters of the query.
    pub(crate) fn of(headers: &HeaderMap, query: Option<&str>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let is_open = OPEN_HEADERS.contains(&name.as_str());
            if let (false, Ok(value)) = (is_open, value.to_str()) {
                // `Bearer key` is repeated without its scheme, a cookie by its parts.
                value.split([' ', ';', ',', '=']).for_each(|part| found.add(part));
                found.add(value);
            }
        }
        for pair in query.unwrap_or_default().split('&') {
            found.add(pair.split_once('=').map_or(pair, |(_, value)| value));
        }
        // A secret that is a part of another must not leave the other's rest.
        found.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        found.0.dedup();
        found
    }

    fn add(&mut self, text: &str) {
        let text = text.trim_matches([' ', '"']);
        if text.len() >= SECRET_BYTES_MIN && self.0.len() < SECRETS_MAX {
            self.0.push(text.to_owned());
        }
    }

    /// The text without them.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut scrubbed = text.to_owned();
        for secret in &self.0 {
            if scrubbed.contains(secret.as_str()) {
                scrubbed = scrubbed.replace(secret.as_str(), "[credential]");
            }
        }
        scrubbed
    }
}

/// Headers that say nothing secret, so that messages stay readable.
const OPEN_HEADERS: [&str; 10] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-length",
    "content-type",
    "host",
    "origin",
    "traceparent",
    "user-agent",
];
/// Shorter ones are words of the message more often than keys.
const SECRET_BYTES_MIN: usize = 8;
/// A request has at most 64 headers, and cookies some parts each.
const SECRETS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: P1 - a service that repeats a credential does not get it recorded.
    #[test]
    fn credentials_are_taken_out_of_messages() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer odd-key-1".parse().unwrap());
        headers.insert("api-key", "odd-key-22".parse().unwrap());
        headers.insert("cookie", "a=b; session=odd-key-333".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let secrets = Secrets::of(&headers, Some("page=2&key=odd-key-4444"));
        for (text, expected) in [
            ("wrong key odd-key-1.", "wrong key [credential]."),
            ("'odd-key-22' and odd-key-4444", "'[credential]' and [credential]"),
            ("Bearer odd-key-1", "[credential]"),
            ("session odd-key-333", "session [credential]"),
            ("application/json, page 2", "application/json, page 2"),
        ] {
            assert_eq!(secrets.scrub(text), expected);
        }
    }
}
