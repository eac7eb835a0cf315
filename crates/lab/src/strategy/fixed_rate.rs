//! Told the true quota: one attempt every window/quota, evenly, at most so many at once as the true cap allows.
//!
//! The best that a configured limiter can do: it never learns, so it is right only while what it was told is true and nobody
//! else draws. Each instance takes its share of the quota, whether the others use theirs or not.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::time::Mono;
use tidegate_sim::wire::message::ApiResponse;

use super::repeat::{Jitter, Repeats, Seen, Then, Timers};
use super::told::Told;
use super::{Briefing, Orders, Strategy};
use crate::call::{CallId, CallInfo};

/// See the module.
#[derive(Debug)]
pub(super) struct FixedRate {
    interval: Duration,
    cap: u32,
    next: Mono,
    in_flight: u32,
    queue: VecDeque<CallId>,
    repeats: Repeats,
    timers: Timers,
}

impl FixedRate {
    pub(super) fn new(briefing: &Briefing<'_, '_>) -> Self {
        let told = Told::share(briefing);
        Self {
            interval: told.interval.unwrap_or_default(),
            cap: told.cap.unwrap_or(u32::MAX),
            next: Mono::ZERO,
            in_flight: 0,
            queue: VecDeque::new(),
            repeats: Repeats::new(Jitter::None, briefing.rng()),
            timers: Timers::default(),
        }
    }

    fn dispatch(&mut self, now: Mono, orders: &mut Orders) {
        while self.next <= now && self.in_flight < self.cap {
            let Some(call) = self.queue.pop_front() else { return };
            self.next = self.next.max(now) + self.interval;
            self.in_flight += 1;
            orders.send(call);
        }
    }
}

impl Strategy for FixedRate {
    fn begin(&mut self, now: Mono, call: &CallInfo, orders: &mut Orders) {
        self.queue.push_back(call.id);
        self.dispatch(now, orders);
    }

    fn answered(&mut self, now: Mono, call: &CallInfo, answer: Option<&ApiResponse>, orders: &mut Orders) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match self.repeats.judge(call, Seen::of(answer)) {
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
        let ready = (!self.queue.is_empty() && self.in_flight < self.cap).then_some(self.next);
        [ready, self.timers.next()].into_iter().flatten().min()
    }
}
