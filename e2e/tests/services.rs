//! Everything beside keys, step by step on etcd and on Quorate: locks, elections, watch's corners,
//! members, alarms, health, HTTP and the JSON gateway. What both say must be the same.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::player::{mask, rendered};
use quorate_e2e::rpc::{self, ClusterClient, LeaseClient, MaintenanceClient};
use quorate_e2e::watcher::{Stream, request};
use quorate_e2e::{raw, wait};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::v3electionpb as election;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3lockpb as lock;
use quorate_proto::v3lockpb::lock_client::LockClient;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

/// What a scenario saw: a name and an answer for each step.
type Seen = Vec<(String, String)>;

/// Plays a scenario to a fresh etcd and a fresh Quorate.
async fn same(scenario: impl AsyncFn(u16) -> Result<Seen>, flags: &[&str]) -> Result<()> {
    let mut both = Vec::new();
    for kind in [Kind::Etcd, Kind::under_test()?] {
        let mut options = Options::new(kind, 1);
        for flag in flags {
            options = options.flag(flag);
        }
        let cluster = Cluster::start(&options).await?;
        let seen = scenario(cluster.ports()[0]).await;
        both.push(seen.with_context(|| kind.name().to_owned())?);
    }
    let mut faults = Vec::new();
    for (expected, found) in both[0].iter().zip(&both[1]) {
        if expected != found {
            faults.push(format!(
                "{}\n  etcd {}\n  ours {}",
                expected.0, expected.1, found.1
            ));
        }
    }
    ensure!(
        faults.is_empty(),
        "{} differ:\n{}",
        faults.len(),
        faults.join("\n")
    );
    ensure!(both[0].len() == both[1].len(), "one has more steps");
    Ok(())
}

async fn grant(port: u16, id: i64) -> Result<()> {
    let mut leases = LeaseClient::new(rpc::channel(port, DEADLINE)?);
    leases
        .lease_grant(pb::LeaseGrantRequest { ttl: 1000, id })
        .await?;
    Ok(())
}

async fn put(port: u16, key: &str, value: &[u8]) -> Result<i64> {
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        ..Default::default()
    };
    let answer = rpc::kv(rpc::channel(port, DEADLINE)?).put(put).await?;
    Ok(answer.into_inner().header.context("a header")?.revision)
}

async fn locks(port: u16) -> Result<Seen> {
    let mut locks = LockClient::new(rpc::channel(port, DEADLINE)?);
    grant(port, 0x1234).await?;
    let mut seen = Seen::new();
    let request = |name: &'static str, lease| lock::LockRequest {
        name: name.into(),
        lease,
    };
    for (name, lease) in [
        ("mutex", 0x1234),
        ("mutex", 0x1234),
        ("mutex", 99),
        ("", 0x1234),
    ] {
        let answer = locks.lock(request(name, lease)).await;
        let text = rendered(answer, |a| mask(&mut a.header));
        seen.push((format!("lock {name:?} {lease:x}"), text));
    }
    for key in ["mutex/1234", "mutex/1234", "nothing", ""] {
        let answer = locks.unlock(lock::UnlockRequest { key: key.into() }).await;
        let text = rendered(answer, |a| mask(&mut a.header));
        seen.push((format!("unlock {key:?}"), text));
    }
    let answer = locks.lock(request("own lease", 0)).await?.into_inner();
    seen.push((
        "lock without lease".to_owned(),
        format!("{}", answer.key.len() > 10),
    ));
    Ok(seen)
}

#[tokio::test]
async fn locks_are_like_etcds() -> Result<()> {
    same(locks, &[]).await
}

async fn elections(port: u16) -> Result<Seen> {
    let mut client = ElectionClient::new(rpc::channel(port, DEADLINE)?);
    grant(port, 0x77).await?;
    let mut seen = Seen::new();
    let leader = election::LeaderRequest { name: "e".into() };
    let nobody = client.leader(leader.clone()).await;
    seen.push((
        "leader of nobody".into(),
        rendered(nobody, |a| mask(&mut a.header)),
    ));
    let campaign = election::CampaignRequest {
        name: "e".into(),
        lease: 0x77,
        value: "one".into(),
    };
    let won = client.campaign(campaign.clone()).await?.into_inner();
    let key = won.leader.clone();
    seen.push(("campaign".into(), format!("{key:?}")));
    let again = client.campaign(campaign).await;
    seen.push((
        "campaign again".into(),
        rendered(again, |a| mask(&mut a.header)),
    ));
    for holder in [key.clone(), None] {
        let proclaim = election::ProclaimRequest {
            leader: holder,
            value: "two".into(),
        };
        let answer = client.proclaim(proclaim).await;
        seen.push(("proclaim".into(), rendered(answer, |a| mask(&mut a.header))));
    }
    let answer = client.leader(leader.clone()).await;
    seen.push(("leader".into(), rendered(answer, |a| mask(&mut a.header))));
    let mut observed = client.observe(leader.clone()).await?.into_inner();
    let first = observed.message().await?.context("the leader of now")?;
    seen.push(("observe".into(), format!("{:?}", first.kv)));
    for holder in [key.clone(), key.clone(), None] {
        let resign = election::ResignRequest { leader: holder };
        let answer = client.resign(resign).await;
        seen.push(("resign".into(), rendered(answer, |a| mask(&mut a.header))));
    }
    let late = election::ProclaimRequest {
        leader: key,
        value: "three".into(),
    };
    let answer = client.proclaim(late).await;
    seen.push((
        "proclaim late".into(),
        rendered(answer, |a| mask(&mut a.header)),
    ));
    Ok(seen)
}

