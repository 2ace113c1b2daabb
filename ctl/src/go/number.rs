//! Numbers as Go's strconv reads them, errors included, and sizes as people read them.

use super::quote;

/// Reads a signed number; `base` 0 takes the prefixes `0x`, `0o`, `0b`, `0` and underscores.
///
/// # Errors
/// Go's text: ``strconv.ParseInt: parsing "abc": invalid syntax``.
pub fn parse_int(text: &[u8], base: u32) -> Result<i64, String> {
    let fail = |reason: &str| format!("strconv.ParseInt: parsing {}: {reason}", quote(text));
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let magnitude = match magnitude(digits, base) {
        Ok(magnitude) => magnitude,
        Err(reason) => return Err(fail(reason)),
    };
    let value = if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    };
    value.ok_or_else(|| fail(OUT_OF_RANGE))
}

/// Reads an unsigned number; no sign is allowed.
///
/// # Errors
/// Go's text, as [`parse_int`].
pub fn parse_uint(text: &[u8], base: u32) -> Result<u64, String> {
    magnitude(text, base)
        .map_err(|reason| format!("strconv.ParseUint: parsing {}: {reason}", quote(text)))
}

const OUT_OF_RANGE: &str = "value out of range";
const SYNTAX: &str = "invalid syntax";

fn magnitude(text: &[u8], base: u32) -> Result<u64, &'static str> {
    let (base, digits, underscores) = if base == 0 {
        let (base, digits) = match text {
            [b'0', b'x' | b'X', rest @ ..] => (16, rest),
            [b'0', b'o' | b'O', rest @ ..] => (8, rest),
            [b'0', b'b' | b'B', rest @ ..] => (2, rest),
            [b'0', rest @ ..] if !rest.is_empty() => (8, rest),
            rest => (10, rest),
        };
        (base, digits, true)
    } else {
        (base, text, false)
    };
    let mut seen = false;
    let mut value = Some(0u64);
    for &byte in digits {
        if byte == b'_' && underscores {
            continue;
        }
        let digit = char::from(byte).to_digit(base).ok_or(SYNTAX)?;
        seen = true;
        value = value
            .and_then(|value| value.checked_mul(u64::from(base)))
            .and_then(|value| value.checked_add(u64::from(digit)));
    }
    if !seen {
        return Err(SYNTAX);
    }
    value.ok_or(OUT_OF_RANGE)
}

/// Reads a truth value in one of the twelve spellings Go takes.
///
/// # Errors
/// Go's text, as [`parse_int`].
pub fn parse_bool(text: &[u8]) -> Result<bool, String> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {}: {SYNTAX}",
            quote(text)
        )),
    }
}

/// A size in SI units with two digits at most: `20 kB`, `2.1 GB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog10() as usize / 3;
    // Rounded to one decimal, half up, before the number of decimals is chosen.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a figure for people; Go computes it in f64 too"
    )]
    let value = (bytes as f64 / 1000f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent];
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers() {
        assert_eq!(parse_int(b"-0x1F", 0), Ok(-31));
        assert_eq!(parse_int(b"017", 0), Ok(15));
        assert_eq!(parse_int(b"1_000", 0), Ok(1000));
        assert_eq!(parse_int(b"-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(
            parse_int(b"9223372036854775808", 10),
            Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range".into())
        );
        assert_eq!(
            parse_int(b"", 10),
            Err("strconv.ParseInt: parsing \"\": invalid syntax".into())
        );
        assert!(parse_int(b"1_0", 10).is_err());
        assert_eq!(parse_uint(b"ffffffffffffffff", 16), Ok(u64::MAX));
        assert!(parse_uint(b"-1", 16).is_err());
    }

    #[test]
    fn writes_sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (3_000_000, "3.0 MB"),
            (999_999, "1000 kB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }
}
