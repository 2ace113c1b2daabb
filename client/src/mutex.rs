//! A lock that many processes share. Source of the behaviour: etcd
//! client/v3/concurrency/mutex.go; keys are compatible with it and with etcd's Lock service.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::error::Error;
use crate::queue::Place;
use crate::session::Session;
use crate::txn::Compare;

impl Session {
    /// The lock of this name. Its keys are `name/` and the lease of each session that wants it.
    pub fn mutex(&self, name: impl AsRef<[u8]>) -> Mutex<'_> {
        Mutex {
            session: self,
            prefix: [name.as_ref(), b"/"].concat(),
        }
    }
}

/// A lock: one session at a time holds it, the others come in the order in which they asked.
///
/// No lock over a network can stop a holder that sleeps past its lease from acting when it
/// wakes. Give [`MutexGuard::fencing_revision`] to whatever is protected, and let that refuse
/// smaller ones; or write to the store only in transactions with [`MutexGuard::is_held`].
///
/// ```no_run
/// # async fn f(session: quorate_client::Session) -> Result<(), quorate_client::Error> {
/// use quorate_client::put;
/// let held = session.mutex("jobs").lock().await?;
/// let client = session.client();
/// let done = client.txn().when(held.is_held()).then(put("jobs-done", "7")).await?;
/// assert!(done.succeeded, "the lock was lost");
/// held.unlock().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Mutex<'s> {
    session: &'s Session,
    prefix: Vec<u8>,
}

/// A lock that is held until [`unlock`](MutexGuard::unlock), or until the session ends. Dropping
/// it unlocks in the background, as well as that can be done.
#[derive(Debug)]
pub struct MutexGuard<'s> {
    session: &'s Session,
    place: Place,
}

impl<'s> Mutex<'s> {
    /// Waits for the lock. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the session is lost meanwhile; else what the calls bring.
    pub async fn lock(&self) -> Result<MutexGuard<'s>, Error> {
        let session = self.session;
        let work = async {
            let mut place = Place::take(session, &self.prefix, b"").await?;
            if !place.was_first() {
                place.wait(session, &self.prefix).await?;
            }
            Ok(MutexGuard { session, place })
        };
        session.unless_lost(work).await
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// [`Error::NotHeld`] if somebody does.
    pub async fn try_lock(&self) -> Result<MutexGuard<'s>, Error> {
        let session = self.session;
        let work = async {
            let place = Place::take(session, &self.prefix, b"").await?;
            if place.was_first() {
                return Ok(MutexGuard { session, place });
            }
            place.leave().await?;
            Err(Error::NotHeld {
                text: "mutex: Locked by another session",
            })
        };
        session.unless_lost(work).await
    }
}

impl MutexGuard<'_> {
    /// The key of this holder.
    pub fn key(&self) -> &Bytes {
        &self.place.key
    }

    /// Grows with every holder of the lock.
    pub fn fencing_revision(&self) -> i64 {
        self.place.revision
    }

    /// The header of the answer that gave the lock.
    pub fn header(&self) -> pb::ResponseHeader {
        self.place.header
    }

    /// The condition, for transactions, that this holder still has the lock.
    pub fn is_held(&self) -> Compare {
        Compare::create_revision(&self.place.key).equal(self.place.revision)
    }

    /// Waits until the lock is lost with its session.
    pub async fn lost(&self) -> Error {
        self.session.lost().await
    }

    /// Gives the lock to the next.
    ///
    /// # Errors
    /// [`Error::NotHeld`] if it was lost before.
    pub async fn unlock(self) -> Result<(), Error> {
        if self.place.leave().await?.succeeded {
            return Ok(());
        }
        Err(Error::NotHeld {
            text: "mutex: lock has already been released",
        })
    }

    /// Keeps the lock until the session ends, whatever becomes of this handle.
    pub fn keep(self) {
        self.place.forget();
    }
}
