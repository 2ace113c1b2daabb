//! The generated files, the samples, and every rule of the three kinds.

use std::path::Path;

use serde::Deserialize as _;
use serde_json::json;

use super::*;
use crate::api::OWNED_FLAGS;

fn checkout() -> PathBuf {
    // At run time: checkouts that share a target directory share this program.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("..")
}

fn cluster(spec: Value) -> QuorateCluster {
    let object = json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "QuorateCluster",
        "metadata": { "name": "demo" }, "spec": spec,
    });
    serde_json::from_value(object).expect("it is one")
}

fn backup(spec: Value) -> QuorateBackup {
    let object = json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "QuorateBackup",
        "metadata": { "name": "one" }, "spec": spec,
    });
    serde_json::from_value(object).expect("it is one")
}

/// The words with which a cluster is refused; nothing if it is accepted.
fn refused(spec: Value) -> String {
    let checked = cluster(spec).validate_cel();
    checked
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

fn update_refused(old: Value, new: Value) -> String {
    let checked = cluster(new).validate_cel_update(&cluster(old));
    checked
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn generated_files_are_fresh() {
    for file in all().expect("they can be written") {
        let text = std::fs::read_to_string(checkout().join(&file.path)).unwrap_or_default();
        let path = file.path.display();
        assert!(text == file.text, "{path} is stale: run `make manifests`");
    }
}

#[test]
fn samples_are_accepted() {
    let mut samples = 0;
    for entry in std::fs::read_dir(checkout().join("manifests/samples")).expect("samples") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        for document in serde_norway::Deserializer::from_str(&text) {
            let value = Value::deserialize(document).expect("YAML");
            let checked = match value["kind"].as_str() {
                Some("QuorateCluster") => {
                    let cluster: QuorateCluster = serde_json::from_value(value).expect("one");
                    cluster.validate_cel()
                }
                Some("QuorateBackup") => {
                    let backup: QuorateBackup = serde_json::from_value(value).expect("one");
                    backup.validate_cel()
                }
                // What a sample needs beside it, of Kubernetes' own kinds.
                Some("Secret") => continue,
                kind => panic!("{}: {kind:?}", path.display()),
            };
            assert!(checked.is_ok(), "{}: {checked:?}", path.display());
            samples += 1;
        }
    }
    assert!(samples >= 7, "{samples}");
}

/// Each property below this one without a description, by its path.
fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        {
            found.push(path.clone());
        }
        undescribed(&path, property, found);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            undescribed(&format!("{path}[]"), &schema[inner], found);
        }
    }
}

