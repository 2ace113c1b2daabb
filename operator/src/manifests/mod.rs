//! What of the checkout is generated: CRDs and dashboards, as files for `kubectl` and the chart.

use std::path::PathBuf;

use kube::CustomResourceExt;
use serde_json::Value;

use crate::api::{QuorateBackup, QuorateCluster, QuorateMember};
use crate::monitoring;

const HEAD: &str = "# Made from operator/src/api by `quorate-manifests`; do not edit.\n";

/// A file that is generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its path in the checkout.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// The CRDs as an API server should have them.
#[must_use]
pub fn crds() -> Vec<Value> {
    let all = [
        QuorateCluster::crd(),
        QuorateMember::crd(),
        QuorateBackup::crd(),
    ];
    all.into_iter()
        .map(|crd| {
            let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
            tidy(&mut crd);
            crd
        })
        .collect()
}

/// Makes the schema say what is meant. Fields that may be left out are generated as `nullable`,
/// and an explicit null would then be kept and be no default any more: without, the API server
/// takes a null for a field that was left out. Formats that Kubernetes does not know are warned of
/// on each `kubectl apply`.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if let Some(Value::String(format)) = map.get_mut("format")
                && format.starts_with("uint")
            {
                "int64".clone_into(format);
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(all) => all.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Every generated file.
///
/// # Errors
/// Something cannot be written as YAML.
pub fn all() -> Result<Vec<Generated>, serde_norway::Error> {
    let mut files = Vec::new();
    for crd in crds() {
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let text = format!("{HEAD}{}", serde_norway::to_string(&crd)?);
        // The chart holds the same bytes, since helm reads nothing outside of it.
        for folder in ["manifests/crds", "charts/quorate/files/crds"] {
            files.push(Generated {
                path: PathBuf::from(format!("{folder}/quorate.dev_{plural}.yaml")),
                text: text.clone(),
            });
        }
    }
    let dashboard = monitoring::operator_dashboard();
    let text = serde_json::to_string_pretty(&dashboard).expect("a dashboard is plain data");
    files.push(Generated {
        path: PathBuf::from("charts/quorate/files/dashboards/quorate-operator.json"),
        text: text + "\n",
    });
    Ok(files)
}

#[cfg(test)]
mod tests;
