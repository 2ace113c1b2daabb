//! The queue under locks and elections: keys of sessions under one prefix, served in the order
//! of their creation. Source of the behaviour: etcd client/v3/concurrency/{key,mutex}.go.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::response_op::Response as OneAnswer;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::mvccpb::event::EventType;
use tracing::debug;

use crate::client::Client;
use crate::error::Error;
use crate::kv::{delete, get, put};
use crate::session::Session;
use crate::txn::Compare;

/// A session's place in a queue. Dropping it gives the place up in the background; `leave` does
/// so and waits for it.
#[derive(Debug)]
pub(crate) struct Place {
    client: Client,
    pub(crate) key: Bytes,
    /// The revision that created the key: who has the smallest is served.
    pub(crate) revision: i64,
    pub(crate) header: pb::ResponseHeader,
    /// Who was served when we came, and the value that our own key already had.
    pub(crate) owner: Option<KeyValue>,
    pub(crate) found: Option<KeyValue>,
    is_ours: bool,
}

impl Place {
    /// Takes a place with `value`, or finds the one that the session has already.
    pub(crate) async fn take(
        session: &Session,
        prefix: &[u8],
        value: &[u8],
    ) -> Result<Self, Error> {
        let client = session.client();
        let key = [prefix, format!("{:x}", session.lease()).as_bytes()].concat();
        // From here on a failed or abandoned attempt may have left the key behind.
        let mut place = Self {
            client: client.clone(),
            key: key.into(),
            revision: 0,
            header: pb::ResponseHeader::default(),
            owner: None,
            found: None,
            is_ours: true,
        };
        let key = &place.key;
        let oldest = || get(prefix).prefix().first_created();
        let answer = client
            .txn()
            .when(Compare::create_revision(key).equal(0))
            .then(put(key, value).lease(session.lease()))
            .then(oldest())
            .or_else(get(key))
            .or_else(oldest())
            .await?;
        place.header = answer.header.unwrap_or_default();
        let mut answers = answer.responses.into_iter().map(first_kv);
        place.found = answers.next().flatten();
        place.owner = answers.next().flatten();
        place.revision = match &place.found {
            Some(found) if !answer.succeeded => found.create_revision,
            _ => place.header.revision,
        };
        Ok(place)
    }

    /// Whether nobody was before us when we came.
    pub(crate) fn was_first(&self) -> bool {
        let owner = self.owner.as_ref();
        owner.is_none_or(|owner| owner.create_revision == self.revision)
    }

    /// Waits until every place before ours is gone, then makes sure that ours is not.
    pub(crate) async fn wait(&mut self, session: &Session, prefix: &[u8]) -> Result<(), Error> {
        while let Some(last) = self.last_before(prefix).await? {
            self.wait_for_end_of(last).await?;
        }
        let mine = self.client.get(&self.key).await?;
        self.header = mine.header.unwrap_or_default();
        let is_there = |kv: &KeyValue| kv.create_revision == self.revision;
        if mine.kvs.first().is_some_and(is_there) {
            return Ok(());
        }
        self.is_ours = false;
        Err(Error::LeaseLost {
            lease: session.lease(),
        })
    }

    /// The youngest place before ours, and the revision at which it was seen.
    async fn last_before(&self, prefix: &[u8]) -> Result<Option<(Bytes, i64)>, Error> {
        let before = self
            .client
            .get(prefix)
            .prefix()
            .last_created()
            .max_create_revision(self.revision - 1)
            .await?;
        let revision = before.header.unwrap_or_default().revision;
        Ok(before.kvs.into_iter().next().map(|kv| (kv.key, revision)))
    }

    async fn wait_for_end_of(&self, (key, seen_at): (Bytes, i64)) -> Result<(), Error> {
        let mut watch = self
            .client
            .watch(&key)
            .start_revision(seen_at + 1)
            .no_put()
            .await?;
        while let Some(update) = watch.next().await {
            match update {
                Ok(update) => {
                    let mut events = update.events.iter();
                    if events.any(|event| event.r#type() == EventType::Delete) {
                        return Ok(());
                    }
                }
                // The end may be in the history that is gone: look again.
                Err(Error::Compacted { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes the key, unless it is not ours any more.
    pub(crate) async fn leave(mut self) -> Result<pb::TxnResponse, Error> {
        self.is_ours = false;
        remove(&self.client, &self.key, self.revision).await
    }

    /// Leaves the key where it is, to end with its session.
    pub(crate) fn forget(mut self) {
        self.is_ours = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // Outside of a runtime the key ends with the session.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (client, key, revision) = (self.client.clone(), self.key.clone(), self.revision);
        // Bounded by the client's request timeout.
        runtime.spawn(async move {
            if let Err(error) = remove(&client, &key, revision).await {
                debug!(?key, %error, "a key stays until its session ends");
            }
        });
    }
}

async fn remove(client: &Client, key: &Bytes, revision: i64) -> Result<pb::TxnResponse, Error> {
    let mut txn = client.txn().then(delete(key));
    if revision > 0 {
        txn = txn.when(Compare::create_revision(key).equal(revision));
    }
    txn.await
}

fn first_kv(answer: pb::ResponseOp) -> Option<KeyValue> {
    match answer.response {
        Some(OneAnswer::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
}
