//! Numbers for people: units that fit, three significant digits, thousands separated.
//!
//! Number and unit are joined by a no-break space. Absent values show as a dash, never as zero.

use retake_schemas::id::utc_text;

/// What an absent value shows.
pub(super) const ABSENT: &str = "\u{2013}";

/// A duration: `820 ns`, `12.3 us`, `1.23 s`, `2 min 05 s`, `3 h 07 min`.
pub(super) fn duration(ns: i64) -> String {
    let sign = if ns < 0 { "\u{2212}" } else { "" };
    let size = ns.unsigned_abs();
    let shown = float(size);
    // The limits are where three digits round up to the next unit, so 999.7 us reads 1.00 ms.
    if size < 1_000 {
        format!("{sign}{size}\u{a0}ns")
    } else if shown < 999.5e3 {
        format!("{sign}{}\u{a0}\u{b5}s", three_digits(shown / 1e3))
    } else if shown < 999.5e6 {
        format!("{sign}{}\u{a0}ms", three_digits(shown / 1e6))
    } else if shown < 59.95e9 {
        format!("{sign}{}\u{a0}s", three_digits(shown / 1e9))
    } else {
        format!("{sign}{}", long_duration((size + 500_000_000) / 1_000_000_000))
    }
}

/// A duration of a minute or more, from whole seconds.
fn long_duration(secs: u64) -> String {
    let (hours, minutes, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
    if hours > 0 {
        format!("{}\u{a0}h\u{a0}{minutes:02}\u{a0}min", count(hours))
    } else {
        format!("{minutes}\u{a0}min\u{a0}{secs:02}\u{a0}s")
    }
}

/// A round duration on an axis, without the zeros that only state precision: `1 s`, `1.5 ms`.
pub(super) fn tick(ns: i64) -> String {
    let text = duration(ns);
    match text.split_once('\u{a0}') {
        Some((number, unit)) if number.contains('.') => {
            format!("{}\u{a0}{unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// A duration, or a dash.
pub(super) fn duration_or_absent(ns: Option<i64>) -> String {
    ns.map_or_else(|| ABSENT.to_owned(), duration)
}

/// Three significant digits: `1.23`, `12.3`, `123`.
fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A whole number with its thousands separated: `12,345`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A whole number that may be negative.
pub(super) fn signed_count(value: i64) -> String {
    let sign = if value < 0 { "\u{2212}" } else { "" };
    format!("{sign}{}", count(value.unsigned_abs()))
}

/// A whole number, or a dash.
pub(super) fn count_or_absent(value: Option<i64>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), signed_count)
}

/// A count in three digits, or a dash: `999`, `47.9k`, `1.14M`.
pub(super) fn short_count(value: Option<i64>) -> String {
    let Some(value) = value else { return ABSENT.to_owned() };
    let (sign, size) = (if value < 0 { "\u{2212}" } else { "" }, float(value.unsigned_abs()));
    if size < 1_000.0 {
        format!("{sign}{size:.0}")
    } else if size < 999.5e3 {
        format!("{sign}{}k", three_digits(size / 1e3))
    } else if size < 999.5e6 {
        format!("{sign}{}M", three_digits(size / 1e6))
    } else {
        format!("{sign}{}G", three_digits(size / 1e9))
    }
}

/// `1 trace`, `2 traces`.
pub(super) fn plural(value: u64, noun: &str) -> String {
    format!("{}\u{a0}{noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A share with one decimal: 0.1234 is `12.3 %`.
pub(super) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return ABSENT.to_owned();
    }
    let tenths = (share * 1000.0).round();
    let sign = if tenths < 0.0 { "\u{2212}" } else { "" };
    format!("{sign}{:.1}\u{a0}%", tenths.abs() / 10.0)
}

/// A share in a sentence: without decimals unless it is small.
pub(super) fn percent_words(share: f64) -> String {
    match share * 100.0 {
        shown if !shown.is_finite() => ABSENT.to_owned(),
        shown if shown > 0.0 && shown < 0.1 => "less than 0.1\u{a0}%".to_owned(),
        shown if shown < 9.95 => format!("{shown:.1}\u{a0}%"),
        shown => format!("{shown:.0}\u{a0}%"),
    }
}

/// A change: 0.123 is `+12.3 %`.
pub(super) fn change(effect: f64) -> String {
    if !effect.is_finite() {
        return ABSENT.to_owned();
    }
    // Rounded first, so that a change of -0.0001 is not shown as a negative zero.
    let tenths = (effect * 1000.0).round();
    let sign = if tenths > 0.0 {
        "+"
    } else if tenths < 0.0 {
        "\u{2212}"
    } else {
        "\u{b1}"
    };
    format!("{sign}{:.1}\u{a0}%", tenths.abs() / 10.0)
}

/// US dollars: cents from a dollar on, two significant digits below.
pub(super) fn usd(amount: f64) -> String {
    if !amount.is_finite() {
        return ABSENT.to_owned();
    }
    let sign = if amount < 0.0 { "\u{2212}" } else { "" };
    let amount = amount.abs();
    if amount >= 1000.0 {
        format!("{sign}${}", count(whole(amount)))
    } else if amount >= 1.0 || amount == 0.0 {
        format!("{sign}${amount:.2}")
    } else {
        // A micro-dollar is the finest price anyone quotes per token.
        let decimals = (1.0 - amount.log10().floor()).clamp(2.0, 7.0);
        format!("{sign}${amount:.*}", usize::try_from(whole(decimals)).unwrap_or(2))
    }
}

/// US dollars, or a dash.
pub(super) fn usd_or_absent(amount: Option<f64>) -> String {
    amount.map_or_else(|| ABSENT.to_owned(), usd)
}

/// A plain number of unknown kind, three significant digits.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        ABSENT.to_owned()
    } else if value.abs() >= 1000.0 {
        signed_count(signed_whole(value))
    } else if value == value.trunc() {
        format!("{value:.0}")
    } else {
        three_digits(value)
    }
}

/// Memory: `15.6 GiB`.
pub(super) fn bytes(size: i64) -> String {
    let size = float(size.unsigned_abs());
    if size >= 1073741824.0 {
        format!("{}\u{a0}GiB", three_digits(size / 1073741824.0))
    } else {
        format!("{}\u{a0}MiB", three_digits(size / 1048576.0))
    }
}

/// A point in time, UTC: `2026-03-14 09:26:53`.
pub(super) fn utc(unix_ns: i64) -> String {
    utc_text(unix_ns).replace(' ', "\u{a0}")
}

/// Time of day with milliseconds, UTC.
pub(super) fn utc_time(unix_ns: i64) -> String {
    let ms = unix_ns.div_euclid(1_000_000).rem_euclid(86_400_000);
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// Tenths of a percent that sum to exactly 1000, by largest remainder: separately rounded shares
/// of one whole would show 99.9 % or 100.1 %. Parts that sum to nothing give zeros.
pub(super) fn shares_in_tenths(parts: &[i64]) -> Vec<i64> {
    let parts: Vec<i128> = parts.iter().map(|&part| i128::from(part.max(0))).collect();
    let whole: i128 = parts.iter().sum();
    if whole == 0 {
        return vec![0; parts.len()];
    }
    let mut shares: Vec<i64> =
        parts.iter().map(|part| i64::try_from(part * 1000 / whole).unwrap_or(0)).collect();
    let missing = usize::try_from(1000 - shares.iter().sum::<i64>()).unwrap_or(0);
    let mut order: Vec<(usize, i128)> =
        parts.iter().map(|part| part * 1000 % whole).enumerate().collect();
    order.sort_by_key(|&(at, remainder)| (std::cmp::Reverse(remainder), at));
    for (at, _) in order.into_iter().take(missing) {
        if let Some(share) = shares.get_mut(at) {
            *share += 1;
        }
    }
    shares
}

/// A share from [`shares_in_tenths`].
pub(super) fn tenths(share: i64) -> String {
    format!("{}.{}\u{a0}%", share / 10, share % 10)
}

/// A sum that stops at the largest number instead of overflowing: a trace may state absurdities.
pub(super) fn total(values: impl Iterator<Item = i64>) -> i64 {
    values.fold(0, i64::saturating_add)
}

/// The same of counts.
pub(super) fn total_count(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

/// An integer as a float, for drawing and for three digits: the lost bits are never seen.
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

/// A length as a float.
pub(super) fn length(items: usize) -> f64 {
    items as f64
}

/// A duration as a float of ns.
pub(super) fn ns_float(ns: i64) -> f64 {
    ns as f64
}

/// A non-negative float as the nearest whole number; `as` saturates and makes NaN zero.
pub(super) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A float as the nearest whole number; `as` saturates and makes NaN zero.
pub(super) fn signed_whole(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: durations of every size, and those that round into the next unit.
    /// Guarantees: a reader never sees `1000 ms` or more than three digits.
    #[test]
    fn durations_pick_the_unit_that_fits() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 \u{b5}s"),
            (999_700, "1.00 ms"),
            (12_345_678, "12.3 ms"),
            (999_600_000, "1.00 s"),
            (59_940_000_000, "59.9 s"),
            (59_990_000_000, "1 min 00 s"),
            (125_000_000_000, "2 min 05 s"),
            (11_220_000_000_000, "3 h 07 min"),
            (-1_500_000, "\u{2212}1.50 ms"),
        ];
        for (ns, shown) in cases {
            assert_eq!(duration(ns).replace('\u{a0}', " "), shown);
        }
        assert!(!duration(i64::MIN).is_empty() && !duration(i64::MAX).is_empty());
    }

    /// Scenario: counts, money, changes, and dates at their edges.
    /// Guarantees: separators, signs, and leap days are right.
    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!(
            [usd(0.0), usd(12.345), usd(1234.5), usd(0.000_42)],
            ["$0.00", "$12.35", "$1,235", "$0.00042"]
        );
        assert_eq!(change(0.1234), "+12.3\u{a0}%");
        assert_eq!(change(-0.000_01), "\u{b1}0.0\u{a0}%");
        assert_eq!(change(f64::NAN), ABSENT);
        assert_eq!(utc(1_709_164_800_000_000_000), "2024-02-29\u{a0}00:00:00");
        assert_eq!(utc(-1), "1969-12-31\u{a0}23:59:59");
        assert_eq!(utc_time(1_709_164_800_123_456_789), "00:00:00.123");
    }

    /// Scenario: three equal parts, and parts of nothing.
    /// Guarantees: the shown shares of a whole sum to 100.0 %.
    #[test]
    fn shown_shares_sum_to_one_hundred() {
        assert_eq!(shares_in_tenths(&[1, 1, 1]), [334, 333, 333]);
        assert_eq!(shares_in_tenths(&[i64::MAX, i64::MAX]), [500, 500]);
        assert_eq!(shares_in_tenths(&[0, 0]), [0, 0]);
        assert_eq!(shares_in_tenths(&[7, 11, 13, 17, 19, 23, 1]).iter().sum::<i64>(), 1000);
    }
}
