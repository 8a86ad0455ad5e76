//! Dates as people write them.

/// Reads `2026-11-30`, optionally with a time and a zone as RFC 3339 has them (a blank for the `T`
/// and a missing zone, which is UTC, are let pass). Fractions of a second are not looked at.
#[must_use]
pub fn parse_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked("YYYY-MM-DD".len())?;
    let days = days_since_1970(date)?;
    if rest.is_empty() {
        return Some(days * MS_PER_DAY);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at_checked(zone_at)?;
    let seconds = seconds_of_day(time)? - zone_seconds(zone.trim())?;
    Some(days * MS_PER_DAY + seconds * 1_000)
}

fn days_since_1970(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=days_in_month).contains(&day) {
        return None;
    }
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil: years begin
    // in March, so that the leap day is the last of a year. Years here are never negative.
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
            - 719_468,
    )
}

fn seconds_of_day(time: &str) -> Option<i64> {
    let mut parts = time.split(':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let seconds = match parts.next() {
        Some(seconds) => number(seconds.split('.').next()?)?,
        None => 0,
    };
    let is_time = parts.next().is_none() && hours < 24 && minutes < 60 && seconds <= 60;
    is_time.then_some(hours * 3_600 + minutes * 60 + seconds)
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let offset = zone.strip_prefix(['+', '-'])?;
    let (hours, minutes) = match offset.split_once(':') {
        Some((hours, minutes)) => (number(hours)?, number(minutes)?),
        None => match offset.split_at_checked(2)? {
            (hours, "") => (number(hours)?, 0),
            (hours, minutes) => (number(hours)?, number(minutes)?),
        },
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Digits only: no sign, no blank.
fn number(text: &str) -> Option<i64> {
    let is_plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

const MS_PER_DAY: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_rfc_3339_means_them() {
        let day = MS_PER_DAY;
        for (text, expected) in [
            ("1970-01-01", 0),
            ("1970-01-02T00:00:00Z", day),
            ("2000-02-29", 11_016 * day),
            ("2026-12-01", 20_788 * day),
            ("1969-12-31", -day),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01 00:00:01.999", 1_000),
            ("1970-01-01 00:00 -0130", 5_400_000),
        ] {
            assert_eq!(parse_ms(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-00-10",
            "2026-1-1",
            "+026-01-01",
            "2026-01-01x",
            "2026-01-01T25:00",
            "2026-01-01T10",
            "2026-01-01T10:00+9",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
