//! Numbers with units, as people write them in a budget.

/// What a number in a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// US dollars.
    Usd,
    /// A part of a whole, 0 to 1.
    Share,
    /// Anything else that is counted or scored.
    Number,
}

impl Unit {
    /// As it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Usd => "usd",
            Self::Share => "share",
            Self::Number => "number",
        }
    }
}

/// A number as it was written: a bare one, or one with a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantity {
    pub(super) value: f64,
    /// What its unit says it counts; a bare number may be anything.
    pub(super) unit: Option<Unit>,
}

impl Quantity {
    /// Reads `75ms`, `1.5s`, `8%`, `$0.004`, `12k` or `0.25`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("{text:?} is no quantity; write it as 75ms, 1.5s, 2m, 8%, $0.004, 12k or 0.25")
        };
        let trimmed = text.trim();
        if let Some(amount) = trimmed.strip_prefix('$') {
            let value = number(amount).ok_or_else(expected)?;
            return Ok(Self { value, unit: Some(Unit::Usd) });
        }
        let split = trimmed
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '_')))
            .unwrap_or(trimmed.len());
        let (amount, unit) = trimmed.split_at(split);
        let amount = number(amount).ok_or_else(expected)?;
        let (factor, unit) = match unit.trim() {
            "" => (1.0, None),
            "%" => (0.01, Some(Unit::Share)),
            "k" => (1e3, None),
            "M" => (1e6, None),
            time => (ns_per(time).ok_or_else(expected)?, Some(Unit::Ns)),
        };
        Ok(Self { value: amount * factor, unit })
    }

    /// The value, if it can count what `unit` says.
    pub(super) fn in_unit(self, unit: Unit) -> Result<f64, String> {
        match self.unit {
            None if unit == Unit::Ns && self.value != 0.0 => {
                Err(format!("{} needs a unit, such as {}ms", self.value, self.value))
            }
            Some(own) if own != unit => Err(format!(
                "the limit is in {}, but the metric is in {}",
                own.as_str(),
                unit.as_str()
            )),
            _ => Ok(self.value),
        }
    }
}

/// Nanoseconds of a unit of time.
pub(super) fn ns_per(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        "d" => 86_400e9,
        _ => return None,
    })
}

fn number(text: &str) -> Option<f64> {
    text.replace('_', "").parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        for (text, value, unit) in [
            ("75ms", 75e6, Some(Unit::Ns)),
            ("1.5 s", 1.5e9, Some(Unit::Ns)),
            ("2m", 120e9, Some(Unit::Ns)),
            ("8%", 0.08, Some(Unit::Share)),
            ("$0.004", 0.004, Some(Unit::Usd)),
            ("12k", 12_000.0, None),
            ("0.25", 0.25, None),
            ("1_000", 1000.0, None),
        ] {
            let read = Quantity::parse(text).unwrap();
            assert!((read.value - value).abs() < 1e-9 && read.unit == unit, "{text}: {read:?}");
        }
        for bad in ["", "ms", "75 parsecs", "$", "1..2", "inf", "NaN"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_of_time_needs_a_unit_and_the_right_one() {
        let bare = Quantity::parse("75").unwrap();
        assert!(bare.in_unit(Unit::Ns).unwrap_err().contains("75ms"));
        assert_eq!(bare.in_unit(Unit::Number), Ok(75.0));
        assert!(Quantity::parse("5%").unwrap().in_unit(Unit::Usd).is_err());
    }
}
