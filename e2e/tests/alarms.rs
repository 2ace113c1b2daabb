//! Quota, alarms and downgrades beside the real etcd: what is refused, with which words, where it
//! is told, and how a store that is full comes back.

use anyhow::{Context, Result, bail, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cli::{Case, Cli, How};
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::{raw, rpc, wait};
use quorate_proto::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::time::Duration;

/// Small enough to be filled in a moment, large enough for what an empty store takes.
const QUOTA_BYTES: usize = 24 << 20;
const VALUE_BYTES: usize = 512 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered, with the step that it answered to.
type Seen = Vec<(String, String)>;

struct Server {
    cluster: Cluster,
    member: u64,
    seen: Seen,
}

impl Server {
    async fn start(kind: Kind, flags: &[String]) -> Result<Self> {
        let mut options = Options::new(kind, 1);
        options.extra_flags = flags.to_vec();
        let cluster = Cluster::start(&options).await?;
        let status = rpc::status(cluster.ports()[0]).await?;
        Ok(Self {
            cluster,
            member: status.header.context("a header")?.member_id,
            seen: Seen::new(),
        })
    }

    fn port(&self) -> u16 {
        self.cluster.ports()[0]
    }

    /// One HTTP request; returns the status and the body.
    async fn http(&self, method: &str, path: &str, body: &str) -> Result<(String, String)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw::send(self.port(), request.as_bytes()).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        let status = head.split(' ').nth(1).context("a status")?;
        Ok((status.to_owned(), body.trim().to_owned()))
    }

    /// Notes what a page says; its lines may stand in any order.
    async fn page(&mut self, path: &str) -> Result<()> {
        let (status, body) = self.http("GET", path, "").await?;
        let mut lines: Vec<&str> = body.lines().collect();
        lines.sort_unstable();
        let seen = format!("{status} {}", lines.join("|"));
        self.seen.push((path.to_owned(), seen));
        Ok(())
    }

    /// Notes the answer of an RPC called through the JSON gateway, without what differs.
    async fn call(&mut self, path: &str, body: &str) -> Result<()> {
        let body = body.replace("MEMBER", &self.member.to_string());
        let (status, answer) = self.http("POST", path, &body).await?;
        let mut json: serde_json::Value =
            serde_json::from_str(answer.trim()).with_context(|| answer.clone())?;
        if let Some(json) = json.as_object_mut() {
            json.remove("header");
        }
        let seen = json.to_string().replace(&self.member.to_string(), "MEMBER");
        // How many values fill a store is its own affair.
        let seen = without_revisions(&seen);
        self.seen
            .push((format!("{path} {body}"), format!("{status} {seen}")));
        Ok(())
    }

    /// Notes the errors and the downgrade that Status tells.
    async fn status(&mut self) -> Result<()> {
        let status = rpc::status(self.port()).await?;
        let errors = status.errors.join(";");
        // Go's text form has one blank or two between fields, from build to build.
        let errors = errors
            .replace(&self.member.to_string(), "MEMBER")
            .replace("  ", " ");
        let seen = format!("{errors} {:?}", status.downgrade_info);
        self.seen.push(("Status".to_owned(), seen));
        Ok(())
    }

    /// Every kind of call that an alarm might refuse.
    async fn every_call(&mut self) -> Result<()> {
        for (path, body) in [
            ("/v3/kv/put", r#"{"key":"YQ==","value":"YQ=="}"#),
            (
                "/v3/kv/txn",
                r#"{"success":[{"request_put":{"key":"YQ==","value":"Yg=="}}]}"#,
            ),
            (
                "/v3/kv/txn",
                r#"{"failure":[{"request_put":{"key":"YQ==","value":"Yg=="}}]}"#,
            ),
            (
                "/v3/kv/txn",
                r#"{"success":[{"request_range":{"key":"eg=="}}]}"#,
            ),
            (
                "/v3/kv/txn",
                r#"{"success":[{"request_delete_range":{"key":"eg=="}}]}"#,
            ),
            (
                "/v3/kv/txn",
                r#"{"success":[{"request_txn":{"success":[{"request_range":{"key":"eg=="}}]}}]}"#,
            ),
            ("/v3/kv/range", r#"{"key":"eg=="}"#),
            ("/v3/kv/range", r#"{"key":"eg==","serializable":true}"#),
            ("/v3/kv/deleterange", r#"{"key":"eg=="}"#),
            ("/v3/lease/grant", r#"{"TTL":"600","ID":"77"}"#),
            ("/v3/lease/leases", "{}"),
            ("/v3/lease/revoke", r#"{"ID":"77"}"#),
            ("/v3/kv/compaction", r#"{"revision":"1"}"#),
            ("/v3/maintenance/alarm", "{}"),
            ("/v3/maintenance/alarm", r#"{"alarm":"NOSPACE"}"#),
            ("/v3/maintenance/alarm", r#"{"alarm":"CORRUPT"}"#),
        ] {
            self.call(path, body).await?;
        }
        self.status().await?;
        for path in [
            "/health",
            "/health?exclude=NOSPACE",
            "/health?exclude=CORRUPT",
            "/health?exclude=NOSPACE&exclude=CORRUPT",
            "/readyz",
            "/readyz?exclude=data_corruption",
            "/readyz/data_corruption",
            "/livez",
        ] {
            self.page(path).await?;
        }
        Ok(())
    }

    /// Whether the metrics tell of an alarm of this member. etcd counts each raising, also of one
    /// that is raised already, so that its value is not compared.
    async fn is_in_metrics(&self) -> Result<bool> {
        let (_, metrics) = self.http("GET", "/metrics", "").await?;
        let series = format!(
            "etcd_debugging_server_alarms{{alarm_type=\"NOSPACE\",server_id=\"{:x}\"}} ",
            self.member
        );
        Ok(metrics.lines().any(|line| line.starts_with(&series)))
    }

    /// Overwrites one key until the store is full; the words with which it says so.
    async fn fill(&mut self) -> Result<()> {
        let mut client = rpc::kv(rpc::channel(self.port(), PATIENCE)?);
        let mut random = StdRng::seed_from_u64(7);
        let mut value = vec![0; VALUE_BYTES];
        for count in 0..10 * QUOTA_BYTES / VALUE_BYTES {
            // Nothing that could be compressed.
            random.fill_bytes(&mut value);
            let request = pb::PutRequest {
                key: "large".into(),
                value: value.clone().into(),
                ..Default::default()
            };
            if let Err(refused) = client.put(request).await {
                ensure!(count > 4, "full after {count} values: {refused}");
                let text = format!("{:?} {}", refused.code(), refused.message());
                self.seen.push(("filled".to_owned(), text));
                return Ok(());
            }
        }
        bail!("ten times the quota went in")
    }

    /// Compacts, defragments and disarms; then there is room again.
    async fn empty(&mut self) -> Result<()> {
        let revision = rpc::linearizable_read(self.port()).await?;
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        let (status, answer) = self.http("POST", "/v3/kv/compaction", &body).await?;
        ensure!(status == "200", "{answer}");
        // The compaction deletes and the engine gives back when they come to it.
        wait::until("room in the store", PATIENCE, async || {
            self.http("POST", "/v3/maintenance/defragment", "{}")
                .await?;
            let size = rpc::status(self.port()).await?.db_size;
            Ok((size < QUOTA_BYTES as i64 / 2).then_some(()))
        })
        .await?;
        let off = r#"{"action":"DEACTIVATE","memberID":"MEMBER","alarm":"NOSPACE"}"#;
        self.call("/v3/maintenance/alarm", off).await?;
        self.call("/v3/maintenance/alarm", off).await
    }
}

fn without_revisions(json: &str) -> String {
    let mut pieces = json.split("\"revision\":\"");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let rest = piece.trim_start_matches(|character: char| character.is_ascii_digit());
        text + "\"revision\":\"*" + rest
    })
}

/// Shows every step in which ours differs from etcd.
fn same(etcd: &Seen, ours: &Seen) -> Result<()> {
    let pairs = etcd.iter().zip(ours);
    let faults: Vec<String> = pairs
        .filter(|(etcd, ours)| etcd.1 != ours.1)
        .map(|(etcd, ours)| format!("{}\n  etcd: {}\n  ours: {}", etcd.0, etcd.1, ours.1))
        .collect();
    ensure!(
        etcd.len() == ours.len() && faults.is_empty(),
        "{}",
        faults.join("\n")
    );
    Ok(())
}

async fn full_and_back(kind: Kind) -> Result<Seen> {
    let flags = [format!("--quota-backend-bytes={QUOTA_BYTES}")];
    let mut server = Server::start(kind, &flags).await?;
    for _ in 0..2 {
        server.fill().await?;
        server.every_call().await?;
        ensure!(
            server.is_in_metrics().await?,
            "raised and not in the metrics"
        );
        server.empty().await?;
        server.every_call().await?;
    }
    let told = server.is_in_metrics().await?;
    ensure!(
        !told || kind == Kind::Etcd,
        "disarmed and still in the metrics"
    );
    Ok(server.seen)
}

#[tokio::test]
async fn a_full_store_refuses_and_comes_back_like_etcds() -> Result<()> {
    let etcd = full_and_back(Kind::Etcd).await?;
    same(&etcd, &full_and_back(Kind::Quorate).await?)
}

async fn raised_by_hand(kind: Kind) -> Result<Seen> {
    let mut server = Server::start(kind, &[]).await?;
    server
        .call("/v3/lease/grant", r#"{"TTL":"600","ID":"77"}"#)
        .await?;
    let alarm = "/v3/maintenance/alarm";
    for body in [
        r#"{"action":"ACTIVATE","memberID":"0","alarm":"CORRUPT"}"#,
        r#"{"action":"ACTIVATE","memberID":"0","alarm":"CORRUPT"}"#,
        r#"{"action":"ACTIVATE","memberID":"5","alarm":"NONE"}"#,
        r#"{"action":"ACTIVATE","memberID":"MEMBER","alarm":"NOSPACE"}"#,
        r#"{"action":"DEACTIVATE","memberID":"5","alarm":"CORRUPT"}"#,
        r#"{"action":"DEACTIVATE","memberID":"0","alarm":"NONE"}"#,
    ] {
        server.call(alarm, body).await?;
    }
    // etcd lists alarms of several types in no order; each type has one here.
    server.call(alarm, r#"{"alarm":"NOSPACE"}"#).await?;
    server
        .call(
            alarm,
            r#"{"action":"DEACTIVATE","memberID":"MEMBER","alarm":"NOSPACE"}"#,
        )
        .await?;
    server.every_call().await?;
    server
        .call(
            alarm,
            r#"{"action":"DEACTIVATE","memberID":"0","alarm":"CORRUPT"}"#,
        )
        .await?;
    server.every_call().await?;
    Ok(server.seen)
}

#[tokio::test]
async fn alarms_raised_by_hand_are_like_etcds() -> Result<()> {
    let etcd = raised_by_hand(Kind::Etcd).await?;
    same(&etcd, &raised_by_hand(Kind::Quorate).await?)
}

async fn downgrades(kind: Kind) -> Result<Seen> {
    let mut server = Server::start(kind, &[]).await?;
    let path = "/v3/maintenance/downgrade";
    for version in [
        "3.6",
        "3.6.0",
        "3.6.9",
        "3.6.0-rc.1",
        "3.5",
        "3.7",
        "4.0",
        "3",
        "",
        "x",
    ] {
        let body = format!(r#"{{"action":"VALIDATE","version":"{version}"}}"#);
        server.call(path, &body).await?;
    }
    for body in [
        r#"{"action":"CANCEL"}"#,
        r#"{"action":"ENABLE","version":"3.5"}"#,
        r#"{"action":"ENABLE","version":"3.6.4"}"#,
        r#"{"action":"ENABLE","version":"3.6"}"#,
        r#"{"action":"VALIDATE","version":"3.6"}"#,
    ] {
        server.call(path, body).await?;
        server.status().await?;
    }
    server.call(path, r#"{"action":"CANCEL"}"#).await?;
    server.status().await?;
    Ok(server.seen)
}

#[tokio::test]
async fn downgrades_are_like_etcds() -> Result<()> {
    let etcd = downgrades(Kind::Etcd).await?;
    same(&etcd, &downgrades(Kind::Quorate).await?)
}

/// The command line tools, on a member with an alarm and without.
fn cases() -> Vec<Case> {
    [
        "alarm list",
        "alarm list -w json",
        "endpoint health",
        "put a b",
        "get a",
        "alarm disarm",
        "alarm list",
        "alarm disarm -w json",
        "endpoint health",
        "put a b",
        "endpoint hashkv",
        "endpoint hashkv --cluster",
        "endpoint hashkv --rev 1",
        "endpoint hashkv --rev 99",
        "defrag",
        "defrag --cluster",
        "downgrade validate 3.6",
        "downgrade validate 3.5",
        "downgrade validate",
        "downgrade enable x",
        "downgrade enable 3.6",
        "downgrade enable 3.6",
        "downgrade cancel",
        "downgrade cancel",
        "alarm list more",
    ]
    .into_iter()
    .map(Case::new)
    .map(|case| match case.args.last().map(String::as_str) {
        Some("json") => case.how(How::JsonNames),
        _ => case,
    })
    .collect()
}

async fn tool(tool: Kind, server: Kind) -> Result<Seen> {
    let mut server = Server::start(server, &[]).await?;
    let raised = r#"{"action":"ACTIVATE","memberID":"MEMBER","alarm":"NOSPACE"}"#;
    server.call("/v3/maintenance/alarm", raised).await?;
    let mut cli = Cli::new(tool, &server.cluster).await?;
    for case in cases() {
        let output = cli.run(&case).await?;
        server
            .seen
            .push((case.args.join(" "), format!("{output:?}")));
    }
    Ok(server.seen)
}

#[tokio::test]
async fn tools_tell_of_alarms_and_downgrades_alike() -> Result<()> {
    let expected = tool(Kind::Etcd, Kind::Etcd).await?;
    same(&expected, &tool(Kind::Quorate, Kind::Etcd).await?)?;
    same(&expected, &tool(Kind::Etcd, Kind::Quorate).await?)?;
    same(&expected, &tool(Kind::Quorate, Kind::Quorate).await?)
}
