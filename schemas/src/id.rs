//! Identifiers, parsed at the edge so that nothing inside checks a string twice.
//!
//! In files for machines (the journal) ids are bytes; wherever a person or a SQL query meets them
//! they are lowercase hex, as OpenTelemetry prints them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An id that could not be read from text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text has the wrong length, a character outside the alphabet, or is all zeros.
    #[error("read {kind}: expected {expected}, got {found:?}")]
    Malformed {
        /// Which id was expected.
        kind: &'static str,
        /// What a good one looks like.
        expected: &'static str,
        /// What was given, cut to 80 characters.
        found: String,
    },
}

impl IdError {
    fn new(kind: &'static str, expected: &'static str, found: &str) -> Self {
        Self::Malformed { kind, expected, found: found.chars().take(80).collect() }
    }
}

/// One execution of a workload; also the name of its folder.
///
/// The alphabet is what every file system and object store takes as it is, so a run id can never
/// name a path outside the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// The longest run id, in bytes: far below any file-name limit, room for a prefix of the user's.
    pub const LEN_MAX: usize = 64;

    /// Makes a new id that sorts by time: `20261122t041530-7k3m9x2q`.
    #[must_use]
    pub fn generate(time_unix_ns: i64) -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let (date, time) = civil(time_unix_ns.div_euclid(1_000_000_000));
        let mut random = rand::random::<u64>() ^ u64::from(std::process::id());
        let mut suffix = String::with_capacity(8);
        for _ in 0..8 {
            suffix.push(char::from(ALPHABET[(random & 31) as usize]));
            random >>= 5;
        }
        Self(format!("{date}t{time}-{suffix}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The UTC date and time of day of `secs` as `("20261122", "041530")`.
///
/// Howard Hinnant's `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>.
fn civil(secs: i64) -> (String, String) {
    let (year, month, day) = civil_date(secs.div_euclid(86_400));
    let second_of_day = secs.rem_euclid(86_400);
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    (format!("{year:04}{month:02}{day:02}"), format!("{hour:02}{minute:02}{second:02}"))
}

fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Formats a time as `2026-11-22 04:15:30` in UTC, for people.
#[must_use]
pub fn utc_text(time_unix_ns: i64) -> String {
    let secs = time_unix_ns.div_euclid(1_000_000_000);
    let (year, month, day) = civil_date(secs.div_euclid(86_400));
    let of_day = secs.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=Self::LEN_MAX).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::new("run id", "1 to 64 of a-z, 0-9 and -, not starting with -", text))
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Defines an id of a fixed number of bytes that prints as lowercase hex.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Wraps bytes as they came.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes, most significant first.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Whether every byte is zero, which OpenTelemetry defines as "no id".
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0.iter().all(|b| *b == 0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // All digits at once: events name their spans in text, and formatting byte by byte
                // was most of what the thread that seals them did.
                let mut digits = [[0; 2]; $bytes];
                for (pair, byte) in digits.iter_mut().zip(self.0) {
                    *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                }
                f.write_str(std::str::from_utf8(digits.as_flattened()).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let malformed = || IdError::new($kind, $expected, text);
                if text.len() != $bytes * 2 || !text.is_ascii() {
                    return Err(malformed());
                }
                let mut bytes = [0u8; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> de::Visitor<'de> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        <[u8; $bytes]>::try_from(bytes)
                            .map($name)
                            .map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }
    };
}

hex_id!(
    /// One request end to end (W3C trace id).
    TraceId,
    16,
    "trace id",
    "32 hex digits"
);
hex_id!(
    /// One span inside a trace (W3C span id). Unique only together with its [`TraceId`].
    SpanId,
    8,
    "span id",
    "16 hex digits"
);
hex_id!(
    /// The BLAKE3 digest of a content: of a payload, a segment, or a request.
    Digest,
    32,
    "digest",
    "64 hex digits"
);

impl TraceId {
    /// A new random id.
    #[must_use]
    pub fn generate() -> Self {
        // A forked process goes on with its parent's random state.
        let process = u128::from(std::process::id());
        Self((rand::random::<u128>() ^ process).to_be_bytes())
    }
}

impl SpanId {
    /// The id whose eight bytes are `value`, most significant first.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value.to_be_bytes())
    }
}

impl Digest {
    /// The digest of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

/// What names a span: two traces may share an 8-byte span id, so the span id alone never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpanKey {
    /// The trace.
    pub trace_id: TraceId,
    /// The span inside it.
    pub span_id: SpanId,
}

/// Position of an event in its writer's sequence. The first is 0; there is no hole.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct EventSeq(pub u64);

/// One writer (one recorder in one process) of a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct WriterId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn generated_run_ids_sort_by_time_and_parse_back() {
        let early = RunId::generate(1_795_000_000_000_000_000);
        let late = RunId::generate(1_795_000_001_000_000_000);
        assert!(early < late);
        assert_eq!(early.as_str().parse(), Ok(early.clone()));
        assert!(early.as_str().starts_with("20261118t"), "{early}");
    }

    #[test]
    fn dates_agree_with_known_values() {
        assert_eq!(utc_text(0), "1970-01-01 00:00:00");
        assert_eq!(utc_text(951_782_400_000_000_000), "2000-02-29 00:00:00");
        assert_eq!(utc_text(-1), "1969-12-31 23:59:59");
    }

    /// Scenario: more than 500 ids with path parts, device names, control characters, other
    /// scripts, text direction marks, or 4 KiB, from a user and from a file.
    /// Guarantees: P3 - a run id cannot name anything outside the store.
    #[test]
    fn hostile_run_ids_are_refused() {
        let long = "a".repeat(4096);
        let parts = [
            "..",
            ".",
            "/",
            "\\",
            "../..",
            "..\\..",
            "/etc/passwd",
            "~",
            "~root",
            "$HOME",
            "%2e%2e",
            "%00",
            "\0",
            "\n",
            "\r\n",
            "\t",
            " ",
            "\u{1b}[31m",
            "\u{7f}",
            "CON",
            "NUL",
            "AUX",
            "COM1",
            "LPT1",
            "c:",
            "con:",
            "\\\\server",
            "file://",
            "é",
            "ß",
            "\u{202e}",
            "\u{200b}",
            "\u{feff}",
            "．．",
            "∕",
            "a\u{301}",
            "日本",
            "🙂",
            "*",
            "?",
            "|",
            "'",
            "\"",
            "`ls`",
            ";",
            "&",
            long.as_str(),
        ];
        let wrap = |part: &str| {
            ["@", "a@", "@a", "a@a", "a-@", "@-1", "20261118t@", "-@", "_@", "@/", "./@", "a/@/b"]
                .map(|shape| shape.replace('@', part))
        };
        let edges = ["", "-x", "_x", "A", "a.b", &"a".repeat(65)].map(str::to_owned);
        let bad: Vec<String> = parts.into_iter().flat_map(wrap).chain(edges).collect();
        assert!(bad.len() >= 500, "{}", bad.len());
        for text in bad {
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
            let json = serde_json::Value::from(text.clone());
            assert!(serde_json::from_value::<RunId>(json).is_err(), "{text:?} from a file");
        }
    }

    proptest! {
        #[test]
        fn hex_ids_survive_text_and_bytes(bytes: [u8; 16]) {
            let id = TraceId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<TraceId>(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<TraceId>(&json).unwrap(), id);
        }

        #[test]
        fn no_text_panics_the_parsers(text: String) {
            let _ = text.parse::<TraceId>();
            let _ = text.parse::<SpanId>();
            let _ = text.parse::<RunId>();
        }
    }
}
