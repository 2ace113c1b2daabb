//! The environment of a container, as a kubelet resolves it.

use super::Shared;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use std::collections::BTreeMap;

/// Name and value, or why the container cannot be started.
pub(super) type Resolved = Result<BTreeMap<String, String>, String>;

/// What fields of the Pod and other objects say; only literals are rewritten, by the caller.
pub(super) struct Resolver<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pod: &'a Pod,
    pub(super) address: &'a str,
    /// Applied to what the Pod itself says.
    pub(super) rewrite: &'a dyn Fn(&str) -> String,
}

impl Resolver<'_> {
    /// # Errors
    /// What a kubelet would say in `CreateContainerConfigError`.
    pub(super) fn all(&self, container: &Container) -> Resolved {
        let mut resolved = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let mut found = BTreeMap::new();
            if let Some(secret) = &source.secret_ref {
                found = self.whole_secret(&secret.name, secret.optional)?;
            }
            if let Some(config) = &source.config_map_ref {
                found = self.whole_config(&config.name, config.optional)?;
            }
            let named = found.into_iter();
            resolved.extend(named.map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        for variable in container.env.iter().flatten() {
            if let Some(value) = self.one(variable, &resolved)? {
                resolved.insert(variable.name.clone(), value);
            }
        }
        Ok(resolved)
    }

    fn one(
        &self,
        variable: &EnvVar,
        known: &BTreeMap<String, String>,
    ) -> Result<Option<String>, String> {
        match &variable.value_from {
            Some(source) => self.read_source(source),
            None => {
                let value = variable.value.as_deref().unwrap_or_default();
                Ok(Some((self.rewrite)(&expand(value, known))))
            }
        }
    }

    fn read_source(&self, source: &EnvVarSource) -> Result<Option<String>, String> {
        if let Some(field) = &source.field_ref {
            return self.field(field).map(Some);
        }
        if let Some(key) = &source.secret_key_ref {
            let values = self.whole_secret(&key.name, key.optional)?;
            return wanted(values, &key.key, key.optional, "secret", &key.name);
        }
        if let Some(key) = &source.config_map_key_ref {
            let values = self.whole_config(&key.name, key.optional)?;
            return wanted(values, &key.key, key.optional, "configmap", &key.name);
        }
        Err("the fake kubelet knows no such source of a variable".to_owned())
    }

    fn field(&self, field: &ObjectFieldSelector) -> Result<String, String> {
        let (meta, spec) = (&self.pod.metadata, self.pod.spec.as_ref());
        let path = field.field_path.as_str();
        let value = match path {
            "metadata.name" => meta.name.clone(),
            "metadata.namespace" => meta.namespace.clone(),
            "metadata.uid" => meta.uid.clone(),
            "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
            "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
            "status.podIP" | "status.podIPs" => Some(self.address.to_owned()),
            "status.hostIP" => Some("127.0.0.1".to_owned()),
            _ => {
                let of = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
                let label = of("metadata.labels['").map(|key| (key, &meta.labels));
                let annotation = of("metadata.annotations['").map(|key| (key, &meta.annotations));
                let (key, values) = label
                    .or(annotation)
                    .ok_or_else(|| format!("the fake kubelet knows no field {path}"))?;
                values.as_ref().and_then(|values| values.get(key).cloned())
            }
        };
        Ok(value.unwrap_or_default())
    }

    fn whole_secret(&self, name: &str, optional: Option<bool>) -> Resolved {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        match self.shared.secret(namespace, name) {
            Some(secret) => Ok(texts(secret.data.clone().unwrap_or_default())),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("secret {name:?} not found")),
        }
    }

    fn whole_config(&self, name: &str, optional: Option<bool>) -> Resolved {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        match self.shared.config_map(namespace, name) {
            Some(config) => Ok(config.data.clone().unwrap_or_default()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("configmap {name:?} not found")),
        }
    }
}

fn texts(data: BTreeMap<String, ByteString>) -> BTreeMap<String, String> {
    let text = |bytes: ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
    data.into_iter()
        .map(|(key, value)| (key, text(value)))
        .collect()
}

fn wanted(
    mut values: BTreeMap<String, String>,
    key: &str,
    optional: Option<bool>,
    kind: &str,
    name: &str,
) -> Result<Option<String>, String> {
    match values.remove(key) {
        None if optional != Some(true) => Err(format!("couldn't find key {key} in {kind} {name}")),
        value => Ok(value),
    }
}

/// Replaces `$(NAME)` by what is known; `$$` is a dollar.
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut written = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        written.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let named = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix('$') {
            written.push('$');
            rest = after;
        } else if let Some((name, after)) = named
            && let Some(value) = known.get(name)
        {
            written.push_str(value);
            rest = after;
        } else {
            written.push('$');
        }
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_variables_are_expanded() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let cases = [
            ("$(A)-$(A)", "1-1"),
            ("$(B)$$(A)$", "$(B)$(A)$"),
            ("x", "x"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expand(text, &known), wanted);
        }
    }
}
