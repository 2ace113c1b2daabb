//! Random calls on etcd's whole KV, lease and maintenance API, good and bad, from one seed.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Few enough that calls meet, and that Go sorts ties in a stable way (at most 12 elements).
const KEYS: u32 = 9;

/// The deepest nesting of transactions.
const DEPTH_MAX: u32 = 3;

/// One call of a script.
#[derive(Clone, Debug)]
pub enum Step {
    Range(pb::RangeRequest),
    RangeStream(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    HashKv(pb::HashKvRequest),
    Watch(pb::WatchCreateRequest),
    WatchCancel(i64),
    /// Waits until all watchers were told everything, and compares what they were told.
    WatchSync,
}

/// Makes the steps. What it knows of the store comes from the answers, by way of `saw_revision`.
#[derive(Debug)]
pub struct Script {
    random: StdRng,
    revision: i64,
    compacted: i64,
    values: u64,
    watches: i64,
    /// What has to follow the last step.
    next: Option<Step>,
}

impl Script {
    /// A script from a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            revision: 1,
            compacted: 0,
            values: 0,
            watches: 0,
            next: None,
        }
    }

    /// Tells the script how far the store is.
    pub fn saw_revision(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    /// The next call.
    pub fn step(&mut self) -> Step {
        if let Some(step) = self.next.take() {
            return step;
        }
        match self.random.random_range(0..1000) {
            0..250 => Step::Put(self.put()),
            250..330 => Step::Delete(self.delete()),
            330..530 => Step::Range(self.range()),
            530..560 => Step::RangeStream(self.range_stream()),
            560..760 => Step::Txn(self.txn(0)),
            760..800 => Step::LeaseGrant(self.grant()),
            800..820 => Step::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            820..840 => Step::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: self.lease() }),
            840..865 => Step::LeaseTimeToLive(pb::LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.random.random(),
            }),
            865..875 => Step::Leases,
            875..890 => self.hash(),
            890..900 => self.compact(),
            900..940 => self.watch(),
            940..960 => Step::WatchCancel(self.random.random_range(-1..self.watches + 2)),
            960..975 => Step::WatchSync,
            975..980 => self.too_large(),
            980..985 => {
                // More than 12 keys would be sorted with ties in an order of Go's own.
                self.next = Some(Step::Delete(pb::DeleteRangeRequest {
                    key: "many/".into(),
                    range_end: "many0".into(),
                    prev_kv: false,
                }));
                Step::Txn(self.too_many())
            }
            _ => Step::Put(self.bad_put()),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn key(&mut self) -> Bytes {
        match self.random.random_range(0..100) {
            0 => Bytes::new(),
            1 => Bytes::from_static(&[0]),
            2 => Bytes::from_static(&[0xff, 0xff]),
            3 => Bytes::from_static(b"k/\x00\xfe"),
            _ => format!("k/{}", self.random.random_range(0..KEYS)).into(),
        }
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.random_range(0..10) {
            0..5 => Bytes::new(),
            5 => Bytes::from_static(&[0]),
            6 => Bytes::from_static(b"k0"),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        match self.random.random_range(0..20) {
            0 => Bytes::new(),
            1 => vec![0xab; 3000].into(),
            2..8 => format!("same{}", self.random.random_range(0..3)).into(),
            _ => format!("v{}", self.values).into(),
        }
    }

    /// Leases have numbers of ours, so that both servers know them by the same.
    fn lease(&mut self) -> i64 {
        match self.random.random_range(0..12) {
            0 => 424_242,
            1 => -7,
            _ => self.random.random_range(1..8),
        }
    }

    /// Mostly now, sometimes before, compacted, in the future, or nonsense.
    fn any_revision(&mut self) -> i64 {
        let now = self.revision;
        match self.random.random_range(0..20) {
            0..10 => 0,
            10..16 => self.random.random_range(self.compacted.max(1)..=now),
            16 => self.random.random_range(0..=now),
            17 => now + self.random.random_range(1..3),
            18 => self.compacted,
            _ => -1,
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let lease = if self.chance(25) { self.lease() } else { 0 };
        pb::PutRequest {
            key: self.key(),
            value: self.value(),
            lease,
            prev_kv: self.chance(30),
            ..Default::default()
        }
    }

    fn bad_put(&mut self) -> pb::PutRequest {
        let mut put = self.put();
        put.ignore_value = self.random.random();
        put.ignore_lease = self.random.random();
        if self.random.random() {
            put.value = Bytes::new();
        }
        if self.random.random() {
            put.lease = 0;
        }
        put
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let mut range_end = self.range_end();
        // Rarely everything: a store that is always empty shows little.
        if range_end.as_ref() == [0] && self.chance(70) {
            range_end = Bytes::new();
        }
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end,
            prev_kv: self.random.random(),
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut range = pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            revision: self.any_revision(),
            serializable: self.chance(30),
            ..Default::default()
        };
        if self.chance(30) {
            range.limit = self.random.random_range(-1..6);
        }
        if self.chance(30) {
            range.sort_order = self.random.random_range(0..3);
            range.sort_target = self.random.random_range(0..5);
        }
        match self.random.random_range(0..60) {
            0 => range.sort_order = 7,
            1 => range.sort_target = 9,
            2..6 => range.count_only = true,
            6..10 => range.keys_only = true,
            10 => range.min_mod_revision = self.random.random_range(0..=self.revision),
            11 => range.max_mod_revision = self.random.random_range(0..=self.revision),
            12 => range.min_create_revision = self.random.random_range(0..=self.revision),
            13 => range.max_create_revision = self.random.random_range(0..=self.revision),
            _ => {}
        }
        range
    }

    /// Without a target that has no order: etcd sorts each chunk by it, and chunks are its own.
    fn range_stream(&mut self) -> pb::RangeRequest {
        let mut range = self.range();
        if range.sort_order == 0 {
            range.sort_target = 0;
        }
        range
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let many = |script: &mut Self, max: u32| script.random.random_range(0..=max);
        let compares = many(self, 2);
        let success = many(self, 4);
        let failure = many(self, 3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.op(depth)).collect(),
            failure: (0..failure).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: u32) -> pb::RequestOp {
        let request = match self.random.random_range(0..100) {
            0..45 => Some(Request::RequestPut(self.put())),
            45..70 => Some(Request::RequestRange(self.range())),
            70..84 => Some(Request::RequestDeleteRange(self.delete())),
            84..98 if depth < DEPTH_MAX => Some(Request::RequestTxn(self.txn(depth + 1))),
            98 => None,
            _ => Some(Request::RequestPut(self.bad_put())),
        };
        pb::RequestOp { request }
    }

    fn compare(&mut self) -> pb::Compare {
        let target = self.random.random_range(0..5);
        let number = match self.random.random_range(0..3) {
            0 => self.random.random_range(0..3),
            1 => self.revision,
            _ => self.random.random_range(0..=self.revision),
        };
        // Now and then the operand is of another kind than the target, or there is none.
        let kind = if self.chance(4) { 5 } else { target };
        let union = match kind {
            0 => Some(TargetUnion::Version(number.min(4))),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(self.lease())),
            _ => None,
        };
        let result = self.random.random_range(0..4);
        pb::Compare {
            result,
            target,
            key: self.key(),
            range_end: if self.chance(20) {
                self.range_end()
            } else {
                Bytes::new()
            },
            target_union: union,
        }
    }

    /// 129 operations are one too many; spread over a nested transaction they are too.
    fn too_many(&mut self) -> pb::TxnRequest {
        let put = |number: u32| {
            let put = pb::PutRequest {
                key: format!("many/{number}").into(),
                ..Default::default()
            };
            pb::RequestOp {
                request: Some(Request::RequestPut(put)),
            }
        };
        let count = self.random.random_range(127..131);
        let mut txn = pb::TxnRequest {
            success: (0..count).map(put).collect(),
            ..Default::default()
        };
        if self.random.random() {
            let inner = pb::TxnRequest {
                success: txn.success.split_off(64),
                ..Default::default()
            };
            txn.success.push(pb::RequestOp {
                request: Some(Request::RequestTxn(inner)),
            });
        }
        txn
    }

    fn too_large(&mut self) -> Step {
        let bytes = match self.random.random_range(0..3) {
            0 => 1_500_000,
            1 => 1_600_000,
            _ => 2_200_000,
        };
        Step::Put(pb::PutRequest {
            key: "large".into(),
            value: vec![b'x'; bytes].into(),
            ..Default::default()
        })
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let ttl = match self.random.random_range(0..10) {
            0 => 9_000_000_001,
            _ => self.random.random_range(5_000..9_000),
        };
        pb::LeaseGrantRequest {
            ttl,
            id: self.lease(),
        }
    }

    /// Only beyond the last compaction: before it etcd answers with a hash that it kept from one.
    fn hash(&mut self) -> Step {
        let beyond = i64::from(self.revision == self.compacted || self.random.random());
        Step::HashKv(pb::HashKvRequest {
            revision: self.revision + beyond,
        })
    }

    fn compact(&mut self) -> Step {
        let revision = match self.random.random_range(0..4) {
            0 => self.any_revision(),
            _ => self.random.random_range(self.compacted..=self.revision),
        };
        if revision <= self.revision {
            self.compacted = self.compacted.max(revision);
        }
        Step::Compact(pb::CompactionRequest {
            revision,
            physical: true,
        })
    }

    fn watch(&mut self) -> Step {
        self.watches += 1;
        let start_revision = match self.random.random_range(0..10) {
            0..5 => 0,
            5 => -1,
            6 => self.random.random_range(0..=self.revision),
            _ => self
                .random
                .random_range(self.compacted.max(1)..=self.revision),
        };
        let watch_id = if self.chance(10) { self.watches + 1 } else { 0 };
        pb_watch(pb::WatchCreateRequest {
            key: self.key(),
            range_end: self.range_end(),
            start_revision,
            prev_kv: self.random.random(),
            filters: if self.chance(20) {
                vec![self.random.random_range(0..3)]
            } else {
                Vec::new()
            },
            watch_id,
            ..Default::default()
        })
    }
}

fn pb_watch(create: pb::WatchCreateRequest) -> Step {
    Step::Watch(create)
}
