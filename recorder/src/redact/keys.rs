//! Built-in detectors of secrets: keys and tokens by their well-known shapes, and whatever stands
//! where a secret stands (headers, URLs, assignments).
//!
//! The table is ordered: where two detectors find the same place, the upper one names it. A
//! pattern's groups, when it has any, are the secret; without groups the whole match is. Values
//! may end with the text, because texts come cut.

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use regex::{Regex, RegexSet};

use super::marks::Finding;

/// The built-in detectors, compiled once a process and shared.
pub(super) static BUILT_IN: LazyLock<KeyScan> = LazyLock::new(|| match KeyScan::compile() {
    Ok(scan) => scan,
    // The patterns are a part of this file and a unit test compiles them.
    Err(error) => unreachable!("built-in secret patterns: {error}"),
});

/// All secret detectors, and one automaton that says which of them are worth running.
#[derive(Debug, Clone)]
pub(super) struct KeyScan {
    any: RegexSet,
    /// Compiled when first needed: few texts hold a secret, and most kinds never come.
    each: Vec<OnceLock<Regex>>,
}

impl KeyScan {
    fn compile() -> Result<Self, regex::Error> {
        let patterns: Vec<String> = KEYS.iter().map(|key| key.pattern()).collect();
        let any = RegexSet::new(&patterns)?;
        Ok(Self { any, each: KEYS.iter().map(|_| OnceLock::new()).collect() })
    }

    fn regex(&self, index: usize) -> Option<(&Regex, &Key)> {
        let (cell, key) = (self.each.get(index)?, KEYS.get(index)?);
        // It compiled as a part of the set.
        let compile = || match Regex::new(&key.pattern()) {
            Ok(regex) => regex,
            Err(error) => unreachable!("built-in secret pattern {}: {error}", key.name),
        };
        Some((cell.get_or_init(compile), key))
    }

    /// The names that may stand in marks.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|key| key.name)
    }

    /// Whether there may be a secret; `false` is certain.
    pub(super) fn is_suspicious(&self, text: &str) -> bool {
        text.len() >= SECRET_BYTES_MIN && self.any.is_match(text)
    }

    /// Adds every secret of the text.
    pub(super) fn find(&self, text: &str, findings: &mut Vec<Finding<'_>>) {
        for index in self.any.matches(text) {
            let Some((regex, key)) = self.regex(index) else { continue };
            let mut push = |range: Range<usize>| {
                if text.get(range.clone()).is_some_and(key.is_secret) {
                    findings.push(Finding { range, name: key.name });
                }
            };
            if regex.captures_len() == 1 {
                regex.find_iter(text).for_each(|found| push(found.range()));
                continue;
            }
            for captures in regex.captures_iter(text) {
                captures.iter().skip(1).flatten().for_each(|group| push(group.range()));
            }
        }
    }
}

/// The name for the mark when an attribute of this key holds a secret, whatever its form: the
/// value of `password` needs no shape. Compared are ends, so that `http.request.header.cookie`
/// counts and `password_file` does not.
pub(super) fn secret_of(key: &str, text: &str) -> Option<&'static str> {
    let ends_in = |name: &str| {
        let start = key.len().checked_sub(name.len());
        start.and_then(|start| key.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(name))
    };
    let (_, name) = SECRET_KEYS.iter().find(|(end, _)| ends_in(end))?;
    (has_word(text) && (*name != "token" || is_opaque(text))).then_some(name)
}

/// Whether an attribute of this key may hold a secret whatever its form.
pub(crate) fn is_secret_key(key: &str) -> bool {
    // A value that every rule for secrets of a key accepts.
    secret_of(key, "Zk3vQ9xT7mB2rW5y").is_some()
}

/// One detector.
struct Key {
    name: &'static str,
    shape: Shape,
    /// What the pattern cannot say of a secret.
    is_secret: fn(&str) -> bool,
}

