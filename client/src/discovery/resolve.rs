//! The gateway's side: the list of instances, kept up to date.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::mvccpb::event::EventType;
use quorate_proto::mvccpb::{Event, KeyValue};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::prefix_of;
use crate::client::Client;
use crate::error::Error;
use crate::limits;
use crate::retry::Backoff;
use crate::watch::Watch;

/// One registered service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its key; a service that registers anew has another one.
    pub key: Bytes,
    /// What it registered, as text.
    pub address: String,
}

/// A handle to the list of instances as it is now; clones are cheap.
#[derive(Debug, Clone)]
pub struct Instances {
    list: watch::Receiver<Arc<[Instance]>>,
}

impl Instances {
    /// The instances by order of their keys.
    pub fn now(&self) -> Arc<[Instance]> {
        self.list.borrow().clone()
    }

    /// Waits until the list is another one than this handle saw last.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if the resolver was dropped.
    pub async fn changed(&mut self) -> Result<Arc<[Instance]>, Error> {
        self.list.changed().await.map_err(|_| Error::Unreachable {
            text: "the resolver was dropped".to_owned(),
        })?;
        Ok(self.list.borrow_and_update().clone())
    }
}

/// Follows the instances of a service until it is dropped. While the cluster cannot be reached
/// the last known list stays.
#[derive(Debug)]
pub struct Resolver {
    list: watch::Receiver<Arc<[Instance]>>,
    task: AbortHandle,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Reads the list and begins to follow it.
    ///
    /// # Errors
    /// What the first read brings; after it, trouble is logged and tried again.
    pub async fn start(client: &Client, service: &str) -> Result<Self, Error> {
        let prefix = prefix_of(service);
        let (found, watch) = read(client, &prefix).await?;
        let (sender, list) = watch::channel(listed(&found));
        let follower = Follower {
            client: client.clone(),
            prefix,
            found,
            list: sender,
        };
        let task = tokio::spawn(follower.run(watch)).abort_handle();
        Ok(Self { list, task })
    }

    /// The list, for pickers and for those who want to know of changes.
    pub fn instances(&self) -> Instances {
        Instances {
            list: self.list.clone(),
        }
    }
}

type Found = BTreeMap<Bytes, String>;

/// Reads the prefix, and watches it from the next revision on: nothing is lost in between.
async fn read(client: &Client, prefix: &str) -> Result<(Found, Watch), Error> {
    let page = client.get(prefix).prefix().await?;
    let revision = page.header.unwrap_or_default().revision;
    let watch = client
        .watch(prefix)
        .prefix()
        .start_revision(revision + 1)
        .await?;
    Ok((page.kvs.into_iter().map(entry).collect(), watch))
}

fn entry(kv: KeyValue) -> (Bytes, String) {
    let address = String::from_utf8_lossy(&kv.value).into_owned();
    (kv.key, address)
}

fn listed(found: &Found) -> Arc<[Instance]> {
    let instance = |(key, address): (&Bytes, &String)| Instance {
        key: key.clone(),
        address: address.clone(),
    };
    found.iter().map(instance).collect()
}

struct Follower {
    client: Client,
    prefix: String,
    found: Found,
    list: watch::Sender<Arc<[Instance]>>,
}

impl Follower {
    async fn run(mut self, mut watch: Watch) {
        loop {
            while let Some(update) = watch.next().await {
                match update {
                    Ok(update) => self.take(update.events),
                    Err(Error::Compacted { .. }) => {
                        debug!(service = self.prefix, "history is gone, reading anew");
                    }
                    Err(error) => warn!(service = self.prefix, %error, "reading anew"),
                }
            }
            let (found, again) = self.read_at_last().await;
            self.found = found;
            self.tell();
            watch = again;
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            let Some(kv) = event.kv else { continue };
            if is_put {
                let (key, address) = entry(kv);
                self.found.insert(key, address);
            } else {
                self.found.remove(&kv.key);
            }
        }
        self.tell();
    }

    /// Tells of the list if it is another one.
    fn tell(&self) {
        let now = listed(&self.found);
        self.list.send_if_modified(|list| {
            let is_news = **list != *now;
            *list = now;
            is_news
        });
    }

    async fn read_at_last(&self) -> (Found, Watch) {
        let mut backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
        loop {
            match read(&self.client, &self.prefix).await {
                Ok(read) => return read,
                Err(error) => warn!(service = self.prefix, %error, "could not read the list"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}
