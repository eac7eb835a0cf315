//! The retry loop that everybody writes first: send at once; after a 429 wait as `Retry-After` says, else 2^n seconds.
//!
//! It paces nothing: every caller finds out for itself that the quota is gone. Without jitter all who were refused together
//! come back together. Source: `fetchWithBackoff` and its kin in the seeds of this project.

use tidegate_core::time::Mono;
use tidegate_sim::wire::message::ApiResponse;

use super::repeat::{Jitter, Repeats, Seen, Then, Timers};
use super::{Briefing, Orders, Strategy};
use crate::call::CallInfo;

/// See the module.
#[derive(Debug)]
pub(super) struct Reactive {
    repeats: Repeats,
    timers: Timers,
}

impl Reactive {
    pub(super) fn new(briefing: &Briefing<'_, '_>, jitter: bool) -> Self {
        let jitter = if jitter { Jitter::Always } else { Jitter::None };
        Self { repeats: Repeats::new(jitter, briefing.rng()), timers: Timers::default() }
    }
}

impl Strategy for Reactive {
    fn begin(&mut self, _: Mono, call: &CallInfo, orders: &mut Orders) {
        orders.send(call.id);
    }

    fn answered(&mut self, now: Mono, call: &CallInfo, answer: Option<&ApiResponse>, orders: &mut Orders) {
        match self.repeats.judge(call, Seen::of(answer)) {
            Then::End(end) => orders.end(call.id, end),
            Then::Again(wait) => self.timers.set(now + wait, call.id),
        }
    }

    fn wake(&mut self, now: Mono, orders: &mut Orders) {
        while let Some(call) = self.timers.due(now) {
            orders.send(call);
        }
    }

    fn next_wake(&self, _: Mono) -> Option<Mono> {
        self.timers.next()
    }
}
