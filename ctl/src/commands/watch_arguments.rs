//! Which words of a `watch` line are the key, the range end and the command to run.

use crate::cli::FlagSet;

/// The words of a line, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct WatchArguments {
    /// Key and range end.
    pub watch: Vec<Vec<u8>>,
    /// What to run for every event; empty for nothing.
    pub command: Vec<Vec<u8>>,
}

const BAD_NUMBER: &str = "bad number of arguments";
const BAD_CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const BAD_SEPARATOR: &str = "bad number of arguments (found separator --, but no commands)";

/// The key and range end that the environment gives.
#[derive(Debug, Default, Clone)]
pub struct FromEnvironment {
    /// `ETCDCTL_WATCH_KEY`.
    pub key: Vec<u8>,
    /// `ETCDCTL_WATCH_RANGE_END`.
    pub range_end: Vec<u8>,
}

impl FromEnvironment {
    fn words(&self) -> Vec<Vec<u8>> {
        let words = [&self.key, &self.range_end];
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .cloned()
            .collect()
    }
}

/// Sorts the words of a command line. `typed` is the line as it was typed, the name of the program
/// first; `arguments` are its words without flags and without the first `--`.
///
/// # Errors
/// etcdctl's text (etcdctl/ctlv3/command/watch_command.go, `parseWatchArgs`).
pub fn from_command_line(
    typed: &[Vec<u8>],
    arguments: &[Vec<u8>],
    environment: &FromEnvironment,
) -> Result<WatchArguments, String> {
    let start = typed
        .iter()
        .position(|word| word == b"watch")
        .map_or(0, |at| at + 1);
    let raw = &typed[start..];
    let separator = raw.iter().position(|word| word == b"--");
    let has_key = !environment.key.is_empty();
    match separator {
        Some(at) if at + 1 == raw.len() => return Err(BAD_SEPARATOR.into()),
        Some(at) if has_key && key_before_separator(arguments, raw, at) => {
            return Err(BAD_CONFLICT.into());
        }
        None if raw.is_empty() && !has_key => return Err(BAD_NUMBER.into()),
        None if !arguments.is_empty() && has_key => return Err(BAD_CONFLICT.into()),
        _ => {}
    }
    Ok(split(arguments, raw, separator, environment))
}

/// Sorts the words of a line of `watch -i`, the word `watch` taken off, and reads its flags.
///
/// # Errors
/// etcdctl's text, as above, or what is wrong with a flag.
pub fn from_line(
    words: &[Vec<u8>],
    flags: &mut FlagSet,
    environment: &FromEnvironment,
) -> Result<WatchArguments, String> {
    let separator = words.iter().position(|word| word == b"--");
    if separator.is_some_and(|at| at + 1 == words.len()) {
        return Err(BAD_SEPARATOR.into());
    }
    let arguments = flags.parse(words).map_err(|error| error.0)?;
    let has_key = !environment.key.is_empty();
    if separator.is_none() && !has_key && arguments.is_empty() {
        return Err(BAD_NUMBER.into());
    }
    if separator.is_none() && has_key && !arguments.is_empty() {
        return Err(BAD_CONFLICT.into());
    }
    Ok(split(&arguments, words, separator, environment))
}

/// Whether the words without flags still have something before the separator.
fn key_before_separator(arguments: &[Vec<u8>], raw: &[Vec<u8>], separator: usize) -> bool {
    let mut at = raw.len();
    for argument in arguments.iter().rev() {
        match at.checked_sub(1).and_then(|at| raw.get(at)) {
            Some(word) if word == argument => at -= 1,
            _ if at == separator + 1 => return true,
            _ => {}
        }
    }
    false
}

fn split(
    arguments: &[Vec<u8>],
    raw: &[Vec<u8>],
    separator: Option<usize>,
    environment: &FromEnvironment,
) -> WatchArguments {
    let mut watch = environment.words();
    if environment.key.is_empty() {
        watch.clear();
    }
    watch.extend_from_slice(arguments);
    let Some(separator) = separator else {
        return WatchArguments {
            watch,
            command: Vec::new(),
        };
    };
    let command = raw[separator + 1..].to_vec();
    // The command's words are still among the others: cut at the last one that starts it.
    let end = watch.iter().rposition(|word| *word == command[0]);
    watch.truncate(end.unwrap_or(watch.len()));
    WatchArguments { watch, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace()
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    fn environment(key: &str) -> FromEnvironment {
        FromEnvironment {
            key: key.into(),
            range_end: Vec::new(),
        }
    }

    #[test]
    fn sorts_a_command_line() {
        for (typed, arguments, key, watch, command) in [
            (
                "p watch foo --rev 1 bar -- echo hi",
                "foo bar echo hi",
                "",
                "foo bar",
                "echo hi",
            ),
            ("p watch foo", "foo", "", "foo", ""),
            ("p watch -- echo hi", "echo hi", "k", "k", "echo hi"),
            ("p watch", "", "k", "k", ""),
        ] {
            let sorted = from_command_line(&words(typed), &words(arguments), &environment(key));
            let expected = WatchArguments {
                watch: words(watch),
                command: words(command),
            };
            assert_eq!(sorted, Ok(expected), "{typed}");
        }
        for (typed, arguments, key, error) in [
            ("p watch", "", "", BAD_NUMBER),
            ("p watch foo --", "foo", "", BAD_SEPARATOR),
            ("p watch foo", "foo", "k", BAD_CONFLICT),
            ("p watch foo -- echo", "foo echo", "k", BAD_CONFLICT),
        ] {
            let refused = from_command_line(&words(typed), &words(arguments), &environment(key));
            assert_eq!(refused, Err(error.into()), "{typed}");
        }
    }
}