#[test]
fn every_field_can_be_explained_and_none_is_nullable() {
    for crd in crds() {
        assert!(!crd.to_string().contains("\"nullable\""));
        assert!(!crd.to_string().contains("\"uint"));
        let kind = &crd["spec"]["names"]["kind"];
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            undescribed(&format!("{kind}.{part}"), &schema[part], &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// Each is accepted, or refused with these words.
fn judge<const N: usize>(cases: [(Value, &str); N]) {
    for (spec, words) in cases {
        let said = refused(spec.clone());
        assert_eq!(said.is_empty(), words.is_empty(), "{spec}: {said}");
        assert!(said.contains(words), "{spec}: {said}");
    }
}

#[test]
fn a_cluster_is_refused_with_what_would_be_right() {
    judge([
        (json!({}), ""),
        (json!({ "replicas": 1 }), ""),
        (json!({ "replicas": 2 }), "1, 3, 5 or 7"),
        (json!({ "replicas": 9 }), "1, 3, 5 or 7"),
        (json!({ "storage": { "medium": "Memory" } }), ""),
        (
            json!({ "replicas": 1, "storage": { "medium": "Memory" } }),
            "at least 3 replicas",
        ),
        (
            json!({ "engine": { "heartbeatMs": 100, "electionMs": 499 } }),
            "at least 5 times",
        ),
        (
            json!({ "engine": { "extraArgs": { "max-txn-ops": "1" } } }),
            "",
        ),
        (
            json!({ "engine": { "extraArgs": { "--max-txn-ops": "1" } } }),
            "without '--'",
        ),
        (json!({ "tls": { "peer": { "disabled": true } } }), ""),
        (
            json!({ "tls": { "peer": { "disabled": true, "secretName": "a" } } }),
            "one place",
        ),
        (
            json!({ "tls": { "client": {
                "operatorCA": {}, "certManager": { "issuerRef": { "name": "a" } },
            } } }),
            "one place",
        ),
        (
            json!({ "tls": { "client": { "operatorCA": {
                "validityHours": 10, "renewBeforeHours": 10,
            } } } }),
            "less than validityHours",
        ),
    ]);
}

#[test]
fn backups_and_beginnings_are_refused_with_what_would_be_right() {
    judge([
        (json!({ "backup": { "store": {} } }), "exactly one of"),
        (
            json!({ "backup": { "store": { "s3": { "bucket": "b" } } } }),
            "",
        ),
        (
            json!({ "backup": { "store": {
                "s3": { "bucket": "b" }, "pvc": { "claimName": "c" },
            } } }),
            "exactly one of",
        ),
        (
            json!({ "bootstrap": { "fromBackup": { "backup": "a" } } }),
            "",
        ),
        (
            json!({ "bootstrap": { "fromBackup": {} } }),
            "either backup",
        ),
        (
            json!({ "bootstrap": { "fromBackup": { "key": "k" } } }),
            "either backup",
        ),
        (
            json!({ "bootstrap": { "fromBackup": { "backup": "a", "key": "k", "store": {} } } }),
            "either backup",
        ),
    ]);
}

#[test]
fn an_edit_that_cannot_be_carried_out_is_refused() {
    let size = |size: &str| json!({ "storage": { "size": size } });
    let class = |class: &str| json!({ "storage": { "storageClassName": class } });
    let peer = |source: Value| json!({ "tls": { "peer": source } });
    let issuer = |name: &str| peer(json!({ "certManager": { "issuerRef": { "name": name } } }));
    let from = |name: &str| json!({ "bootstrap": { "fromBackup": { "backup": name } } });
    for (old, new, words) in [
        (json!({}), json!({ "replicas": 5 }), ""),
        (size("8Gi"), size("9Gi"), ""),
        (size("8Gi"), size("8192Mi"), ""),
        (size("8Gi"), size("7Gi"), "can only grow"),
        (class("a"), class("b"), "storageClassName cannot change"),
        (json!({}), class("b"), "storageClassName cannot change"),
        (
            json!({}),
            json!({ "storage": { "medium": "Memory" } }),
            "medium cannot change",
        ),
        (
            json!({ "version": "0.1.0" }),
            json!({ "version": "0.2.0" }),
            "",
        ),
        (
            json!({ "version": "0.1.0" }),
            json!({ "version": "0.2.0", "replicas": 5 }),
            "cannot change in one edit",
        ),
        (from("a"), from("a"), ""),
        (from("a"), from("b"), "bootstrap is consulted once"),
        (from("a"), json!({}), "bootstrap is consulted once"),
        (json!({}), from("a"), "bootstrap is consulted once"),
        (
            json!({}),
            peer(json!({ "operatorCA": { "validityHours": 1000 } })),
            "",
        ),
        (json!({}), peer(json!({ "disabled": false })), ""),
        (
            json!({}),
            peer(json!({ "disabled": true })),
            "certificates come from cannot change",
        ),
        (
            json!({}),
            peer(json!({ "secretName": "a" })),
            "certificates come from cannot change",
        ),
        (
            peer(json!({ "secretName": "a" })),
            peer(json!({ "secretName": "b" })),
            "certificates come from cannot change",
        ),
        (
            issuer("a"),
            issuer("b"),
            "certificates come from cannot change",
        ),
        (issuer("a"), issuer("a"), ""),
        (json!({}), json!({ "tls": { "clientAuth": "None" } }), ""),
    ] {
        let said = update_refused(old.clone(), new.clone());
        assert_eq!(said.is_empty(), words.is_empty(), "{old} to {new}: {said}");
        assert!(said.contains(words), "{old} to {new}: {said}");
    }
}

#[test]
fn the_name_of_a_cluster_fits_into_those_of_its_objects() {
    for (name, fits) in [
        ("demo", true),
        ("a-1", true),
        ("1a", false),
        ("a.b", false),
        ("a-", false),
        (&"a".repeat(40), true),
        (&"a".repeat(41), false),
    ] {
        let mut cluster = cluster(json!({}));
        cluster.metadata.name = Some(name.to_owned());
        assert_eq!(cluster.validate_cel().is_ok(), fits, "{name}");
    }
}

#[test]
fn every_flag_of_the_operator_is_refused_in_extra_args() {
    for flag in OWNED_FLAGS {
        let said = refused(json!({ "engine": { "extraArgs": { *flag: "x" } } }));
        assert!(said.contains("may not name one"), "{flag}: {said}");
    }
    // And the rule names no flag that the list has not.
    let text = crds()[0].to_string();
    let rule = text
        .split("!(key in [")
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    let named: Vec<&str> = rule.expect("the rule").split(',').collect();
    let owned: Vec<String> = OWNED_FLAGS.iter().map(|flag| format!("'{flag}'")).collect();
    assert_eq!(named, owned);
}

#[test]
fn backups_and_members_never_change() {
    let one = backup(json!({ "cluster": "demo" }));
    assert!(one.validate_cel().is_ok() && one.validate_cel_update(&one).is_ok());
    let other = backup(json!({ "cluster": "other" }));
    assert!(other.validate_cel_update(&one).is_err());
    let nowhere = backup(json!({ "cluster": "demo", "store": {} }));
    assert!(nowhere.validate_cel().is_err());

    let member = |birth: &str| -> QuorateMember {
        let object = json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "QuorateMember",
            "metadata": { "name": "demo-abcdef" }, "spec": { "cluster": "demo", "birth": birth },
        });
        serde_json::from_value(object).expect("it is one")
    };
    assert!(member("Join").validate_cel_update(&member("Join")).is_ok());
    assert!(member("Seed").validate_cel_update(&member("Join")).is_err());
}
