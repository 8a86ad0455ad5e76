//! What one process tells another about the span under which it calls it: W3C `traceparent` and
//! `baggage`, <https://www.w3.org/TR/trace-context/> and <https://www.w3.org/TR/baggage/>.

use std::collections::BTreeMap;

use crate::id::SpanKey;

/// Names and values that every span below has. Where two have a value for a name, the later wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// These tags and, over them, `more`.
    #[must_use]
    pub fn merged<K: Into<String>, V: Into<String>>(
        &self,
        more: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut tags = self.0.clone();
        tags.extend(more.into_iter().map(|(name, value)| (name.into(), value.into())));
        Self(tags)
    }

    /// The tags in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a tag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Reads a `baggage` header. Properties of members are left aside, and so are members that are
    /// none.
    #[must_use]
    pub fn read_baggage(header: &str) -> Self {
        let member = |member: &str| {
            let member = member.split(';').next()?;
            let (name, value) = member.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            is_token(name).then(|| Some((name.to_owned(), percent_decoded(value)?)))?
        };
        let within = header.get(..header.len().min(BAGGAGE_BYTES_MAX)).unwrap_or_default();
        Self(within.split(',').take(BAGGAGE_MEMBERS_MAX).filter_map(member).collect())
    }

    /// The tags as a `baggage` header, if there are any. A name that no header may hold is left
    /// out, and so is what no longer fits.
    #[must_use]
    pub fn baggage(&self) -> Option<String> {
        let mut header = String::new();
        let names = self.0.iter().filter(|(name, _)| is_token(name));
        for (name, value) in names.take(BAGGAGE_MEMBERS_MAX) {
            let member = format!("{name}={}", percent_encoded(value));
            let comma = if header.is_empty() { "" } else { "," };
            if header.len() + comma.len() + member.len() <= BAGGAGE_BYTES_MAX {
                header.push_str(comma);
                header.push_str(&member);
            }
        }
        (!header.is_empty()).then_some(header)
    }
}

/// The span under which a call is made, and the tags that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// The span.
    pub span: SpanKey,
    /// The trace flags: bit 0 says that the caller records.
    pub flags: u8,
    /// The tags.
    pub tags: Tags,
}

impl Propagation {
    /// What a span that is recorded tells.
    #[must_use]
    pub const fn recorded(span: SpanKey, tags: Tags) -> Self {
        Self { span, flags: 1, tags }
    }

    /// Reads the two headers. A wrong `traceparent` is as good as none, and without one there is
    /// nothing that a `baggage` could belong to.
    #[must_use]
    pub fn read(traceparent: &str, baggage: Option<&str>) -> Option<Self> {
        let traceparent = traceparent.trim();
        let mut parts = traceparent.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_lower = !traceparent.bytes().any(|byte| byte.is_ascii_uppercase());
        // Later versions may add fields; this one has four.
        let is_known = version.len() == 2 && version != "ff" && hex_byte(version).is_some();
        let is_whole = version != "00" || parts.next().is_none();
        let span = SpanKey { trace_id: trace_id.parse().ok()?, span_id: span_id.parse().ok()? };
        let is_good =
            is_lower && is_known && is_whole && !span.trace_id.is_zero() && !span.span_id.is_zero();
        let tags = baggage.map(Tags::read_baggage).unwrap_or_default();
        is_good.then_some(Self { span, flags: hex_byte(flags)?, tags })
    }

    /// The `traceparent` header.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.span.trace_id, self.span.span_id, self.flags)
    }

    /// Both headers, by name.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let baggage = self.tags.baggage().map(|baggage| (BAGGAGE, baggage));
        std::iter::once((TRACEPARENT, self.traceparent())).chain(baggage).collect()
    }

    /// Both as variables of a process to be started: the names of the headers in capitals.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        self.headers().into_iter().map(|(name, value)| (name.to_uppercase(), value)).collect()
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    let is_hex = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u8::from_str_radix(text, 16).ok() } else { None }
}

/// What RFC 9110 calls a token.
fn is_token(name: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(may_stand)
}

/// A value as the W3C baggage format wants it, which `OTEL_RESOURCE_ATTRIBUTES` borrows: all but the
/// unreserved characters of RFC 3986 in percents.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(hex_byte(std::str::from_utf8(&digits).ok()?)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Header with the span.
pub const TRACEPARENT: &str = "traceparent";
/// Header with the tags.
pub const BAGGAGE: &str = "baggage";
/// What every platform passes on, by the specification.
const BAGGAGE_BYTES_MAX: usize = 8192;
const BAGGAGE_MEMBERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read_again() {
        let found = Propagation::read(TRACE, Some("user=Ann%20B;p=1, tenant = a%2Cb ,x")).unwrap();
        assert_eq!(found.traceparent(), TRACE);
        assert_eq!(found.tags.get("user"), Some("Ann B"));
        assert_eq!(found.tags.get("tenant"), Some("a,b"));
        assert_eq!(found.tags.iter().count(), 2);
        let headers = found.headers();
        assert_eq!(headers[1], (BAGGAGE, "tenant=a%2Cb,user=Ann%20B".to_owned()));
        assert_eq!(Propagation::read(&headers[0].1, Some(&headers[1].1)), Some(found.clone()));
        assert_eq!(found.variables()[0], ("TRACEPARENT".to_owned(), TRACE.to_owned()));
    }

    /// Guarantees: a wrong header is as good as none; one of a later version is read.
    #[test]
    fn a_wrong_traceparent_is_none() {
        for wrong in [
            "",
            "garbage",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-xy",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Propagation::read(wrong, Some("a=b")), None, "{wrong}");
        }
        let later = TRACE.replacen("00", "cc", 1) + "-more";
        assert!(Propagation::read(&later, None).is_some());
    }

    /// Guarantees: hostile baggage is bounded, and what cannot be read is left out alone.
    #[test]
    fn baggage_is_bounded_both_ways() {
        let long: Vec<String> = (0..500).map(|n| format!("k{n:03}=v")).collect();
        assert_eq!(Tags::read_baggage(&long.join(",")).iter().count(), 64);
        let odd = Tags::read_baggage("a=%zz,b=%,c=%ff,=x,d d=1,e=ok,\u{e9}=1");
        assert_eq!(odd.iter().collect::<Vec<_>>(), [("e", "ok")]);
        let tags = Tags::default().merged([("a b", "x"), ("big", &"y".repeat(9000)), ("c", "\n")]);
        assert_eq!(tags.baggage().as_deref(), Some("c=%0A"));
        assert_eq!(Tags::default().baggage(), None);
    }

    /// Scenario: tags within tags. LlamaIndex's inner ones replace the outer.
    #[test]
    fn a_nested_tag_keeps_its_parent() {
        let outer = Tags::default().merged([("a", "1"), ("b", "1")]);
        let inner = outer.merged([("b", "2"), ("c", "2")]);
        assert_eq!(inner.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2"), ("c", "2")]);
        assert_eq!(outer.iter().count(), 2);
    }
}
