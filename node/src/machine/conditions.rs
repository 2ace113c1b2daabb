//! Alarms and downgrades: how they are set, and which commands an alarm refuses.
//!
//! etcd: server/etcdserver/api/v3alarm/alarms.go, server/etcdserver/apply/{backend,capped,
//! corrupt}.go, server/etcdserver/apply/uber_applier.go (restoreAlarms).

use std::sync::Arc;

use super::{Applied, Machine, header};
use crate::model::kv::alarm_request::AlarmAction;
use crate::model::kv::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DowngradeTarget, Reply, command,
};
use crate::model::{Conditions, Refusal, cost};
use crate::storage::Batch;

/// Why the present alarms refuse a command; none when they let it through.
pub(super) fn refusal(conditions: &Conditions, kind: &command::Kind) -> Option<Refusal> {
    if conditions.alarms().is_empty() {
        return None;
    }
    let writes = matches!(
        kind,
        command::Kind::Put(_)
            | command::Kind::DeleteRange(_)
            | command::Kind::Txn(_)
            | command::Kind::Compaction(_)
            | command::Kind::LeaseGrant(_)
            | command::Kind::LeaseRevoke(_)
    );
    if writes && conditions.has(AlarmType::Corrupt) {
        return Some(Refusal::Corrupt);
    }
    let takes_space = match kind {
        command::Kind::Put(_) | command::Kind::LeaseGrant(_) => true,
        command::Kind::Txn(request) => cost::of_txn(request) > 0,
        _ => false,
    };
    (takes_space && conditions.has(AlarmType::Nospace)).then_some(Refusal::NoSpace)
}

