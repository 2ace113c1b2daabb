//! Leases, and handles that keep them alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_proto::etcdserverpb as pb;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::client::Client;
use crate::error::Error;
use crate::keeper::{Keeper, ttl};

/// A lease that was granted. It ends by itself when its TTL passes, unless
/// [`keep_alive`](Lease::keep_alive) renews it.
///
/// ```no_run
/// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let lease = client.grant_lease(10).await?;
/// client.put("/alive/me", "yes").lease(lease.id()).await?;
/// let kept = lease.keep_alive().await?;
/// // ... as long as `kept` lives, so does the key ...
/// kept.revoke().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Lease {
    client: Client,
    id: i64,
    ttl_seconds: i64,
}

impl Client {
    /// Makes a lease of at least `ttl_seconds`; the server chooses its ID.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] may leave a lease behind, which ends by itself.
    pub async fn grant_lease(&self, ttl_seconds: i64) -> Result<Lease, Error> {
        self.grant_lease_with_id(ttl_seconds, 0).await
    }

    /// Makes a lease with an ID of the caller's.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`crate::Refusal::LeaseExists`] if the ID is taken.
    pub async fn grant_lease_with_id(&self, ttl_seconds: i64, id: i64) -> Result<Lease, Error> {
        let request = pb::LeaseGrantRequest {
            ttl: ttl_seconds,
            id,
        };
        let granted = self
            .write(request, async |client: Self, request| {
                client.lease_raw().lease_grant(request).await
            })
            .await?;
        Ok(Lease {
            client: self.clone(),
            id: granted.id,
            ttl_seconds: granted.ttl,
        })
    }

    /// Ends a lease, and with it all keys bound to it, in one revision.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`crate::Refusal::LeaseNotFound`] if there is none.
    pub async fn revoke_lease(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Error> {
        let request = pb::LeaseRevokeRequest { id };
        self.write(request, async |client: Self, request| {
            client.lease_raw().lease_revoke(request).await
        })
        .await
    }

    /// How long a lease has left, in seconds (-1 if there is none), and which keys hang on it
    /// if asked for.
    ///
    /// # Errors
    /// As of every read.
    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        self.read(request, async |client: Self, request| {
            client.lease_raw().lease_time_to_live(request).await
        })
        .await
    }

    /// All leases.
    ///
    /// # Errors
    /// As of every read.
    pub async fn leases(&self) -> Result<Vec<i64>, Error> {
        let response = self
            .read(pb::LeaseLeasesRequest {}, async |client: Self, request| {
                client.lease_raw().lease_leases(request).await
            })
            .await?;
        Ok(response.leases.into_iter().map(|lease| lease.id).collect())
    }

    /// Renews a lease once. Renewing twice does no harm, so this repeats as a read does.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if there is no such lease.
    pub async fn renew_lease(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
        let renewed = self
            .read(
                pb::LeaseKeepAliveRequest { id },
                async |client: Self, request| {
                    let once = tokio_stream::once(request.into_inner());
                    let stream = client.lease_raw().lease_keep_alive(once).await?;
                    let answer = stream.into_inner().message().await?;
                    let closed = || Status::unavailable("the keep-alive stream ended");
                    Ok(tonic::Response::new(answer.ok_or_else(closed)?))
                },
            )
            .await?;
        if renewed.ttl <= 0 {
            return Err(Error::LeaseLost { lease: id });
        }
        Ok(renewed)
    }

    /// Renews a lease now and keeps it alive from now on.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if there is no such lease.
    pub async fn keep_alive(&self, id: i64) -> Result<KeepAlive, Error> {
        let sent = Instant::now();
        let first = self.renew_lease(id).await?;
        let renewal = Renewal {
            count: 1,
            ttl_seconds: first.ttl,
            header: first.header.unwrap_or_default(),
            until: sent + ttl(first.ttl),
        };
        let (state, states) = watch::channel(State::Alive(renewal));
        let (stop, stopped) = oneshot::channel();
        let revokes_on_drop = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            client: self.clone(),
            id,
            renewal,
            state,
            revokes_on_drop: Arc::clone(&revokes_on_drop),
        };
        tokio::spawn(keeper.run(stopped));
        Ok(KeepAlive {
            client: self.clone(),
            id,
            states,
            seen: 0,
            revokes_on_drop,
            _stop: stop,
        })
    }
}

