//! Typed key-value attributes as spans and events carry them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// An attribute name. Names from `tracing` callsites are static and cost nothing to copy.
pub type Key = Cow<'static, str>;

/// Attributes in the order they were recorded. A later entry of the same key wins.
pub type Attributes = Vec<(Key, Value)>;

/// An attribute value as it was recorded, not yet interpreted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// A signed integer. Unsigned values above `i64::MAX` become [`Value::Str`].
    Int(i64),
    /// A floating-point number, possibly NaN or infinite.
    Float(f64),
    /// Text.
    Str(String),
    /// An ordered list.
    List(Vec<Value>),
}

impl Value {
    /// The value as an integer, parsed leniently: some exporters send every count as a string
    /// (measured: rig 0.44 through tracing-opentelemetry). Fractions and non-numbers are `None`.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(v) => Some(*v),
            // Exact in f64 up to 2^53; beyond that a count is not credible anyway.
            Self::Float(v) if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 => {
                Some(*v as i64)
            }
            Self::Str(text) => text.trim().parse().ok(),
            Self::Bool(_) | Self::Float(_) | Self::List(_) => None,
        }
    }

    /// The value as a count: [`Value::as_int`], but never negative.
    #[must_use]
    pub fn as_count(&self) -> Option<i64> {
        self.as_int().filter(|v| *v >= 0)
    }

    /// The value as a finite float, parsed leniently.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        let value = match self {
            Self::Int(v) => *v as f64,
            Self::Float(v) => *v,
            Self::Str(text) => text.trim().parse().ok()?,
            Self::Bool(_) | Self::List(_) => return None,
        };
        value.is_finite().then_some(value)
    }

    /// The value as a boolean, parsed leniently.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(*v),
            Self::Int(v) => Some(*v != 0),
            Self::Str(text) => match text.trim() {
                "true" | "True" | "1" => Some(true),
                "false" | "False" | "0" => Some(false),
                _ => None,
            },
            Self::Float(_) | Self::List(_) => None,
        }
    }

    /// The value as text; lists join with a comma, as `finish_reasons` wants.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Bool(v) => v.to_string(),
            Self::Int(v) => v.to_string(),
            Self::Float(v) => v.to_string(),
            Self::Str(text) => text.clone(),
            Self::List(items) => items.iter().map(Self::to_text).collect::<Vec<_>>().join(","),
        }
    }

    /// The value as JSON. Numbers JSON cannot hold (NaN, infinities) become text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Bool(v) => (*v).into(),
            Self::Int(v) => (*v).into(),
            Self::Float(v) => serde_json::Number::from_f64(*v)
                .map_or_else(|| v.to_string().into(), serde_json::Value::Number),
            Self::Str(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or_else(|_| Self::Str(value.to_string()), Self::Int)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_leniently_and_never_wrap() {
        assert_eq!(Value::from("23").as_count(), Some(23));
        assert_eq!(Value::from(0_i64).as_count(), Some(0));
        assert_eq!(Value::from(12.0).as_count(), Some(12));
        assert_eq!(Value::from(12.5).as_count(), None);
        assert_eq!(Value::from(-4_i64).as_count(), None);
        assert_eq!(Value::from("many").as_count(), None);
        assert_eq!(Value::from(u64::MAX).as_count(), None);
        assert_eq!(Value::from(f64::INFINITY).as_count(), None);
        assert_eq!(Value::from(f64::NAN).as_float(), None);
    }

    #[test]
    fn numbers_json_cannot_hold_become_text() {
        assert_eq!(Value::from(f64::NAN).to_json(), serde_json::json!("NaN"));
    }
}