impl Machine {
    /// Raises an alarm or takes it back. The door answers GET itself.
    pub(super) fn alarm(&mut self, batch: &mut Batch, request: &AlarmRequest) -> Applied {
        let alarm = AlarmMember {
            member_id: request.member_id,
            alarm: request.alarm,
        };
        let mut conditions = Conditions::clone(&self.conditions);
        let mut alarms = Vec::new();
        let changed = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) if request.alarm != AlarmType::None as i32 => {
                alarms.push(alarm);
                conditions.activate(alarm)
            }
            Ok(AlarmAction::Deactivate) => {
                let found = conditions.deactivate(&alarm);
                alarms.extend(found.then_some(alarm));
                found
            }
            Ok(AlarmAction::Get) => {
                alarms = conditions.alarms_of(request.alarm);
                false
            }
            _ => false,
        };
        if changed {
            self.set_conditions(batch, conditions);
        }
        Applied::done(Reply::Alarm(AlarmResponse {
            header: header(self.revision),
            alarms,
        }))
    }

    /// Lets the cluster be downgraded to a version, or no longer.
    ///
    /// etcd: server/etcdserver/apply/backend.go (DowngradeInfoSet).
    pub(super) fn downgrade(&mut self, batch: &mut Batch, request: &DowngradeTarget) -> Applied {
        let target = (!request.version.is_empty()).then(|| request.version.clone());
        if self.conditions.downgrade_target != target {
            let mut conditions = Conditions::clone(&self.conditions);
            conditions.downgrade_target = target;
            self.set_conditions(batch, conditions);
        }
        Applied::done(Reply::Done)
    }

    fn set_conditions(&mut self, batch: &mut Batch, conditions: Conditions) {
        self.conditions = Arc::new(conditions);
        batch.set_conditions(Arc::clone(&self.conditions));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::model::kv::request_op::Request;
    use crate::model::kv::{PutRequest, RangeRequest, RequestOp, TxnRequest};
    use crate::storage::Db;

    const NOSPACE: i32 = AlarmType::Nospace as i32;
    const CORRUPT: i32 = AlarmType::Corrupt as i32;

    fn alarm(action: AlarmAction, member_id: u64, alarm: i32) -> command::Kind {
        command::Kind::Alarm(AlarmRequest {
            action: action.into(),
            member_id,
            alarm,
        })
    }

    fn raise(rig: &mut Rig, member: u64, kind: i32) -> Vec<(u64, i32)> {
        answered(rig, alarm(AlarmAction::Activate, member, kind))
    }

    fn answered(rig: &mut Rig, kind: command::Kind) -> Vec<(u64, i32)> {
        match rig.apply(kind).outcome.unwrap() {
            Reply::Alarm(reply) => {
                let alarms = reply.alarms.iter();
                alarms.map(|alarm| (alarm.member_id, alarm.alarm)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn txn_of(request: Request) -> command::Kind {
        let operation = RequestOp {
            request: Some(request),
        };
        let nested = TxnRequest {
            failure: vec![operation],
            ..Default::default()
        };
        txn(TxnRequest {
            success: vec![RequestOp {
                request: Some(Request::RequestTxn(nested)),
            }],
            ..Default::default()
        })
    }

    #[test]
    fn alarms_are_raised_and_taken_back_as_etcd_does() {
        let mut rig = Rig::new();
        assert_eq!(raise(&mut rig, 7, AlarmType::None as i32), []);
        assert_eq!(raise(&mut rig, 7, NOSPACE), [(7, NOSPACE)]);
        assert_eq!(raise(&mut rig, 7, NOSPACE), [(7, NOSPACE)]);
        assert_eq!(raise(&mut rig, 3, NOSPACE), [(3, NOSPACE)]);
        // One that etcd has no name for is kept like the others.
        assert_eq!(raise(&mut rig, 3, 9), [(3, 9)]);
        let get = |kind| alarm(AlarmAction::Get, 0, kind);
        let all = [(3, NOSPACE), (7, NOSPACE), (3, 9)];
        assert_eq!(answered(&mut rig, get(0)), all);
        assert_eq!(answered(&mut rig, get(NOSPACE)), all[..2]);
        let off = |member, kind| alarm(AlarmAction::Deactivate, member, kind);
        assert_eq!(answered(&mut rig, off(7, CORRUPT)), []);
        assert_eq!(answered(&mut rig, off(7, NOSPACE)), [(7, NOSPACE)]);
        assert_eq!(rig.view().conditions.alarms().len(), 2);
        // Nothing of it makes a revision.
        assert_eq!(rig.view().revision, 1);
    }

    #[test]
    fn no_space_refuses_what_takes_space() {
        let mut rig = Rig::new();
        rig.put("a", "1");
        rig.apply(grant(5, 60));
        raise(&mut rig, 7, NOSPACE);
        let put_request = Request::RequestPut(PutRequest::default());
        for kind in [put("a", "2", 0), grant(6, 60), txn_of(put_request)] {
            assert_eq!(rig.apply(kind).outcome, Err(Refusal::NoSpace));
        }
        let range = Request::RequestRange(RangeRequest::default());
        for kind in [txn_of(range), revoke(5), delete("a", b""), compact(2)] {
            let refused = format!("{kind:?}");
            assert!(rig.apply(kind).outcome.is_ok(), "{refused}");
        }
        answered(&mut rig, alarm(AlarmAction::Deactivate, 7, NOSPACE));
        assert_eq!(rig.put("a", "2"), 4);
    }

    #[test]
    fn corruption_refuses_everything_and_outranks_no_space() {
        let mut rig = Rig::new();
        rig.apply(grant(5, 60));
        raise(&mut rig, 0, CORRUPT);
        raise(&mut rig, 0, NOSPACE);
        let range = Request::RequestRange(RangeRequest::default());
        for kind in [
            put("a", "2", 0),
            grant(6, 60),
            txn_of(range),
            revoke(5),
            delete("a", b""),
            compact(1),
        ] {
            assert_eq!(rig.apply(kind).outcome, Err(Refusal::Corrupt));
        }
    }

    #[test]
    fn conditions_outlive_a_restart() {
        let mut rig = Rig::new();
        raise(&mut rig, 7, NOSPACE);
        let downgrade = DowngradeTarget {
            version: "3.6.0".into(),
        };
        rig.apply(command::Kind::Downgrade(downgrade));
        let before = Arc::clone(&rig.view().conditions);
        assert_eq!(before.downgrade_target.as_deref(), Some("3.6.0"));
        rig.db.flush().unwrap();
        let path = rig.db.path().to_owned();
        let Rig { db, directory, .. } = rig;
        drop(db);
        let db = Db::open(&path).unwrap();
        assert_eq!(Machine::load(&db).unwrap().conditions, before);
        assert_eq!(super::super::view::View::of(&db).conditions, before);
        drop(directory);
    }
}
