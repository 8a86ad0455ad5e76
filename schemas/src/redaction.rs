//! Redaction as data: what `[record.redact]` may say, and how a redacted place looks in a text.
//!
//! The rules themselves run in the recorder. The mark is here because readers need it too: a
//! replay must see that a text is no longer the original.

use serde::{Deserialize, Serialize};

/// Settings of redaction: which built-in detectors run on kept texts, and rules of the user's own.
///
/// Keys and tokens are also taken out of everything that is not content (attribute values, log
/// lines, error messages, span names), in every capture mode and whatever stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactSettings {
    /// Built-in detectors; leave one out to keep what it finds.
    pub detectors: Vec<Detector>,
    /// Own rules.
    pub rules: Vec<RedactRule>,
}

impl Default for RedactSettings {
    fn default() -> Self {
        let detectors = vec![Detector::Keys, Detector::Emails, Detector::Cards, Detector::Ibans];
        Self { detectors, rules: Vec::new() }
    }
}

/// A family of built-in detectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Detector {
    /// API keys, tokens, passwords, credentials in headers and URLs, private keys.
    Keys,
    /// E-mail addresses.
    Emails,
    /// Credit card numbers with a right check digit (Luhn).
    Cards,
    /// IBANs with right check digits (mod 97).
    Ibans,
    /// Phone numbers. Off by default: many numbers look like one.
    Phones,
    /// IPv4 and IPv6 addresses. Off by default: version numbers look like one.
    Ips,
}

/// A rule of the user's own: every match of `pattern` becomes `[redacted:<name>]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactRule {
    /// Name in the replacement: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// Regular expression (syntax of the Rust crate `regex`).
    pub pattern: String,
}

/// What stands in a text where something was taken out.
#[must_use]
pub fn mark(name: &str) -> String {
    format!("{MARK_PREFIX}{name}]")
}

/// Whether something was taken out of the text. A text that happens to contain such a mark counts
/// as well: nobody can tell the two apart.
#[must_use]
pub fn is_redacted(text: &str) -> bool {
    text.contains(MARK_PREFIX)
}

/// How every mark begins.
pub const MARK_PREFIX: &str = "[redacted:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_documented_and_unknown_detectors_are_refused() {
        let text = "detectors = [\"keys\", \"ips\"]\n\
                    rules = [{ name = \"order\", pattern = \"ORD-\\\\d+\" }]";
        let settings: RedactSettings = toml::from_str(text).unwrap();
        assert_eq!(settings.detectors, [Detector::Keys, Detector::Ips]);
        assert_eq!(settings.rules[0].pattern, "ORD-\\d+");
        let error = toml::from_str::<RedactSettings>("detectors = [\"mails\"]").unwrap_err();
        assert!(error.to_string().contains("emails"), "{error}");
    }

    #[test]
    fn a_mark_is_recognised() {
        assert_eq!(mark("jwt"), "[redacted:jwt]");
        assert!(is_redacted(&format!("a {} b", mark("jwt"))));
        assert!(!is_redacted("redacted: jwt"));
    }
}
