//! JSON as Go's `encoding/json` writes structs: fields in the order they are declared, numbers as
//! numbers, bytes as base64, `<`, `>` and `&` escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::{Display, Write as _};

/// A string in quotes; bytes that are not UTF-8 become U+FFFD.
pub fn string(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes), true)
}

/// A string in quotes as zap writes it into a log line: `<`, `>` and `&` stand as they are.
pub fn escape_log(text: &str) -> String {
    escape(text, false)
}

fn escape(text: &str, html: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' if html => out.push_str("\\b"),
            '\x0c' if html => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if html => push_unicode(&mut out, c),
            c if c < ' ' => push_unicode(&mut out, c),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn push_unicode(out: &mut String, c: char) {
    write!(out, "\\u{:04x}", c as u32).expect("writing to a string cannot fail");
}

fn base64(bytes: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(bytes))
}

/// A JSON object that is being written.
#[derive(Debug, Default)]
pub struct Object {
    text: String,
}

impl Object {
    /// An object without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// A field whose value is JSON already.
    pub fn raw(mut self, name: &str, json: impl Display) -> Self {
        let separator = if self.text.is_empty() { "" } else { "," };
        write!(self.text, "{separator}\"{name}\":{json}").expect("writing to a string cannot fail");
        self
    }

    /// A field whose value is JSON already, left out when there is none.
    pub fn some(self, name: &str, json: Option<impl Display>) -> Self {
        match json {
            Some(json) => self.raw(name, json),
            None => self,
        }
    }

    /// A number or truth value, left out when it is zero or false (`omitempty`).
    pub fn plain<T: Display + Default + PartialEq>(self, name: &str, value: T) -> Self {
        if value == T::default() {
            return self;
        }
        self.raw(name, value)
    }

    /// A string, left out when it is empty.
    pub fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            return self;
        }
        self.raw(name, string(value.as_bytes()))
    }

    /// A string, also when it is empty.
    pub fn text_always(self, name: &str, value: &str) -> Self {
        self.raw(name, string(value.as_bytes()))
    }

    /// Bytes as base64, left out when there are none.
    pub fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() {
            return self;
        }
        self.raw(name, base64(value))
    }

    /// A list of values that are JSON already, left out when it is empty.
    pub fn list(self, name: &str, values: Array) -> Self {
        if values.is_empty() {
            return self;
        }
        self.raw(name, values.finish())
    }

    /// A list of values that are JSON already, also when it is empty.
    pub fn list_or_empty(self, name: &str, values: Array) -> Self {
        self.raw(name, values.finish())
    }

    /// A list of values that are JSON already; an empty one is `null`, as Go writes a nil slice.
    pub fn list_or_null(self, name: &str, values: Array) -> Self {
        if values.is_empty() {
            return self.raw(name, "null");
        }
        self.raw(name, values.finish())
    }

    /// The object in braces.
    pub fn finish(self) -> String {
        format!("{{{}}}", self.text)
    }
}

/// A JSON array that is being written.
#[derive(Debug, Default)]
pub struct Array {
    values: Vec<String>,
}

impl Array {
    /// Strings.
    pub fn of_texts<T: AsRef<str>>(texts: &[T]) -> Self {
        texts
            .iter()
            .map(|text| string(text.as_ref().as_bytes()))
            .collect()
    }

    /// Byte strings as base64.
    pub fn of_bytes<T: AsRef<[u8]>>(values: &[T]) -> Self {
        values.iter().map(|value| base64(value.as_ref())).collect()
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The array in brackets.
    pub fn finish(self) -> String {
        format!("[{}]", self.values.join(","))
    }
}

impl FromIterator<String> for Array {
    fn from_iter<I: IntoIterator<Item = String>>(values: I) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_go_does() {
        let text = Object::new()
            .plain("zero", 0i64)
            .plain("count", 3u64)
            .plain("no", false)
            .text("name", "<a&b>\u{2028}\n\x01")
            .bytes("key", b"foo")
            .bytes("none", b"")
            .list_or_null("keys", Array::default())
            .list("urls", Array::of_texts(&["http://a"]))
            .finish();
        let expected = concat!(
            r#"{"count":3,"name":"\u003ca\u0026b\u003e\u2028\n\u0001","key":"Zm9v","#,
            r#""keys":null,"urls":["http://a"]}"#
        );
        assert_eq!(text, expected);
        assert_eq!(escape_log("a<\"b\""), r#""a<\"b\"""#);
    }
}
