//! What a told limit taught, without what is left of it.

use serde::{Deserialize, Serialize};

use super::Tide;
use crate::pace::promise::Promise;
use crate::pace::refill::{Belief, Refill};
use crate::pace::secs::Interval;
use crate::pace::strangers::Strangers;
use crate::pace::trip::Trip;

/// How a told limit works. Spans in seconds; there is no instant in it, so it is true on every clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct Lore {
    limit: f64,
    step: Belief,
    log: Belief,
    length: Option<(f64, f64)>,
    named_window: Option<f64>,
    trip: Option<[f64; 4]>,
    strangers: f64,
    met: bool,
}

impl Tide {
    /// What is worth keeping.
    pub(in crate::pace) fn keep(&self) -> Lore {
        let (step, log) = self.refill.keep();
        let length = self.promise.length().filter(|length| length.lo.is_finite() && length.up.is_finite());
        Lore {
            limit: self.limit,
            step,
            log,
            length: length.map(|length| (length.lo, length.up)),
            named_window: self.named_window,
            trip: self.trip.keep(),
            strangers: self.strangers.rate(),
            met: self.strangers.met(),
        }
    }

    /// A limit that is known from before: a scout says what is left of it.
    pub(in crate::pace) fn restore(now: f64, lore: &Lore) -> Self {
        Self {
            limit: lore.limit,
            promise: Promise::restore(lore.length.map(|(lo, up)| Interval::new(lo, up))),
            refill: Refill::restore((lore.step, lore.log)),
            strangers: Strangers::restore(lore.strangers, lore.met),
            trip: lore.trip.map_or_else(Trip::new, Trip::restore),
            named_window: lore.named_window,
            // Should its scouts learn nothing, they are as far apart as those of a limit that was just heard of.
            last_answer: now,
            last_event: now,
            ..Self::new()
        }
    }
}

impl Lore {
    /// The limit, permits.
    pub(in crate::pace) fn limit(&self) -> f64 {
        self.limit
    }
}
