//! The fake kubelet itself: Pods written by hand, as the operator writes them, become processes.

use anyhow::{Context, Result, ensure};
use quorate_e2e::authority::{Authority, Subject};
use quorate_e2e::kubelet::lab::Lab;
use quorate_e2e::kubelet::{CLASS, FIXED_CLASS, Place};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;

/// A member's files under `/etc/quorate/tls/all`.
const TLS: &str = "/etc/quorate/tls/all";

fn api(namespace: &str, kind: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{kind}")
}

fn claim(name: &str, class: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// A Pod of one container that runs a shell's words.
fn shell(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main", "image": "shell:1", "command": ["/bin/sh", "-c", script],
            }],
        },
    })
}

fn main_state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|known| known["type"] == kind)?;
    found["status"].as_str()
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True")
}

/// A Secret with a certificate for all members of a namespace.
fn certificate(namespace: &str, directory: &Path, serial: u64) -> Result<Value> {
    let authority = Authority::new(directory, &format!("{namespace}-{serial}"))?;
    let names = ["localhost".to_owned(), format!("*.kv-peer.{namespace}.svc")];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pair = authority.issue("member", &Subject::at("member", serial, &names))?;
    Ok(json!({
        "metadata": {"name": "tls"},
        "stringData": {
            "ca.crt": authority.pem,
            "tls.crt": std::fs::read_to_string(pair.cert)?,
            "tls.key": std::fs::read_to_string(pair.key)?,
        },
    }))
}

fn member(namespace: &str, name: &str, all: &[&str]) -> Value {
    let url = |name: &str, port: u16| format!("https://{name}.kv-peer.{namespace}.svc:{port}");
    let peers = all.iter().map(|name| format!("{name}={}", url(name, 2380)));
    let peers = peers.collect::<Vec<_>>().join(",");
    let server = [
        format!("--cert-file={TLS}/tls.crt"),
        format!("--key-file={TLS}/tls.key"),
        format!("--trusted-ca-file={TLS}/ca.crt"),
        "--client-cert-auth".to_owned(),
    ];
    let peer = server.iter().map(|flag| flag.replacen("--", "--peer-", 1));
    let mut command = vec![
        "/usr/bin/quorate".to_owned(),
        "--name=$(POD_NAME)".to_owned(),
        "--data-dir=/var/lib/quorate/data".to_owned(),
        "--listen-client-urls=https://0.0.0.0:2379".to_owned(),
        "--listen-peer-urls=https://0.0.0.0:2380".to_owned(),
        "--listen-metrics-urls=http://0.0.0.0:2381".to_owned(),
        format!("--advertise-client-urls={}", url(name, 2379)),
        format!("--initial-advertise-peer-urls={}", url(name, 2380)),
        format!("--initial-cluster={peers}"),
    ];
    command.extend(server.iter().cloned().chain(peer));
    let probe = json!({"httpGet": {"path": "/readyz", "port": 2381}, "periodSeconds": 1});
    json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/instance": "kv"}},
        "spec": {
            "hostname": name,
            "subdomain": "kv-peer",
            "automountServiceAccountToken": false,
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "kv"}},
            }]}},
            "initContainers": [{
                "name": "gate", "image": "quorate:1", "command": ["/usr/bin/quorate", "--version"],
            }],
            "containers": [{
                "name": "quorate",
                "image": "quorate:1",
                "command": command,
                "env": [
                    {"name": "POD_NAME",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "ETCDCTL_ENDPOINTS", "value": "https://localhost:2379"},
                    {"name": "ETCDCTL_CACERT", "value": format!("{TLS}/ca.crt")},
                    {"name": "ETCDCTL_CERT", "value": format!("{TLS}/tls.crt")},
                    {"name": "ETCDCTL_KEY", "value": format!("{TLS}/tls.key")},
                ],
                "readinessProbe": probe,
                "lifecycle": {"preStop": {"exec": {
                    "command": ["/bin/sh", "-c", "/usr/bin/quoratectl put bye $POD_NAME"],
                }}},
                "volumeMounts": [
                    {"name": "data", "mountPath": "/var/lib/quorate"},
                    {"name": "tls", "mountPath": TLS},
                ],
            }],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": format!("{name}-data")}},
                {"name": "tls", "secret": {"secretName": "tls"}},
            ],
        },
    })
}

