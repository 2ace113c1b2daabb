//! The configuration file: YAML or JSON with the names of flags as keys.
//!
//! etcd: server/embed/config.go (configYAML), etcd.conf.yml.sample.

use serde_norway::{Mapping, Value};

use super::source::{Error, Notice, Values};
use super::table::{self, Kind};

/// Keys whose value is a map, with what stands before the names in it to make a flag's name.
const SECTIONS: [(&str, &str); 4] = [
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
    ("socket-options", "socket-"),
    ("discovery-config", "discovery-"),
];

/// Names inside the two TLS sections that differ from the flag's.
const TLS_NAMES: [(&str, &str); 5] = [
    ("peer-allowed-cn", "peer-cert-allowed-cn"),
    ("peer-allowed-hostname", "peer-cert-allowed-hostname"),
    ("allowed-hostname", "client-cert-allowed-hostname"),
    ("allowed-cn", "client-cert-allowed-cn"),
    ("crl-file", "client-crl-file"),
];

/// Reads the file at `path`.
pub fn read(path: &str) -> Result<Values, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Invalid(format!("open {path}: {error}")))?;
    parse(&text).map_err(|error| Error::Invalid(format!("{path}: {error}")))
}

fn parse(text: &str) -> Result<Values, String> {
    let mut values = Values::of_file();
    let map = match serde_norway::from_str(text).map_err(|error| error.to_string())? {
        Value::Null => Mapping::new(),
        Value::Mapping(map) => map,
        _ => return Err("it is not a map of flags to values".to_owned()),
    };
    for (key, value) in &map {
        let key = key.as_str().ok_or("a key is not a text")?;
        let section = SECTIONS.iter().find(|(name, _)| *name == key);
        match (section, value) {
            (Some((_, prefix)), Value::Mapping(inner)) => {
                for (name, value) in inner {
                    let name = name.as_str().ok_or("a key is not a text")?;
                    set(&mut values, &flag_name(prefix, name), value)?;
                }
            }
            (Some(_), Value::Null) => {}
            (Some(_), _) => return Err(format!("invalid {key}")),
            (None, value) => set(&mut values, key, value)?,
        }
    }
    Ok(values)
}

fn flag_name(prefix: &str, name: &str) -> String {
    let name = format!("{prefix}{name}");
    TLS_NAMES
        .iter()
        .find(|(inner, _)| *inner == name)
        .map_or(name, |(_, flag)| (*flag).to_owned())
}

fn set(values: &mut Values, name: &str, value: &Value) -> Result<(), String> {
    let Some(flag) = table::find(name) else {
        values.notices.push(Notice {
            flag: name.to_owned(),
            value: String::new(),
            text: "unknown key in the configuration file: ignored".to_owned(),
        });
        return Ok(());
    };
    let text = scalar(flag.kind, value).ok_or_else(|| format!("invalid value for {name}"))?;
    if text.is_empty() && flag.kind != Kind::Text {
        return Ok(());
    }
    values
        .set(flag, &text)
        .map_err(|error| format!("invalid value {text:?} for {name}: {error}"))
}

/// The value as it would stand on the command line.
fn scalar(kind: Kind, value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        // Go reads a plain number as nanoseconds.
        Value::Number(value) if kind == Kind::Duration => Some(format!("{value}ns")),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Sequence(items) => items
            .iter()
            .map(|item| scalar(kind, item))
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_etcds_sample() {
        let values = parse(
            "name: 'm1'\n\
             data-dir:\n\
             heartbeat-interval: 50\n\
             pre-vote: true\n\
             listen-client-urls: http://localhost:1,http://localhost:2\n\
             grpc-keepalive-timeout: 5000000000\n\
             grpc-keepalive-interval: 1h\n\
             log-outputs: [stderr, /tmp/x.log]\n\
             client-transport-security:\n  cert-file: a.pem\n  client-cert-auth: true\n\
             peer-transport-security:\n  trusted-ca-file: ca.pem\n  allowed-cn: [x, y]\n\
             \x20 skip-client-san-verification: true\n\
             socket-options:\n  reuse-port: true\n\
             what: 1\n",
        )
        .expect("it is in order");
        assert_eq!(values.text("name"), "m1");
        assert_eq!(values.text("data-dir"), "");
        assert_eq!(values.text("heartbeat-interval"), "50");
        assert_eq!(values.duration("grpc-keepalive-timeout").as_secs(), 5);
        assert_eq!(values.duration("grpc-keepalive-interval").as_secs(), 3600);
        assert_eq!(values.texts("log-outputs"), ["stderr", "/tmp/x.log"]);
        assert_eq!(values.text("cert-file"), "a.pem");
        assert!(values.bool("client-cert-auth"));
        assert_eq!(values.text("peer-trusted-ca-file"), "ca.pem");
        assert_eq!(values.text("peer-cert-allowed-cn"), "x,y");
        assert!(values.bool("peer-skip-client-san-verification"));
        assert!(values.bool("socket-reuse-port"));
        assert_eq!(values.notices.len(), 1);
        assert_eq!(values.notices[0].flag, "what");
    }

    #[test]
    fn wrong_files_are_refused() {
        assert!(parse("- a\n- b\n").is_err());
        assert!(parse("heartbeat-interval: soon\n").is_err());
        assert!(parse("peer-transport-security: yes\n").is_err());
        assert!(parse("name: {a: b}\n").is_err());
        assert!(read("/nonexistent/quorate.yml").is_err());
    }
}
