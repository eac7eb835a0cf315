//! What stops waiters, and who is stopped there.

use std::collections::BTreeSet;

use super::fair::Present;
use super::line::{Flows, Rank};
use super::tally::Tally;
use super::turns::Turns;
use super::{CallerId, Class, Line};
use crate::time::Mono;

/// Whether one more may pass a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// Now.
    Now,
    /// Not before this instant, if nothing happens before.
    At(Mono),
    /// Not before something happens.
    Event,
}

impl Opens {
    /// Whether it is to be waited for longer than `other`.
    pub fn is_later_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Now, _) | (_, Self::Event) => false,
            (Self::At(at), Self::At(other)) => at > other,
            (Self::At(_) | Self::Event, _) => true,
        }
    }
}

/// What those who wait want of one barrier.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Waiters by class that this barrier stops, and no other one.
    pub stopped: [u32; Class::COUNT],
    /// Since when the class asked about waits here without a permit, if others got some meanwhile.
    pub hungry_since: Option<Mono>,
}

impl Demand {
    /// Nobody waits.
    pub const fn of_nobody() -> Self {
        Self { stopped: [0; Class::COUNT], hungry_since: None }
    }
}

/// The barriers as their owner knows them.
pub trait Barriers {
    /// Whether one more of `class` may pass `barrier` at `now`.
    fn opens(&self, now: Mono, barrier: usize, class: Class, demand: &Demand) -> Opens;
}

/// What is waiting for a barrier. Exists only while somebody does.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    /// Waiters that have to pass it, wherever they are stopped now.
    pub(super) waiting: [u32; Class::COUNT],
    /// Callers among them, counted in each lane.
    pub(super) flows: [Flows; Class::COUNT],
    /// The deadlines among them, in the class where they count.
    deadlines: Tally,
    /// Lines that it stops, by the rank of their heads.
    pub(super) lines: [BTreeSet<(Rank, usize)>; Class::COUNT],
    /// Waiters in them.
    pub(super) stopped: [u32; Class::COUNT],
    /// Callers in them, counted in each lane.
    pub(super) stopped_flows: [Flows; Class::COUNT],
    hungry_since: [Mono; Class::COUNT],
    /// Others got permits since then.
    overtaken: [bool; Class::COUNT],
    pub(super) turns: Turns,
    /// Something changed since it was looked at.
    pub(super) stale: bool,
    pub(super) ready: Option<Ready>,
    pub(super) wake: Option<Mono>,
}

/// The one who would go next at a barrier that is open. The least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ready {
    pub(super) lead: u64,
    pub(super) class: Class,
    pub(super) rank: Rank,
    pub(super) barrier: usize,
    pub(super) lane: usize,
}

impl Barrier {
    pub(super) fn demand(&self, class: Class) -> Demand {
        let index = class.index();
        let hungry_since = self.overtaken[index].then_some(self.hungry_since[index]);
        Demand { stopped: self.stopped, hungry_since }
    }

    /// Nobody is stopped here and nothing is planned: a look would find nothing to do. Who is stopped later has it looked at.
    pub(super) fn is_at_rest(&self) -> bool {
        self.stopped == [0; Class::COUNT] && self.ready.is_none() && self.wake.is_none()
    }

    /// One more has to pass it.
    pub(super) fn expect(&mut self, now: Mono, class: Class, urgency: Mono) {
        let waiting = &mut self.waiting[class.index()];
        if *waiting == 0 {
            self.hungry_since[class.index()] = now;
            self.overtaken[class.index()] = false;
        }
        *waiting += 1;
        if class.by_deadline() {
            self.deadlines.add(urgency);
        }
    }

    /// One of `class` gets a permit.
    pub(super) fn passes(&mut self, now: Mono, class: Class) {
        self.turns.took(class);
        self.overtaken = [true; Class::COUNT];
        self.overtaken[class.index()] = false;
        self.hungry_since[class.index()] = now;
    }

    /// One less has to pass it. True if that was the last of all.
    pub(super) fn dismiss(&mut self, class: Class, urgency: Mono) -> bool {
        let waiting = &mut self.waiting[class.index()];
        *waiting = waiting.saturating_sub(1);
        if class.by_deadline() {
            self.deadlines.remove(urgency);
        }
        self.waiting.iter().all(|&waiting| waiting == 0)
    }

    /// Who of a class competes here with a newcomer that has to pass `others` as well: those it stops, and those that one of
    /// the others stops. Who is stopped by what the newcomer need not pass is not in its way.
    pub(super) fn rivals<'b>(&self, class: Class, others: impl Iterator<Item = &'b Self>) -> Rivals {
        let index = class.index();
        let (mut waiting, mut flows) = (0_u32, Flows::default());
        for other in others {
            waiting = waiting.saturating_add(other.stopped[index]);
            flows += other.stopped_flows[index];
        }
        let (all, here) = (self.waiting[index], self.stopped[index]);
        let (all_flows, here_flows) = (self.flows[index], self.stopped_flows[index]);
        Rivals {
            waiting: here + waiting.min(all - here),
            flows: here_flows + flows.min(all_flows - here_flows),
        }
    }

    /// How many of its own class, the `rivals`, go before a newcomer, at most, if `own` of `caller` wait in its lane already and
    /// `present` is what it has waiting anywhere.
    pub(super) fn before(
        &self,
        rivals: Rivals,
        class: Class,
        (caller, own, present): (CallerId, u32, Present),
        deadline: Option<Mono>,
    ) -> u32 {
        let (own, others) = if class.by_deadline() {
            // Of its own only those with earlier deadlines, whatever their lanes.
            let earlier = self.deadlines.until(Line::urgency(class, deadline));
            (earlier.min(present.waiters), rivals.flows.without(caller, present.lines))
        } else {
            (own, rivals.flows)
        };
        // Every other caller has as many turns before as this one has waiters, times what it weighs beside it, and one more.
        let Flows { count, weight } = others;
        let turns = u64::from(own) * u64::from(weight) / u64::from(caller.weight());
        let turns = u32::try_from(turns).unwrap_or(u32::MAX).saturating_add(count);
        turns.saturating_add(own).min(rivals.waiting)
    }
}

/// Those of a class that compete with a newcomer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rivals {
    pub(super) waiting: u32,
    /// Callers among them, counted in each lane.
    flows: Flows,
}
