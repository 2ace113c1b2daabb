//! Checks of LeaseGrant, and what the server fills in: the ID and the least TTL.
//!
//! etcd: server/etcdserver/v3_server.go (LeaseGrant), server/lease/lessor.go (Grant).

use rand::Rng;

use crate::model::Refusal;
use crate::model::kv::LeaseGrantRequest;
use crate::model::limits::LEASE_TTL_SECONDS_MAX;

/// The least TTL that a lease gets: one and a half election timeouts, so that a lease outlives an
/// election, in whole seconds.
///
/// etcd: server/etcdserver/server.go, NewServer (minTTL).
pub fn least_ttl_seconds(heartbeat_ms: u64, election_ms: u64) -> i64 {
    let election_ticks = election_ms / heartbeat_ms.max(1);
    let least_ms = (3 * election_ticks) / 2 * heartbeat_ms;
    i64::try_from(least_ms.div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// Checks a LeaseGrant and completes it: ID 0 becomes a random positive one, a TTL below the
/// least is raised.
pub fn grant(mut request: LeaseGrantRequest, least_ttl: i64) -> Result<LeaseGrantRequest, Refusal> {
    if request.ttl > LEASE_TTL_SECONDS_MAX {
        return Err(Refusal::LeaseTtlTooLarge);
    }
    if request.id == 0 {
        request.id = rand::rng().random_range(1..=i64::MAX);
    }
    request.ttl = request.ttl.max(least_ttl);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_ttl_outlives_an_election() {
        assert_eq!(least_ttl_seconds(100, 1_000), 2);
        assert_eq!(least_ttl_seconds(100, 5_000), 8);
        assert_eq!(least_ttl_seconds(10, 50), 1);
    }

    #[test]
    fn a_grant_is_completed() {
        let granted = |ttl, id| grant(LeaseGrantRequest { ttl, id }, 2);
        assert_eq!(granted(-5, 7).map(|request| request.ttl), Ok(2));
        assert_eq!(granted(60, -3), Ok(LeaseGrantRequest { ttl: 60, id: -3 }));
        assert_eq!(
            granted(9_000_000_000, 7).map(|request| request.ttl),
            Ok(9_000_000_000)
        );
        assert_eq!(granted(9_000_000_001, 7), Err(Refusal::LeaseTtlTooLarge));
        let drawn = granted(10, 0).expect("it is in order");
        assert!(drawn.id > 0);
        assert_ne!(granted(10, 0).expect("it is in order").id, drawn.id);
    }
}
