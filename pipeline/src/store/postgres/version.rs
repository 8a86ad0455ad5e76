//! Which pgvector may be used.

use std::fmt;

/// A version of pgvector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExtensionVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl ExtensionVersion {
    /// The oldest that is safe: before it, a parallel index build writes past its buffer
    /// (CVE-2026-3172).
    pub(super) const OLDEST: Self = Self { major: 0, minor: 8, patch: 2 };

    /// Reads `extversion`; anything after the numbers, such as `-rc1`, is left aside.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..digits)?.parse().ok()
        };
        let mut parts = text.trim().splitn(3, '.');
        let major = number(parts.next()?)?;
        let minor = number(parts.next()?)?;
        let patch = parts.next().map_or(Some(0), number)?;
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for ExtensionVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: V2 - pgvector before 0.8.2 is refused.
    #[test]
    fn versions_are_compared_as_numbers() {
        let is_new_enough =
            |text| ExtensionVersion::parse(text).is_some_and(|v| v >= ExtensionVersion::OLDEST);
        for new in ["0.8.2", "0.8.10", "0.9", "0.10.0", "1.0.0", "0.8.2-rc1", "0.8.5 "] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["0.8.1", "0.8", "0.7.9", "0.0.99", "", "x", "0", "1.x", "99999999999.0.0"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }
}
