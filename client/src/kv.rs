//! Get, put, delete and compact, as requests that are built up and then awaited.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::client::Client;
use crate::error::Error;

/// The future of an awaited request.
pub type Answer<A> = Pin<Box<dyn Future<Output = Result<A, Error>> + Send>>;

/// The end of the range of all keys that begin with `prefix`.
///
/// etcd: client/v3/op.go (`GetPrefixRangeEnd`): the prefix with its last byte raised; an empty
/// prefix or one of 0xff alone reaches to the end of all keys (`\0`).
///
/// ```
/// assert_eq!(&quorate_client::prefix_end(b"foo")[..], b"fop");
/// assert_eq!(&quorate_client::prefix_end(b"a\xff")[..], b"b");
/// assert_eq!(&quorate_client::prefix_end(b"\xff")[..], b"\0");
/// ```
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

pub(crate) fn to_bytes(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// Makes `key` the start and returns the end of "all keys with this prefix".
pub(crate) fn prefix_range(key: &mut Bytes) -> Bytes {
    let end = prefix_end(key);
    if key.is_empty() {
        *key = Bytes::from_static(b"\0");
    }
    end
}

/// Makes `key` the start and returns the end of "all keys from this one on".
pub(crate) fn from_key_range(key: &mut Bytes) -> Bytes {
    if key.is_empty() {
        *key = Bytes::from_static(b"\0");
    }
    Bytes::from_static(b"\0")
}

/// A read of one key or a range. See [`Client::get`]; [`get`] makes one for a transaction.
#[derive(Debug, Clone)]
#[must_use = "it is done when awaited"]
pub struct Get<C = ()> {
    client: C,
    pub(crate) request: pb::RangeRequest,
}

/// A write of one key. See [`Client::put`]; [`put`] makes one for a transaction.
#[derive(Debug, Clone)]
#[must_use = "it is done when awaited"]
pub struct Put<C = ()> {
    client: C,
    pub(crate) request: pb::PutRequest,
}

/// A removal of one key or a range. See [`Client::delete`]; [`delete`] makes one for a
/// transaction.
#[derive(Debug, Clone)]
#[must_use = "it is done when awaited"]
pub struct Delete<C = ()> {
    client: C,
    pub(crate) request: pb::DeleteRangeRequest,
}

/// A read for a transaction.
pub fn get(key: impl AsRef<[u8]>) -> Get {
    Get {
        client: (),
        request: pb::RangeRequest {
            key: to_bytes(key),
            ..Default::default()
        },
    }
}

/// A write for a transaction.
pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Put {
    Put {
        client: (),
        request: pb::PutRequest {
            key: to_bytes(key),
            value: to_bytes(value),
            ..Default::default()
        },
    }
}

/// A removal for a transaction.
pub fn delete(key: impl AsRef<[u8]>) -> Delete {
    Delete {
        client: (),
        request: pb::DeleteRangeRequest {
            key: to_bytes(key),
            ..Default::default()
        },
    }
}

impl Client {
    /// Reads a key, or a range.
    ///
    /// ```no_run
    /// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// let page = client.get("/registry/").prefix().limit(500).await?;
    /// for kv in &page.kvs {
    ///     println!("{:?} at {}", kv.key, kv.mod_revision);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get<Self> {
        Get {
            client: self.clone(),
            request: get(key).request,
        }
    }

    /// Writes a key.
    ///
    /// ```no_run
    /// # use quorate_client::{Client, Error};
    /// # async fn f(client: Client, lease: i64) -> Result<(), Error> {
    /// client.put("colour", "blue").lease(lease).await?;
    /// # Ok(()) }
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Put<Self> {
        Put {
            client: self.clone(),
            request: put(key, value).request,
        }
    }

    /// Removes a key, or a range.
    ///
    /// ```no_run
    /// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// let gone = client.delete("/tmp/").prefix().await?;
    /// println!("{} keys removed", gone.deleted);
    /// # Ok(()) }
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete<Self> {
        Delete {
            client: self.clone(),
            request: delete(key).request,
        }
    }

    /// Forgets the history before `revision`. With `physical`, waits until it is removed.
    ///
    /// # Errors
    /// [`Error::Refused`] if the revision is compacted already or yet to come.
    pub async fn compact(
        &self,
        revision: i64,
        physical: bool,
    ) -> Result<pb::CompactionResponse, Error> {
        let request = pb::CompactionRequest { revision, physical };
        self.write(request, async |client: Self, request| {
            client.kv().compact(request).await
        })
        .await
    }
}

