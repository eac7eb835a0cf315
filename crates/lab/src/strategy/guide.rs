//! The rate limiting guide's client: a proactive pacer, jittered exponential backoff, a breaker.
//!
//! Rules, as the guide gives them:
//! * per resource family, if `X-Rate-Limit-Remaining` is below twice the number of workers, dispatch pauses until
//!   `X-Rate-Limit-Reset` (epoch seconds, against the client's own clock);
//! * after a 429 wait as `Retry-After` says, else `min(60, 2^n + U(0, 1))` seconds, five times;
//! * five 429s in a row open the family's breaker for 60 s.
//!
//! It knows no other header names. Where the guide is silent (what becomes of calls while the breaker is open), they wait:
//! refusing them would only make them fail faster.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_core::key::Family;
use tidegate_core::time::Mono;
use tidegate_sim::wire::message::ApiResponse;

use super::repeat::{Jitter, Repeats, Seen, Then, Timers};
use super::{Briefing, Orders, Strategy};
use crate::call::{CallId, CallInfo};

/// 429s in a row that open a breaker.
const THRESHOLD: u32 = 5;
/// How long it stays open.
const OPEN: Duration = Duration::from_mins(1);

/// What is known of one family.
#[derive(Debug, Default)]
struct Area {
    /// Dispatch pauses until then.
    paused_until: Mono,
    /// 429s in a row.
    failures: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Guide {
    workers: u64,
    wall: Duration,
    areas: HashMap<Family, Area>,
    /// The family of each call that sleeps.
    asleep: HashMap<CallId, Family>,
    repeats: Repeats,
    timers: Timers,
}

impl Guide {
    pub(super) fn new(briefing: &Briefing<'_, '_>) -> Self {
        Self {
            workers: u64::from(briefing.workers()),
            wall: briefing.plan.wall,
            areas: HashMap::new(),
            asleep: HashMap::new(),
            repeats: Repeats::new(Jitter::Computed, briefing.rng()),
            timers: Timers::default(),
        }
    }

    /// Sends the call, or lets it sleep until its family's pause ends.
    fn dispatch(&mut self, now: Mono, call: CallId, area: &Family, orders: &mut Orders) {
        let until = self.areas.get(area).map_or(Mono::ZERO, |area| area.paused_until);
        if until > now {
            self.sleep(until, call, area);
        } else {
            orders.send(call);
        }
    }

    fn sleep(&mut self, until: Mono, call: CallId, area: &Family) {
        self.asleep.insert(call, area.clone());
        self.timers.set(until, call);
    }

    /// The pacing calculator.
    fn pace(&mut self, area: &Family, answer: &ApiResponse) {
        let read = |name: &str| answer.header(name)?.parse::<u64>().ok();
        let (Some(remaining), Some(reset)) = (read("x-rate-limit-remaining"), read("x-rate-limit-reset"))
        else {
            return;
        };
        if remaining < 2 * self.workers {
            let reset = Mono::ZERO + Duration::from_secs(reset).saturating_sub(self.wall);
            let area = self.areas.entry(area.clone()).or_default();
            area.paused_until = area.paused_until.max(reset);
        }
    }

    fn count(&mut self, now: Mono, area: &Family, seen: Seen) {
        let area = self.areas.entry(area.clone()).or_default();
        match seen {
            Seen::TooFast(_) => {
                area.failures += 1;
                if area.failures >= THRESHOLD {
                    area.failures = 0;
                    area.paused_until = area.paused_until.max(now + OPEN);
                }
            }
            Seen::Good => area.failures = 0,
            _ => {}
        }
    }
}

impl Strategy for Guide {
    fn begin(&mut self, now: Mono, call: &CallInfo, orders: &mut Orders) {
        self.dispatch(now, call.id, &call.route.area, orders);
    }

    fn answered(&mut self, now: Mono, call: &CallInfo, answer: Option<&ApiResponse>, orders: &mut Orders) {
        let seen = Seen::of(answer);
        let area = &call.route.area;
        if let Some(answer) = answer {
            self.pace(area, answer);
        }
        self.count(now, area, seen);
        match self.repeats.judge(call, seen) {
            Then::End(end) => orders.end(call.id, end),
            Then::Again(wait) => self.sleep(now + wait, call.id, area),
        }
    }

    fn wake(&mut self, now: Mono, orders: &mut Orders) {
        while let Some(call) = self.timers.due(now) {
            if let Some(area) = self.asleep.remove(&call) {
                self.dispatch(now, call, &area, orders);
            }
        }
    }

    fn next_wake(&self, _: Mono) -> Option<Mono> {
        self.timers.next()
    }
}
