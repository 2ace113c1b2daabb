//! The few log lines etcdctl writes to standard error, in zap's JSON.

use crate::go::escape_log;
use std::io::Write as _;

/// How grave a line is.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    /// How far the work is.
    Info,
    /// Something odd.
    Warn,
    /// The program ends.
    Fatal,
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(u64),
}

/// Writes one line: level, time, the logger's name if it has one, message, fields.
pub fn write_log(level: Level, logger: Option<&str>, message: &str, fields: &[(&str, Field<'_>)]) {
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Fatal => "fatal",
    };
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let mut line = format!("{{\"level\":\"{level}\",\"ts\":\"{time}\"");
    if let Some(logger) = logger {
        line.push_str(&format!(",\"logger\":\"{logger}\""));
    }
    line.push_str(&format!(",\"msg\":{}", escape_log(message)));
    for (name, value) in fields {
        match value {
            Field::Text(text) => line.push_str(&format!(",\"{name}\":{}", escape_log(text))),
            Field::Number(number) => line.push_str(&format!(",\"{name}\":{number}")),
        }
    }
    line.push_str("}\n");
    write_error(&line);
}

/// Writes one line as etcdutl does: time, level, message and fields, separated by tabs.
pub fn write_console(message: &str, fields: &[(&str, &str)]) {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let field = |(name, value): &(&str, &str)| format!("\"{name}\": {}", escape_log(value));
    let fields: Vec<String> = fields.iter().map(field).collect();
    let fields = fields.join(", ");
    write_error(&format!("{time}\tinfo\t{message}\t{{{fields}}}\n"));
}

/// Writes to standard error. When that cannot be written to, nobody is left to be told.
pub fn write_error(text: &str) {
    std::io::stderr()
        .write_all(text.as_bytes())
        .unwrap_or_default();
}
