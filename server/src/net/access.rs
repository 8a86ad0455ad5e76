//! Who may ask.
//!
//! A listener on the loopback address is still within reach of every page in a browser of this
//! machine. Such a page cannot choose its `Origin`, and a foreign name that was pointed at
//! 127.0.0.1 (DNS rebinding) stays in `Host`, so both are checked before anything else. No header
//! that would let a page read an answer is ever sent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use subtle::ConstantTimeEq as _;

use crate::settings::ServeError;

/// What a client must know to use a listener that others can reach. Never shown.
#[derive(Clone)]
pub struct Token(String);

/// A token that would not keep anybody out, or could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Guessing it is too easy.
    #[error("read token: it must have at least {TOKEN_BYTES_MIN} characters")]
    Short,
    /// It has characters that a header cannot hold.
    #[error("read token: it must be of visible ASCII characters")]
    NotVisible,
}

impl Token {
    /// A token of at least 16 visible ASCII characters.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn new(text: impl Into<String>) -> Result<Self, TokenError> {
        let text = text.into();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NotVisible);
        }
        if text.len() < TOKEN_BYTES_MIN {
            return Err(TokenError::Short);
        }
        Ok(Self(text))
    }

    /// Takes as long wherever `given` differs.
    fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The rules of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    token: Option<Token>,
    hosts: Vec<String>,
    /// Whether only this machine can reach it; then no other address is a good `Host`.
    is_loopback: bool,
    /// Whether `Authorization` is for this listener, and not for somebody behind it.
    takes_authorization: bool,
}

/// Who is refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No `Host`, several, or one that cannot be read.
    HostMalformed,
    /// A name this listener does not go by.
    HostForeign,
    /// A page of another site.
    OriginForeign,
    /// No token, or a wrong one.
    Token,
}

impl Denied {
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::HostMalformed => "the request must have one readable Host",
            Self::HostForeign => "this listener does not go by that Host",
            Self::OriginForeign => "pages of other sites may not ask this listener",
            Self::Token => "a token is needed: authorization: Bearer ..., or x-retake-token",
        }
    }

    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::HostMalformed | Self::HostForeign => "host",
            Self::OriginForeign => "origin",
            Self::Token => "token",
        }
    }
}

impl Access {
    /// The rules of listeners on `addresses`.
    ///
    /// # Errors
    /// [`ServeError::Exposed`] if others can reach one of them and there is no token.
    pub(crate) fn new(
        addresses: &[SocketAddr],
        token: Option<Token>,
        hosts: &[String],
    ) -> Result<Self, ServeError> {
        let exposed = addresses.iter().find(|address| !is_loopback(address.ip()));
        if let (Some(address), None) = (exposed, &token) {
            return Err(ServeError::Exposed { address: *address });
        }
        let is_loopback = exposed.is_none();
        Ok(Self { token, hosts: hosts.to_vec(), is_loopback, takes_authorization: true })
    }

    /// The same rules where `Authorization` is for somebody else: the token is taken only from its
    /// own header.
    pub(crate) fn leaving_authorization(self) -> Self {
        Self { takes_authorization: false, ..self }
    }

    /// Checks where the request says it goes and comes from.
    pub(crate) fn check_site(&self, parts: &Parts) -> Result<(), Denied> {
        let mut authorities = parts.headers.get_all(HOST).iter();
        let header = match (authorities.next(), authorities.next()) {
            (None, _) => None,
            (Some(host), None) => {
                let authority = Authority::try_from(host.as_bytes());
                Some(authority.map_err(|_| Denied::HostMalformed)?)
            }
            (Some(_), Some(_)) => return Err(Denied::HostMalformed),
        };
        // HTTP/2 has it in `:authority`, HTTP/1.1 may have it in the request line too.
        let stated = [parts.uri.authority(), header.as_ref()];
        let mut stated = stated.into_iter().flatten().peekable();
        let host = *stated.peek().ok_or(Denied::HostMalformed)?;
        for authority in stated {
            self.check_host(authority)?;
        }
        check_origin(&parts.headers, host)
    }

