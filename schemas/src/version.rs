//! Format versions and who may read what.
//!
//! A version is `major.minor`. A minor step adds something an older reader may ignore; a major
//! step changes the meaning of what was there. A reader takes every file of its own major version,
//! older or newer in the minor, and every older major version it still knows; it refuses a newer
//! major version with a message that says which retake to use, and never guesses.

use serde::{Deserialize, Serialize};

/// Version of a stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FormatVersion {
    /// Steps when the meaning of existing data changes.
    pub major: u16,
    /// Steps when something is added.
    pub minor: u16,
}

/// A stored format this build must not touch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read {what} of format {found}: this retake reads up to {supported}; \
     use a retake that is at least as new as the one that wrote it"
)]
pub struct UnreadableVersion {
    /// Which file or table.
    pub what: &'static str,
    /// Its version.
    pub found: FormatVersion,
    /// The newest version this build knows.
    pub supported: FormatVersion,
}

impl FormatVersion {
    /// The store layout and the manifest.
    pub const STORE: Self = Self { major: 1, minor: 0 };
    /// The journal's header and frames.
    pub const JOURNAL: Self = Self { major: 2, minor: 0 };
    /// How segments hold the columns of the tables. 2: frequent attributes of spans are columns,
    /// and NULL in `self_ns` is `duration_ns`.
    pub const TABLES: Self = Self { major: 2, minor: 0 };

    /// Checks that a file of this version may be read by code that knows `supported`.
    ///
    /// # Errors
    /// [`UnreadableVersion`] when the file's major version is newer.
    pub fn check_readable_by(
        self,
        supported: Self,
        what: &'static str,
    ) -> Result<(), UnreadableVersion> {
        if self.major > supported.major {
            return Err(UnreadableVersion { what, found: self, supported });
        }
        Ok(())
    }
}

/// A text that is no version, as `major.minor` of small numbers is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read a format version: {0:?} is not major.minor")]
pub struct NotAVersion(String);

impl std::str::FromStr for FormatVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('.').and_then(|(major, minor)| {
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        parsed.ok_or_else(|| NotAVersion(text.to_owned()))
    }
}

impl std::fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_back_as_it_is_written() {
        let version = FormatVersion { major: 2, minor: 13 };
        assert_eq!(version.to_string().parse(), Ok(version));
        for text in ["", "2", "2.", "a.b", "2.0.1", "70000.0"] {
            assert!(text.parse::<FormatVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn newer_minor_is_readable_and_newer_major_is_not() {
        let ours = FormatVersion { major: 2, minor: 3 };
        assert!(FormatVersion { major: 2, minor: 9 }.check_readable_by(ours, "x").is_ok());
        assert!(FormatVersion { major: 1, minor: 0 }.check_readable_by(ours, "x").is_ok());
        assert!(FormatVersion { major: 3, minor: 0 }.check_readable_by(ours, "x").is_err());
    }
}
