//! A first start: who this member is, by what it was told or by what the cluster says.
//!
//! etcd: server/etcdserver/bootstrap.go, server/etcdserver/cluster_util.go.

use std::time::Duration;

use quorate_tls::Dialer;

use crate::config::Config;
use crate::config::urls::{Url, texts};
use crate::model::member::{Member, cluster_id, member_id};
use crate::raft::transport::members::RemoteCluster;

/// How long the members may take to say who they are.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// The same for a new cluster, whose members may not run yet.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(1);
/// How long host names may take to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// Who this member is, and with whom it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstStart {
    pub member_id: u64,
    pub cluster_id: u64,
    /// Who forms the cluster; nobody when it runs already.
    pub members: Vec<Member>,
}

/// A first start in a new cluster: IDs as etcd computes them, unless this member is known already.
pub async fn form(config: &Config, dialer: &Dialer) -> Result<FirstStart, String> {
    let cluster = &config.cluster;
    cluster
        .check_bootstrap(&config.name)
        .map_err(|error| error.to_string())?;
    let members = first_members(config);
    let own = member_id(&texts(&cluster.initial[&config.name]), &cluster.token);
    let others = other_urls(config);
    let running = RemoteCluster::ask(dialer, &others, false, BOOTSTRAP_LIMIT).await;
    let known = running.and_then(|running| running.members.into_iter().find(|it| it.id == own));
    if known.is_some_and(|member| !member.client_urls.is_empty()) {
        return Err(bootstrapped(own));
    }
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    Ok(FirstStart {
        member_id: own,
        cluster_id: cluster_id(&ids),
        members,
    })
}

/// An ID whose data was lost must not be used again: what it promised and stored is forgotten.
fn bootstrapped(id: u64) -> String {
    format!("member {id:x} has already been bootstrapped")
}

/// A first start in a cluster that runs: it knows this member by its peer URLs.
pub async fn join(config: &Config, dialer: &Dialer) -> Result<FirstStart, String> {
    let cluster = &config.cluster;
    cluster
        .check_join(&config.name)
        .map_err(|error| error.to_string())?;
    let running = RemoteCluster::ask(dialer, &other_urls(config), true, JOIN_LIMIT).await;
    let running = running.ok_or(
        "cannot fetch cluster info from peer urls: \
         could not retrieve cluster information from the given URLs",
    )?;
    let wrong = |error: String| {
        let running = shown(&running);
        format!("error validating peerURLs {running}: {error}")
    };
    if running.members.len() != cluster.initial.len() {
        return Err(wrong("member count is unequal".to_owned()));
    }
    let mut own = None;
    for member in &running.members {
        let name = name_of(member, config).await.map_err(wrong)?;
        if name == config.name {
            own = Some(member);
        }
    }
    let own = own.ok_or_else(|| wrong(format!("no member has the URLs of {}", config.name)))?;
    if own.is_started() || !own.client_urls.is_empty() {
        return Err(bootstrapped(own.id));
    }
    let learners = running.members.iter().filter(|member| member.is_learner);
    if learners.count() > cluster.max_learners {
        return Err("membership: too many learner members in cluster".to_owned());
    }
    Ok(FirstStart {
        member_id: own.id,
        cluster_id: running.id,
        members: Vec::new(),
    })
}

/// The name in `--initial-cluster` of the entry with the peer URLs of `member`.
async fn name_of<'a>(member: &Member, config: &'a Config) -> Result<&'a str, String> {
    let mut last = String::new();
    for (name, urls) in &config.cluster.initial {
        match same(&member.peer_urls, urls).await {
            Ok(()) => return Ok(name),
            Err(error) => last = error,
        }
    }
    Err(format!(
        "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver error ({last})",
        member.id,
        member.peer_urls.join(" "),
    ))
}

/// Whether these are the same URLs, by their texts or by what their hosts resolve to.
///
/// etcd: pkg/netutil/netutil.go, `URLStringsEqual`.
async fn same(theirs: &[String], ours: &[Url]) -> Result<(), String> {
    let (mut theirs, mut ours) = (theirs.to_vec(), texts(ours));
    theirs.sort();
    ours.sort();
    if theirs == ours {
        return Ok(());
    }
    let quoted = |urls: &[String]| {
        let urls: Vec<String> = urls.iter().map(|url| format!("{url:?}")).collect();
        format!("[{}]", urls.join(" "))
    };
    if theirs.len() != ours.len() {
        return Err(format!(
            "len({}) != len({})",
            quoted(&theirs),
            quoted(&ours)
        ));
    }
    let (theirs, ours) = (resolved(&theirs).await?, resolved(&ours).await?);
    let mut pairs = theirs.iter().zip(&ours);
    match pairs.find(|(one, other)| one != other) {
        None => Ok(()),
        Some((one, other)) => Err(format!("resolved urls: {one:?} != {other:?}")),
    }
}

