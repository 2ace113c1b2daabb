//! Go's `time.Duration`: `1m30s`, `2.5ms`.

use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;

/// Writes a duration as Go's `Duration.String` does.
pub fn format_duration(duration: Duration) -> String {
    let total_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if total_ns == 0 {
        return "0s".into();
    }
    if total_ns < 1_000 {
        return format!("{total_ns}ns");
    }
    if total_ns < 1_000_000 {
        return format!("{}µs", fraction(total_ns, 1_000));
    }
    if total_ns < SECOND_NS {
        return format!("{}ms", fraction(total_ns, 1_000_000));
    }
    let minutes = total_ns / (60 * SECOND_NS);
    let seconds = fraction(total_ns % (60 * SECOND_NS), SECOND_NS);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` with as many decimals as it takes.
fn fraction(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads a duration as Go's `time.ParseDuration` does; negative ones are none to wait for and
/// count as zero.
///
/// # Errors
/// Go's text: `time: invalid duration "5"`, `time: missing unit in duration "5"` and so on.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let quoted = super::quote(text.as_bytes());
    let invalid = || format!("time: invalid duration {quoted}");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total_ns = 0f64;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number_len = length_of(rest, |c| c.is_ascii_digit() || c == '.');
        let number: f64 = rest[..number_len].parse().map_err(|_| invalid())?;
        rest = &rest[number_len..];
        let unit_len = length_of(rest, |c| !c.is_ascii_digit() && c != '.');
        let unit = &rest[..unit_len];
        rest = &rest[unit_len..];
        total_ns += number
            * match unit {
                "" => return Err(format!("time: missing unit in duration {quoted}")),
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                unit => {
                    let unit = super::quote(unit.as_bytes());
                    return Err(format!("time: unknown unit {unit} in duration {quoted}"));
                }
            };
    }
    if total_ns >= 9.3e18 {
        return Err(invalid());
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Ok(Duration::from_nanos(total_ns as u64))
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_durations() {
        for (ns, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (3_267_723, "3.267723ms"),
            (5_000_000_000, "5s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(ns)), text);
        }
    }

    #[test]
    fn reads_durations() {
        assert_eq!(parse_duration("1m30.5s"), Ok(Duration::from_millis(90_500)));
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(
            parse_duration("5"),
            Err("time: missing unit in duration \"5\"".into())
        );
        assert_eq!(
            parse_duration("5x"),
            Err("time: unknown unit \"x\" in duration \"5x\"".into())
        );
        assert_eq!(
            parse_duration("abc"),
            Err("time: invalid duration \"abc\"".into())
        );
    }
}
