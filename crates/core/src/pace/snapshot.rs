//! A bank's state, for people and dashboards.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::pace::drift::DriftSnapshot;
use crate::schedule::Class;

/// Everything worth showing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BankSnapshot {
    /// One per gate that exists.
    pub gates: Vec<GateSnapshot>,
    /// One per family.
    pub breakers: Vec<BreakerSnapshot>,
    /// Waiters by class.
    pub waiting: WaitingSnapshot,
    /// One per window of the calendar.
    pub windows: Vec<WindowSnapshot>,
    /// One per class that a window holds.
    pub held: Vec<HoldSnapshot>,
    /// One per family and credential that was throttled in the last 24 hours: how `Retry-After` and reset disagreed.
    pub drift: Vec<DriftSnapshot>,
    /// Tickets that are granted or sent.
    pub in_flight: usize,
    /// Where the quota is shared with other processes. Shown with the store, not with the bank.
    #[serde(skip)]
    pub fleet: Option<FleetSnapshot>,
}

/// A bank's part in a shared quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FleetSnapshot {
    /// `idle`: nothing was heard of the store yet. `joined`: permits come from it. Without it `share`, `closed` or `open`.
    pub mode: &'static str,
    /// Processes that share the quota, this one included, as the store last said.
    pub instances: Option<u32>,
}

/// Waiters by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaitingSnapshot {
    /// Calls somebody waits for.
    pub interactive: usize,
    /// Calls with a deadline.
    pub sync: usize,
    /// Bulk calls.
    pub bulk: usize,
    /// Polls.
    pub poll: usize,
}

impl WaitingSnapshot {
    /// Those of one class.
    pub const fn of(&self, class: Class) -> usize {
        match class {
            Class::Interactive => self.interactive,
            Class::Sync => self.sync,
            Class::Bulk => self.bulk,
            Class::Poll => self.poll,
        }
    }

    /// Those of all classes.
    pub const fn total(&self) -> usize {
        self.interactive + self.sync + self.bulk + self.poll
    }
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateSnapshot {
    /// The limit's name: its key, or the family of an implicit one.
    pub name: String,
    /// What has this count of its own, as `credential=…` and so on.
    pub partition: String,
    /// Attempts per window, if known.
    pub quota: Option<u64>,
    /// What may be sent now, as far as known.
    pub remaining: Option<f64>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// The bound on attempts in flight, if there is one.
    pub concurrency: Option<f64>,
    /// Milliseconds for which it stays closed after a throttle; 0 if open.
    pub closed_for_ms: u64,
    /// Callers waiting for it.
    pub waiting: u32,
    /// The state in a word or two.
    pub state: &'static str,
    /// Throttles it explained.
    pub throttles: u64,
    /// Answers that were no throttle.
    pub accepted: u64,
    /// Estimated draw of strangers, requests per second.
    pub strangers_per_second: f64,
    /// What is held of it, if it is shared with other processes and the store told of it.
    pub shared: Option<ShareSnapshot>,
}

/// What is held of a limit that is shared with other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShareSnapshot {
    /// Permits in hand, those for later included.
    pub permits: u32,
    /// Milliseconds until those in hand are void; 0 if they are.
    pub lease_for_ms: u64,
    /// Begins with 1 and rises with each throttle that voids all permits of the fleet, as the store last said.
    pub generation: u64,
    /// Counts the windows of a limit that is refilled in steps, as the store last said.
    pub epoch: u64,
    /// How the configurations of the processes that share it differ, if they do.
    pub differs: Option<String>,
}

/// One window of the calendar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowSnapshot {
    /// Its name.
    pub name: String,
    /// Whether it is open.
    pub open: bool,
    /// When it closes, or opens, by the clock of its zone.
    pub changes_at: Option<String>,
    /// In how many milliseconds that is.
    pub changes_in_ms: Option<u64>,
    /// The classes that it holds.
    pub holds: Vec<&'static str>,
    /// Per cent of every quota that it keeps for a class.
    pub reserve: BTreeMap<&'static str, u8>,
}

/// A class that a window holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldSnapshot {
    /// The class.
    pub class: &'static str,
    /// The window.
    pub window: String,
    /// In how many milliseconds the class goes on in this process, the stagger included.
    pub for_ms: u64,
    /// The same in words.
    pub told: String,
}

/// One breaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BreakerSnapshot {
    /// The family it guards.
    pub family: String,
    /// `closed` is serving.
    pub state: &'static str,
    /// Milliseconds until it lets a probe through; 0 if it does not refuse.
    pub refuses_for_ms: u64,
}
