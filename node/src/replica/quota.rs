//! The quota of this member's store, and the alarm that it raises.
//!
//! etcd: server/storage/quota.go, server/etcdserver/api/v3rpc/quota.go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Replica;
use crate::model::kv::alarm_request::AlarmAction;
use crate::model::kv::{AlarmRequest, AlarmType, Command, command};
use crate::model::limits::QUOTA_MEASURE_MS;
use crate::model::{Refusal, cost};
use crate::storage::{Db, Error};

/// How large the store may be, and how large it was when it was last looked at.
pub struct Quota {
    /// None when there is no quota.
    limit_bytes: Option<u64>,
    started: Instant,
    /// When the size was read, in milliseconds since `started`.
    measured_ms: AtomicU64,
    size_bytes: AtomicU64,
}

impl Quota {
    /// # Errors
    /// When the store cannot tell its size.
    pub fn new(limit_bytes: Option<u64>, db: &Db) -> Result<Self, Error> {
        let quota = Self {
            limit_bytes,
            started: Instant::now(),
            measured_ms: AtomicU64::new(0),
            size_bytes: AtomicU64::new(0),
        };
        quota.measure(db)?;
        Ok(quota)
    }

    fn measure(&self, db: &Db) -> Result<u64, Error> {
        let size = db.total_bytes()?;
        self.size_bytes.store(size, Ordering::Relaxed);
        Ok(size)
    }

    /// Whether something of this cost may be added. The size is at most about
    /// [`QUOTA_MEASURE_MS`] old, and fresh before anything is refused.
    fn has_room(&self, db: impl Fn() -> std::sync::Arc<Db>, cost: u64) -> Result<bool, Error> {
        let Some(limit) = self.limit_bytes else {
            return Ok(true);
        };
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let measured = self.measured_ms.load(Ordering::Relaxed);
        let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        let is_old = now.saturating_sub(measured) >= QUOTA_MEASURE_MS;
        // One caller alone reads it anew.
        let mine = is_old
            && self
                .measured_ms
                .compare_exchange(measured, now, order, failed)
                .is_ok();
        let mut size = self.size_bytes.load(Ordering::Relaxed);
        if mine || size.saturating_add(cost) >= limit {
            size = self.measure(&db())?;
        }
        Ok(size.saturating_add(cost) < limit)
    }
}

/// What a command is taken to add to the store.
fn cost_of(command: &Command) -> u64 {
    match &command.kind {
        Some(command::Kind::Put(request)) => cost::of_put(request),
        Some(command::Kind::Txn(request)) => cost::of_txn(request),
        Some(command::Kind::LeaseGrant(_)) => cost::LEASE,
        _ => 0,
    }
}

impl Replica {
    /// Refuses a command for which this member's store has no room, and raises the alarm.
    pub(super) async fn check_quota(&self, command: &Command) -> Result<(), Refusal> {
        let cost = cost_of(command);
        if cost == 0 {
            return Ok(());
        }
        match self.quota.has_room(|| self.db(), cost) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                self.fail("quota", &error);
                return Err(Refusal::Stopped);
            }
        }
        let member_id = self.member_id();
        if !self.view().conditions.has_of(member_id, AlarmType::Nospace) {
            let alarm = AlarmRequest {
                action: AlarmAction::Activate.into(),
                member_id,
                alarm: AlarmType::Nospace.into(),
            };
            tracing::warn!("the store is as large as its quota: raising the alarm NOSPACE");
            let command = Command {
                kind: Some(command::Kind::Alarm(alarm)),
            };
            if let Err(refusal) = self.propose_admitted(command).await {
                tracing::warn!(%refusal, "cannot raise the alarm NOSPACE");
            }
        }
        Err(Refusal::NoSpace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_where_size_and_cost_reach_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(directory.path()).unwrap();
        let size = db.total_bytes().unwrap();
        let has_room = |limit, cost| {
            let quota = Quota::new(limit, &db).unwrap();
            quota.has_room(|| db.clone(), cost).unwrap()
        };
        assert!(has_room(Some(size + 101), 100));
        assert!(!has_room(Some(size + 100), 100));
        assert!(has_room(None, u64::MAX));
        // A size that is out of date refuses nobody.
        let quota = Quota::new(Some(size + 101), &db).unwrap();
        quota.size_bytes.store(u64::MAX, Ordering::Relaxed);
        assert!(quota.has_room(|| db.clone(), 100).unwrap());
    }
}
