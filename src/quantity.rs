//! Ages and sizes as people write them on the command line.

use std::time::Duration;

/// Reads `90s`, `15m`, `12h`, `30d` or `8w`.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with s, m, h, d or w, such as 30d".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let unit_secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(expected()),
    };
    number.checked_mul(unit_secs).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

/// Reads `500`, `20GiB`, `1.5TB`: KB, MB, GB, TB count in thousands, KiB to TiB in 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of bytes, such as 20GiB or 500MB".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_bytes).ok_or_else(|| "too large".to_owned());
    }
    let number: f64 = number.parse().map_err(|_| expected())?;
    // A fraction of a unit needs no more than the 53 exact bits of a float.
    Ok((number * unit_bytes as f64) as u64)
}

/// Reads the memory queries may take.
pub(crate) fn parse_memory(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if bytes < MEMORY_BYTES_MIN {
        return Err("expected at least 16MiB".to_owned());
    }
    usize::try_from(bytes).map_err(|_| "too large".to_owned())
}

/// Below this a sort of wide rows is refused before it comes to its temporary files.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        for (text, secs) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(parse_age(text).unwrap().as_secs(), secs);
        }
        assert_eq!(parse_age("2w").unwrap(), parse_age("14d").unwrap());
        for bad in ["", "30", "d", "-1d", "1.5d", "30 d", "1y", "99999999999999999w"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("500", 500),
            ("1KB", 1000),
            ("1kib", 1024),
            ("20GiB", 20 << 30),
            ("1.5 MiB", 1_572_864),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "GiB", "-1", "1PB", "1.2.3GB", "1G", "99999999999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_never_too_little_to_begin() {
        assert_eq!(parse_memory("1GiB").unwrap(), 1 << 30);
        for bad in ["0", "15MiB", "much"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
    }
}
