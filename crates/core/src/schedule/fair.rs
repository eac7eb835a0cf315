//! Fair shares between the callers of one class.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, *Start-Time Fair Queueing: A Scheduling Algorithm for Integrated
//! Services Packet Switching Networks*, SIGCOMM 1996) with permits of equal size: what a caller asks for next starts when its
//! last one ended or now, whichever is later, in virtual time; the earliest start goes first; virtual time is the start of what
//! went last. A permit takes the longer of virtual time the less its caller weighs. A caller that was idle starts now: it has
//! saved up nothing.
//!
//! Only the first of a caller's line carries a start tag, so a long line is not in the way of a caller that comes later and
//! asks for little, whatever happened elsewhere in between.
//!
//! **Where deadlines count** a caller has one start tag for all its lines, which moves with each permit it takes, so that among those
//! who have the same tag, and among a caller's own, the earliest deadline decides. A line that was not looked at since carries
//! an older, lower tag; it is set right when the line comes to the front ([`Fair::present`]).
//!
//! **Bounded state.** Remembered are the callers whose next start lies ahead, at most [`Fair::MAX_CALLERS`]; the others
//! would start now anyway. Callers beyond share the place of one. So nobody can push others back for ever by inventing
//! names: at most `MAX_CALLERS + 1` starts can be equal. The shared place weighs 1, whoever is in it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{CallerId, Class};

/// A start tag: the place of a caller's next permit in virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Start(pub(super) u64);

/// Virtual time, and when each caller's next permit starts.
#[derive(Debug, Default)]
pub(super) struct Fair {
    now: u64,
    /// Where each caller's next start is at the earliest.
    next: BTreeMap<CallerId, u64>,
    /// The same for all beyond the bound.
    others: u64,
    /// Virtual time when forgetting was last tried.
    tidied: u64,
    /// Where deadlines count: who waits.
    present: Option<BTreeMap<CallerId, Present>>,
}

/// What a caller has waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Present {
    pub(super) lines: u32,
    pub(super) waiters: u32,
}

impl Fair {
    /// Callers remembered at once, per class.
    pub(super) const MAX_CALLERS: usize = 1024;

    /// The virtual time that a permit takes of a caller of weight 1: much more than the greatest weight, so that what is lost by
    /// dividing it is less than a thousandth; and small enough that 2⁴⁴ permits fit before anybody rests.
    const TURN: u64 = 1 << 20;

    /// For the callers of a class.
    pub(super) fn of(class: Class) -> Self {
        Self { present: class.by_deadline().then(BTreeMap::new), ..Self::default() }
    }

    fn turn(caller: CallerId) -> u64 {
        Self::TURN / u64::from(caller.weight())
    }

    /// What a caller has waiting, where deadlines count.
    pub(super) fn waiting(&self, caller: CallerId) -> Present {
        self.present.as_ref().and_then(|present| present.get(&caller)).copied().unwrap_or_default()
    }

    /// One more of a caller waits.
    pub(super) fn came(&mut self, caller: CallerId) {
        if let Some(present) = &mut self.present {
            present.entry(caller).or_default().waiters += 1;
        }
    }

    /// One less of a caller waits.
    pub(super) fn went(&mut self, caller: CallerId) {
        let Some(present) = &mut self.present else { return };
        if let Some(waiting) = present.get_mut(&caller) {
            waiting.waiters -= 1;
            if waiting.waiters == 0 {
                present.remove(&caller);
            }
        }
    }

    /// The caller has a line now.
    pub(super) fn joins(&mut self, caller: CallerId) -> Start {
        let Some(present) = &mut self.present else { return self.start(caller) };
        let waiting = present.entry(caller).or_default();
        waiting.lines += 1;
        let first = waiting.lines == 1;
        let now = self.now;
        let (next, _) = self.place(caller);
        if first {
            *next = now.max(*next);
        }
        Start(*next)
    }

    /// The caller's line ended; the one that was to start at `start` goes without a permit.
    pub(super) fn leaves(&mut self, caller: CallerId, start: Start) {
        if self.present.is_some() { self.ends(caller) } else { self.withdraw(caller, start) }
    }

    /// The caller's line ended with a permit.
    pub(super) fn ends(&mut self, caller: CallerId) {
        if let Some(waiting) = self.present.as_mut().and_then(|present| present.get_mut(&caller)) {
            waiting.lines -= 1;
        }
    }

    /// The caller's line has a next one after its first was taken.
    pub(super) fn goes_on(&mut self, caller: CallerId) -> Start {
        self.present(caller).unwrap_or_else(|| self.start(caller))
    }

    /// The start tag of all that a caller has waiting, where deadlines count.
    pub(super) fn present(&self, caller: CallerId) -> Option<Start> {
        self.present.as_ref()?;
        Some(Start(self.next.get(&caller).copied().unwrap_or(self.others)))
    }