#[tokio::test]
async fn elections_are_like_etcds() -> Result<()> {
    same(elections, &[]).await
}

async fn maintenance(port: u16) -> Result<Seen> {
    let channel = rpc::channel(port, DEADLINE)?;
    let mut client = MaintenanceClient::new(channel.clone());
    let mut members = ClusterClient::new(channel.clone());
    let mut seen = Seen::new();
    put(port, "k", b"v").await?;
    for linearizable in [true, false] {
        let answer = members
            .member_list(pb::MemberListRequest { linearizable })
            .await;
        let text = rendered(answer, |list| {
            mask(&mut list.header);
            for member in &mut list.members {
                member.id = member.id.min(1);
                member.peer_ur_ls.iter_mut().for_each(String::clear);
                member.client_ur_ls.iter_mut().for_each(String::clear);
            }
        });
        seen.push((format!("member list {linearizable}"), text));
    }
    let answer = client.alarm(pb::AlarmRequest::default()).await;
    seen.push(("alarms".into(), rendered(answer, |a| mask(&mut a.header))));
    let answer = client.defragment(pb::DefragmentRequest {}).await;
    seen.push((
        "defragment".into(),
        rendered(answer, |a| mask(&mut a.header)),
    ));
    let answer = client
        .move_leader(pb::MoveLeaderRequest { target_id: 77 })
        .await;
    seen.push((
        "move leader to nobody".into(),
        rendered(answer, |a| mask(&mut a.header)),
    ));
    let status = client.status(pb::StatusRequest {}).await?.into_inner();
    let header = status.header.context("a header")?;
    let facts = (
        status.version,
        status.is_learner,
        status.errors,
        status.leader == header.member_id,
        header.revision,
        status.raft_term == header.raft_term && header.raft_term > 0,
        status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0,
        status.db_size > 0 && status.db_size_in_use > 0,
        status.storage_version,
        status.db_size_quota,
        status.downgrade_info,
    );
    seen.push(("status".into(), format!("{facts:?}")));
    let health = "/grpc.health.v1.Health/Check";
    for (name, message) in [("of all", &[][..]), ("of nothing", &[0x0a, 1, b'x'][..])] {
        let answer = raw::unary(channel.clone(), health, message).await;
        let text = match answer {
            Ok(bytes) => format!("{bytes:?}"),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        seen.push((format!("health {name}"), text));
    }
    Ok(seen)
}

#[tokio::test]
async fn members_and_maintenance_are_like_etcds() -> Result<()> {
    same(maintenance, &[]).await
}

/// Sends one HTTP/1.1 request and returns the status line and the body.
async fn http(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = raw::send(port, request.as_bytes()).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    let status = head.lines().next().context("a status line")?;
    let status: Vec<&str> = status.split(' ').take(2).collect();
    // Where the length is not given, each piece has its own: take the JSON alone.
    let body = body.find('{').map_or(body, |start| &body[start..]);
    let body = body.rfind('}').map_or(body, |end| &body[..=end]);
    Ok(format!("{} {}", status.join(" "), body.trim()))
}

/// Clears the numbers that differ from a JSON header; blanks between tokens mean nothing.
fn unheaded(answer: &str) -> Result<String> {
    let (status, body) = answer.split_at(answer.find('{').unwrap_or(answer.len()));
    if body.is_empty() {
        return Ok(answer.to_owned());
    }
    let mut body: serde_json::Value = serde_json::from_str(body).context(answer.to_owned())?;
    for name in ["cluster_id", "member_id", "raft_term"] {
        if let Some(number) = body
            .get_mut("header")
            .and_then(|header| header.get_mut(name))
        {
            *number = "*".into();
        }
    }
    Ok(format!("{status}{body}"))
}

async fn http_doors(port: u16) -> Result<Seen> {
    let mut seen = Seen::new();
    for path in [
        "/version",
        "/health",
        "/health?serializable=true",
        "/readyz",
        "/livez",
        "/no",
    ] {
        seen.push((path.into(), http(port, "GET", path, "").await?));
    }
    let key = r#"{"key":"Zm9v"}"#;
    let calls = [
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
        ("/v3/kv/range", key),
        (
            "/v3/kv/range",
            r#"{"key":"Zm9v","range_end":"Zm9w","limit":"1"}"#,
        ),
        ("/v3/kv/range", r#"{"key":""}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","revision":"99"}"#),
        (
            "/v3/kv/txn",
            r#"{"success":[{"request_put":{"key":"YQ==","value":"Yg=="}}]}"#,
        ),
        ("/v3/kv/deleterange", key),
        ("/v3/kv/compaction", r#"{"revision":"2"}"#),
        ("/v3/lease/grant", r#"{"TTL":"100","ID":"5"}"#),
        ("/v3/lease/leases", "{}"),
        ("/v3/lease/revoke", r#"{"ID":"5"}"#),
        ("/v3/lease/revoke", r#"{"ID":"5"}"#),
    ];
    for (path, body) in calls {
        let answer = http(port, "POST", path, body).await?;
        seen.push((format!("{path} {body}"), unheaded(&answer)?));
    }
    // The text of a JSON parser is its own.
    let nonsense = http(port, "POST", "/v3/kv/range", "nonsense").await?;
    let code = nonsense.contains(r#""code":3"#);
    seen.push(("nonsense".into(), format!("{} {code}", &nonsense[..12])));
    Ok(seen)
}

#[tokio::test]
async fn http_and_json_are_like_etcds() -> Result<()> {
    same(http_doors, &[]).await
}

fn watch(key: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        start_revision,
        ..Default::default()
    }
}

async fn told(stream: &mut Stream) -> Result<pb::WatchResponse> {
    let answer = tokio::time::timeout(DEADLINE, stream.answers.message());
    let mut answer = answer
        .await
        .context("a watch answer")??
        .context("a stream")?;
    mask(&mut answer.header);
    Ok(answer)
}

async fn watch_corners(port: u16) -> Result<Seen> {
    let mut seen = Seen::new();
    // A start in the future hears nothing before it.
    let now = put(port, "w", b"0").await?;
    let mut future = Stream::open(port, watch("w", now + 3)).await?;
    seen.push(("created".into(), format!("{:?}", told(&mut future).await?)));
    for value in 1..=4 {
        put(port, "w", value.to_string().as_bytes()).await?;
    }
    for _ in 0..2 {
        seen.push(("future".into(), format!("{:?}", told(&mut future).await?)));
    }
    // Large events in pieces: all but the last say that more comes.
    for number in 0..4 {
        put(port, "large", &vec![number; 1 << 20]).await?;
    }
    let mut create = watch("large", now);
    create.fragment = true;
    let mut pieces = Stream::open(port, create).await?;
    told(&mut pieces).await?;
    let mut events = 0;
    while events < 4 {
        let answer = told(&mut pieces).await?;
        events += answer.events.len();
        let text = format!("{} events, more {}", answer.events.len(), answer.fragment);
        seen.push(("fragment".into(), text));
    }
    // Many watchers on one stream, with numbers of the client's and of the server's choice.
    let mut many = Stream::open(port, watch("w", 0)).await?;
    told(&mut many).await?;
    for watch_id in [5, 5, 0, 0, 1, 77] {
        let mut create = watch("w", 0);
        create.watch_id = watch_id;
        many.requests
            .send(request(RequestUnion::CreateRequest(create)))
            .await?;
        seen.push((
            format!("id {watch_id}"),
            format!("{:?}", told(&mut many).await?),
        ));
    }
    for watch_id in [5, 77] {
        let cancel = pb::WatchCancelRequest { watch_id };
        many.requests
            .send(request(RequestUnion::CancelRequest(cancel)))
            .await?;
        seen.push((
            format!("cancel {watch_id}"),
            format!("{:?}", told(&mut many).await?),
        ));
    }
    wait::until("a progress report", DEADLINE, async || {
        many.ask_progress().await?;
        let answer = tokio::time::timeout(Duration::from_millis(100), told(&mut many)).await;
        let Ok(answer) = answer else {
            return Ok(None);
        };
        seen.push(("progress".into(), format!("{:?}", answer?)));
        Ok(Some(()))
    })
    .await?;
    Ok(seen)
}

#[tokio::test]
async fn corners_of_watch_are_like_etcds() -> Result<()> {
    same(watch_corners, &[]).await
}

async fn notifies(port: u16) -> Result<Seen> {
    let mut create = watch("quiet", 0);
    create.progress_notify = true;
    let mut stream = Stream::open(port, create).await?;
    told(&mut stream).await?;
    put(port, "other", b"1").await?;
    let mut seen = Seen::new();
    let mut answer = told(&mut stream).await?;
    // The first one may have been on its way before the put.
    while answer
        .header
        .as_ref()
        .is_some_and(|header| header.revision == 1)
    {
        answer = told(&mut stream).await?;
    }
    seen.push(("notified".into(), format!("{answer:?}")));
    Ok(seen)
}

#[tokio::test]
async fn progress_by_itself_is_like_etcds() -> Result<()> {
    same(notifies, &["--watch-progress-notify-interval=200ms"]).await
}
