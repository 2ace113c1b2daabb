//! Transactions: conditions, and what to do if they hold or not.

use std::future::IntoFuture;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request as OneOp;

use crate::client::Client;
use crate::error::Error;
use crate::kv::{Answer, Delete, Get, Put, prefix_range, to_bytes};

impl Client {
    /// A transaction: if all compares hold, the operations of `then`, else those of `or_else`.
    ///
    /// ```no_run
    /// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// use quorate_client::{Compare, get, put};
    /// let txn = client
    ///     .txn()
    ///     .when(Compare::create_revision("owner").equal(0))
    ///     .then(put("owner", "me"))
    ///     .or_else(get("owner"))
    ///     .await?;
    /// println!("mine: {}", txn.succeeded);
    /// # Ok(()) }
    /// ```
    pub fn txn(&self) -> Txn<Self> {
        Txn {
            client: self.clone(),
            request: pb::TxnRequest::default(),
        }
    }
}

/// One operation of a transaction: made from [`Get`], [`Put`], [`Delete`] or a nested [`Txn`].
#[derive(Debug, Clone)]
pub struct Op(pb::RequestOp);

macro_rules! ops {
    ($($type:ident => $variant:ident),+) => { $(
        impl<C> From<$type<C>> for Op {
            fn from(op: $type<C>) -> Self {
                Self(pb::RequestOp { request: Some(OneOp::$variant(op.request)) })
            }
        }
    )+ };
}
ops!(Get => RequestRange, Put => RequestPut, Delete => RequestDeleteRange, Txn => RequestTxn);

impl From<Op> for pb::RequestOp {
    fn from(op: Op) -> Self {
        op.0
    }
}

/// A transaction. See [`Client::txn`]; [`txn`] makes one to nest in another.
#[derive(Debug, Clone)]
#[must_use = "it is done when awaited"]
pub struct Txn<C = ()> {
    client: C,
    request: pb::TxnRequest,
}

/// A transaction to nest in another.
pub fn txn() -> Txn {
    Txn {
        client: (),
        request: pb::TxnRequest::default(),
    }
}

impl<C> Txn<C> {
    /// One more compare that must hold.
    pub fn when(mut self, compare: Compare) -> Self {
        self.request.compare.push(compare.0);
        self
    }

    /// One more operation for the case that all compares hold.
    pub fn then(mut self, op: impl Into<Op>) -> Self {
        self.request.success.push(op.into().0);
        self
    }

    /// One more operation for the case that a compare does not hold.
    pub fn or_else(mut self, op: impl Into<Op>) -> Self {
        self.request.failure.push(op.into().0);
        self
    }

    /// Whether nothing but reads stands in it, nested ones included.
    fn is_read(request: &pb::TxnRequest) -> bool {
        let mut ops = request.success.iter().chain(&request.failure);
        ops.all(|op| match &op.request {
            Some(OneOp::RequestRange(_)) => true,
            Some(OneOp::RequestTxn(nested)) => Self::is_read(nested),
            _ => false,
        })
    }
}

impl IntoFuture for Txn<Client> {
    type Output = Result<pb::TxnResponse, Error>;
    type IntoFuture = Answer<pb::TxnResponse>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let call = async |client: Client, request| client.kv().txn(request).await;
            if Self::is_read(&self.request) {
                self.client.read(self.request, call).await
            } else {
                self.client.write(self.request, call).await
            }
        })
    }
}

/// One condition of a transaction: what of the key, compared how, with what.
///
/// ```
/// use quorate_client::Compare;
/// let unchanged = Compare::mod_revision("k").equal(7);
/// let exists = Compare::version("k").greater(0);
/// let said_yes = Compare::value("k").equal("yes");
/// ```
#[derive(Debug, Clone)]
pub struct Compare(pb::Compare);

/// A number of a key, to be compared.
#[derive(Debug, Clone)]
#[must_use]
pub struct CompareNumber {
    key: Bytes,
    target: CompareTarget,
    union: fn(i64) -> TargetUnion,
}

/// The value of a key, to be compared. A missing key has none: no comparison holds.
#[derive(Debug, Clone)]
#[must_use]
pub struct CompareValue {
    key: Bytes,
}

impl Compare {
    /// How often the key was written since it was created; 0 if it is missing.
    pub fn version(key: impl AsRef<[u8]>) -> CompareNumber {
        Self::number(key, CompareTarget::Version, TargetUnion::Version)
    }

    /// The revision that created the key; 0 if it is missing.
    pub fn create_revision(key: impl AsRef<[u8]>) -> CompareNumber {
        Self::number(key, CompareTarget::Create, TargetUnion::CreateRevision)
    }

    /// The revision that wrote the key last; 0 if it is missing.
    pub fn mod_revision(key: impl AsRef<[u8]>) -> CompareNumber {
        Self::number(key, CompareTarget::Mod, TargetUnion::ModRevision)
    }

    /// The lease of the key; 0 for none.
    pub fn lease(key: impl AsRef<[u8]>) -> CompareNumber {
        Self::number(key, CompareTarget::Lease, TargetUnion::Lease)
    }

    /// The value of the key.
    pub fn value(key: impl AsRef<[u8]>) -> CompareValue {
        CompareValue { key: to_bytes(key) }
    }

    fn number(
        key: impl AsRef<[u8]>,
        target: CompareTarget,
        union: fn(i64) -> TargetUnion,
    ) -> CompareNumber {
        CompareNumber {
            key: to_bytes(key),
            target,
            union,
        }
    }

    /// The comparison must hold for every key that begins with the key.
    #[must_use]
    pub fn prefix(mut self) -> Self {
        self.0.range_end = prefix_range(&mut self.0.key);
        self
    }

    /// The comparison must hold for every key from the key up to `end`.
    #[must_use]
    pub fn until(mut self, end: impl AsRef<[u8]>) -> Self {
        self.0.range_end = to_bytes(end);
        self
    }
}

impl From<Compare> for pb::Compare {
    fn from(compare: Compare) -> Self {
        compare.0
    }
}

macro_rules! results {
    ($type:ident, $operand:ty) => {
        impl $type {
            /// It is equal to `other`.
            pub fn equal(self, other: $operand) -> Compare {
                self.with(CompareResult::Equal, other)
            }

            /// It is not equal to `other`.
            pub fn not_equal(self, other: $operand) -> Compare {
                self.with(CompareResult::NotEqual, other)
            }

            /// It is greater than `other`.
            pub fn greater(self, other: $operand) -> Compare {
                self.with(CompareResult::Greater, other)
            }

            /// It is less than `other`.
            pub fn less(self, other: $operand) -> Compare {
                self.with(CompareResult::Less, other)
            }
        }
    };
}
results!(CompareNumber, i64);
results!(CompareValue, impl AsRef<[u8]>);

impl CompareNumber {
    fn with(self, result: CompareResult, other: i64) -> Compare {
        Compare(pb::Compare {
            result: result.into(),
            target: self.target.into(),
            key: self.key,
            range_end: Bytes::new(),
            target_union: Some((self.union)(other)),
        })
    }
}

impl CompareValue {
    fn with(self, result: CompareResult, other: impl AsRef<[u8]>) -> Compare {
        Compare(pb::Compare {
            result: result.into(),
            target: CompareTarget::Value.into(),
            key: self.key,
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Value(to_bytes(other))),
        })
    }
}
