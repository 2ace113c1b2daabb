//! `--feature-gates`: all of etcd's gates are known, two have an effect.

use super::source::{Error, Notice, Values, parse_bool};
use super::table::FEATURE_GATES;

/// The gates that do something here; both are off by default and alpha in etcd.
const WORKING: [&str; 2] = ["InitialCorruptCheck", "CompactHashCheck"];

/// The gates that were named, with their values, in order.
#[derive(Debug, Default)]
pub struct Gates(Vec<(String, bool)>);

impl Gates {
    /// Whether one of [`WORKING`] is on: as it was named last, or as `AllAlpha`.
    pub fn is_on(&self, name: &str) -> bool {
        let last = |wanted: &str| {
            let mut named = self.0.iter().rev();
            named.find(|(gate, _)| gate == wanted).map(|(_, on)| *on)
        };
        last(name).or_else(|| last("AllAlpha")).unwrap_or(false)
    }
}

/// Checks the gates that are named and notes those that are not at their default.
///
/// etcd: pkg/featuregate/feature_gate.go, server/embed/config.go (LeaseCheckpointPersist).
pub fn check(values: &mut Values) -> Result<Gates, Error> {
    let mut given: Vec<(String, bool)> = Vec::new();
    for part in values.texts("feature-gates") {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Error::Invalid(format!("missing bool value for {part}")));
        };
        let (name, value) = (name.trim(), value.trim());
        if !FEATURE_GATES.iter().any(|(gate, _)| *gate == name) {
            return Err(Error::Invalid(format!("unrecognized feature gate: {name}")));
        }
        let Some(value) = parse_bool(value) else {
            return Err(Error::Invalid(format!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: \
                 invalid syntax"
            )));
        };
        given.push((name.to_owned(), value));
    }
    let enabled = |name| {
        let last = given.iter().rev().find(|(gate, _)| gate == name);
        last.is_some_and(|(_, value)| *value)
    };
    if enabled("LeaseCheckpointPersist") && !enabled("LeaseCheckpoint") {
        return Err(Error::Invalid(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint"
                .to_owned(),
        ));
    }
    for (name, value) in &given {
        let works = WORKING.contains(&name.as_str());
        if !works && !FEATURE_GATES.contains(&(name.as_str(), *value)) {
            values.notices.push(Notice {
                flag: "feature-gates".to_owned(),
                value: format!("{name}={value}"),
                text: "this feature gate has no effect".to_owned(),
            });
        }
    }
    Ok(Gates(given))
}
