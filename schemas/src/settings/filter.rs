//! `retrieve.filter`: which chunks a search may find, by what is known of their documents.
//!
//! ```text
//! kind = 'markdown' and modified >= 2026-01-01 and (path starts with 'docs/' or tokens > 100)
//! ```
//!
//! A filter is read once, here, into conditions whose values have the type of their field. A store
//! never sees its text: it makes its own statement of the conditions, with every value bound.

mod read;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::load::LoadFormat;

/// Which chunks may be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(Condition);

impl Filter {
    /// What has to hold.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.0
    }
}

/// What has to hold of a chunk. A condition on something that is not known of it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// All of them.
    All(Vec<Condition>),
    /// At least one of them.
    Any(Vec<Condition>),
    /// A field compared with a value.
    Compare {
        /// What is compared.
        field: FilterField,
        /// How.
        comparison: Comparison,
        /// With what; of the type of the field.
        value: FilterValue,
    },
    /// A field that is one of some values.
    In {
        /// What is compared.
        field: FilterField,
        /// Of which values; of the type of the field, at least one.
        values: Vec<FilterValue>,
        /// Whether it has to be none of them instead.
        is_negated: bool,
    },
    /// A text that begins so.
    StartsWith {
        /// What is looked at; a text.
        field: FilterField,
        /// How it begins.
        start: String,
    },
}

/// Something that is known of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterField {
    /// Id of its document.
    Document,
    /// Path its document was read from.
    Path,
    /// Format of its document.
    Kind,
    /// When its document was last changed.
    Modified,
    /// Its position in its document, from 0.
    Ordinal,
    /// Its tokens.
    Tokens,
}

/// What values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Text, compared by its bytes.
    Text,
    /// One of the words of [`LoadFormat`].
    Kind,
    /// A date.
    Date,
    /// A whole number.
    Whole,
}

/// A value in a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterValue {
    /// Text, or the word of a kind.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A date: a day, or a second of it.
    Date {
        /// As it was written.
        text: String,
        /// Its first millisecond since 1970.
        from_ms: i64,
        /// The first millisecond after it.
        until_ms: i64,
    },
}

/// How two values are compared. With a date, `=` means within it, `<=` until its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Another.
    NotEqual,
    /// Less, or earlier.
    Less,
    /// At most.
    AtMost,
    /// More, or later.
    More,
    /// At least.
    AtLeast,
}

impl FilterField {
    /// All fields there are.
    pub const ALL: [Self; 6] =
        [Self::Document, Self::Path, Self::Kind, Self::Modified, Self::Ordinal, Self::Tokens];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Path => "path",
            Self::Kind => "kind",
            Self::Modified => "modified",
            Self::Ordinal => "ordinal",
            Self::Tokens => "tokens",
        }
    }

    /// The type of its values.
    #[must_use]
    pub const fn field_type(self) -> FieldType {
        match self {
            Self::Document | Self::Path => FieldType::Text,
            Self::Kind => FieldType::Kind,
            Self::Modified => FieldType::Date,
            Self::Ordinal | Self::Tokens => FieldType::Whole,
        }
    }
}

impl Comparison {
    /// Its sign, in a filter as in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Something else was expected.
    #[error("at character {at}: expected {expected}, found {found}")]
    Syntax {
        /// Where, from 1.
        at: usize,
        /// What could stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A field that there is not.
    #[error("there is no field {name:?}; fields are {}", names())]
    UnknownField {
        /// As it was written.
        name: String,
    },
    /// A value of another type, or a comparison that says nothing of this type.
    #[error("{}: {reason}", field.as_str())]
    Type {
        /// The field.
        field: FilterField,
        /// What is wrong.
        reason: String,
    },
    /// It is longer or deeper than anyone writes.
    #[error("it has more than {0}")]
    TooLarge(&'static str),
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        read::read(text).map(Self)
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => joined(f, parts, " and "),
            Self::Any(parts) => joined(f, parts, " or "),
            Self::Compare { field, comparison, value } => {
                write!(f, "{} {} {value}", field.as_str(), comparison.as_str())
            }
            Self::In { field, values, is_negated } => {
                let not = if *is_negated { "not " } else { "" };
                write!(f, "{} {not}in (", field.as_str())?;
                for (place, value) in values.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str(")")
            }
            Self::StartsWith { field, start } => {
                write!(f, "{} starts with {}", field.as_str(), quoted(start))
            }
        }
    }
}

impl fmt::Display for FilterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Date { text, .. } => f.write_str(&quoted(text)),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Condition], word: &str) -> fmt::Result {
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            f.write_str(word)?;
        }
        match part {
            Condition::All(_) | Condition::Any(_) => write!(f, "({part})")?,
            _ => write!(f, "{part}")?,
        }
    }
    Ok(())
}

/// In single quotes, those inside doubled.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn names() -> String {
    FilterField::ALL.map(FilterField::as_str).join(", ")
}

/// The words of all kinds, for messages.
fn kinds() -> String {
    LoadFormat::ALL.map(LoadFormat::as_str).join(", ")
}

#[cfg(test)]
mod tests;