async fn ctl(lab: &Lab, place: &Place, args: &[&str]) -> Result<String> {
    let argv = [&["/usr/bin/quoratectl"], args].concat();
    let output = lab.kubelet.exec(place, "quorate", &argv).await?;
    ensure!(output.status.success(), "{args:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn members_run_as_pods_and_keep_their_claims() -> Result<()> {
    Lab::run(async |lab| {
        let namespace = "members";
        let names = ["kv-a", "kv-b", "kv-c"];
        let (pods, rest) = (api(namespace, "pods"), &lab.rest);
        lab.namespace(namespace).await?;
        let secret = certificate(namespace, lab.dir.path(), 1)?;
        rest.create(&api(namespace, "secrets"), &secret).await?;
        for name in names {
            let claims = api(namespace, "persistentvolumeclaims");
            rest.create(&claims, &claim(&format!("{name}-data"), CLASS))
                .await?;
            rest.create(&pods, &member(namespace, name, &names)).await?;
        }
        let mut nodes = std::collections::BTreeSet::new();
        for name in names {
            let pod = lab
                .until("a member", &format!("{pods}/{name}"), is_ready)
                .await?;
            nodes.insert(pod["spec"]["nodeName"].to_string());
        }
        ensure!(nodes.len() == 3, "anti-affinity: {nodes:?}");
        let first = Place::new(namespace, names[0]);
        ctl(lab, &first, &["put", "key", "value"]).await?;
        // A container that is killed begins again in the same Pod.
        lab.kubelet.signal(&first, "quorate", Signal::KILL)?;
        let path = format!("{pods}/{}", names[0]);
        let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
        let pod = lab
            .until("a restart", &path, |pod| again(pod) && is_ready(pod))
            .await?;
        let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
        ensure!(
            last["exitCode"] == 137 && last["reason"] == "Error",
            "{last}"
        );
        // A Pod that is deleted ends in peace, after its hook, and another one has its data.
        rest.delete(&path).await?;
        lab.until("the end of a Pod", &path, Value::is_null).await?;
        let second = Place::new(namespace, names[1]);
        let said = ctl(lab, &second, &["get", "bye", "--print-value-only"]).await?;
        ensure!(said.trim() == names[0], "the hook wrote {said:?}");
        let before = lab.kubelet.address(&second, "quorate")?;
        rest.create(&pods, &member(namespace, names[0], &names))
            .await?;
        lab.until("the same member", &path, is_ready).await?;
        ensure!(lab.kubelet.address(&first, "quorate")? != before);
        let said = ctl(lab, &first, &["get", "key", "--print-value-only"]).await?;
        ensure!(said.trim() == "value", "{said:?}");
        let said = ctl(lab, &first, &["endpoint", "status", "--cluster"]).await?;
        ensure!(said.lines().count() == 3, "{said}");
        Ok(())
    })
}

#[test]
fn files_follow_their_secret() -> Result<()> {
    Lab::run(async |lab| {
        let namespace = "files";
        lab.namespace(namespace).await?;
        let secrets = api(namespace, "secrets");
        let mut pod = shell("reader", "while :; do sleep 60; done");
        let volume = json!({"name": "tls", "secret": {"secretName": "tls"}});
        pod["spec"]["volumes"] = json!([volume]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "tls", "mountPath": TLS}]);
        let path = format!("{}/reader", api(namespace, "pods"));
        lab.rest.create(&api(namespace, "pods"), &pod).await?;
        // Without its Secret the Pod waits, and says why in an Event.
        let events = api(namespace, "events");
        let is_told = |list: &Value| {
            let items = list["items"].as_array();
            items
                .into_iter()
                .flatten()
                .any(|event| event["reason"] == "FailedMount")
        };
        lab.until("an Event", &events, is_told).await?;
        let waiting = lab.rest.get(&path).await?;
        ensure!(
            main_state(&waiting)["waiting"]["reason"] == "ContainerCreating",
            "{waiting}"
        );
        let secret = json!({"metadata": {"name": "tls"}, "stringData": {"a": "1", "b": "1"}});
        lab.rest.create(&secrets, &secret).await?;
        lab.until("a Pod that runs", &path, is_ready).await?;
        let place = Place::new(namespace, "reader");
        let read = async || {
            let script = format!("cat {TLS}/*; stat -Lc %a {TLS}/a");
            let output = lab
                .kubelet
                .exec(&place, "main", &["/bin/sh", "-c", &script])
                .await?;
            Ok::<_, anyhow::Error>(String::from_utf8(output.stdout)?)
        };
        let said = read().await?;
        ensure!(said == "11600\n", "{said:?}");
        let change = json!({"stringData": {"a": "2", "c": "2"}, "data": {"b": null}});
        lab.rest.merge(&format!("{secrets}/tls"), &change).await?;
        quorate_e2e::wait::until(
            "new files",
            quorate_e2e::kubelet::lab::DEADLINE,
            async || Ok((read().await? == "22600\n").then_some(())),
        )
        .await
    })
}

