//! A gate's state, for people.

use super::{Gate, Knowledge};
use crate::pace::refill::Rule;
use crate::pace::secs::secs;
use crate::time::Mono;

impl Gate {
    pub(in crate::pace) fn concurrency_bound(&self) -> Option<f64> {
        match &self.knowledge {
            Knowledge::Capped(cap) => Some(f64::from(*cap)),
            _ => self.concurrency.bound(),
        }
    }

    pub(in crate::pace) fn quota(&self) -> Option<u64> {
        match &self.knowledge {
            Knowledge::Told(tide) => Some(tide.limit()),
            Knowledge::Declared(sliding) => Some(sliding.quota()),
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => None,
        }
    }

    pub(in crate::pace) fn remaining(&self, now: Mono) -> Option<f64> {
        if let Some(fleet) = self.fleet_remaining(now) {
            return Some(fleet);
        }
        match &self.knowledge {
            Knowledge::Told(tide) => Some(tide.available(secs(now), self.in_flight).max(0.0)),
            Knowledge::Declared(sliding) => Some(sliding.available(secs(now), self.in_flight).max(0.0)),
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => None,
        }
    }

    pub(in crate::pace) fn strangers(&self) -> f64 {
        if let Some(fleet) = self.fleet_strangers() {
            return fleet;
        }
        match &self.knowledge {
            Knowledge::Told(tide) => tide.strangers(),
            _ => 0.0,
        }
    }

    /// The state in a word or two, for people.
    pub(in crate::pace) fn state(&self, now: Mono) -> &'static str {
        if self.closing.closed_until(now).is_some() {
            return "closed";
        }
        if self.closing.scouting() {
            return "scouting";
        }
        match &self.knowledge {
            Knowledge::Unknown => "unknown",
            Knowledge::Told(tide) => match tide.rule() {
                Rule::Step => "told: windows",
                Rule::Log => "told: sliding log",
                Rule::Continuous => "told: continuous refill",
            },
            Knowledge::Declared(_) => "declared",
            Knowledge::Capped(_) => "capped",
            Knowledge::Silent(_) => "silent",
        }
    }
}