impl Lease {
    /// The ID, as keys name it.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The TTL that the server granted, in seconds.
    pub fn ttl_seconds(&self) -> i64 {
        self.ttl_seconds
    }

    /// Renews the lease now and keeps it alive as long as the handle lives.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if it has ended meanwhile.
    pub async fn keep_alive(&self) -> Result<KeepAlive, Error> {
        self.client.keep_alive(self.id).await
    }

    /// Ends the lease and removes its keys.
    ///
    /// # Errors
    /// As [`Client::revoke_lease`].
    pub async fn revoke(self) -> Result<(), Error> {
        self.client.revoke_lease(self.id).await.map(|_| ())
    }
}

/// One answer to a renewal.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    /// How many there were so far, this one included.
    pub count: u64,
    /// The TTL that the lease has from now on, in seconds.
    pub ttl_seconds: i64,
    /// The header of the answer.
    pub header: pb::ResponseHeader,
    /// Until when the lease lives for sure: counted from when the renewal was sent.
    pub until: Instant,
}

/// What the keeper tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Alive(Renewal),
    Lost,
}

/// Keeps a lease alive until it is dropped; the lease then ends when its TTL has passed, or at
/// once with [`revoke_on_drop`](KeepAlive::revoke_on_drop).
///
/// The lease is renewed every third of its TTL, at any member that answers. It counts as lost
/// when the server says so, or when no renewal succeeded within the TTL: after that moment
/// nobody may rely on it, even if the server should still have it.
#[derive(Debug)]
pub struct KeepAlive {
    client: Client,
    id: i64,
    states: watch::Receiver<State>,
    seen: u64,
    revokes_on_drop: Arc<AtomicBool>,
    /// Dropped with the handle, which stops the task.
    _stop: oneshot::Sender<()>,
}

impl KeepAlive {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Whether the lease is held as far as anybody can know.
    pub fn is_alive(&self) -> bool {
        match *self.states.borrow() {
            State::Alive(renewal) => Instant::now() < renewal.until,
            State::Lost => false,
        }
    }

    /// Waits for the next renewal; the first call returns the one made at the start.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] once the lease is lost.
    pub async fn renewed(&mut self) -> Result<Renewal, Error> {
        let lost = Error::LeaseLost { lease: self.id };
        let seen = self.seen;
        let news = |state: &State| match state {
            State::Alive(renewal) => renewal.count > seen,
            State::Lost => true,
        };
        match self.states.wait_for(news).await.map(|state| *state) {
            Ok(State::Alive(renewal)) => {
                self.seen = renewal.count;
                Ok(renewal)
            }
            // Without its task nobody renews it.
            Ok(State::Lost) | Err(_) => Err(lost),
        }
    }

    /// Waits until the lease is lost, and returns the error that says so.
    pub async fn lost(&self) -> Error {
        let mut states = self.states.clone();
        let is_lost = |state: &State| matches!(state, State::Lost);
        match states.wait_for(is_lost).await {
            // Without its task nobody renews it.
            Ok(_) | Err(_) => Error::LeaseLost { lease: self.id },
        }
    }

    /// From now on, dropping the handle revokes the lease, as well as that can be done from a
    /// drop: in the background, with one attempt.
    #[must_use]
    pub fn revoke_on_drop(self) -> Self {
        self.revokes_on_drop.store(true, Ordering::Relaxed);
        self
    }

    /// Stops renewing and ends the lease; returns when its keys are gone.
    ///
    /// # Errors
    /// As [`Client::revoke_lease`].
    pub async fn revoke(self) -> Result<(), Error> {
        self.revokes_on_drop.store(false, Ordering::Relaxed);
        let (client, id) = (self.client.clone(), self.id);
        drop(self);
        client.revoke_lease(id).await.map(|_| ())
    }
}