#[test]
fn pods_say_why_they_do_not_run() -> Result<()> {
    Lab::run(async |lab| {
        let namespace = "reasons";
        lab.namespace(namespace).await?;
        let pods = api(namespace, "pods");
        let mut image = shell("image", "true");
        image["spec"]["containers"][0]["image"] = json!("quorate:missing");
        let mut variable = shell("variable", "sleep 1000");
        variable["spec"]["containers"][0]["env"] = json!([{
            "name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "later", "key": "x"}},
        }]);
        let mut gate = shell("gate", "true");
        gate["spec"]["initContainers"] = json!([{
            "name": "gate", "image": "shell:1",
            "command": ["/bin/sh", "-c", "echo removed > /dev/termination-log; exit 41"],
        }]);
        let mut nowhere = shell("nowhere", "true");
        nowhere["spec"]["nodeSelector"] = json!({"topology.kubernetes.io/zone": "zone-x"});
        let crash = shell("crash", "exit 3");
        for pod in [&image, &variable, &gate, &nowhere, &crash] {
            lab.rest.create(&pods, pod).await?;
        }
        let waits = |reason: &'static str| {
            move |pod: &Value| main_state(pod)["waiting"]["reason"] == reason
        };
        lab.until(
            "a pull",
            &format!("{pods}/image"),
            waits("ImagePullBackOff"),
        )
        .await?;
        let path = format!("{pods}/variable");
        lab.until("a reason", &path, waits("CreateContainerConfigError"))
            .await?;
        let secret = json!({"metadata": {"name": "later"}, "stringData": {"x": "y"}});
        lab.rest.create(&api(namespace, "secrets"), &secret).await?;
        lab.until("a Pod that runs", &path, is_ready).await?;
        let path = format!("{pods}/crash");
        let pod = lab
            .until("back-off", &path, waits("CrashLoopBackOff"))
            .await?;
        let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
        ensure!(last["exitCode"] == 3, "{last}");
        let gated = |pod: &Value| {
            let status = &pod["status"]["initContainerStatuses"][0];
            let last = &status["lastState"]["terminated"];
            let is_told = last["exitCode"] == 41 && last["message"] == "removed\n";
            is_told && main_state(pod)["waiting"]["reason"] == "PodInitializing"
        };
        lab.until("a gate", &format!("{pods}/gate"), gated).await?;
        let unbound = |pod: &Value| condition(pod, "PodScheduled") == Some("False");
        lab.until("no node", &format!("{pods}/nowhere"), unbound)
            .await?;
        lab.rest
            .delete(&format!("/api/v1/namespaces/{namespace}"))
            .await?;
        let path = format!("/api/v1/namespaces/{namespace}");
        lab.until("the end of a namespace", &path, Value::is_null)
            .await?;
        Ok(())
    })
}

#[test]
fn volumes_grow_and_go_with_their_claims() -> Result<()> {
    Lab::run(async |lab| {
        let namespace = "volumes";
        lab.namespace(namespace).await?;
        let claims = api(namespace, "persistentvolumeclaims");
        let mut pod = shell("user", "echo kept > /data/file; sleep 1000");
        let mut volumes = Vec::new();
        for (name, class) in [("grows", CLASS), ("fixed", FIXED_CLASS)] {
            lab.rest.create(&claims, &claim(name, class)).await?;
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
        pod["spec"]["volumes"] = json!(volumes);
        let mount = json!([{"name": "grows", "mountPath": "/data"}]);
        pod["spec"]["containers"][0]["volumeMounts"] = mount;
        lab.rest.create(&api(namespace, "pods"), &pod).await?;
        let path = format!("{}/user", api(namespace, "pods"));
        lab.until("a Pod that runs", &path, is_ready).await?;
        let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        let refused = lab.rest.merge(&format!("{claims}/fixed"), &larger).await;
        let text = format!("{:#}", refused.err().context("it must not grow")?);
        ensure!(
            text.contains("only dynamically provisioned pvc can be resized"),
            "{text}"
        );
        let path = format!("{claims}/grows");
        lab.rest.merge(&path, &larger).await?;
        let has_grown = |claim: &Value| claim["status"]["capacity"]["storage"] == "2Gi";
        lab.until("a larger claim", &path, has_grown).await?;
        let folder = lab
            .kubelet
            .claim_folder(namespace, "grows")
            .context("a folder")?;
        quorate_e2e::wait::until("a file", quorate_e2e::kubelet::lab::DEADLINE, async || {
            Ok(folder.join("file").exists().then_some(()))
        })
        .await?;
        // A claim stays for as long as a Pod has it.
        lab.rest.delete(&path).await?;
        let is_going = |claim: &Value| claim["metadata"]["deletionTimestamp"].is_string();
        lab.until("a claim on its way out", &path, is_going).await?;
        ensure!(folder.join("file").exists());
        lab.rest
            .delete(&format!("{}/user", api(namespace, "pods")))
            .await?;
        lab.until("the end of a claim", &path, Value::is_null)
            .await?;
        quorate_e2e::wait::until(
            "no folder",
            quorate_e2e::kubelet::lab::DEADLINE,
            async || Ok((!folder.exists()).then_some(())),
        )
        .await
    })
}
