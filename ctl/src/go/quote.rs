//! Go's `%q` and its inverse.

use std::fmt::Write as _;

/// Whether Go prints `c` as it is inside quotes: letters, marks, numbers, punctuation, symbols and
/// the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Rust escapes the same classes; only at the start of a string it escapes marks as well.
    let text: String = ['a', c].iter().collect();
    text.escape_debug().nth(1) == Some(c)
}

fn push_escaped(out: &mut String, c: char, delimiter: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        c if c == delimiter => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if is_printable(c) => out.push(c),
        c => push_numeric(out, c),
    }
}

fn push_numeric(out: &mut String, c: char) {
    let number = c as u32;
    let written = match number {
        0..0x20 | 0x7f => write!(out, "\\x{number:02x}"),
        0..0x10000 => write!(out, "\\u{number:04x}"),
        _ => write!(out, "\\U{number:08x}"),
    };
    written.expect("writing to a string cannot fail");
}

/// `%q` of a string: double quotes, Go's escapes, bytes that are not UTF-8 as `\xff`.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    out.push('"');
    out
}

/// `%q` of one character: single quotes.
pub fn quote_char(c: char) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

/// The text inside a Go string literal in double quotes or backquotes; `literal` has the quotes.
///
/// Nothing when Go's `strconv.Unquote` would say "invalid syntax".
pub fn unquote(literal: &[u8]) -> Option<Vec<u8>> {
    let (first, last) = (*literal.first()?, *literal.last()?);
    if literal.len() < 2 || first != last {
        return None;
    }
    let inner = &literal[1..literal.len() - 1];
    match first {
        b'`' if !inner.contains(&b'`') => Some(
            inner
                .iter()
                .copied()
                .filter(|byte| *byte != b'\r')
                .collect(),
        ),
        b'"' => unescape(inner),
        _ => None,
    }
}

fn unescape(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' | b'\n' => return None,
            b'\\' => rest = unescape_one(rest, &mut out)?,
            byte => out.push(byte),
        }
    }
    Some(out)
}

/// Reads what stands behind a backslash; gives back what follows.
fn unescape_one<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, tail) = rest.split_first()?;
    let plain = match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'"' => b'"',
        b'x' => {
            out.push(u8::try_from(digits(tail, 2, 16)?).ok()?);
            return Some(&tail[2..]);
        }
        b'u' | b'U' => {
            let count = if kind == b'u' { 4 } else { 8 };
            let c = char::from_u32(digits(tail, count, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&tail[count..]);
        }
        b'0'..=b'7' => {
            out.push(u8::try_from(digits(rest, 3, 8)?).ok()?);
            return Some(&rest[3..]);
        }
        _ => return None,
    };
    out.push(plain);
    Some(tail)
}

fn digits(bytes: &[u8], count: usize, radix: u32) -> Option<u32> {
    let text = str::from_utf8(bytes.get(..count)?).ok()?;
    if text.starts_with('+') {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote(b"a\"b\\c\n\x01\x7f"), r#""a\"b\\c\n\x01\x7f""#);
        assert_eq!(quote("Käse✓\u{301}".as_bytes()), "\"Käse✓\u{301}\"");
        assert_eq!(quote(b"\xff\x80ok"), r#""\xff\x80ok""#);
        assert_eq!(
            quote("\u{a0}\u{200b}\u{e0000}".as_bytes()),
            r#""\u00a0\u200b\U000e0000""#
        );
        assert_eq!(quote_char('\''), r"'\''");
        assert_eq!(quote_char('z'), "'z'");
    }

    #[test]
    fn unquotes_what_it_quoted() {
        for text in ["", "plain", "a\"b\\\n\t", "Käse\u{200b}", "\u{1f600}"] {
            let quoted = quote(text.as_bytes());
            assert_eq!(
                unquote(quoted.as_bytes()),
                Some(text.as_bytes().to_vec()),
                "{quoted}"
            );
        }
        assert_eq!(unquote(br#""\xff\101A""#), Some(b"\xffAA".to_vec()));
        assert_eq!(unquote(b"`a\\n`"), Some(b"a\\n".to_vec()));
        for bad in [
            &br#""a"#[..],
            br#""\q""#,
            br#""\400""#,
            br#""a"b""#,
            b"'a'",
            b"",
            b"\"",
        ] {
            assert_eq!(unquote(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
