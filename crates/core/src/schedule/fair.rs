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
//! **Bounded state.** Remembered are the callers whose next start lies ahead, at most [`Fair::MAX_CALLERS`]; the others
//! would start now anyway. Callers beyond share the place of one. So nobody can push others back for ever by inventing
//! names: at most `MAX_CALLERS + 1` starts can be equal. The shared place weighs 1, whoever is in it.

use std::collections::BTreeMap;

use super::CallerId;

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
}

impl Fair {
    /// Callers remembered at once, per class.
    pub(super) const MAX_CALLERS: usize = 1024;

    /// The virtual time that a permit takes of a caller of weight 1: much more than the greatest weight, so that what is lost by
    /// dividing it is less than a thousandth; and small enough that 2⁴⁴ permits fit before anybody rests.
    const TURN: u64 = 1 << 20;

    fn turn(caller: CallerId) -> u64 {
        Self::TURN / u64::from(caller.weight())
    }

    /// The caller's line has a new first.
    pub(super) fn start(&mut self, caller: CallerId) -> Start {
        self.make_room();
        let room = self.next.len() < Self::MAX_CALLERS;
        let (next, turn) = match self.next.get_mut(&caller) {
            Some(next) => (next, Self::turn(caller)),
            None if room => (self.next.entry(caller).or_default(), Self::turn(caller)),
            None => (&mut self.others, Self::TURN),
        };
        let start = self.now.max(*next);
        *next = start + turn;
        Start(start)
    }

    /// The caller's line ended without taking what starts at `start`.
    pub(super) fn withdraw(&mut self, caller: CallerId, start: Start) {
        match self.next.get_mut(&caller) {
            Some(next) if *next == start.0 + Self::turn(caller) => *next = start.0,
            Some(_) => {}
            // Whichever of them leaves, the place they share comes one turn earlier: else names that ask and leave would
            // push it back without end.
            None => self.others = self.others.saturating_sub(Self::TURN).max(self.now),
        }
    }

    /// What starts at `start` was taken.
    pub(super) fn took(&mut self, start: Start) {
        self.now = self.now.max(start.0);
    }

    /// Nobody waits: nobody owes anything.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }

    /// Forgets whose next start has passed. Tried only when virtual time has moved, which with many callers takes as many
    /// permits, so it costs little per permit.
    fn make_room(&mut self) {
        if self.next.len() >= Self::MAX_CALLERS && self.now > self.tidied {
            self.tidied = self.now;
            self.next.retain(|_, next| *next > self.tidied);
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
            fair.took(start);
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
            fair.took(heads[next].0);
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
