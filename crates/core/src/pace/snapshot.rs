//! A bank's state, for people and dashboards.

use serde::Serialize;

use crate::pace::drift::DriftSnapshot;

/// Everything worth showing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BankSnapshot {
    /// One per gate that exists.
    pub gates: Vec<GateSnapshot>,
    /// One per family.
    pub breakers: Vec<BreakerSnapshot>,
    /// One per family and credential that was throttled in the last 24 hours: how `Retry-After` and reset disagreed.
    pub drift: Vec<DriftSnapshot>,
    /// Waiters by class, most important first.
    pub waiting: [usize; 4],
    /// Tickets that are granted or sent.
    pub in_flight: usize,
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