macro_rules! ranges {
    ($($type:ident),+) => { $(
        impl<C> $type<C> {
            /// All keys that begin with the key.
            pub fn prefix(mut self) -> Self {
                self.request.range_end = prefix_range(&mut self.request.key);
                self
            }

            /// The key and all after it.
            pub fn from_key(mut self) -> Self {
                self.request.range_end = from_key_range(&mut self.request.key);
                self
            }

            /// The keys from the key up to `end`, without `end`.
            pub fn until(mut self, end: impl AsRef<[u8]>) -> Self {
                self.request.range_end = to_bytes(end);
                self
            }
        }
    )+ };
}
ranges!(Get, Delete);

impl<C> Get<C> {
    /// At most so many pairs; the response's `more` tells whether there are others.
    pub fn limit(mut self, limit: i64) -> Self {
        self.request.limit = limit;
        self
    }

    /// The state at this revision instead of the current one.
    pub fn revision(mut self, revision: i64) -> Self {
        self.request.revision = revision;
        self
    }

    /// In this order; unsorted means ascending by key.
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Self {
        self.request.sort_target = target.into();
        self.request.sort_order = order.into();
        self
    }

    /// From the member's own state, which may lag; works without a quorum.
    pub fn serializable(mut self) -> Self {
        self.request.serializable = true;
        self
    }

    /// Without the values.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Only how many there are.
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// Only pairs created at this revision or before.
    pub fn max_create_revision(mut self, revision: i64) -> Self {
        self.request.max_create_revision = revision;
        self
    }

    /// Only pairs last written at this revision or later.
    pub fn min_mod_revision(mut self, revision: i64) -> Self {
        self.request.min_mod_revision = revision;
        self
    }

    /// The oldest pair of the range, by creation; etcd: client/v3/op.go (`WithFirstCreate`).
    pub fn first_created(self) -> Self {
        self.sort(SortTarget::Create, SortOrder::Ascend).limit(1)
    }

    /// The youngest pair of the range, by creation; etcd: client/v3/op.go (`WithLastCreate`).
    pub fn last_created(self) -> Self {
        self.sort(SortTarget::Create, SortOrder::Descend).limit(1)
    }
}

impl<C> Put<C> {
    /// Binds the key to a lease; without, the key is taken off the lease it had.
    pub fn lease(mut self, lease: i64) -> Self {
        self.request.lease = lease;
        self
    }

    /// Returns the pair that was there before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Keeps the value that is there (and writes only the lease).
    pub fn ignore_value(mut self) -> Self {
        self.request.ignore_value = true;
        self
    }

    /// Keeps the lease that the key has.
    pub fn ignore_lease(mut self) -> Self {
        self.request.ignore_lease = true;
        self
    }
}

impl<C> Delete<C> {
    /// Returns the pairs that were there before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }
}

impl IntoFuture for Get<Client> {
    type Output = Result<pb::RangeResponse, Error>;
    type IntoFuture = Answer<pb::RangeResponse>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.client
                .read(self.request, async |client: Client, request| {
                    client.kv().range(request).await
                })
                .await
        })
    }
}

impl IntoFuture for Put<Client> {
    type Output = Result<pb::PutResponse, Error>;
    type IntoFuture = Answer<pb::PutResponse>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.client
                .write(self.request, async |client: Client, request| {
                    client.kv().put(request).await
                })
                .await
        })
    }
}

impl IntoFuture for Delete<Client> {
    type Output = Result<pb::DeleteRangeResponse, Error>;
    type IntoFuture = Answer<pb::DeleteRangeResponse>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.client
                .write(self.request, async |client: Client, request| {
                    client.kv().delete_range(request).await
                })
                .await
        })
    }
}
