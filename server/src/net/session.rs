//! Browsers that were let in where a token is needed.
//!
//! A browser cannot send the token with every link that is followed, and a token in an address would
//! stay in histories and logs. So it comes once with a key that is good for one use and ten minutes,
//! or with the token in the body of a form, and goes on with a cookie that scripts cannot read and
//! other sites cannot send. All of it is in memory: it ends with the process.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

/// What nobody else can guess: 256 random bits, as hex. Never shown.
#[derive(Clone)]
struct Secret(String);

impl Secret {
    fn new() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes as long wherever `given` differs.
    fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret that is good until a moment.
#[derive(Debug)]
struct Pass {
    secret: Secret,
    until: Instant,
}

impl Pass {
    fn new(now: Instant, lasts: Duration) -> Self {
        Self { secret: Secret::new(), until: now + lasts }
    }

    fn is(&self, given: &[u8], now: Instant) -> bool {
        // Compared first, so that the time taken does not say whether it was good.
        self.secret.is(given) & (now < self.until)
    }
}

/// The browsers of one listener.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Of this process alone: cookies know no ports, and a machine may run several listeners.
    cookie: String,
    key: Mutex<Option<Pass>>,
    open: Mutex<VecDeque<Pass>>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        let number: u32 = rand::random();
        Self {
            cookie: format!("retake-{number:08x}"),
            key: Mutex::new(None),
            open: Mutex::new(VecDeque::new()),
        }
    }

    /// A key that lets one browser in; an earlier one that was not used is void.
    pub(crate) fn invite(&self, now: Instant) -> String {
        let pass = Pass::new(now, KEY_LASTS);
        let text = pass.secret.0.clone();
        *self.key.lock() = Some(pass);
        text
    }

    /// Whether this is the key, which is void from then on.
    pub(crate) fn redeem(&self, given: &[u8], now: Instant) -> bool {
        let mut key = self.key.lock();
        let is_good = key.as_ref().is_some_and(|pass| pass.is(given, now));
        if is_good {
            *key = None;
        }
        is_good
    }

    /// Lets a browser in: the value of `Set-Cookie`. The browser that came first goes when there
    /// are too many.
    pub(crate) fn open(&self, now: Instant) -> Option<HeaderValue> {
        let pass = Pass::new(now, SESSION_LASTS);
        // Nothing says `Secure`: whoever wants TLS puts it in front, and then the browser sees it.
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
            self.cookie,
            pass.secret.0,
            SESSION_LASTS.as_secs()
        );
        let mut open = self.open.lock();
        open.retain(|pass| now < pass.until);
        if open.len() == SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back(pass);
        let mut value = HeaderValue::try_from(cookie).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether a browser that was let in asks.
    pub(crate) fn is_open(&self, headers: &HeaderMap, now: Instant) -> bool {
        let given = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let own = given.flat_map(|value| value.split(';')).filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.cookie).then_some(value)
        });
        let open = self.open.lock();
        // Every pass is compared, whichever fits.
        own.take(COOKIES_MAX).fold(false, |found, value| {
            open.iter().fold(found, |found, pass| found | pass.is(value.as_bytes(), now))
        })
    }
}

/// Long enough to look up from the terminal; a key in an old log opens nothing.
const KEY_LASTS: Duration = Duration::from_secs(600);
/// A working day.
const SESSION_LASTS: Duration = Duration::from_secs(12 * 3600);
/// Browsers of a team.
const SESSIONS_MAX: usize = 64;
/// Cookies of our name that are looked at; a browser has one.
const COOKIES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie_of(value: &HeaderValue) -> HeaderMap {
        let pair = value.to_str().unwrap().split(';').next().unwrap();
        let text = format!("other=1; {pair}; last=2");
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(text).unwrap())])
    }

    /// Guarantees: O4 - a key is good once, a newer one voids it, and an old one is good for nothing.
    #[test]
    fn a_key_is_good_once_and_not_for_long() {
        let (sessions, now) = (Sessions::new(), Instant::now());
        assert!(!sessions.redeem(b"", now));
        let first = sessions.invite(now);
        let second = sessions.invite(now);
        assert_eq!(second.len(), 64);
        assert!(!sessions.redeem(first.as_bytes(), now), "void by the second");
        assert!(!sessions.redeem(&second.as_bytes()[..63], now));
        assert!(sessions.redeem(second.as_bytes(), now));
        assert!(!sessions.redeem(second.as_bytes(), now), "used");
        let late = sessions.invite(now);
        assert!(!sessions.redeem(late.as_bytes(), now + KEY_LASTS));
    }

    /// Guarantees: O4 - a browser that was let in is known by its cookie, for a day's work; one of
    /// another listener, and a guess, is not.
    #[test]
    fn a_cookie_lets_in_until_it_ends() {
        let (sessions, others, now) = (Sessions::new(), Sessions::new(), Instant::now());
        let cookie = sessions.open(now).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.contains("; HttpOnly") && text.contains("; SameSite=Strict"), "{text}");
        assert!(sessions.is_open(&cookie_of(&cookie), now));
        assert!(!others.is_open(&cookie_of(&cookie), now));
        assert!(!sessions.is_open(&HeaderMap::new(), now));
        let guess = HeaderValue::try_from(format!("{}=00", sessions.cookie)).unwrap();
        assert!(!sessions.is_open(&cookie_of(&guess), now));
        for _ in 0..SESSIONS_MAX {
            sessions.open(now).unwrap();
        }
        assert!(!sessions.is_open(&cookie_of(&cookie), now), "too many came after it");
        let last = sessions.open(now).unwrap();
        assert!(!sessions.is_open(&cookie_of(&last), now + SESSION_LASTS));
    }

    /// Guarantees: P1 - a secret is not in what is printed for debugging.
    #[test]
    fn secrets_are_not_shown() {
        let (sessions, now) = (Sessions::new(), Instant::now());
        let key = sessions.invite(now);
        let cookie = format!("{:?}", sessions.open(now).unwrap());
        assert!(!format!("{sessions:?}").contains(&key));
        assert_eq!(cookie, "Sensitive");
    }
}
