//! Durations as Go writes them: `1h30m`, `1.5s`, `-10ms`.

use std::time::Duration;

/// Reads a duration. Negative ones are refused by nobody here: they come back as `None` in the
/// second place of callers, which all want none.
pub fn parse(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total_ns = 0_f64;
    let mut exact_ns = 0_u128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at(number);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let unit_ns: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        match digits.parse::<u64>() {
            Ok(whole) => exact_ns += u128::from(whole) * u128::from(unit_ns),
            Err(_) => total_ns += digits.parse::<f64>().ok()? * unit_ns as f64,
        }
        rest = tail;
    }
    let nanos = exact_ns + total_ns.round() as u128;
    // As Go: 2^63 nanoseconds do not fit.
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|nanos| i64::try_from(*nanos).is_ok())?;
    if negative && nanos > 0 {
        return None;
    }
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, millis) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("100ms", Some(100)),
            ("2h0m0s", Some(7_200_000)),
            ("1.5s", Some(1_500)),
            ("1h15m30.918s", Some(4_530_918)),
            (".5s", Some(500)),
            ("5", None),
            ("", None),
            ("s", None),
            ("5 s", None),
            ("5d", None),
            ("1.2.3s", None),
            ("9999999h", None),
        ] {
            assert_eq!(parse(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
