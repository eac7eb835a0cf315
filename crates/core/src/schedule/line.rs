//! The waiters of one class in one lane, in the order in which they go.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, AddAssign, Sub, SubAssign};

use super::fair::{Fair, Start};
use super::{CallerId, Class};
use crate::time::Mono;

/// The place of a waiter among those of its class; the least goes first: the earliest start, so that nobody's deadlines keep others
/// from their shares; then the earliest deadline where deadlines count, then the earliest to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) start: Start,
    pub(super) urgency: Mono,
    pub(super) id: u64,
}

/// One caller's waiters. The start tag belongs to whoever is first among them.
#[derive(Debug)]
struct Flow {
    start: Start,
    waiting: BTreeSet<(Mono, u64)>,
}

impl Flow {
    fn rank(&self) -> Option<Rank> {
        let &(urgency, id) = self.waiting.first()?;
        Some(Rank { urgency, start: self.start, id })
    }
}

/// Callers that have somebody waiting, each counted once in each lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) count: u32,
    /// What they weigh together.
    pub(super) weight: u32,
}

impl Flows {
    fn one(caller: CallerId) -> Self {
        Self { count: 1, weight: caller.weight().into() }
    }

    /// Less so many lines of one of them.
    pub(super) fn without(self, caller: CallerId, lines: u32) -> Self {
        let weight = lines.saturating_mul(caller.weight().into());
        Self { count: self.count.saturating_sub(lines), weight: self.weight.saturating_sub(weight) }
    }

    pub(super) fn min(self, other: Self) -> Self {
        Self { count: self.count.min(other.count), weight: self.weight.min(other.weight) }
    }
}

impl Add for Flows {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        let (count, weight) =
            (self.count.saturating_add(more.count), self.weight.saturating_add(more.weight));
        Self { count, weight }
    }
}

impl Sub for Flows {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self { count: self.count - less.count, weight: self.weight - less.weight }
    }
}

impl AddAssign for Flows {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl SubAssign for Flows {
    fn sub_assign(&mut self, less: Self) {
        *self = *self - less;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line {
    flows: BTreeMap<CallerId, Flow>,
    /// The callers in `flows`.
    callers: Flows,
    /// The first of every caller.
    order: BTreeSet<(Rank, CallerId)>,
    /// The barrier at which the line waits.
    pub(super) at: Option<usize>,
    len: u32,
}

impl Line {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Callers with somebody in it.
    pub(super) fn flows(&self) -> Flows {
        self.callers
    }

    /// How many of `caller` wait.
    pub(super) fn of(&self, caller: CallerId) -> u32 {
        self.flows.get(&caller).map_or(0, |flow| u32::try_from(flow.waiting.len()).unwrap_or(u32::MAX))
    }

    /// Who goes next.
    pub(super) fn head(&self) -> Option<Rank> {
        self.order.first().map(|&(rank, _)| rank)
    }

    /// What counts as the urgency of a waiter.
    pub(super) fn urgency(class: Class, deadline: Option<Mono>) -> Mono {
        if class.by_deadline() { deadline.unwrap_or(Mono::MAX) } else { Mono::ZERO }
    }

    pub(super) fn urgencies(&self) -> impl Iterator<Item = Mono> {
        self.flows.values().flat_map(|flow| flow.waiting.iter().map(|&(urgency, _)| urgency))
    }

    pub(super) fn insert(&mut self, fair: &mut Fair, caller: CallerId, urgency: Mono, id: u64) {
        let flow = self.flows.entry(caller).or_insert_with(|| {
            self.callers += Flows::one(caller);
            Flow { start: fair.joins(caller), waiting: BTreeSet::new() }
        });
        fair.came(caller);
        let before = flow.rank();
        flow.waiting.insert((urgency, id));
        let after = flow.rank();
        self.len += 1;
        self.reorder(caller, before, after);
    }

    /// A waiter leaves without a permit. Its place is the next one's of the same caller.
    pub(super) fn remove(&mut self, fair: &mut Fair, caller: CallerId, urgency: Mono, id: u64) {
        let Some(flow) = self.flows.get_mut(&caller) else { return };
        let before = flow.rank();
        if !flow.waiting.remove(&(urgency, id)) {
            return;
        }
        let after = flow.rank();
        self.len -= 1;
        if after.is_none() {
            fair.leaves(caller, flow.start);
            self.flows.remove(&caller);
            self.callers -= Flows::one(caller);
        }
        fair.went(caller);
        self.reorder(caller, before, after);
    }

    /// The head goes.
    pub(super) fn take(&mut self, fair: &mut Fair) -> Option<u64> {
        let (rank, caller) = self.order.pop_first()?;
        let flow = self.flows.get_mut(&caller)?;
        flow.waiting.remove(&(rank.urgency, rank.id));
        self.len -= 1;
        fair.took(caller, rank.start);
        if flow.waiting.is_empty() {
            fair.ends(caller);
            self.flows.remove(&caller);
            self.callers -= Flows::one(caller);
        } else {
            flow.start = fair.goes_on(caller);
            let next = flow.rank();
            self.reorder(caller, None, next);
        }
        fair.went(caller);
        Some(rank.id)
    }

    /// Sets the head's start right, if its caller took permits elsewhere since. True if it was wrong: then another may be the head.
    pub(super) fn refresh(&mut self, fair: &Fair) -> bool {
        let Some(&(rank, caller)) = self.order.first() else { return false };
        let Some(start) = fair.present(caller).filter(|&start| start != rank.start) else { return false };
        let Some(flow) = self.flows.get_mut(&caller) else { return false };
        flow.start = start;
        let after = flow.rank();
        self.reorder(caller, Some(rank), after);
        true
    }

    fn reorder(&mut self, caller: CallerId, before: Option<Rank>, after: Option<Rank>) {
        if before == after {
            return;
        }
        if let Some(rank) = before {
            self.order.remove(&(rank, caller));
        }
        if let Some(rank) = after {
            self.order.insert((rank, caller));
        }
    }
}
