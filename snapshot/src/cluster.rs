//! The members of a new cluster as a command line names them, and the identities that follow.
//!
//! etcd: client/pkg/types/urlsmap.go, server/config/config.go (VerifyBootstrap).

use std::collections::BTreeMap;

use super::Error;
use super::etcd::Member;
use super::identity::{cluster_id, member_id};

const SCHEMES: [&str; 4] = ["http://", "https://", "unix://", "unixs://"];

/// `name=url,name=url` and a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster {
    /// The peer URLs of each name, sorted.
    urls: BTreeMap<String, Vec<String>>,
    token: String,
}

fn wrong(text: String) -> Error {
    Error::Cluster(text)
}

impl InitialCluster {
    /// Reads `name=url,name=url`; a name may have several URLs.
    ///
    /// # Errors
    /// [`Error::Cluster`] in etcd's words.
    pub fn parse(text: &str, token: &str) -> Result<Self, Error> {
        let mut urls: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, url) = part.split_once('=').unwrap_or((part, ""));
            check_url(url)?;
            let of_name = urls.entry(name.trim().to_owned()).or_default();
            of_name.push(url.trim().to_owned());
        }
        for urls in urls.values_mut() {
            urls.sort();
        }
        Ok(Self {
            urls,
            token: token.to_owned(),
        })
    }

    /// Refuses what a first start would: `name` advertises other URLs than the cluster says.
    ///
    /// # Errors
    /// [`Error::Cluster`] in etcd's words.
    pub fn check(&self, name: &str, peer_urls: &str) -> Result<(), Error> {
        let mut advertised: Vec<String> = peer_urls.split(',').map(str::to_owned).collect();
        advertised.sort();
        for url in &advertised {
            check_url(url)?;
        }
        let initial = self.urls_of(name)?;
        if let Some(url) = initial.iter().find(|url| !advertised.contains(url)) {
            return Err(wrong(format!(
                "--initial-cluster has {name}={url} but missing from \
                 --initial-advertise-peer-urls={peer_urls}"
            )));
        }
        if let Some(url) = advertised.iter().find(|url| !initial.contains(url)) {
            return Err(wrong(format!(
                "--initial-advertise-peer-urls has {url} but missing from --initial-cluster"
            )));
        }
        let mut urls: Vec<&String> = self.urls.values().flatten().collect();
        urls.sort();
        match urls.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => Err(wrong(format!(
                "initial cluster has duplicate url {}",
                pair[0]
            ))),
        }
    }

    /// Names and their peer URLs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        let entries = self.urls.iter();
        entries.map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// The peer URLs of a name.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the cluster has no such name.
    pub fn urls_of(&self, name: &str) -> Result<&[String], Error> {
        let urls = self.urls.get(name).map(Vec::as_slice);
        urls.ok_or_else(|| {
            wrong(format!(
                "couldn't find local name \"{name}\" in the initial cluster configuration"
            ))
        })
    }

    /// The ID of a name at a first start.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the cluster has no such name.
    pub fn member_id(&self, name: &str) -> Result<u64, Error> {
        Ok(member_id(self.urls_of(name)?, &self.token))
    }

    /// The members as etcd's buckets hold them.
    pub fn members(&self) -> Vec<Member> {
        let members = self.urls.iter().map(|(name, urls)| Member {
            id: member_id(urls, &self.token),
            peer_urls: urls.clone(),
            name: name.clone(),
            ..Member::default()
        });
        members.collect()
    }

    /// The cluster's ID.
    pub fn id(&self) -> u64 {
        let ids: Vec<u64> = self.members().iter().map(|member| member.id).collect();
        cluster_id(&ids)
    }
}

fn check_url(url: &str) -> Result<(), Error> {
    let url = url.trim();
    let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest else {
        return Err(wrong(format!(
            "URL scheme must be http, https, unix, or unixs: {url}"
        )));
    };
    let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if url.starts_with("http") && !matches!(port, Some(Ok(_))) {
        return Err(wrong(format!(
            "URL address does not have the form \"host:port\": {url}"
        )));
    }
    Ok(())
}
