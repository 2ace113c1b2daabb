//! The generated messages that the node uses inside as they are: plain records which are at once
//! the wire form, the form in the log and the form on disk, so that a second shape of them would
//! be a copy field for field.

pub use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse,
    Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseCheckpointRequest, LeaseGrantRequest,
    LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, Member as MemberMessage,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse, alarm_request, compare, range_request, request_op, response_op,
};
pub use quorate_proto::mvccpb::KeyValue;
pub use quorate_proto::quorate::entry::{
    Batch, Command, DowngradeTarget, MemberAttributes, Section, command,
};

/// What a command answers. The header holds the revision alone; the door fills in the rest.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Alarm(AlarmResponse),
    /// A lease checkpoint, a member's attributes or a downgrade's target: nothing to tell.
    Done,
}
