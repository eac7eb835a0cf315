//! What stops a bank's waiters: gates, breakers and the calendar, as the schedule sees them.

use super::days::Days;
use crate::breaker::Admission;
use crate::pace::gate::Wish;
use crate::pace::lane::Lane;
use crate::pace::registry::Registry;
use crate::pace::secs::mono;
use crate::pace::spec::BankConfig;
use crate::pace::when::When;
use crate::schedule::{Barriers, Class, Demand, Opens};
use crate::time::Mono;

/// The barrier of the calendar. Only a bank with windows has it.
pub(super) const CALENDAR: usize = 0;

/// The barrier of a gate.
pub(in crate::pace) const fn gate(gate: usize) -> usize {
    2 * gate + 1
}

/// The barrier of a family's breaker.
pub(super) const fn family(family: usize) -> usize {
    2 * family + 2
}

/// The barriers of a lane. `dated`: the bank has a calendar.
pub(super) fn of(lane: &Lane, dated: bool) -> impl Iterator<Item = usize> {
    let gates = lane.gates.iter().map(|&index| gate(index));
    gates.chain([family(lane.family)]).chain(dated.then_some(CALENDAR))
}

/// Gates, breakers and the calendar, to be asked.
pub(super) struct Doors<'a> {
    pub(super) registry: &'a Registry,
    pub(super) config: &'a BankConfig,
    pub(super) days: &'a Days,
}

impl Doors<'_> {
    fn breaker(&self, now: Mono, family: usize) -> Opens {
        let breaker = &self.registry.families[family].breaker;
        match breaker.admission(now) {
            Admission::Serve | Admission::Probe => Opens::Now,
            Admission::Refuse(until) => Opens::At(until),
            Admission::AwaitProbe => breaker.probe_until().map_or(Opens::Event, Opens::At),
        }
    }

    fn calendar(&self, now: Mono, class: Class) -> Opens {
        match self.days.held(class) {
            Some(until) if until > now => Opens::At(until),
            _ => Opens::Now,
        }
    }

    fn wish(&self, class: Class, demand: &Demand) -> Wish {
        let more_important = demand.stopped.iter().zip(Class::ALL);
        let urgent = more_important.filter(|&(_, other)| other < class && other.is_urgent());
        Wish {
            class,
            policy: self.config.policies[class.index()],
            reserved: self.days.reserve(),
            urgent_waiting: urgent.map(|(&waiting, _)| waiting).sum(),
            starving_at: demand.hungry_since.map_or(Mono::MAX, |since| since + self.config.patience),
        }
    }

    fn gate(&self, now: Mono, gate: usize, class: Class, demand: &Demand) -> Opens {
        match self.registry.gates[gate].when(now, &self.wish(class, demand)) {
            When::Now => Opens::Now,
            When::At(at) => Opens::At(mono(at)),
            When::Event => Opens::Event,
        }
    }

    /// When the `place`-th of `class` may pass a gate at the earliest, as far as one can tell.
    pub(super) fn forecast(&self, now: Mono, gate: usize, class: Class, place: u32) -> Mono {
        self.registry.gates[gate].forecast(now, place, &self.wish(class, &Demand::of_nobody()))
    }

    /// Whether a lane where nobody waits is open for `class`, and the gate that decides it.
    pub(super) fn of_lane(&self, now: Mono, lane: usize, class: Class) -> (Opens, usize) {
        let lane = &self.registry.lanes[lane];
        let nobody = Demand::of_nobody();
        let (mut latest, mut blocker) = (self.breaker(now, lane.family), lane.gates[0]);
        let calendar = self.calendar(now, class);
        if calendar.is_later_than(latest) {
            latest = calendar;
        }
        for &gate in &lane.gates {
            let opens = self.gate(now, gate, class, &nobody);
            if opens.is_later_than(latest) {
                (latest, blocker) = (opens, gate);
            }
        }
        (latest, blocker)
    }
}

impl Barriers for Doors<'_> {
    fn opens(&self, now: Mono, barrier: usize, class: Class, demand: &Demand) -> Opens {
        match barrier.checked_sub(1) {
            None => self.calendar(now, class),
            Some(index) if index.is_multiple_of(2) => self.gate(now, index / 2, class, demand),
            Some(index) => self.breaker(now, index / 2),
        }
    }
}
