//! Stamps, read to the digit: a float of 17 digits cannot hold 2023 in 100 ns.

/// A decimal number of a unit as ns: `82`, `5.25`, `1e3`. What is finer than 1 ns is cut off.
pub(super) fn decimal_ns(text: &str, unit_ns: i64) -> Option<i64> {
    let text = text.trim();
    if text.contains(['e', 'E']) {
        let value = text.parse::<f64>().ok()? * unit_ns as f64;
        let is_possible = value.is_finite() && value.abs() < i64::MAX as f64 / 2.0;
        return is_possible.then_some(value as i64);
    }
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let mut value = i128::from(whole) * i128::from(unit_ns);
    let mut place = i128::from(unit_ns);
    for digit in fraction.bytes() {
        value += place * i128::from(digit - b'0') / 10;
        place /= 10;
    }
    let value = if is_negative { -value } else { value };
    i64::try_from(value).ok()
}

/// A JSON number or a text with one, of a unit, as ns.
pub(super) fn json_ns(value: &serde_json::Value, unit_ns: i64) -> Option<i64> {
    match value {
        serde_json::Value::String(text) => decimal_ns(text, unit_ns),
        // The shortest digits that mean the same float are the ones that were written.
        serde_json::Value::Number(number) => decimal_ns(&number.to_string(), unit_ns),
        _ => None,
    }
}

/// A date and time, and whether it says its zone: `2023-11-16 18:15:46.6805900`,
/// `2024-05-10T00:00:00.009930+00:00`, `...Z`. Gives ns since the Unix epoch; without a zone, as if
/// it were UTC.
pub(super) fn date_time_ns(text: &str) -> Option<(i64, bool)> {
    let text = text.trim();
    let (date, rest) = text.split_once([' ', 'T'])?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (time, offset_s) = split_zone(rest)?;
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second_ns = decimal_ns(parts.next()?, SECOND_NS)?;
    let is_date = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    // 60 is a leap second.
    let is_time = hour < 24 && minute < 60 && (0..61 * SECOND_NS).contains(&second_ns);
    if !is_date || !is_time {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60
        - offset_s.unwrap_or(0);
    Some((seconds.checked_mul(SECOND_NS)?.checked_add(second_ns)?, offset_s.is_some()))
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// The time of day, and the zone's offset in seconds if there is one.
fn split_zone(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, Some(0)));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let (time, zone) = text.split_at(at);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i64>().ok()?, 0),
        4 => (digits.get(..2)?.parse().ok()?, digits.get(2..)?.parse().ok()?),
        _ => return None,
    };
    Some((time, Some(sign * (hours * 3600 + minutes * 60))))
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

pub(super) const SECOND_NS: i64 = 1_000_000_000;
pub(super) const MILLISECOND_NS: i64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: stamps as the traces write them, and some that are none.
    /// Guarantees: not a digit is lost, and nothing that is no stamp becomes one.
    #[test]
    fn stamps_are_read_to_the_digit() {
        for (text, unit, expected) in [
            ("82", SECOND_NS, Some(82_000_000_000)),
            ("5.25", SECOND_NS, Some(5_250_000_000)),
            ("27482.125", MILLISECOND_NS, Some(27_482_125_000)),
            ("0.0000001", SECOND_NS, Some(100)),
            ("1694000000.123456789", SECOND_NS, Some(1_694_000_000_123_456_789)),
            ("1e3", MILLISECOND_NS, Some(1_000_000_000)),
            ("-5", SECOND_NS, Some(-5_000_000_000)),
            ("", SECOND_NS, None),
            (".", SECOND_NS, None),
            ("nan", SECOND_NS, None),
            ("1e300", SECOND_NS, None),
            ("99999999999999999999", SECOND_NS, None),
            ("12a", SECOND_NS, None),
        ] {
            assert_eq!(decimal_ns(text, unit), expected, "{text}");
        }
        let base = 1_700_158_546;
        for (text, expected) in [
            ("2023-11-16 18:15:46.6805900", Some((base * SECOND_NS + 680_590_000, false))),
            ("2023-11-16T18:15:46Z", Some((base * SECOND_NS, true))),
            ("2023-11-16 20:15:46.5+02:00", Some((base * SECOND_NS + 500_000_000, true))),
            ("2023-11-16 13:15:46-0500", Some((base * SECOND_NS, true))),
            ("2024-02-29 00:00:00", Some((1_709_164_800 * SECOND_NS, false))),
            ("2023-02-29 00:00:00", None),
            ("2023-13-01 00:00:00", None),
            ("2023-11-16 25:00:00", None),
            ("2023-11-16", None),
            ("16.11.2023 18:15:46", None),
        ] {
            assert_eq!(date_time_ns(text), expected, "{text}");
        }
    }
}
