//! Refusals as gRPC statuses: exactly etcd's code and text, in this one place.
//!
//! etcd: api/v3rpc/rpctypes/error.go, server/etcdserver/api/v3rpc/util.go.

use tonic::{Code, Status};

use crate::machine::view::ReadError;
use crate::model::Refusal;

/// What tonic says of a message over the limit; see [`too_large_message`].
const TONIC_TOO_LARGE: &str = "Error, decoded message length too large: found ";

/// The status of a refusal.
pub fn status(refusal: Refusal) -> Status {
    Status::new(code(&refusal), refusal.to_string())
}

/// The status of a read that has no answer. A failed disk stops the node; until it does, the
/// caller is told what happened.
pub fn read_status(error: ReadError) -> Status {
    match error {
        ReadError::Refused(refusal) => status(refusal),
        ReadError::Failed(error) => failure(&error),
    }
}

/// The status of a failure that is nobody's request's fault: etcd sends those as Unknown.
pub fn failure(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a read failed");
    Status::unknown(error.to_string())
}

/// The status of an RPC that a later release brings.
pub fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("quorate: {what} is not supported yet"))
}

/// etcd's code for a refusal.
fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::EmptyKey
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOps
        | Refusal::DuplicateKey
        | Refusal::InvalidSortOption
        | Refusal::InvalidClientApiVersion
        | Refusal::RequestTooLarge
        | Refusal::BadMemberUrls
        | Refusal::WrongDowngradeVersionFormat
        | Refusal::InvalidDowngradeTarget => Code::InvalidArgument,
        Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => {
            Code::OutOfRange
        }
        Refusal::NoSpace => Code::ResourceExhausted,
        Refusal::LeaseNotFound | Refusal::MemberNotFound => Code::NotFound,
        Refusal::LeaseExists
        | Refusal::NotLeader
        | Refusal::NotSupportedForLearner
        | Refusal::BadLeaderTransferee
        | Refusal::MemberExists
        | Refusal::PeerUrlExists
        | Refusal::MemberNotLearner
        | Refusal::LearnerNotReady
        | Refusal::TooManyLearners
        | Refusal::ClusterIdMismatch
        | Refusal::DowngradeInProcess
        | Refusal::NoInflightDowngrade => Code::FailedPrecondition,
        // rpctypes declares ResourceExhausted and FailedPrecondition, but the server's table of
        // codes names the bare errors, so that they reach the wire as Unknown. Clients see that,
        // so we send that.
        Refusal::TooManyRequests | Refusal::NotEnoughStartedMembers => Code::Unknown,
        // The server's table of codes does not know it.
        Refusal::TimeoutLeaderTransfer => Code::Unknown,
        Refusal::NoLeader
        | Refusal::LeaderChanged
        | Refusal::Stopped
        | Refusal::Timeout
        | Refusal::TimeoutLeaderFailure
        | Refusal::TimeoutConnectionLost
        | Refusal::TimeoutWaitAppliedIndex
        | Refusal::Unhealthy => Code::Unavailable,
        Refusal::Corrupt => Code::DataLoss,
    }
}