/// The URLs with addresses in place of host names, sorted.
async fn resolved(urls: &[String]) -> Result<Vec<String>, String> {
    let mut resolved = Vec::new();
    for text in urls {
        let url = Url::parse(text)?;
        let address = match url.host_port() {
            None | Some(("localhost", _)) => None,
            Some((host, port)) => {
                let failed = |why: String| format!("failed to resolve {text:?} ({why})");
                let port = port.parse().map_err(|_| failed("no port".to_owned()))?;
                let found = tokio::net::lookup_host((host, port));
                let found = tokio::time::timeout(RESOLVE_LIMIT, found).await;
                let found = found.map_err(|_| failed("timeout".to_owned()))?;
                found.map_err(|error| failed(error.to_string()))?.next()
            }
        };
        resolved.push(match (address, text.split_once("://")) {
            (Some(address), Some((scheme, _))) => format!("{scheme}://{address}"),
            _ => text.clone(),
        });
    }
    resolved.sort();
    Ok(resolved)
}

/// Where the others listen, in etcd's order.
fn other_urls(config: &Config) -> Vec<String> {
    let initial = config.cluster.initial.iter();
    let others = initial.filter(|(name, _)| **name != config.name);
    let mut urls: Vec<String> = others.flat_map(|(_, urls)| texts(urls)).collect();
    urls.sort();
    urls
}

/// A cluster as etcd shows it in errors.
fn shown(cluster: &RemoteCluster) -> String {
    let members: Vec<String> = cluster
        .members
        .iter()
        .map(|member| {
            format!(
                "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} \
                 Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                member.id,
                member.peer_urls.join(" "),
                member.is_learner,
                member.name,
                member.client_urls.join(" ")
            )
        })
        .collect();
    format!(
        "{{ClusterID:{:x} Members:[{}] RemovedMemberIDs:[]}}",
        cluster.id,
        members.join(" ")
    )
}

/// The members that a first start begins with.
pub(super) fn first_members(config: &Config) -> Vec<Member> {
    let members = config.cluster.initial.iter();
    members
        .map(|(name, urls)| {
            let peer_urls = texts(urls);
            Member {
                id: member_id(&peer_urls, &config.cluster.token),
                name: name.clone(),
                peer_urls,
                client_urls: Vec::new(),
                is_learner: false,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> Vec<Url> {
        texts.iter().map(|text| Url::parse(text).unwrap()).collect()
    }

    #[tokio::test]
    async fn urls_are_the_same_by_text_or_by_address() {
        let theirs = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let theirs: fn(&[&str]) -> Vec<String> = theirs;
        let two = ["http://127.0.0.1:2", "http://127.0.0.1:1"];
        let turned = urls(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        assert_eq!(same(&theirs(&two), &turned).await, Ok(()));
        let one = theirs(&["http://127.0.0.1:1"]);
        assert_eq!(
            same(&one, &turned).await,
            Err("len([\"http://127.0.0.1:1\"]) != \
                 len([\"http://127.0.0.1:1\" \"http://127.0.0.1:2\"])"
                .to_owned())
        );
        assert_eq!(
            same(&one, &urls(&["http://127.0.0.1:3"])).await,
            Err("resolved urls: \"http://127.0.0.1:1\" != \"http://127.0.0.1:3\"".to_owned())
        );
    }

    #[test]
    fn a_cluster_is_shown_as_etcd_shows_it() {
        let cluster = RemoteCluster {
            id: 0xc1,
            members: vec![Member {
                id: 0xa1,
                name: "m1".to_owned(),
                peer_urls: vec!["http://a:1".to_owned()],
                client_urls: vec!["http://a:2".to_owned()],
                is_learner: false,
            }],
        };
        assert_eq!(
            shown(&cluster),
            "{ClusterID:c1 Members:[&{ID:a1 RaftAttributes:{PeerURLs:[http://a:1] \
             IsLearner:false} Attributes:{Name:m1 ClientURLs:[http://a:2]}}] \
             RemovedMemberIDs:[]}"
        );
    }
}
