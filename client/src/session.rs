//! Sessions: a lease kept alive, to which locks and candidacies hang. Source of the behaviour:
//! etcd client/v3/concurrency/session.go.

use crate::client::Client;
use crate::error::Error;
use crate::lease::KeepAlive;

/// A lease that is kept alive as long as the session lives. What is made under it (locks,
/// candidacies) goes when the session ends: at once with [`close`](Session::close), after the
/// TTL when it is dropped or its process dies.
///
/// ```no_run
/// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::Session;
/// let session = Session::open(&client, 10).await?;
/// let mutex = session.mutex("jobs/nightly");
/// let held = mutex.lock().await?;
/// println!("pass {} with every write to the outside", held.fencing_revision());
/// held.unlock().await?;
/// session.close().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    client: Client,
    kept: KeepAlive,
}

impl Session {
    /// The TTL that etcd's own client gives to sessions, in seconds.
    pub const TTL_SECONDS: i64 = 60;

    /// Grants a lease of `ttl_seconds` and keeps it alive.
    ///
    /// # Errors
    /// What granting it brings.
    pub async fn open(client: &Client, ttl_seconds: i64) -> Result<Self, Error> {
        let lease = client.grant_lease(ttl_seconds).await?;
        Self::attach(client, lease.id()).await
    }

    /// Keeps a lease alive that exists already, for example to take up again what a process
    /// held before it restarted.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if there is no such lease.
    pub async fn attach(client: &Client, lease: i64) -> Result<Self, Error> {
        Ok(Self {
            client: client.clone(),
            kept: client.keep_alive(lease).await?,
        })
    }

    /// The session's lease.
    pub fn lease(&self) -> i64 {
        self.kept.id()
    }

    /// The client under it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the lease is held as far as anybody can know.
    pub fn is_alive(&self) -> bool {
        self.kept.is_alive()
    }

    /// Waits until the session is lost, and returns the error that says so.
    pub async fn lost(&self) -> Error {
        self.kept.lost().await
    }

    /// Ends the session and all that hangs to it.
    ///
    /// # Errors
    /// As [`Client::revoke_lease`]; the lease then ends with its TTL.
    pub async fn close(self) -> Result<(), Error> {
        self.kept.revoke().await
    }

    /// Waits for `work`, or for the loss of the session.
    pub(crate) async fn unless_lost<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            result = work => result,
            lost = self.lost() => Err(lost),
        }
    }
}
