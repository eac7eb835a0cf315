//! Callers that need the same gates.
//!
//! A lane is everything that waiters have in common that decides when they may go: family, credential, token lineage and
//! the declared limits that apply. In which order they go is [`crate::schedule`]'s part.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::key::{CredentialId, Family};
use crate::pace::ask::TokenSlot;
use crate::pace::wanting::Wanting;
use crate::time::Mono;

/// What callers of one lane have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub(super) family: Family,
    pub(super) credential: CredentialId,
    pub(super) token: TokenSlot,
    /// The declared limits that apply, a bit each.
    pub(super) limits: u128,
}

/// The gates its waiters need.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    /// The family as the bank knows it; `OTHER` until it proved to exist.
    pub(super) family: usize,
    /// The first is the family's own, implicit limit; then declared ones; then limits that only headers name.
    pub(super) gates: SmallVec<[usize; 3]>,
    /// Which of them readings without a name describe.
    pub(super) unnamed: usize,
    pub(super) waiting: u32,
    pub(super) tickets: u32,
    /// The credential as the registry knows it.
    pub(super) credential: u32,
    /// Its place among the members of its implicit gate, if it is one, or among the lanes of a family that did not prove to exist.
    pub(super) member: Option<u32>,
    /// When it was last asked for.
    pub(super) used: Mono,
    /// What its calls want of shared limits.
    pub(super) wanting: Option<Box<Wanting>>,
}

impl Lane {
    /// An empty lane without gates.
    pub(super) fn new(key: LaneKey, family: usize, credential: u32, now: Mono) -> Self {
        Self {
            key,
            family,
            gates: SmallVec::new(),
            unnamed: 0,
            waiting: 0,
            tickets: 0,
            credential,
            member: None,
            used: now,
            wanting: None,
        }
    }

    /// Nobody waits, and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.tickets == 0 && self.waiting == 0
    }
}

/// What the bank has to know of a parked caller, beside its place.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) give_up_at: Option<Mono>,
    /// The limit that made it wait.
    pub(super) limit: Arc<str>,
}

/// The earlier of two bounds.
pub(super) fn last_moment(deadline: Option<Mono>, give_up_at: Option<Mono>) -> Option<Mono> {
    match (deadline, give_up_at) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
