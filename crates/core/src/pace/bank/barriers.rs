//! What stops a bank's waiters: gates and breakers, as the schedule sees them.

use crate::breaker::Admission;
use crate::pace::gate::Wish;
use crate::pace::lane::Lane;
use crate::pace::registry::Registry;
use crate::pace::secs::mono;
use crate::pace::spec::BankConfig;
use crate::pace::when::When;
use crate::schedule::{Barriers, Class, Demand, Opens};
use crate::time::Mono;

/// The barrier of a gate.
pub(in crate::pace) const fn gate(gate: usize) -> usize {
    2 * gate
}

/// The barrier of a family's breaker.
pub(super) const fn family(family: usize) -> usize {
    2 * family + 1
}

/// The barriers of a lane.
pub(super) fn of(lane: &Lane) -> impl Iterator<Item = usize> {
    lane.gates.iter().map(|&index| gate(index)).chain([family(lane.family)])
}

/// Gates and breakers, to be asked.
pub(super) struct Doors<'a> {
    pub(super) registry: &'a Registry,
    pub(super) config: &'a BankConfig,
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

    fn wish(&self, class: Class, demand: &Demand) -> Wish {
        let more_important = demand.stopped.iter().zip(Class::ALL);
        let urgent = more_important.filter(|&(_, other)| other < class && other.is_urgent());
        Wish {
            class,
            policy: self.config.policies[class.index()],
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
        if barrier.is_multiple_of(2) {
            self.gate(now, barrier / 2, class, demand)
        } else {
            self.breaker(now, barrier / 2)
        }
    }
}
