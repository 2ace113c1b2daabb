//! Where values come from: the command line in Go's syntax, the environment, or a YAML file.
//!
//! etcd: Go's flag package, pkg/flags, server/etcdmain/config.go, server/embed/config.go
//! (configFromFile).

use std::collections::BTreeMap;

use super::table::{self, Flag, Kind};
use super::{duration, urls};

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command line is not understood: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It is understood, and wrong: exit code 1.
    #[error("{0}")]
    Invalid(String),
}

/// Something to say once logs are set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub flag: String,
    pub value: String,
    pub text: String,
}

/// The values that were given, by flag.
#[derive(Debug, Default)]
pub struct Values {
    given: BTreeMap<&'static str, String>,
    pub notices: Vec<Notice>,
    pub help: bool,
    /// Read from a configuration file, where etcd keeps defaults that a flag would drop.
    pub from_file: bool,
}

impl Values {
    /// No values yet, to be read from a file.
    pub fn of_file() -> Self {
        Self {
            from_file: true,
            ..Self::default()
        }
    }

    /// The value of a flag, given or default.
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(value) => value,
            None => table::find(name).map_or("", |flag| flag.default),
        }
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    /// A number whose form was checked when it was set.
    pub fn number<T: TryFrom<i128>>(&self, name: &str) -> Result<T, Error> {
        parse_number(self.text(name))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Error::Invalid(format!("--{name}: {} is out of range", self.text(name))))
    }

    pub fn duration(&self, name: &str) -> std::time::Duration {
        duration::parse(self.text(name)).unwrap_or_default()
    }

    pub fn urls(&self, name: &str) -> Result<Vec<urls::Url>, Error> {
        urls::Url::parse_list(self.text(name))
            .map_err(|error| Error::Invalid(format!("--{name}: {error}")))
    }

    /// Texts that are parted by commas, without empty ones.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.text(name)
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Sets a flag after a check of the value's form.
    pub fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        check(flag.kind, value)?;
        self.given.insert(flag.name, value.to_owned());
        Ok(())
    }

    fn notice(&mut self, flag: &str, value: &str, text: impl Into<String>) {
        self.notices.push(Notice {
            flag: flag.to_owned(),
            value: value.to_owned(),
            text: text.into(),
        });
    }

    /// Sets what `name` stands for today: itself, the flag that took over, or a feature gate.
    fn set_named(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some(flag) = table::find(name) {
            return self.set(flag, value);
        }
        let Some((_, successor)) = table::OLD_NAMES.iter().find(|(old, _)| *old == name) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        match successor {
            Ok(new) => {
                self.notice(name, value, format!("this name is old; use --{new}"));
                let flag = table::find(new).expect("old names lead to flags of the table");
                self.set(flag, value)
            }
            Err(gate) => {
                self.notice(
                    name,
                    value,
                    format!("this name is old; use --feature-gates={gate}={value}"),
                );
                parse_bool(value).ok_or("parse error")?;
                let gates = self.text("feature-gates");
                let parted = if gates.is_empty() { "" } else { "," };
                let gates = format!("{gates}{parted}{gate}={value}");
                let flag = table::find("feature-gates").expect("it is in the table");
                self.set(flag, &gates)
            }
        }
    }
}

/// Whether a name takes no value of its own (`--x` alone means true).
fn is_switch(name: &str) -> bool {
    if let Some(flag) = table::find(name) {
        return flag.kind == Kind::Bool;
    }
    match table::OLD_NAMES.iter().find(|(old, _)| *old == name) {
        Some((_, Ok(new))) => table::find(new).is_some_and(|flag| flag.kind == Kind::Bool),
        Some((_, Err(_))) => true,
        None => table::IGNORED_NAMES.contains(&name),
    }
}