/// grpc-go's status for a message over the limit, if `status` is tonic's for the same thing.
pub fn too_large_message(status: &Status) -> Option<Status> {
    let rest = status.message().strip_prefix(TONIC_TOO_LARGE)?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error table of etcd: api/v3rpc/rpctypes/error.go.
    const CODES_AND_TEXTS: &[(Refusal, i32, &str)] = &[
        (Refusal::EmptyKey, 3, "etcdserver: key is not provided"),
        (Refusal::KeyNotFound, 3, "etcdserver: key not found"),
        (Refusal::ValueProvided, 3, "etcdserver: value is provided"),
        (Refusal::LeaseProvided, 3, "etcdserver: lease is provided"),
        (
            Refusal::TooManyOps,
            3,
            "etcdserver: too many operations in txn request",
        ),
        (
            Refusal::DuplicateKey,
            3,
            "etcdserver: duplicate key given in txn request",
        ),
        (
            Refusal::InvalidSortOption,
            3,
            "etcdserver: invalid sort option",
        ),
        (
            Refusal::InvalidClientApiVersion,
            3,
            "etcdserver: invalid client api version",
        ),
        (
            Refusal::Compacted,
            11,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            Refusal::FutureRevision,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            Refusal::NoSpace,
            8,
            "etcdserver: mvcc: database space exceeded",
        ),
        (
            Refusal::LeaseNotFound,
            5,
            "etcdserver: requested lease not found",
        ),
        (Refusal::LeaseExists, 9, "etcdserver: lease already exists"),
        (
            Refusal::LeaseTtlTooLarge,
            11,
            "etcdserver: too large lease TTL",
        ),
        (
            Refusal::RequestTooLarge,
            3,
            "etcdserver: request is too large",
        ),
        (Refusal::TooManyRequests, 2, "etcdserver: too many requests"),
        (Refusal::NoLeader, 14, "etcdserver: no leader"),
        (Refusal::NotLeader, 9, "etcdserver: not leader"),
        (Refusal::LeaderChanged, 14, "etcdserver: leader changed"),
        (Refusal::Stopped, 14, "etcdserver: server stopped"),
        (Refusal::Timeout, 14, "etcdserver: request timed out"),
        (
            Refusal::TimeoutLeaderFailure,
            14,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (
            Refusal::TimeoutConnectionLost,
            14,
            "etcdserver: request timed out, possibly due to connection lost",
        ),
        (
            Refusal::TimeoutWaitAppliedIndex,
            14,
            "etcdserver: request timed out, waiting for the applied index took too long",
        ),
        (
            Refusal::TimeoutLeaderTransfer,
            2,
            "etcdserver: request timed out, leader transfer took too long",
        ),
        (
            Refusal::NotSupportedForLearner,
            9,
            "etcdserver: rpc not supported for learner",
        ),
        (
            Refusal::BadLeaderTransferee,
            9,
            "etcdserver: bad leader transferee",
        ),
        (
            Refusal::WrongDowngradeVersionFormat,
            3,
            "etcdserver: wrong downgrade target version format",
        ),
        (
            Refusal::InvalidDowngradeTarget,
            3,
            "etcdserver: invalid downgrade target version",
        ),
        (
            Refusal::DowngradeInProcess,
            9,
            "etcdserver: cluster has a downgrade job in progress",
        ),
        (
            Refusal::NoInflightDowngrade,
            9,
            "etcdserver: no inflight downgrade job",
        ),
        (Refusal::Corrupt, 15, "etcdserver: corrupt cluster"),
        (Refusal::MemberNotFound, 5, "etcdserver: member not found"),
        (
            Refusal::MemberExists,
            9,
            "etcdserver: member ID already exist",
        ),
        (
            Refusal::PeerUrlExists,
            9,
            "etcdserver: Peer URLs already exists",
        ),
        (
            Refusal::NotEnoughStartedMembers,
            2,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        (
            Refusal::BadMemberUrls,
            3,
            "etcdserver: given member URLs are invalid",
        ),
        (
            Refusal::MemberNotLearner,
            9,
            "etcdserver: can only promote a learner member",
        ),
        (
            Refusal::LearnerNotReady,
            9,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        (
            Refusal::TooManyLearners,
            9,
            "etcdserver: too many learner members in cluster",
        ),
        (Refusal::Unhealthy, 14, "etcdserver: unhealthy cluster"),
        (
            Refusal::ClusterIdMismatch,
            9,
            "etcdserver: cluster ID mismatch",
        ),
    ];

    #[test]
    fn codes_and_texts_are_those_of_etcd() {
        for (refusal, code, text) in CODES_AND_TEXTS.iter().cloned() {
            let got = status(refusal);
            assert_eq!((got.code() as i32, got.message()), (code, text));
        }
    }

    #[test]
    fn a_message_over_the_limit_is_told_in_the_words_of_grpc_go() {
        let tonic = Status::out_of_range(
            "Error, decoded message length too large: found 2200010 bytes, \
             the limit is: 2097152 bytes",
        );
        let got = too_large_message(&tonic).expect("tonic's own text");
        assert_eq!(got.code(), Code::ResourceExhausted);
        assert_eq!(
            got.message(),
            "grpc: received message larger than max (2200010 vs. 2097152)"
        );
        assert!(too_large_message(&status(Refusal::Compacted)).is_none());
    }
}
