//! A watch as controllers keep it: opened again from the last revision that was seen.

use super::rest::Rest;
use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a watcher waits for the object that ends it.
const DEADLINE: Duration = Duration::from_secs(240);

/// One change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: String,
    pub name: String,
    pub revision: u64,
    pub data: Value,
}

/// What a watcher saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub events: Vec<Event>,
    /// How often the server ended the watch.
    pub reopened: usize,
    pub bookmarks: usize,
}

/// The resourceVersion of an object or a list.
///
/// # Errors
/// When there is none.
pub fn revision(object: &Value) -> Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str();
    Ok(text
        .with_context(|| format!("no resourceVersion in {object}"))?
        .parse()?)
}

/// Why a watch ended before its time.
enum End {
    /// Kubernetes' word for it: 410 is no such end, but an error.
    Server,
    Last,
}

/// Watches a collection from behind `since` until an object called `last` was added.
///
/// # Errors
/// When the events contradict each other, when the server says that `since` is too old, or when
/// `last` does not come.
pub async fn follow(rest: &Rest, collection: &str, since: u64, last: &str) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut at = since;
    let watching = async {
        loop {
            let path = format!(
                "{collection}?watch=1&allowWatchBookmarks=true&resourceVersion={at}\
                 &timeoutSeconds=600"
            );
            let response = rest.open("GET", &path, None).await?;
            let status = response.status().as_u16();
            match status {
                200 => {}
                // The store has no leader.
                429 | 500.. => continue,
                _ => bail!("{path}: {status}"),
            }
            match read(response.into_body(), &mut at, &mut seen, last).await? {
                End::Last => return Ok(()),
                End::Server => seen.reopened += 1,
            }
        }
    };
    let watched = tokio::time::timeout(DEADLINE, watching).await;
    let count = seen.events.len();
    watched
        .with_context(|| format!("{collection}: {last} did not come after {count} events"))??;
    Ok(seen)
}

async fn read(mut body: Incoming, at: &mut u64, seen: &mut Seen, last: &str) -> Result<End> {
    let mut pending = BytesMut::new();
    // A watch that breaks off is one that the server ended.
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        pending.extend_from_slice(&bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(end + 1);
            let line: Value = serde_json::from_slice(&line)?;
            let (kind, object) = (line["type"].as_str().context("a type")?, &line["object"]);
            match kind {
                "ERROR" if object["code"] == 410 => bail!("watch from {at}: {object}"),
                "ERROR" => return Ok(End::Server),
                "BOOKMARK" => {
                    let revision = revision(object)?;
                    ensure!(revision >= *at, "a bookmark at {revision} after {at}");
                    *at = revision;
                    seen.bookmarks += 1;
                }
                _ => {
                    let event = event(kind, object)?;
                    ensure!(event.revision > *at, "{event:?} after {at}");
                    *at = event.revision;
                    let is_last = event.kind == "ADDED" && event.name == last;
                    seen.events.push(event);
                    if is_last {
                        return Ok(End::Last);
                    }
                }
            }
        }
    }
    Ok(End::Server)
}

fn event(kind: &str, object: &Value) -> Result<Event> {
    Ok(Event {
        kind: kind.to_owned(),
        name: name(object)?,
        revision: revision(object)?,
        data: object["data"].clone(),
    })
}

fn name(object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str();
    Ok(name.context("a name")?.to_owned())
}

/// The objects that remain after all events, with their data, beginning with none.
///
/// # Errors
/// When an event does not fit those before it: one was missed, or told twice.
pub fn replay(events: &[Event]) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for event in events {
        let before = objects.insert(event.name.clone(), event.data.clone());
        let fits = match event.kind.as_str() {
            "ADDED" => before.is_none(),
            "MODIFIED" => before.is_some(),
            "DELETED" => {
                // It carries the last state: what the store calls the previous value.
                let told = objects.remove(&event.name);
                told == before
            }
            _ => false,
        };
        ensure!(fits, "{event:?} does not fit what was before it");
    }
    Ok(objects)
}

/// The names and data of a list.
///
/// # Errors
/// When an item has no name.
pub fn listed(list: &Value) -> Result<BTreeMap<String, Value>> {
    let items = list["items"].as_array().context("items")?;
    let objects = items
        .iter()
        .map(|item| Ok((name(item)?, item["data"].clone())));
    objects.collect()
}