/// Reads a command line without the program's name.
///
/// # Errors
/// Go's sentences, as [`Error::Usage`].
pub fn arguments(arguments: &[String]) -> Result<Values, Error> {
    let mut values = Values::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let name = match argument.strip_prefix('-') {
            None | Some("") => {
                return Err(Error::Invalid(format!("{argument:?} is not a valid flag")));
            }
            Some("-") => match rest.next() {
                None => break,
                Some(next) => {
                    return Err(Error::Invalid(format!("{next:?} is not a valid flag")));
                }
            },
            Some(name) => name.strip_prefix('-').unwrap_or(name),
        };
        if name.starts_with(['-', '=']) {
            return Err(Error::Usage(format!("bad flag syntax: {argument}")));
        }
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        if name == "help" || name == "h" {
            values.help = true;
            return Ok(values);
        }
        if table::IGNORED_NAMES.contains(&name) {
            values.notice(name, inline.unwrap_or(""), "no longer supported: ignored");
            continue;
        }
        let value = match inline {
            Some(value) => value.to_owned(),
            None if is_switch(name) => "true".to_owned(),
            None if table::find(name).is_none() && !is_old(name) => {
                return Err(Error::Usage(format!(
                    "flag provided but not defined: -{name}"
                )));
            }
            None => rest
                .next()
                .ok_or_else(|| Error::Usage(format!("flag needs an argument: -{name}")))?
                .clone(),
        };
        values.set_named(name, &value).map_err(|error| {
            if error.starts_with("flag provided") {
                return Error::Usage(error);
            }
            let kind = if is_switch(name) {
                "boolean value"
            } else {
                "value"
            };
            Error::Usage(format!(
                "invalid {kind} {value:?} for flag -{name}: {error}"
            ))
        })?;
    }
    Ok(values)
}

fn is_old(name: &str) -> bool {
    table::OLD_NAMES.iter().any(|(old, _)| *old == name)
}

/// Adds `ETCD_*` variables for flags that the command line does not give.
pub fn environment(
    values: &mut Values,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), Error> {
    let on_command_line: Vec<&str> = values.given.keys().copied().collect();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix("ETCD_") else {
            continue;
        };
        let name = name.to_ascii_lowercase().replace('_', "-");
        match table::find(&name) {
            _ if value.is_empty() => {}
            _ if name == "version" || name == "unsupported-arch" => {
                values.notice(&variable, &value, "not a setting: ignored");
            }
            Some(flag) if on_command_line.contains(&flag.name) => values.notice(
                &variable,
                &value,
                "recognized environment variable, but unused: shadowed by corresponding flag",
            ),
            Some(_) => set_from(values, &variable, &name, &value)?,
            None if is_old(&name) => set_from(values, &variable, &name, &value)?,
            None => values.notice(&variable, &value, "unrecognized environment variable"),
        }
    }
    Ok(())
}

fn set_from(values: &mut Values, variable: &str, name: &str, value: &str) -> Result<(), Error> {
    values
        .set_named(name, value)
        .map_err(|error| Error::Invalid(format!("invalid value {value:?} for {variable}: {error}")))
}

/// Go's strconv.ParseBool.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Go's strconv.ParseInt with base 0, without octal.
fn parse_number(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None => return None,
    };
    Some(sign * i128::from(number))
}

