//! Elections among many processes. Source of the behaviour: etcd
//! client/v3/concurrency/election.go; keys are compatible with it and with etcd's Election
//! service.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::event::EventType;
use quorate_proto::mvccpb::{Event, KeyValue};

use crate::client::Client;
use crate::error::Error;
use crate::kv::{prefix_end, put};
use crate::queue::Place;
use crate::session::Session;
use crate::txn::Compare;
use crate::watch::Watch;

const NOT_LEADER: Error = Error::NotHeld {
    text: "election: not leader",
};

impl Session {
    /// The election of this name, to stand in. Its keys are `name/` and the lease of each
    /// candidate's session.
    pub fn election(&self, name: impl AsRef<[u8]>) -> Election<'_> {
        Election {
            session: self,
            prefix: [name.as_ref(), b"/"].concat(),
        }
    }
}

impl Client {
    /// Who leads the election of this name now: the key and what the leader proclaims.
    ///
    /// # Errors
    /// As of every read.
    pub async fn leader(&self, name: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        let prefix = [name.as_ref(), b"/"].concat();
        let oldest = self.get(prefix).prefix().first_created().await?;
        Ok(oldest.kvs.into_iter().next())
    }

    /// Follows who leads the election of this name, and what they proclaim.
    pub fn observe(&self, name: impl AsRef<[u8]>) -> Observer {
        Observer {
            client: self.clone(),
            prefix: [name.as_ref(), b"/"].concat(),
            following: None,
            waiting: VecDeque::new(),
        }
    }
}

/// An election: of those who campaign, the one who came first leads until it resigns or its
/// session ends; then the next does.
///
/// ```no_run
/// # async fn f(session: quorate_client::Session) -> Result<(), quorate_client::Error> {
/// let election = session.election("scheduler");
/// let mut leadership = election.campaign("host-1").await?;
/// leadership.proclaim("host-1, busy").await?;
/// leadership.resign().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Election<'s> {
    session: &'s Session,
    prefix: Vec<u8>,
}

/// The lead in an election, until [`resign`](Leadership::resign) or until the session ends.
/// Dropping it resigns in the background, as well as that can be done.
#[derive(Debug)]
pub struct Leadership<'s> {
    session: &'s Session,
    place: Place,
}

impl<'s> Election<'s> {
    /// Waits until this session leads. Dropping the future withdraws the candidacy.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the session is lost meanwhile; else what the calls bring.
    pub async fn campaign(&self, value: impl AsRef<[u8]>) -> Result<Leadership<'s>, Error> {
        let session = self.session;
        let value = value.as_ref();
        let work = async {
            let place = Place::take(session, &self.prefix, value).await?;
            let is_new_value = place.found.as_ref().is_some_and(|kv| kv.value != value);
            let was_first = place.was_first();
            let mut leadership = Leadership { session, place };
            if is_new_value {
                leadership.proclaim(value).await?;
            }
            if !was_first {
                leadership.place.wait(session, &self.prefix).await?;
            }
            Ok(leadership)
        };
        session.unless_lost(work).await
    }
}

impl Leadership<'_> {
    /// The key of the leader.
    pub fn key(&self) -> &Bytes {
        &self.place.key
    }

    /// Grows with every leader of the election: a fencing token.
    pub fn revision(&self) -> i64 {
        self.place.revision
    }

    /// The header of the answer that gave the lead, or of the last proclamation.
    pub fn header(&self) -> pb::ResponseHeader {
        self.place.header
    }

    /// The condition, for transactions, that this session still leads.
    pub fn is_held(&self) -> Compare {
        Compare::create_revision(&self.place.key).equal(self.place.revision)
    }

    /// Waits until the lead is lost with its session.
    pub async fn lost(&self) -> Error {
        self.session.lost().await
    }

    /// Announces a new value.
    ///
    /// # Errors
    /// [`Error::NotHeld`] if the lead was lost before.
    pub async fn proclaim(&mut self, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let client = self.session.client();
        let announced = client
            .txn()
            .when(self.is_held())
            .then(put(&self.place.key, value).lease(self.session.lease()))
            .await?;
        if !announced.succeeded {
            return Err(NOT_LEADER);
        }
        self.place.header = announced.header.unwrap_or_default();
        Ok(())
    }

    /// Gives the lead to the next.
    ///
    /// # Errors
    /// [`Error::NotHeld`] if it was lost before.
    pub async fn resign(self) -> Result<(), Error> {
        if self.place.leave().await?.succeeded {
            Ok(())
        } else {
            Err(NOT_LEADER)
        }
    }

    /// Keeps the lead until the session ends, whatever becomes of this handle.
    pub fn keep(self) {
        self.place.forget();
    }
}

/// Follows an election: always says the latest leader and value, not necessarily each one that
/// came between.
///
/// ```no_run
/// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let mut observer = client.observe("scheduler");
/// loop {
///     let leader = observer.next().await?;
///     println!("{:?} proclaims {:?}", leader.key, leader.value);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Observer {
    client: Client,
    prefix: Vec<u8>,
    following: Option<Following>,
    waiting: VecDeque<KeyValue>,
}

#[derive(Debug)]
enum Following {
    /// Nobody leads: the first key under the prefix will.
    Any(Watch),
    /// This leader, until its key is deleted.
    Leader(Watch),
}

impl Observer {
    /// The next leader or proclamation; the present one at once. Safe to cancel.
    ///
    /// # Errors
    /// What the calls bring; it may be called again after an error and starts afresh.
    pub async fn next(&mut self) -> Result<KeyValue, Error> {
        loop {
            if let Some(kv) = self.waiting.pop_front() {
                return Ok(kv);
            }
            let Some(following) = &mut self.following else {
                self.look().await?;
                continue;
            };
            let (Following::Any(watch) | Following::Leader(watch)) = following;
            let update = match watch.next().await {
                Some(Ok(update)) => update,
                // Look again: what counts is who leads now.
                Some(Err(Error::Compacted { .. })) | None => {
                    self.following = None;
                    continue;
                }
                Some(Err(error)) => {
                    self.following = None;
                    return Err(error);
                }
            };
            let is_any = matches!(following, Following::Any(_));
            self.take(is_any, update.events);
        }
    }

    fn take(&mut self, is_any: bool, events: Vec<Event>) {
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            if is_any == is_put {
                // A first key under the prefix, or the end of the leader's: look again.
                self.following = None;
                return;
            }
            if let (false, Some(kv)) = (is_any, event.kv) {
                self.waiting.push_back(kv);
            }
        }
    }

    /// Finds the leader and begins to follow from that revision on.
    async fn look(&mut self) -> Result<(), Error> {
        let prefix = &self.prefix;
        let oldest = self.client.get(prefix).prefix().first_created().await?;
        let after = oldest.header.unwrap_or_default().revision + 1;
        let watch = match oldest.kvs.first() {
            Some(kv) => self.client.watch(&kv.key),
            None => self.client.watch(prefix).until(prefix_end(prefix)),
        };
        let watch = watch.start_revision(after).await?;
        self.following = Some(match oldest.kvs.into_iter().next() {
            Some(kv) => {
                self.waiting.push_back(kv);
                Following::Leader(watch)
            }
            None => Following::Any(watch),
        });
        Ok(())
    }
}
