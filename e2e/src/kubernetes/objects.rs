//! Objects that are created, replaced and deleted by many writers at once, and what must remain.

use super::rest::{Answer, Rest};
use super::watching::revision;
use crate::wait::{self, Patience};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long one write may stay unsure.
const DEADLINE: Duration = Duration::from_secs(60);

/// The object that all writers of a collection change.
const SHARED: &str = "shared";

/// What writers were told.
#[derive(Debug, Default)]
pub struct Written {
    /// What must be there: name and data.
    pub objects: BTreeMap<String, Value>,
    /// Names and resourceVersions that were acknowledged.
    pub acknowledged: Vec<(String, u64)>,
    /// Writes at an old resourceVersion, each of which was refused.
    pub conflicts: usize,
}

/// Writers of one collection.
#[derive(Debug)]
pub struct Writers {
    pub done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Written>>,
    rest: Rest,
    collection: String,
}

/// A ConfigMap or Secret. The data is base64 of something, as Secrets want it.
pub fn object(name: &str, part: &str, value: usize) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"part": part}},
        "data": {"value": format!("{value:08}")},
    })
}

impl Writers {
    /// Starts `count` writers that make at least `each` objects.
    ///
    /// # Errors
    /// When the shared object cannot be made.
    pub async fn start(rest: &Rest, collection: &str, count: usize, each: usize) -> Result<Self> {
        rest.create(
            collection,
            &json!({"metadata": {"name": SHARED}, "data": {}}),
        )
        .await?;
        let mut writers = Self {
            done: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
            rest: rest.clone(),
            collection: collection.to_owned(),
        };
        for number in 0..count {
            let writer = Writer {
                rest: rest.clone(),
                collection: collection.to_owned(),
                number,
                written: Written::default(),
            };
            let (done, stop) = (Arc::clone(&writers.done), Arc::clone(&writers.stop));
            writers.tasks.spawn(writer.run(each, done, stop));
        }
        Ok(writers)
    }

    /// Waits for so many more objects.
    ///
    /// # Errors
    /// When they do not come in time, which is when a writer failed.
    pub async fn more(&self, count: usize) -> Result<()> {
        let enough = self.done.load(Ordering::Relaxed) + count;
        wait::until("more objects", DEADLINE, async || {
            Ok((self.done.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await
        .with_context(|| self.collection.clone())
    }

    /// Lets the writers come to their end.
    ///
    /// # Errors
    /// When one was refused, or saw an acknowledged write lost.
    pub async fn finish(mut self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        while let Some(written) = self.tasks.join_next().await {
            let written = written??;
            all.objects.extend(written.objects);
            all.acknowledged.extend(written.acknowledged);
            all.conflicts += written.conflicts;
        }
        let path = format!("{}/{SHARED}", self.collection);
        let shared = self.rest.get(&path).await?;
        all.objects
            .insert(SHARED.to_owned(), shared["data"].clone());
        Ok(all)
    }
}

struct Writer {
    rest: Rest,
    collection: String,
    number: usize,
    written: Written,
}

impl Writer {
    async fn run(
        mut self,
        each: usize,
        done: Arc<AtomicUsize>,
        stop: Arc<AtomicBool>,
    ) -> Result<Written> {
        let mut shared = 0;
        let mut step = 0;
        while step < each || !stop.load(Ordering::Relaxed) {
            let name = format!("w{}-{step:05}", self.number);
            self.one(&name, step).await.with_context(|| name.clone())?;
            if step.is_multiple_of(10) {
                shared += 1;
                self.count(shared).await?;
            }
            step += 1;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.written)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection)
    }

    fn acknowledge(&mut self, name: &str, object: &Value) -> Result<()> {
        let revision = revision(object)?;
        self.written.acknowledged.push((name.to_owned(), revision));
        Ok(())
    }

    /// Creates an object; each fourth is changed, and each eighth deleted then.
    async fn one(&mut self, name: &str, step: usize) -> Result<()> {
        let part = if step.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        };
        let wanted = object(name, part, step);
        let old = self.rest.create(&self.collection, &wanted).await?;
        self.acknowledge(name, &old)?;
        self.written
            .objects
            .insert(name.to_owned(), old["data"].clone());
        if step.is_multiple_of(4) {
            self.change(name, old, step + 1).await?;
        }
        if step.is_multiple_of(8) {
            self.rest.delete(&self.path(name)).await?;
            self.written.objects.remove(name);
        }
        Ok(())
    }

    async fn change(&mut self, name: &str, old: Value, value: usize) -> Result<()> {
        let mut new = old.clone();
        new["data"]["value"] = format!("{value:08}").into();
        let path = self.path(name);
        let changed = self.put(&path, &new).await?.ok()?;
        self.acknowledge(name, &changed)?;
        self.written
            .objects
            .insert(name.to_owned(), changed["data"].clone());
        let mut stale = old;
        stale["data"]["value"] = "99999999".into();
        let answer = self.put(&path, &stale).await?;
        let is_refused = answer.status == 409 && answer.reason() == "Conflict";
        ensure!(is_refused, "a write at an old resourceVersion: {answer:?}");
        self.written.conflicts += 1;
        Ok(())
    }

    /// Replaces at a resourceVersion until the answer is sure. When it is not, the object tells
    /// whether the write was carried out.
    async fn put(&self, path: &str, object: &Value) -> Result<Answer> {
        let patience = Patience::new("a sure write", DEADLINE);
        let mut unsure = false;
        loop {
            let answer = self.rest.replace(path, object).await?;
            if unsure && answer.status == 409 {
                let body = self.rest.get(path).await?;
                if body["data"] == object["data"] {
                    return Ok(Answer { status: 200, body });
                }
            }
            if !answer.is_unsure() {
                return Ok(answer);
            }
            unsure = true;
            patience.pause().await?;
        }
    }

    /// Sets this writer's number in the shared object, by compare and swap.
    async fn count(&mut self, value: usize) -> Result<()> {
        let path = self.path(SHARED);
        let field = format!("w{}", self.number);
        let before = match value {
            1 => Value::Null,
            _ => format!("{:08}", value - 1).into(),
        };
        let wanted = Value::from(format!("{value:08}"));
        let patience = Patience::new("a turn at the shared object", DEADLINE);
        let mut unsure = false;
        loop {
            let mut object = self.rest.get(&path).await?;
            let now = &object["data"][&field];
            if unsure && *now == wanted {
                return Ok(());
            }
            ensure!(*now == before, "{field} is {now} instead of {before}");
            object["data"][&field] = wanted.clone();
            let answer = self.rest.replace(&path, &object).await?;
            if answer.status == 409 {
                self.written.conflicts += 1;
            } else if answer.is_unsure() {
                unsure = true;
            } else {
                let changed = answer.ok()?;
                return self.acknowledge(SHARED, &changed);
            }
            patience.pause().await?;
        }
    }
}
