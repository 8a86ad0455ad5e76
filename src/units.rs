//! Numbers for people.

/// A duration with three significant digits: `1.23 ms`.
pub(crate) fn duration(ns: i64) -> String {
    let (sign, ns) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs() as f64);
    let (value, unit) = match ns {
        n if n < 1e3 => return format!("{sign}{n:.0} ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n if n < 120e9 => (n / 1e9, "s"),
        n => (n / 60e9, "min"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{sign}{value:.digits$} {unit}")
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A relative change as a signed percentage.
pub(crate) fn change(effect: f64) -> String {
    format!("{:+.1} %", effect * 100.0)
}

/// A count with thousands apart: `12 345`.
pub(crate) fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if n < 0 { format!("-{text}") } else { text }
}

/// A size with three significant digits: `1.23 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    let digits = match value {
        _ if unit == "B" => 0,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A count that may be absent.
pub(crate) fn count_or_dash(n: Option<i64>) -> String {
    n.map_or_else(|| "-".to_owned(), count)
}

/// A duration that may be absent.
pub(crate) fn duration_or_dash(ns: Option<i64>) -> String {
    ns.map_or_else(|| "-".to_owned(), duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_230_000), "1.23 ms");
        assert_eq!(duration(45_600_000_000), "45.6 s");
        assert_eq!(duration(-1500), "-1.50 us");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(-999), "-999");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_290_000), "1.23 MiB");
        assert_eq!(bytes(20 << 30), "20.0 GiB");
        assert_eq!(change(0.104), "+10.4 %");
    }
}
