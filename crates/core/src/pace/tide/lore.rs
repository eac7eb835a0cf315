//! What a told limit taught, without what is left of it.

use serde::{Deserialize, Serialize};

use super::Tide;
use crate::pace::promise::{Lengths, Promise};
use crate::pace::refill::{Belief, Refill};
use crate::pace::strangers::{Company, Strangers};
use crate::pace::trip::Trip;

/// How a told limit works. Spans in seconds; there is no instant in it, so it is true on every clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct Lore {
    limit: f64,
    step: Belief,
    log: Belief,
    promise: Lengths,
    named_window: Option<f64>,
    trip: Option<[f64; 4]>,
    strangers: Company,
}

impl Tide {
    /// What is worth keeping.
    pub(in crate::pace) fn keep(&self) -> Lore {
        // What is left out is what is left of it now, and how that became known.
        let Self {
            limit,
            promise,
            refill,
            strangers,
            trip,
            named_window,
            certificate: _,
            ride: _,
            standing: _,
            last_answer: _,
            last_event: _,
            scout_left: _,
            looked: _,
            unread: _,
            siblings: _,
        } = self;
        let (step, log) = refill.keep();
        Lore {
            limit: *limit,
            step,
            log,
            promise: promise.keep(),
            named_window: *named_window,
            trip: trip.keep(),
            strangers: strangers.keep(),
        }
    }

    /// A limit that is known from before: a scout says what is left of it.
    pub(in crate::pace) fn restore(now: f64, lore: &Lore) -> Self {
        let &Lore { limit, step, log, promise, named_window, trip, strangers } = lore;
        Self {
            limit,
            promise: Promise::restore(promise),
            refill: Refill::restore((step, log)),
            strangers: Strangers::restore(strangers),
            trip: trip.map_or_else(Trip::new, Trip::restore),
            named_window,
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
