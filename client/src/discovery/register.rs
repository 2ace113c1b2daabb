//! The service's side: an address that is there as long as the service is.

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::prefix_of;
use crate::client::Client;
use crate::error::Error;
use crate::kv::put;
use crate::lease::KeepAlive;
use crate::limits;
use crate::retry::Backoff;
use crate::txn::Compare;

/// Writes `<service>/<lease id in hex>` → `address` under a lease of `ttl_seconds` and keeps
/// both there: a lease that was lost is replaced, under a new key.
///
/// # Errors
/// What the first registration brings; after it, trouble is logged and tried again.
pub async fn register(
    client: &Client,
    service: &str,
    address: &str,
    ttl_seconds: i64,
) -> Result<Registration, Error> {
    let registrar = Registrar {
        client: client.clone(),
        prefix: prefix_of(service),
        address: address.to_owned(),
        ttl_seconds,
    };
    let (key, kept) = registrar.register().await?;
    let (keys_sender, keys) = watch::channel(key);
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(registrar.run(kept, keys_sender, stopped));
    Ok(Registration { keys, stop })
}

/// A service that is registered until [`deregister`](Registration::deregister), or until this is
/// dropped: then its key is removed in the background, as well as that can be done.
#[derive(Debug)]
pub struct Registration {
    keys: watch::Receiver<Bytes>,
    stop: oneshot::Sender<oneshot::Sender<Result<(), Error>>>,
}

impl Registration {
    /// The key at present.
    pub fn key(&self) -> Bytes {
        self.keys.borrow().clone()
    }

    /// Waits until the service had to be registered anew, and returns the new key.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if the task that keeps the registration is gone.
    pub async fn registered_anew(&mut self) -> Result<Bytes, Error> {
        self.keys.changed().await.map_err(|_| task_is_gone())?;
        Ok(self.keys.borrow_and_update().clone())
    }

    /// Takes the service off the list; returns when the key is gone.
    ///
    /// # Errors
    /// As [`Client::revoke_lease`]; the key then goes when the lease ends.
    pub async fn deregister(self) -> Result<(), Error> {
        let (done_sender, done) = oneshot::channel();
        if self.stop.send(done_sender).is_err() {
            return Err(task_is_gone());
        }
        done.await.map_err(|_| task_is_gone())?
    }
}

fn task_is_gone() -> Error {
    Error::Unreachable {
        text: "the registration's task ended".to_owned(),
    }
}

struct Registrar {
    client: Client,
    prefix: String,
    address: String,
    ttl_seconds: i64,
}

impl Registrar {
    async fn run(
        self,
        mut kept: KeepAlive,
        keys: watch::Sender<Bytes>,
        mut stopped: oneshot::Receiver<oneshot::Sender<Result<(), Error>>>,
    ) {
        loop {
            tokio::select! {
                stop = &mut stopped => {
                    let result = kept.revoke().await;
                    match (stop, result) {
                        (Ok(done), result) => {
                            if done.send(result).is_err() {
                                warn!("nobody waited for the end of a registration");
                            }
                        }
                        // Dropped: nobody to tell.
                        (Err(_), Ok(())) => {}
                        (Err(_), Err(error)) => warn!(%error, "could not deregister"),
                    }
                    return;
                }
                lost = kept.lost() => warn!(service = self.prefix, %lost, "registering anew"),
            }
            let anew = tokio::select! {
                anew = self.register_at_last() => anew,
                stop = &mut stopped => {
                    // The lease is lost already, and with it the key.
                    if let Ok(done) = stop && done.send(Ok(())).is_err() {
                        warn!("nobody waited for the end of a registration");
                    }
                    return;
                }
            };
            info!(service = self.prefix, key = ?anew.0, "registered anew");
            keys.send_replace(anew.0);
            kept = anew.1;
        }
    }

    async fn register_at_last(&self) -> (Bytes, KeepAlive) {
        let mut backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
        loop {
            match self.register().await {
                Ok(registered) => return registered,
                Err(error) => warn!(service = self.prefix, %error, "could not register"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn register(&self) -> Result<(Bytes, KeepAlive), Error> {
        let lease = self.client.grant_lease(self.ttl_seconds).await?;
        let kept = lease.keep_alive().await?;
        let key = Bytes::from(format!("{}{:x}", self.prefix, lease.id()));
        // A lease that is new has no key yet: who else has it is no service of ours.
        let written = self
            .client
            .txn()
            .when(Compare::create_revision(&key).equal(0))
            .then(put(&key, &self.address).lease(lease.id()))
            .await;
        match written {
            Ok(txn) if txn.succeeded => Ok((key, kept)),
            Ok(_) => Err(Error::NotHeld {
                text: "the key of the registration is taken",
            }),
            Err(error) => {
                // Whether it was written or not: without the lease it is not.
                drop(kept.revoke_on_drop());
                Err(error)
            }
        }
    }
}
