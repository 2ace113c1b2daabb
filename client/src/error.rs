//! What can go wrong with a call, told apart by what it means for the caller's data.

use std::error::Error as StdError;

use tonic::{Code, Status};

use crate::retry::is_transport;

/// A failed call.
///
/// The first question after a failed write is whether it was done. The variants answer it:
/// *not done* for [`Refused`](Error::Refused) and [`Unreachable`](Error::Unreachable), *nobody
/// knows* for [`Ambiguous`](Error::Ambiguous).
///
/// ```no_run
/// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::{Error, Refusal};
/// match client.put("k", "v").lease(7).await {
///     Ok(put) => println!("revision {}", put.header.unwrap_or_default().revision),
///     Err(error) if error.refusal() == Some(Refusal::LeaseNotFound) => println!("lease gone"),
///     Err(Error::Ambiguous { text, .. }) => println!("read before you write again: {text}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server said no: nothing was done.
    #[error("{text}")]
    Refused {
        /// gRPC's code.
        code: Code,
        /// The server's text; etcd's known ones are told apart by [`Error::refusal`].
        text: String,
    },
    /// Nothing was done, because no server took the call; or it was a read and no answer came.
    #[error("{text}")]
    Unreachable {
        /// What was tried.
        text: String,
    },
    /// The write may have been done, or may still be done: the answer was lost. It was not
    /// repeated and must not be, unless it is harmless twice.
    #[error("outcome unknown: {text}")]
    Ambiguous {
        /// gRPC's code.
        code: Code,
        /// What ended the wait.
        text: String,
    },
    /// A watch asked for history that is gone. Read the current state and watch from there.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision that a watch can start from.
        compact_revision: i64,
    },
    /// The lease ended (expired or was revoked), and with it everything bound to it.
    #[error("lease {lease:x} is lost")]
    LeaseLost {
        /// Its ID.
        lease: i64,
    },
    /// Another session holds the lock (from `try_lock`), or this handle holds it no more.
    #[error("{text}")]
    NotHeld {
        /// Which of the two.
        text: &'static str,
    },
    /// The configuration or an argument is wrong; nothing was sent.
    #[error("{text}")]
    Invalid {
        /// What is wrong with it.
        text: String,
    },
}

/// The transport's mark on a status: the request never left, or the server said that it did not
/// look at it. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("the request was not sent")]
pub(crate) struct NotSent;

/// Texts with which a server refuses before it proposes anything, though their code would not
/// tell (etcd: api/v3rpc/rpctypes/error.go; several go out as `Unknown`).
const CERTAIN: [&str; 8] = [
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: re-configuration failed due to not enough started members",
    "election: no leader",
    "election: not leader",
    "\"leader\" field must be provided",
    "etcdserver: not capable",
];

/// How tonic begins the text of a response that did not fit: the write was done all the same.
const ANSWER_TOO_LARGE: &str = "Error, decoded message length too large";

impl Error {
    /// Judges the status of a **write**.
    pub fn of_write(status: Status) -> Self {
        let (code, text) = (status.code(), status.message().to_owned());
        if was_not_sent(&status) {
            return Self::Unreachable { text };
        }
        let certain = match code {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => true,
            Code::OutOfRange => !text.starts_with(ANSWER_TOO_LARGE),
            _ => CERTAIN.contains(&text.as_str()),
        };
        if certain {
            Self::Refused { code, text }
        } else {
            Self::Ambiguous { code, text }
        }
    }

    /// Judges the status of a **read**: it has no effect that could be in doubt.
    pub fn of_read(status: Status) -> Self {
        let (code, text) = (status.code(), status.message().to_owned());
        let from_server = text.starts_with("etcdserver: ");
        match code {
            _ if was_not_sent(&status) || is_transport(&status) => Self::Unreachable { text },
            Code::Unavailable | Code::DeadlineExceeded if !from_server => {
                Self::Unreachable { text }
            }
            _ => Self::Refused { code, text },
        }
    }

