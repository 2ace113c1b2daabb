//! Bytes as Kubernetes writes them: `8Gi`, `500M`, `1e9`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::model::Refusal;

const SUFFIXES: &[(&str, u128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// Digits after the point that are looked at; more are less than a byte of any sensible amount.
const FRACTION_DIGITS_MAX: usize = 18;

/// The number of bytes, rounded up.
///
/// # Errors
/// It is no amount of bytes.
pub fn bytes(field: &str, quantity: &Quantity) -> Result<u64, Refusal> {
    parse(quantity.0.trim()).ok_or_else(|| Refusal {
        reason: "InvalidReference".to_owned(),
        message: format!(
            "{field} {:?} is no amount of bytes: write such as 8Gi, 500M or 1000000",
            quantity.0
        ),
    })
}

fn parse(text: &str) -> Option<u64> {
    let (number, factor) = factor(text)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let empty = whole.is_empty() && fraction.is_empty();
    if empty || !digits(whole) || !digits(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let of = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = of(whole)?.checked_mul(scale)?.checked_add(of(fraction)?)?;
    let total = scaled.checked_mul(factor)?.div_ceil(scale);
    u64::try_from(total).ok()
}

/// The number and what it is multiplied by.
fn factor(text: &str) -> Option<(&str, u128)> {
    for (suffix, factor) in SUFFIXES {
        if let Some(number) = text.strip_suffix(suffix) {
            return Some((number, *factor));
        }
    }
    match text.split_once(['e', 'E']) {
        Some((number, exponent)) => {
            let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
            Some((number, 10_u128.checked_pow(exponent.parse().ok()?)?))
        }
        None => Some((text, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read() {
        for (text, expected) in [
            ("8Gi", Some(8 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            ("1e3", Some(1_000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("0.1", Some(1)),
            ("17", Some(17)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1Gb", None),
            ("1e", None),
            ("99999999999999999999Ei", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert!(bytes("spec.storage.size", &Quantity("x".to_owned())).is_err());
    }
}
