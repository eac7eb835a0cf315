//! Callers that wait for the same gates.
//!
//! A lane is a queue of waiters with everything in common that decides when they may go: family, credential, token
//! lineage and the declared limits that apply. Within it each class is first come, first served, but `sync`, which is
//! earliest deadline first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::key::{CredentialId, Family};
use crate::pace::ask::{Ask, Class, TokenSlot};
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

/// The place of a waiter in its class: deadline (only `sync` has one that counts), then arrival.
pub(super) type Place = (Mono, u64);

/// A queue per class, and the gates its waiters need.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    /// The family as the bank knows it; `OTHER` until it proved to exist.
    pub(super) family: usize,
    /// The first is the family's own, implicit limit; then declared ones; then limits that only headers name.
    pub(super) gates: Vec<usize>,
    /// Which of them readings without a name describe.
    pub(super) unnamed: usize,
    pub(super) queues: [BTreeMap<Place, u64>; 4],
    pub(super) tickets: u32,
    /// The credential as the registry knows it.
    pub(super) credential: u32,
    /// When it was last asked for.
    pub(super) used: Mono,
}

impl Lane {
    /// An empty lane without gates.
    pub(super) fn new(key: LaneKey, family: usize, credential: u32, now: Mono) -> Self {
        Self {
            key,
            family,
            gates: Vec::new(),
            unnamed: 0,
            queues: Default::default(),
            tickets: 0,
            credential,
            used: now,
        }
    }

    /// Nobody waits, and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.tickets == 0 && self.waiting() == 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.queues.iter().map(BTreeMap::len).sum()
    }

    pub(super) fn head(&self, class: Class) -> Option<(Place, u64)> {
        self.queues[class.index()].first_key_value().map(|(&place, &waiter)| (place, waiter))
    }
}

/// A parked caller.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) lane: usize,
    pub(super) class: Class,
    pub(super) place: Place,
    pub(super) since: Mono,
    pub(super) deadline: Option<Mono>,
    pub(super) give_up_at: Option<Mono>,
    /// The limit that made it wait.
    pub(super) limit: Arc<str>,
}

impl Waiter {
    pub(super) fn new(lane: usize, ask: &Ask<'_>, sequence: u64, now: Mono, limit: Arc<str>) -> Self {
        let urgency = if ask.class == Class::Sync { ask.deadline.unwrap_or(Mono::MAX) } else { Mono::ZERO };
        Self {
            lane,
            class: ask.class,
            place: (urgency, sequence),
            since: now,
            deadline: ask.deadline,
            give_up_at: ask.give_up_at,
            limit,
        }
    }

    /// The instant at which waiting has become pointless.
    pub(super) fn last_moment(&self) -> Option<Mono> {
        last_moment(self.deadline, self.give_up_at)
    }
}

/// The earlier of two bounds.
pub(super) fn last_moment(deadline: Option<Mono>, give_up_at: Option<Mono>) -> Option<Mono> {
    match (deadline, give_up_at) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
