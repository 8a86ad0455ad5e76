//! Built-in detectors of personal data. They run on kept texts only, as the settings say.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;
use retake_schemas::redaction::Detector;

use super::marks::Finding;
use super::numbers::{find_cards, find_ibans};

/// The name in the mark of a detector; [`Detector::Keys`] has one per kind of key instead.
pub(super) fn name(detector: Detector) -> Option<&'static str> {
    match detector {
        Detector::Emails => Some("email"),
        Detector::Cards => Some("card"),
        Detector::Ibans => Some("iban"),
        Detector::Phones => Some("phone"),
        Detector::Ips => Some("ip"),
        // The keys, and detectors of a later version, which that version will know.
        _ => None,
    }
}

/// Adds everything the detector finds.
pub(super) fn find(detector: Detector, text: &str, findings: &mut Vec<Finding<'_>>) {
    let Some(name) = name(detector) else { return };
    let mut push = |range: Range<usize>| findings.push(Finding { range, name });
    match detector {
        // Cheaper than any automaton, and most texts have none.
        Detector::Emails if text.contains('@') => {
            EMAIL.find_iter(text).for_each(|found| push(found.range()));
        }
        Detector::Cards => find_cards(text, push),
        Detector::Ibans => find_ibans(text, push),
        Detector::Phones => {
            PHONE.find_iter(text).filter(|m| is_phone(m.as_str())).for_each(|m| push(m.range()));
        }
        Detector::Ips => {
            let is_ip = |text: &str| text.parse::<IpAddr>().is_ok();
            IP.find_iter(text).filter(|m| is_ip(m.as_str())).for_each(|m| push(m.range()));
        }
        _ => {}
    }
}

fn is_phone(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (PHONE_DIGITS_MIN..=PHONE_DIGITS_MAX).contains(&digits)
}

static EMAIL: LazyLock<Regex> =
    LazyLock::new(|| built_in(r"[\p{L}\p{N}._%+'-]+@(?:[\p{L}\p{N}-]+\.)+[\p{L}]{2,}"));
static PHONE: LazyLock<Regex> = LazyLock::new(|| built_in(r"\+?\(?[0-9][0-9 ()./-]{6,}[0-9]"));
static IP: LazyLock<Regex> = LazyLock::new(|| {
    built_in(
        r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){2,7}(?:(?:\.[0-9]{1,3}){3})?",
    )
});

fn built_in(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        // The patterns are a part of this file and a unit test compiles them.
        Err(error) => unreachable!("built-in pattern: {error}"),
    }
}

/// A short national number with its area code.
const PHONE_DIGITS_MIN: usize = 8;
/// The longest number E.164 allows.
const PHONE_DIGITS_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(detector: Detector, text: &str) -> Vec<&str> {
        let mut findings = Vec::new();
        find(detector, text, &mut findings);
        findings.into_iter().map(|finding| &text[finding.range]).collect()
    }

    #[test]
    fn addresses_are_found_where_they_stand() {
        let text = "From: jane.doe+x@mail.example.co.uk, <müller@bücher.example> at a@b";
        let expected = ["jane.doe+x@mail.example.co.uk", "müller@bücher.example"];
        assert_eq!(found(Detector::Emails, text), expected);
    }

    #[test]
    fn phones_and_ips_are_found_and_other_numbers_are_not() {
        let text = "call +49 (0)30 1234-5678 or 555-1234";
        assert_eq!(found(Detector::Phones, text), ["+49 (0)30 1234-5678"]);
        let text = "from 192.168.0.17 and fe80::1, not 300.1.2.3 or 12:30";
        assert_eq!(found(Detector::Ips, text), ["192.168.0.17", "fe80::1"]);
    }
}
