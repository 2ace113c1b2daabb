//! Flags from `ETCDCTL_*`, as etcd's pkg/flags reads them.

use super::FlagSet;
use crate::log::{Field, Level, write_log};
use crate::outcome::{Exit, code};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

const PREFIX: &str = "ETCDCTL_";
/// Names that are no flags but that `watch` reads.
const WATCH_NAMES: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// Fills inherited flags that the command line left alone from the environment.
///
/// A variable that names no flag is warned of. A text that cannot be read counts as zero, as it
/// does in etcdctl.
///
/// # Errors
/// A flag given both ways ends the program.
pub fn apply_environment(flags: &mut FlagSet, is_watch: bool) -> Result<(), Exit> {
    let given: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    apply(flags, is_watch, &given)
}

fn apply(
    flags: &mut FlagSet,
    is_watch: bool,
    environment: &[(OsString, OsString)],
) -> Result<(), Exit> {
    let mut used = BTreeSet::new();
    let mut shadowed = BTreeSet::new();
    if is_watch {
        used.extend(WATCH_NAMES.map(OsString::from));
    }
    let names: Vec<(&'static str, bool)> = flags
        .slots()
        .iter()
        .filter(|slot| slot.inherited)
        .map(|slot| (slot.flag.name, slot.changed))
        .collect();
    for (flag, changed) in names {
        let name = OsString::from(variable(flag));
        if changed {
            shadowed.insert(name);
            continue;
        }
        let value = environment.iter().find(|(known, _)| *known == name);
        if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
            // etcdctl goes on with the zero value when the text is wrong; so do we.
            flags.set(flag, value.as_bytes()).unwrap_or_default();
            used.insert(name);
        }
    }
    for (name, value) in environment {
        if used.contains(name) {
            continue;
        }
        if shadowed.contains(name) {
            let text = "conflicting environment variable is shadowed by corresponding command-line \
                        flag (either unset environment variable or disable flag))";
            let name = name.to_string_lossy();
            write_log(
                Level::Fatal,
                None,
                text,
                &[("environment-variable", Field::Text(&name))],
            );
            return Err(Exit::silent(code::ERROR));
        }
        if name.as_bytes().starts_with(PREFIX.as_bytes()) {
            let shown = format!("{}={}", name.to_string_lossy(), value.to_string_lossy());
            let text = "unrecognized environment variable";
            write_log(
                Level::Warn,
                None,
                text,
                &[("environment-variable", Field::Text(&shown))],
            );
        }
    }
    Ok(())
}

/// The variable that stands for a flag.
pub fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Flag, Kind};
    use std::time::Duration;

    fn flags() -> FlagSet {
        FlagSet::new(
            [],
            [
                Flag::of(Kind::Duration, "dial-timeout", "2s", ""),
                Flag::of(Kind::List, "endpoints", "127.0.0.1:2379", ""),
            ],
        )
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn fills_what_the_line_left_alone() {
        let mut flags = flags();
        let given = [
            ("ETCDCTL_ENDPOINTS", "a:1,b:2"),
            ("ETCDCTL_DIAL_TIMEOUT", "soon"),
        ];
        apply(&mut flags, false, &environment(&given)).unwrap();
        assert_eq!(flags.list("endpoints"), ["a:1", "b:2"]);
        assert_eq!(flags.duration("dial-timeout"), Duration::ZERO);
    }

    #[test]
    fn a_flag_given_both_ways_is_refused() {
        let mut flags = flags();
        flags.set("endpoints", b"c:3").unwrap();
        let refused = apply(
            &mut flags,
            false,
            &environment(&[("ETCDCTL_ENDPOINTS", "a:1")]),
        );
        assert_eq!(refused.unwrap_err().code, 1);
        assert_eq!(flags.list("endpoints"), ["c:3"]);
    }
}