    /// gRPC's code, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } | Self::Ambiguous { code, .. } => Some(*code),
            Self::Unreachable { .. } => Some(Code::Unavailable),
            Self::Compacted { .. } => Some(Code::OutOfRange),
            _ => None,
        }
    }

    /// Whether the same call may be made again without fear of doing something twice, and with
    /// hope: nothing was done, and the reason may pass or may not be there at another member.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, text } => {
                *code == Code::Unavailable
                    || text == Refusal::TooManyRequests.text()
                    || text == Refusal::NotSupportedForLearner.text()
            }
            _ => false,
        }
    }

    /// Which of etcd's refusals this is, if it is a known one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { text, .. } => Refusal::of(text),
            Self::Compacted { .. } => Some(Refusal::Compacted),
            _ => None,
        }
    }
}

/// Whether the transport vouches that the server did nothing.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<NotSent>() {
            return true;
        }
        source = error.source();
    }
    false
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// etcd's known refusals, as far as callers act on them. Other texts stay in
        /// [`Error::Refused`]. Source: etcd api/v3rpc/rpctypes/error.go.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$doc])* $name,)+ }

        impl Refusal {
            const ALL: &[Self] = &[$(Self::$name,)+];

            /// The server's text.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

refusals! {
    /// A key is empty.
    EmptyKey = "etcdserver: key is not provided",
    /// `ignore_value` or `ignore_lease` on a missing key.
    KeyNotFound = "etcdserver: key not found",
    /// More compares or operations than a txn may have.
    TooManyOps = "etcdserver: too many operations in txn request",
    /// One txn puts a key twice.
    DuplicateKey = "etcdserver: duplicate key given in txn request",
    /// The revision is gone.
    Compacted = "etcdserver: mvcc: required revision has been compacted",
    /// The revision is yet to come.
    FutureRevision = "etcdserver: mvcc: required revision is a future revision",
    /// The store is full.
    NoSpace = "etcdserver: mvcc: database space exceeded",
    /// No such lease.
    LeaseNotFound = "etcdserver: requested lease not found",
    /// The lease's ID is taken.
    LeaseExists = "etcdserver: lease already exists",
    /// The lease's TTL is too long.
    LeaseTtlTooLarge = "etcdserver: too large lease TTL",
    /// The request is larger than the server takes.
    RequestTooLarge = "etcdserver: request is too large",
    /// The server is overloaded.
    TooManyRequests = "etcdserver: too many requests",
    /// No such member.
    MemberNotFound = "etcdserver: member not found",
    /// The member has no leader.
    NoLeader = "etcdserver: no leader",
    /// Only the leader does this.
    NotLeader = "etcdserver: not leader",
    /// The call changed leaders on its way.
    LeaderChanged = "etcdserver: leader changed",
    /// A member that learns answers few calls.
    NotSupportedForLearner = "etcdserver: rpc not supported for learner",
    /// The members' data disagree.
    Corrupt = "etcdserver: corrupt cluster",
    /// The user may not do this.
    PermissionDenied = "etcdserver: permission denied",
    /// Authentication is on and no user was given.
    UserEmpty = "etcdserver: user name is empty",
    /// Wrong user or password.
    AuthFailed = "etcdserver: authentication failed, invalid user ID or password",
    /// The token expired.
    InvalidAuthToken = "etcdserver: invalid auth token",
    /// Nobody leads this election.
    ElectionNoLeader = "election: no leader",
    /// Somebody else leads this election.
    ElectionNotLeader = "election: not leader",
}

impl Refusal {
    fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.text() == text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_write_is_in_doubt_unless_somebody_vouches_for_it() {
        let lost = Status::unavailable("etcdserver: request timed out");
        assert!(matches!(Error::of_write(lost), Error::Ambiguous { .. }));
        let large = Status::out_of_range("Error, decoded message length too large: found 9 bytes");
        assert!(matches!(Error::of_write(large), Error::Ambiguous { .. }));
        let busy = Status::unknown("etcdserver: too many requests");
        assert!(Error::of_write(busy).is_retryable());
        let gone = Error::of_write(Status::not_found("etcdserver: requested lease not found"));
        assert_eq!(gone.refusal(), Some(Refusal::LeaseNotFound));
        assert!(!gone.is_retryable());

        let mut unsent = Status::unavailable("connection refused");
        unsent.set_source(Arc::new(NotSent));
        assert!(matches!(Error::of_write(unsent), Error::Unreachable { .. }));
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        for status in [Status::unavailable("x"), Status::deadline_exceeded("x")] {
            assert!(matches!(Error::of_read(status), Error::Unreachable { .. }));
        }
    }
}