/// Checks the form of a value.
fn check(kind: Kind, value: &str) -> Result<(), String> {
    let number_within = |least: i128, most: i128| match parse_number(value) {
        Some(number) if (least..=most).contains(&number) => Ok(()),
        Some(_) => Err("value out of range".to_owned()),
        None => Err("parse error".to_owned()),
    };
    match kind {
        Kind::Text | Kind::Texts => Ok(()),
        Kind::Bool => parse_bool(value)
            .map(|_| ())
            .ok_or("parse error".to_owned()),
        Kind::Int => number_within(i128::from(i64::MIN), i128::from(i64::MAX)),
        Kind::Uint => number_within(0, i128::from(u64::MAX)),
        Kind::Uint32 => number_within(0, i128::from(u32::MAX)),
        Kind::Duration => duration::parse(value)
            .map(|_| ())
            .ok_or("parse error".to_owned()),
        Kind::UrlsOrStar if value == "*" => Ok(()),
        Kind::Urls | Kind::UrlsOrStar => urls::Url::parse_list(value).map(|_| ()),
        Kind::Choice(words) if words.contains(&value) => Ok(()),
        Kind::Choice(words) => Err(format!("invalid value {value:?}, one of {words:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Values, Error> {
        let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        arguments(&words)
    }

    fn usage(text: &str) -> Option<Error> {
        Some(Error::Usage(text.to_owned()))
    }

    #[test]
    fn flags_are_written_as_in_go() {
        for line in ["--name=m1", "-name=m1", "--name m1", "-name m1"] {
            assert_eq!(read(line).expect(line).text("name"), "m1", "{line}");
        }
        let values = read("--name a --name b --force-new-cluster --pre-vote=false").expect("fine");
        assert_eq!(values.text("name"), "b");
        assert!(values.bool("force-new-cluster") && !values.bool("pre-vote"));
        assert_eq!(read("--name=a=b").expect("fine").text("name"), "a=b");
        assert!(read("--help").expect("fine").help && read("-h").expect("fine").help);
    }

    #[test]
    fn what_is_not_understood_is_told_in_the_words_of_go() {
        for (line, text) in [
            ("--nonsense", "flag provided but not defined: -nonsense"),
            ("--nonsense=1", "flag provided but not defined: -nonsense"),
            ("--name", "flag needs an argument: -name"),
            ("---name=x", "bad flag syntax: ---name=x"),
            ("--=x", "bad flag syntax: --=x"),
            (
                "--pre-vote=maybe",
                "invalid boolean value \"maybe\" for flag -pre-vote: parse error",
            ),
            (
                "--max-txn-ops=-1",
                "invalid value \"-1\" for flag -max-txn-ops: value out of range",
            ),
            (
                "--heartbeat-interval=1s",
                "invalid value \"1s\" for flag -heartbeat-interval: parse error",
            ),
            (
                "--grpc-keepalive-timeout=20",
                "invalid value \"20\" for flag -grpc-keepalive-timeout: parse error",
            ),
            (
                "--listen-client-urls=a:1",
                "invalid value \"a:1\" for flag -listen-client-urls: \
                 URL scheme must be http, https, unix, or unixs: a:1",
            ),
        ] {
            assert_eq!(read(line).err(), usage(text), "{line}");
        }
        // A boolean does not take the next word, which is then no flag.
        assert_eq!(
            read("--pre-vote false").err(),
            Some(Error::Invalid("\"false\" is not a valid flag".to_owned()))
        );
    }

    #[test]
    fn the_environment_yields_to_the_command_line() {
        let mut values = read("--name=line").expect("fine");
        let variables = [
            ("ETCD_NAME", "env"),
            ("ETCD_DATA_DIR", "/d"),
            ("ETCD_MAX_TXN_OPS", ""),
            ("ETCD_WHAT", "x"),
            ("HOME", "/root"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        environment(&mut values, variables.into_iter()).expect("fine");
        assert_eq!(values.text("name"), "line");
        assert_eq!(values.text("data-dir"), "/d");
        assert!(!values.is_given("max-txn-ops"));
        let told: Vec<&str> = values.notices.iter().map(|n| n.flag.as_str()).collect();
        assert_eq!(told, ["ETCD_NAME", "ETCD_WHAT"]);
        let wrong = [("ETCD_MAX_TXN_OPS".to_owned(), "many".to_owned())];
        assert_eq!(
            environment(&mut values, wrong.into_iter()),
            Err(Error::Invalid(
                "invalid value \"many\" for ETCD_MAX_TXN_OPS: parse error".to_owned()
            ))
        );
    }

    #[test]
    fn old_names_lead_to_new_ones_with_a_notice() {
        let values = read(
            "--experimental-watch-progress-notify-interval=5s \
             --experimental-initial-corrupt-check=true --experimental-memory-mlock",
        )
        .expect("fine");
        assert_eq!(values.text("watch-progress-notify-interval"), "5s");
        assert_eq!(values.text("feature-gates"), "InitialCorruptCheck=true");
        assert!(values.bool("memory-mlock"));
        assert_eq!(values.notices.len(), 3);
    }
}
