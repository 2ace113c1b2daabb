//! The two small grammars of `txn` and `watch -i`: words with quotes, and a comparison line.

use super::{quote, unquote};

/// One comparison of a transaction: `TARGET("key") OP "value"`.
#[derive(Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What is compared: `mod`, `value`, ...
    pub target: String,
    /// The key, its escapes resolved.
    pub key: Vec<u8>,
    /// The operator.
    pub operator: String,
    /// The value, its escapes resolved.
    pub value: Vec<u8>,
}

/// Splits a line into words: bare ones, `'literal'` ones and `"escaped\n"` ones.
///
/// A quote that is never closed is skipped.
///
/// # Errors
/// `invalid syntax` for a bad escape in double quotes.
pub fn split_arguments(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let end = match first {
            b'"' => closing_double_quote(rest),
            b'\'' => rest[1..]
                .iter()
                .position(|byte| *byte == b'\'')
                .map(|at| at + 2),
            byte if byte.is_ascii_whitespace() => None,
            _ => Some(
                rest.iter()
                    .position(u8::is_ascii_whitespace)
                    .unwrap_or(rest.len()),
            ),
        };
        let Some(end) = end else {
            rest = &rest[1..];
            continue;
        };
        let word = &rest[..end];
        rest = &rest[end..];
        words.push(match first {
            b'"' => unquote(word).ok_or("invalid syntax")?,
            b'\'' => word[1..word.len() - 1].to_vec(),
            _ => word.to_vec(),
        });
    }
    Ok(words)
}

/// The length of the double-quoted word at the start of `text`, quotes included.
fn closing_double_quote(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// Reads one comparison line, its operator and target still unchecked.
///
/// # Errors
/// etcdctl's text: `malformed comparison: …`.
pub fn scan_comparison(line: &[u8]) -> Result<Comparison, String> {
    let shown = String::from_utf8_lossy(line);
    let Some(at) = line.iter().position(|byte| *byte == b'(') else {
        return Err(format!("malformed comparison: {shown}"));
    };
    let mut found = Comparison {
        target: String::from_utf8_lossy(&line[..at]).into_owned(),
        key: Vec::new(),
        operator: String::new(),
        value: Vec::new(),
    };
    if fill(&mut found, &line[at + 1..]).is_some() {
        return Ok(found);
    }
    Err(format!(
        "malformed comparison: {shown}; got {}({}) {} {}",
        found.target,
        quote(&found.key),
        found.operator,
        quote(&found.value)
    ))
}

/// Reads `"key") OP "value"`, as far as it goes.
fn fill(found: &mut Comparison, rest: &[u8]) -> Option<()> {
    let (key, rest) = quoted_word(rest)?;
    found.key = key;
    let rest = rest.strip_prefix(b")")?;
    let rest = at_least_one_space(rest)?;
    let end = rest
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(rest.len());
    if end == 0 {
        return None;
    }
    found.operator = String::from_utf8_lossy(&rest[..end]).into_owned();
    let rest = at_least_one_space(&rest[end..])?;
    let (value, _) = quoted_word(rest)?;
    found.value = value;
    Some(())
}

fn at_least_one_space(text: &[u8]) -> Option<&[u8]> {
    let trimmed = text.trim_ascii_start();
    (trimmed.len() < text.len()).then_some(trimmed)
}

fn quoted_word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = text.trim_ascii_start();
    let end = match text.first()? {
        b'"' => closing_double_quote(text)?,
        b'`' => text[1..].iter().position(|byte| *byte == b'`')? + 2,
        _ => return None,
    };
    Some((unquote(&text[..end])?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split_arguments(line.as_bytes())
            .unwrap()
            .into_iter()
            .map(|word| String::from_utf8(word).unwrap())
            .collect()
    }

    #[test]
    fn splits_words() {
        assert_eq!(
            words(r#"put key "a \"b\"" 'c d'"#),
            ["put", "key", "a \"b\"", "c d"]
        );
        assert_eq!(words(r#"put a"b c"#), ["put", "a\"b", "c"]);
        assert_eq!(words(r#"put "open end"#), ["put", "open", "end"]);
        assert_eq!(words(r#"put "" ''"#), ["put", "", ""]);
        assert!(split_arguments(br#"put "\q""#).is_err());
    }

    #[test]
    fn reads_comparisons() {
        let found = scan_comparison(br#"mod("k\"1") > "0" rest"#).unwrap();
        assert_eq!(found.target, "mod");
        assert_eq!(found.key, b"k\"1");
        assert_eq!(found.operator, ">");
        assert_eq!(found.value, b"0");
        assert_eq!(
            scan_comparison(b"foo").unwrap_err(),
            "malformed comparison: foo"
        );
        assert_eq!(
            scan_comparison(br#"mod("k")="0""#).unwrap_err(),
            r#"malformed comparison: mod("k")="0"; got mod("k")  """#
        );
        assert_eq!(
            scan_comparison(br#"mod("k") = 0"#).unwrap_err(),
            r#"malformed comparison: mod("k") = 0; got mod("k") = """#
        );
    }
}
