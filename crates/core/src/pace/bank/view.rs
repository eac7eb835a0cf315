//! A bank's state, for people.

use std::time::Duration;

use super::Bank;
use crate::breaker::Admission;
use crate::pace::snapshot::{BankSnapshot, BreakerSnapshot, GateSnapshot, WaitingSnapshot};
use crate::time::Mono;

impl Bank {
    /// The state of everything, for people.
    pub fn snapshot(&self, now: Mono) -> BankSnapshot {
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let gates = self.registry.gates.iter().map(|(id, gate)| GateSnapshot {
            name: gate.name.to_string(),
            partition: gate.partition.clone(),
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
        BankSnapshot {
            gates: gates.collect(),
            breakers: breakers.collect(),
            waiting: WaitingSnapshot { interactive, sync, bulk, poll },
            in_flight: self.tickets.len(),
        }
    }
}
