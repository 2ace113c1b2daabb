//! What the operator knows of one cluster at one moment, and what it may do next: plain values
//! without any input or output, so that every decision can be tested.

mod action;
mod observed;
#[cfg(test)]
pub mod testing;

pub use action::{Action, Cause, Plan, Refusal};
pub use observed::{
    AlarmKind, ClaimView, ClusterView, Listed, ListedMember, MemberView, Observed, PodView,
    Storage, Voice,
};
