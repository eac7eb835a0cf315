//! Bounds calls in flight: one more per round trip without a throttle, half after one.
//!
//! The adaptive limiter of many HTTP clients. It finds a cap on calls in progress by itself; a quota per window it finds only by
//! hitting it, in every window anew, because its number of calls in flight says nothing about how many the window has left.

use std::collections::HashMap;
use std::collections::VecDeque;

use tidegate_core::time::Mono;
use tidegate_sim::wire::message::ApiResponse;

use super::repeat::{Jitter, Repeats, Seen, Then, Timers};
use super::{Briefing, Orders, Strategy};
use crate::call::{CallId, CallInfo};

/// See the module.
#[derive(Debug)]
pub(super) struct Aimd {
    bound: f64,
    in_flight: u32,
    /// Throttles of attempts sent before this belong to a cut already made.
    cut_at: Mono,
    sent: HashMap<CallId, Mono>,
    queue: VecDeque<CallId>,
    repeats: Repeats,
    timers: Timers,
}

impl Aimd {
    pub(super) fn new(briefing: &Briefing<'_, '_>) -> Self {
        Self {
            bound: 1.0,
            in_flight: 0,
            cut_at: Mono::ZERO,
            sent: HashMap::new(),
            queue: VecDeque::new(),
            repeats: Repeats::new(Jitter::Always, briefing.rng()),
            timers: Timers::default(),
        }
    }

    fn dispatch(&mut self, now: Mono, orders: &mut Orders) {
        while f64::from(self.in_flight) < self.bound.floor() {
            let Some(call) = self.queue.pop_front() else { return };
            self.in_flight += 1;
            self.sent.insert(call, now);
            orders.send(call);
        }
    }

    fn learn(&mut self, now: Mono, call: CallId, seen: Seen) {
        let sent = self.sent.remove(&call).unwrap_or(Mono::ZERO);
        match seen {
            Seen::Good => self.bound += 1.0 / self.bound,
            Seen::TooFast(_) | Seen::Away(_) if sent >= self.cut_at => {
                self.bound = (self.bound / 2.0).max(1.0);
                self.cut_at = now;
            }
            _ => {}
        }
    }
}

impl Strategy for Aimd {
    fn begin(&mut self, now: Mono, call: &CallInfo, orders: &mut Orders) {
        self.queue.push_back(call.id);
        self.dispatch(now, orders);
    }

    fn answered(&mut self, now: Mono, call: &CallInfo, answer: Option<&ApiResponse>, orders: &mut Orders) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let seen = Seen::of(answer);
        self.learn(now, call.id, seen);
        match self.repeats.judge(call, seen) {
            Then::End(end) => orders.end(call.id, end),
            Then::Again(wait) => self.timers.set(now + wait, call.id),
        }
        self.dispatch(now, orders);
    }

    fn wake(&mut self, now: Mono, orders: &mut Orders) {
        while let Some(call) = self.timers.due(now) {
            self.queue.push_front(call);
        }
        self.dispatch(now, orders);
    }

    fn next_wake(&self, _: Mono) -> Option<Mono> {
        self.timers.next()
    }
}