    /// What a caller had starting at `start` was taken.
    pub(super) fn took(&mut self, caller: CallerId, start: Start) {
        self.now = self.now.max(start.0);
        if self.present.is_some() {
            let (next, turn) = self.place(caller);
            *next += turn;
        }
    }

    /// Nobody waits: nobody owes anything.
    pub(super) fn rest(&mut self) {
        *self = Self { present: self.present.is_some().then(BTreeMap::new), ..Self::default() };
    }

    /// The caller's line has a new first.
    fn start(&mut self, caller: CallerId) -> Start {
        let now = self.now;
        let (next, turn) = self.place(caller);
        let start = now.max(*next);
        *next = start + turn;
        Start(start)
    }

    /// Where a caller's next start is kept, and the virtual time that a permit takes of it.
    fn place(&mut self, caller: CallerId) -> (&mut u64, u64) {
        self.make_room();
        let room = self.next.len() < Self::MAX_CALLERS;
        match self.next.entry(caller) {
            Entry::Occupied(next) => (next.into_mut(), Self::turn(caller)),
            Entry::Vacant(place) if room => (place.insert(0), Self::turn(caller)),
            Entry::Vacant(_) => (&mut self.others, Self::TURN),
        }
    }

    /// The caller's line ended without taking what starts at `start`.
    fn withdraw(&mut self, caller: CallerId, start: Start) {
        match self.next.get_mut(&caller) {
            Some(next) if *next == start.0 + Self::turn(caller) => *next = start.0,
            Some(_) => {}
            // Whichever of them leaves, the place they share comes one turn earlier: else names that ask and leave would
            // push it back without end.
            None => self.others = self.others.saturating_sub(Self::TURN).max(self.now),
        }
    }

    /// Forgets whose next start has passed. Tried only when virtual time has moved, which with many callers takes as many
    /// permits, so it costs little per permit.
    fn make_room(&mut self) {
        if self.next.len() >= Self::MAX_CALLERS && self.now > self.tidied {
            self.tidied = self.now;
            let waits =
                |caller: &CallerId| self.present.as_ref().is_some_and(|present| present.contains_key(caller));
            self.next.retain(|caller, next| *next > self.tidied || waits(caller));
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.next.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_caller_starts_now_and_not_earlier() {
        let mut fair = Fair::default();
        let (busy, idle) = (CallerId::named("busy"), CallerId::named("idle"));
        for _ in 0..100 {
            let start = fair.start(busy);
            fair.took(busy, start);
        }
        assert_eq!(fair.start(idle), Start(99 * Fair::TURN), "with the one that went last");
        assert_eq!(fair.start(busy), Start(100 * Fair::TURN));
    }

    #[test]
    fn who_weighs_three_gets_three_permits_for_each_of_one() {
        let mut fair = Fair::default();
        let [heavy, light] = [CallerId::named("heavy").weighing(3), CallerId::named("light")];
        let mut heads = [heavy, light].map(|caller| (fair.start(caller), caller));
        let mut served = [0, 0];
        for _ in 0..400 {
            let next = usize::from(heads[1].0 < heads[0].0);
            served[next] += 1;
            fair.took(heads[next].1, heads[next].0);
            heads[next].0 = fair.start(heads[next].1);
        }
        assert_eq!(served, [300, 100]);
    }

    #[test]
    fn whoever_leaves_its_line_loses_no_turn() {
        let mut fair = Fair::default();
        let caller = CallerId::named("a");
        let start = fair.start(caller);
        fair.withdraw(caller, start);
        assert_eq!(fair.start(caller), start);
    }

    #[test]
    fn invented_callers_that_leave_push_nobody_back() {
        let mut fair = Fair::default();
        for name in 0..Fair::MAX_CALLERS {
            fair.start(CallerId::named(name));
        }
        for round in 0..100 {
            let callers = (0..500).map(|name| CallerId::named((round, name)));
            let starts: Vec<_> = callers.map(|caller| (caller, fair.start(caller))).collect();
            for (caller, start) in starts {
                fair.withdraw(caller, start);
            }
        }
        assert_eq!(fair.start(CallerId::named("honest")), Start(0));
    }

    #[test]
    fn invented_callers_share_one_place() {
        let mut fair = Fair::default();
        for name in 0..10 * Fair::MAX_CALLERS {
            fair.start(CallerId::named(name));
        }
        assert_eq!(fair.remembered(), Fair::MAX_CALLERS);
        let late = fair.start(CallerId::named("late"));
        assert_eq!(late, Start(9 * Fair::MAX_CALLERS as u64 * Fair::TURN));
    }
}
