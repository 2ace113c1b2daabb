//! A real Prometheus beside the cluster, with the configuration that the real prometheus-operator
//! makes of the monitors and rules of a namespace.

use super::Own;
use super::sandbox::Job;
use super::space::{CONVERGE_DEADLINE, Space};
use crate::binaries::prometheus_operator;
use crate::wait::Patience;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The release that Debian has: prometheus-operator writes for it.
const RELEASE: &str = "v2.42.0";

const ADDRESS: &str = "127.0.0.1:19090";

/// Both programs, which end with the sandbox.
#[derive(Debug)]
pub struct Prometheus<'o> {
    own: &'o Own,
    operator: Job,
    server: Job,
}

impl<'o> Prometheus<'o> {
    /// Starts both on the monitors and rules of `space`; its files lie in `dir`.
    ///
    /// # Errors
    /// When a program is missing, or when no configuration is made.
    pub async fn start(own: &'o Own, space: &Space, dir: &Path) -> Result<Self> {
        let kubeconfig = own.identity.kubeconfig("admin");
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--namespaces={}", space.name),
            "--web.listen-address=127.0.0.1:19091".to_owned(),
        ];
        let program = prometheus_operator()?;
        let operator = own.sandbox.start("prometheus-operator", &program, &flags)?;
        // No Pods: its configuration is all that is wanted.
        let instance = json!({"apiVersion": "monitoring.coreos.com/v1", "spec": {
            "version": RELEASE,
            "replicas": 0,
            "serviceMonitorSelector": {},
            "ruleSelector": {},
            "scrapeInterval": "2s",
            "evaluationInterval": "2s",
        }});
        space.apply("Prometheus", "e2e", &instance).await?;
        let config = dir.join("prometheus.yaml");
        write_config(space, &config, &kubeconfig).await?;
        let flags = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let program = Path::new("/usr/bin/prometheus");
        let server = own.sandbox.start("prometheus", program, &flags)?;
        Ok(Self {
            own,
            operator,
            server,
        })
    }

    /// Waits until the first value of a query satisfies the condition.
    ///
    /// # Errors
    /// When the deadline passes; the message says what the answer was.
    pub async fn until(
        &mut self,
        query: &str,
        deadline: Duration,
        condition: impl Fn(f64) -> bool,
    ) -> Result<()> {
        let patience = Patience::new(query, deadline);
        loop {
            self.operator.is_running()?;
            self.server.is_running()?;
            let url = format!("http://{ADDRESS}");
            let words = ["promtool", "query", "instant", &url, query];
            // It does not listen at once.
            let answer = self.own.sandbox.run(&words).await;
            let value = answer.as_ref().ok().and_then(|text| first_value(text));
            if value.is_some_and(&condition) {
                return Ok(());
            }
            let paused = patience.pause().await;
            paused.with_context(|| format!("the last answer: {answer:?}"))?;
        }
    }
}

/// The number in `{labels} => 3 @[1700000000]`.
fn first_value(text: &str) -> Option<f64> {
    let (_, rest) = text.split_once("=> ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Writes what prometheus-operator made, once it names a job, with its rules beside it.
async fn write_config(space: &Space, file: &Path, kubeconfig: &Path) -> Result<()> {
    let patience = Patience::new("a configuration with a job", CONVERGE_DEADLINE);
    let config = loop {
        let secret = space.get(&["secret", "prometheus-e2e"]).await?;
        if let Some(packed) = secret["data"]["prometheus.yaml.gz"].as_str() {
            let config = unpack(&STANDARD.decode(packed)?).await?;
            if config.contains("job_name: serviceMonitor/") && rules(space).await?.is_some() {
                break config;
            }
        }
        patience.pause().await?;
    };
    let folder = file.with_extension("rules");
    std::fs::create_dir_all(&folder)?;
    let found = rules(space).await?.context("rules")?;
    for (name, text) in found["data"].as_object().context("rules by file")? {
        std::fs::write(folder.join(name), text.as_str().context("text")?)?;
    }
    let config = adapted(&config, &folder, kubeconfig);
    std::fs::write(file, config)?;
    Ok(())
}

/// The rules that prometheus-operator gathered.
async fn rules(space: &Space) -> Result<Option<Value>> {
    let map = space
        .get(&["configmap", "prometheus-e2e-rulefiles-0"])
        .await?;
    Ok((!map["data"].is_null()).then_some(map))
}

/// The same for a Prometheus outside of a Pod: where the API server is, and where rules lie.
fn adapted(config: &str, rules: &Path, kubeconfig: &Path) -> String {
    let mut lines = Vec::new();
    for line in config.lines() {
        if line.contains("/etc/prometheus/rules/") {
            lines.push(format!("- {}/*.yaml", rules.display()));
            continue;
        }
        lines.push(line.to_owned());
        if let Some(indent) = line.find("- role: ") {
            let blank = " ".repeat(indent + 2);
            lines.push(format!("{blank}kubeconfig_file: {}", kubeconfig.display()));
        }
    }
    lines.join("\n")
}

async fn unpack(packed: &[u8]) -> Result<String> {
    let mut child = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let (written, output) = tokio::join!(
        async {
            let written = stdin.write_all(packed).await;
            drop(stdin);
            written
        },
        child.wait_with_output()
    );
    written?;
    let output = output?;
    ensure!(output.status.success(), "gzip: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
