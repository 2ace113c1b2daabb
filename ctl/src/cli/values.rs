//! What a flag holds, read from text and written as text.

use super::{Flag, Kind};
use crate::go::{format_duration, parse_bool, parse_duration, parse_int, parse_uint};
use std::time::Duration;

/// The value of a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// See [`Kind::Bool`].
    Bool(bool),
    /// See [`Kind::Int`].
    Int(i64),
    /// See [`Kind::Uint`].
    Uint(u64),
    /// See [`Kind::Text`].
    Text(Vec<u8>),
    /// See [`Kind::Duration`].
    Duration(Duration),
    /// See [`Kind::List`].
    List(Vec<String>),
}

impl Value {
    /// Reads a value of `kind`; numbers may be written as Go literals (`0x10`).
    ///
    /// # Errors
    /// Go's text for what is wrong.
    pub fn parse(kind: Kind, text: &[u8]) -> Result<Self, String> {
        let lossy = String::from_utf8_lossy(text);
        Ok(match kind {
            Kind::Bool => Self::Bool(parse_bool(text)?),
            Kind::Int => Self::Int(parse_int(text, 0)?),
            Kind::Uint => Self::Uint(parse_uint(text, 0)?),
            Kind::Text => Self::Text(text.to_vec()),
            Kind::Duration => Self::Duration(parse_duration(&lossy)?),
            Kind::List if text.is_empty() => Self::List(Vec::new()),
            Kind::List => Self::List(split_list(&lossy)?),
        })
    }

    /// What Go leaves in a flag whose text it could not read.
    pub fn zero(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(false),
            Kind::Int => Self::Int(0),
            Kind::Uint => Self::Uint(0),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Duration => Self::Duration(Duration::ZERO),
            Kind::List => Self::List(Vec::new()),
        }
    }

    /// The default of `flag`.
    pub fn default_of(flag: &Flag) -> Self {
        Self::parse(flag.kind, flag.default.as_bytes()).expect("defaults are well formed")
    }

    /// The value as Go prints it.
    pub fn show(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Text(value) => String::from_utf8_lossy(value).into_owned(),
            Self::Duration(value) => format_duration(*value),
            Self::List(values) => format!("[{}]", values.join(",")),
        }
    }
}

/// One record of comma separated values; a field may stand in double quotes.
fn split_list(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text.lines().next().unwrap_or_default();
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, tail) = quoted_field(quoted)?;
            fields.push(field);
            rest = tail;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(at) = rest[..end].find('"') {
                let column = text.len() - rest.len() + at + 1;
                return Err(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                ));
            }
            fields.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        field.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &rest[1..];
            }
            Some(',') | None => return Ok((field, rest)),
            Some(_) => break,
        }
    }
    Err("parse error on line 1: extraneous or missing \" in quoted-field".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_lists() {
        assert_eq!(
            split_list("a,b,"),
            Ok(vec!["a".into(), "b".into(), String::new()])
        );
        assert_eq!(
            split_list("\"a,\"\"b\",c"),
            Ok(vec!["a,\"b".into(), "c".into()])
        );
        assert!(split_list("a\"b").is_err());
        assert!(split_list("\"ab").is_err());
    }
}