    fn check_host(&self, authority: &Authority) -> Result<(), Denied> {
        let host = authority.host();
        if authority.as_str().contains('@') {
            return Err(Denied::HostMalformed);
        }
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = address.unwrap_or(host).parse::<IpAddr>() {
            // An address is nobody's name, so it cannot be pointed elsewhere.
            let is_ours = !self.is_loopback || is_loopback(address);
            return if is_ours { Ok(()) } else { Err(Denied::HostForeign) };
        }
        let is_known = std::iter::once("localhost")
            .chain(self.hosts.iter().map(String::as_str))
            .any(|known| known.eq_ignore_ascii_case(host));
        if is_known { Ok(()) } else { Err(Denied::HostForeign) }
    }

    /// Whether clients must know a token.
    pub(crate) fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether this is the token.
    pub(crate) fn is_token(&self, given: &[u8]) -> bool {
        self.token.as_ref().is_some_and(|token| token.is(given))
    }

    /// Checks the token, if one is needed.
    pub(crate) fn check_token(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let Some(token) = &self.token else { return Ok(()) };
        let authorizations = headers.get_all(AUTHORIZATION).iter();
        let bearers = authorizations.filter(|_| self.takes_authorization).filter_map(|value| {
            let (scheme, given) = value.as_bytes().split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then(|| given.trim_ascii())
        });
        let own = headers.get_all(TOKEN_HEADER).iter().map(|value| value.as_bytes().trim_ascii());
        if bearers.chain(own).any(|given| token.is(given)) { Ok(()) } else { Err(Denied::Token) }
    }
}

/// A browser states the page's origin with every request that could change something. Only a page
/// of this very listener may ask.
fn check_origin(headers: &HeaderMap, host: &Authority) -> Result<(), Denied> {
    let own = format!("http://{host}");
    let is_own = |origin: &[u8]| origin.eq_ignore_ascii_case(own.as_bytes());
    if headers.get_all(ORIGIN).iter().any(|origin| !is_own(origin.as_bytes())) {
        return Err(Denied::OriginForeign);
    }
    // Also stated where `Origin` is not, such as for images; `none` is the address bar.
    let is_foreign = |site: &[u8]| !matches!(site, b"same-origin" | b"none");
    if headers.get_all(FETCH_SITE).iter().any(|site| is_foreign(site.as_bytes())) {
        return Err(Denied::OriginForeign);
    }
    Ok(())
}

/// IPv4 loopback addresses count written as IPv6 ones too.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

pub(crate) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-retake-token");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const BEARER: &[u8] = b"bearer ";
/// A hundred bits in base64 take 17; fewer can be tried out over a fast network.
const TOKEN_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: P1 - a token is not in what is printed for debugging.
    #[test]
    fn tokens_are_not_shown() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(Token::new("0123456789abcde").unwrap_err(), TokenError::Short);
        assert_eq!(Token::new("0123456789abcde\n").unwrap_err(), TokenError::NotVisible);
        assert_eq!(Token::new("").unwrap_err(), TokenError::Short);
    }

    /// Scenario: every kind of address, with and without a token.
    /// Guarantees: O4 - what others can reach needs a token.
    #[test]
    fn only_loopback_addresses_need_no_token() {
        for (address, is_open) in [
            ("127.0.0.1:0", true),
            ("127.8.9.10:0", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            ("10.0.0.1:0", false),
            ("192.168.1.1:0", false),
            ("[fe80::1]:0", false),
            ("8.8.8.8:0", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let without = Access::new(&[address], None, &[]);
            assert_eq!(without.is_ok(), is_open, "{address}");
            let token = Token::new("0123456789abcdef").unwrap();
            assert!(Access::new(&[address], Some(token), &[]).is_ok(), "{address}");
        }
    }
}
