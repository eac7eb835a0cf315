//! A bank's state, for people.

use std::time::Duration;

use super::Bank;
use super::share::Sharing;
use crate::breaker::Admission;
use crate::pace::secs::mono;
use crate::pace::snapshot::{BankSnapshot, BreakerSnapshot, GateSnapshot, WaitingSnapshot};
use crate::time::Mono;

impl Bank {
    /// The state of everything, for people.
    pub fn snapshot(&self, now: Mono) -> BankSnapshot {
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let live = self.registry.gates.iter().map(|(id, gate)| GateSnapshot {
            name: gate.name.to_string(),
            partition: self.registry.partition(gate.key),
            quota: gate.quota(),
            remaining: gate.remaining(now),
            in_flight: gate.in_flight(),
            concurrency: gate.concurrency_bound(),
            closed_for_ms: gate.closed_for(now).map_or(0, millis),
            waiting: self.waiting_at(id),
            state: gate.state(now),
            throttles: gate.throttles,
            accepted: gate.accepted,
            strangers_per_second: gate.strangers(),
            shared: gate.share_snapshot(now),
        });
        let at_rest = self.registry.at_rest().map(|(name, partition, gist)| GateSnapshot {
            name,
            partition,
            quota: gist.quota(),
            remaining: None,
            in_flight: 0,
            concurrency: None,
            closed_for_ms: gist.opens.map_or(0, |opens| millis(mono(opens) - now)),
            waiting: 0,
            state: "at rest",
            throttles: gist.throttles,
            accepted: gist.accepted,
            strangers_per_second: 0.0,
            shared: None,
        });
        let breakers = self.registry.families.iter().map(|state| BreakerSnapshot {
            family: state.family.to_string(),
            state: state.breaker.state(now).name(),
            refuses_for_ms: match state.breaker.admission(now) {
                Admission::Refuse(until) => millis(until - now),
                _ => 0,
            },
        });
        let [interactive, sync, bulk, poll] = self.schedule.waiting();
        let (windows, held) = self.windows(now);
        BankSnapshot {
            gates: live.chain(at_rest).collect(),
            breakers: breakers.collect(),
            waiting: WaitingSnapshot { interactive, sync, bulk, poll },
            windows,
            held,
            drift: self.drift.snapshot(now),
            in_flight: self.tickets.len(),
            fleet: self.sharing.as_deref().map(Sharing::snapshot),
        }
    }
}