/// Where a secret stands.
enum Shape {
    /// Wherever its own form shows it.
    Own(&'static str),
    /// After one of these names and `=` or `:`, or `--name` and a space.
    ValueOf(&'static str),
}

impl Key {
    fn pattern(&self) -> String {
        match self.shape {
            Shape::Own(pattern) => pattern.to_owned(),
            Shape::ValueOf(names) => format!(
                "(?i)(?:(?:{names}){ASSIGN}|--[a-z0-9-]*(?:{names})[ \\t]+)(?:{QUOTED}|{BARE})"
            ),
        }
    }
}

const fn own(name: &'static str, pattern: &'static str) -> Key {
    Key { name, shape: Shape::Own(pattern), is_secret: any }
}

const fn value_of(name: &'static str, names: &'static str, is_secret: fn(&str) -> bool) -> Key {
    Key { name, shape: Shape::ValueOf(names), is_secret }
}

/// The form alone is proof.
fn any(_: &str) -> bool {
    true
}

/// Words have no digits, keys do.
fn has_digit(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
}

/// Punctuation where a value is expected (`"token": {`) is no secret.
fn has_word(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// `pwd` is also a working directory.
fn is_no_path(text: &str) -> bool {
    has_word(text) && !text.starts_with('/')
}

/// `token: identifier` is a parser speaking and `token: 37.9ms` a measurement.
fn is_opaque(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let is_measured = text.len() - number.len() <= UNIT_BYTES_MAX && number.parse::<f64>().is_ok();
    !is_measured && text.len() >= OPAQUE_BYTES_MIN && (has_digit(text) || text.len() >= LONG_BYTES)
}

/// Base64 and tokens mix cases or have digits; the words after "basic" and "bearer" do neither.
fn is_mixed(text: &str) -> bool {
    let has_upper_inside = text.bytes().skip(1).any(|b| b.is_ascii_uppercase());
    has_digit(text) || (has_upper_inside && text.bytes().any(|b| b.is_ascii_lowercase()))
}

/// Between a name and its value: `=`, `: `, `" => `, `\": Some(`.
const ASSIGN: &str = r#"\\*["']?[ \t]*(?:::?=|==?>?|:)[ \t]*(?:some\()?"#;
/// A quoted value: inside an escaped JSON text, in double quotes, in single quotes.
const QUOTED: &str = r#"\\+"((?:[^"\\]|\\+[^"\\])*)|"((?:[^"\\]|\\(?s:.))*)|'([^'\r\n]*)"#;
/// A value without quotes; a backslash at its end belongs to an escaped quote behind it.
const BARE: &str = r#"([^\s"'<>\\]+(?:\\+[^\s"'<>\\]+)*)"#;

const KEYS: &[Key] = &[
    own(
        "private_key",
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    own("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{8,}"),
    Key {
        name: "openai_key",
        shape: Shape::Own(r"(?:^|[^A-Za-z0-9])(sk-[A-Za-z0-9_-]{16,})"),
        // `sk-learn-and-other-names` has none.
        is_secret: has_digit,
    },
    own("aws_access_key", r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ABIA|ACCA)[0-9A-Z]{16}"),
    own("google_key", r"AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}"),
    own("github_token", r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"),
    own("gitlab_token", r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{16,}"),
    own("slack_token", r"xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    own("slack_webhook", r"hooks\.slack\.com/services/([A-Za-z0-9/_-]{20,})"),
    own("stripe_key", r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{20,}"),
    own("huggingface_token", r"hf_[A-Za-z0-9]{20,}"),
    own("sendgrid_key", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    own("databricks_token", r"dapi[0-9a-f]{32}"),
    Key {
        name: "vendor_token",
        shape: Shape::Own(
            r"(?:gsk_|npm_|r8_|fw_|dop_v1_)[A-Za-z0-9]{20,}|(?:xai-|pplx-|nvapi-|pypi-|lsv2_(?:pt|sk)_|tgp_v1_)[A-Za-z0-9_-]{20,}",
        ),
        is_secret: has_digit,
    },
    own("jwt", r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,4}"),
    own(
        "authorization",
        r#"(?i)authorization\\*["']?[ \t]*[:=][ \t]*\\*["']?((?:digest|aws4-hmac-sha256)[ \t][^\r\n"\\]*|(?:[a-z][a-z0-9-]{2,15}[ \t]+)?[^\s"'\\]+)"#,
    ),
    Key {
        name: "authorization",
        shape: Shape::Own(r"(?i)(?:bearer|basic)[ \t]+([A-Za-z0-9._~+/=-]{12,})"),
        is_secret: is_mixed,
    },
    own("cookie", r#"(?i)cookie\\*["']?[ \t]*[:=][ \t]*\\*["']?([^\s=;"'\\]+=[^\r\n"\\]*)"#),
    own("url_password", r#"(?i)[a-z][a-z0-9+.-]*://[^\s/?#"'<>@:\\]*:([^\s/?#"'<>\\]+)@"#),
    own("url_token", r#"(?i)[a-z][a-z0-9+.-]*://([^\s/?#"'<>@:\\]{16,})@"#),
    own(
        "url_secret",
        r#"(?i)[?&;#](?:[a-z0-9_.-]*(?:token|api[_-]?key|secret|passw(?:or)?d|signature|credential)|key|sig|auth|pwd|pass|jwt)=([^\s&;#"'<>\\]+)"#,
    ),
    value_of("password", "passw(?:or)?d|passphrase|passwort|secret", has_word),
    value_of("password", "pwd", is_no_path),
    value_of(
        "api_key",
        "api[_-]?key|secret[ _-]*(?:access[ _-]*)?key|access[_-]?key|account[_-]?key|private[_-]?key|(?:sign|encrypt)(?:ing|ion)[_-]?key|(?:auth|access|refresh|id|bearer|session|csrf)[_-]?token|credentials?",
        has_word,
    ),
    value_of("token", "token", is_opaque),
];

/// Ends of attribute keys whose value is a secret, and its name.
const SECRET_KEYS: [(&str, &str); 17] = [
    ("password", "password"),
    ("passwd", "password"),
    ("passphrase", "password"),
    ("secret", "password"),
    ("api_key", "api_key"),
    ("api-key", "api_key"),
    ("apikey", "api_key"),
    ("access_key", "api_key"),
    ("secret_key", "api_key"),
    ("private_key", "api_key"),
    ("account_key", "api_key"),
    ("credential", "api_key"),
    ("credentials", "api_key"),
    ("authorization", "authorization"),
    ("cookie", "cookie"),
    ("token", "token"),
    ("jwt", "jwt"),
];
/// No detector finds anything shorter: `pwd=x`.
const SECRET_BYTES_MIN: usize = 5;
/// A unit after a number: `ms`, `KiB`.
const UNIT_BYTES_MAX: usize = 3;
/// Shorter values of a plain `token` are words.
const OPAQUE_BYTES_MIN: usize = 6;
/// Words of this length are rare.
const LONG_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_pattern_compiles_and_needs_its_shortest_length() {
        for index in 0..KEYS.len() {
            let (regex, key) = BUILT_IN.regex(index).unwrap();
            assert!(!regex.is_match(""), "{}", key.name);
        }
        let shortest = "x".repeat(SECRET_BYTES_MIN - 1);
        assert!(!BUILT_IN.is_suspicious(&shortest));
    }
}
