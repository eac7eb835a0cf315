//! A server with one quota, written without the core: the judge.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::observe::{Dialect, Observation, Reading, Reset};
use tidegate_core::pace::AnswerKind;
use tokio::time::Instant;

/// How it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A window opened by its first request.
    Fixed,
    /// Each request counts for one window.
    Log,
}

/// What its answers say of the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Limit, remaining and reset, with milliseconds.
    Headers,
    /// The same with whole seconds, and no window is named.
    Seconds,
    /// Nothing but a 429 with `Retry-After`.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    log: VecDeque<Instant>,
    opened: Option<Instant>,
    used: usize,
    accepted: Vec<Instant>,
    throttled: Vec<Instant>,
    failed: Vec<Instant>,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) rule: Rule,
    pub(crate) telling: Telling,
    pub(crate) quota: usize,
    pub(crate) window: Duration,
    /// It answers 500 to everything.
    pub(crate) down: AtomicBool,
    state: Mutex<State>,
}

impl Server {
    pub(crate) fn new(rule: Rule, telling: Telling, quota: usize, window: Duration) -> Self {
        Self { rule, telling, quota, window, down: AtomicBool::new(false), state: Mutex::default() }
    }

    /// One request arrives.
    pub(crate) fn handle(&self) -> (AnswerKind, Observation) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let state = &mut *state;
        if self.down.load(Ordering::Relaxed) {
            state.failed.push(now);
            return (AnswerKind::HardFailure, Observation::default());
        }
        match self.rule {
            Rule::Fixed => {
                if state.opened.is_none_or(|opened| now >= opened + self.window) {
                    (state.opened, state.used) = (Some(now), 0);
                }
            }
            Rule::Log => {
                while state.log.front().is_some_and(|&at| at + self.window <= now) {
                    state.log.pop_front();
                }
                state.used = state.log.len();
            }
        }
        let accepted = state.used < self.quota;
        if accepted {
            state.used += 1;
            state.log.push_back(now);
            state.accepted.push(now);
        } else {
            state.throttled.push(now);
        }
        let ends = match self.rule {
            Rule::Fixed => state.opened.unwrap() + self.window,
            Rule::Log => *state.log.front().unwrap() + self.window,
        };
        if self.rule == Rule::Fixed {
            state.log.clear();
        }
        let after = ends - now;
        let whole = Duration::from_secs(after.as_secs() + u64::from(after.subsec_nanos() > 0));
        let (told, grain, window) = match self.telling {
            Telling::Headers => (after, Duration::from_millis(1), Some(self.window)),
            Telling::Seconds | Telling::Silent => (whole, Duration::from_secs(1), None),
        };
        let mut observation = Observation::default();
        if self.telling != Telling::Silent {
            observation.readings.push(Reading {
                name: None,
                limit: u64::try_from(self.quota).ok(),
                remaining: u64::try_from(self.quota - state.used).ok(),
                reset: Some(Reset { after: told, grain, at: None }),
                window,
                dialect: Dialect::IetfList,
            });
        }
        if accepted {
            (AnswerKind::Accepted, observation)
        } else {
            observation.retry_after = Some(Duration::from_secs(after.as_secs() + 1));
            (AnswerKind::Throttled, observation)
        }
    }

    /// One request of somebody else, if there is room.
    pub(crate) fn handle_stranger(&self) {
        self.handle();
        let mut state = self.state.lock();
        // Only our own throttles count.
        let now = Instant::now();
        if state.throttled.last() == Some(&now) {
            state.throttled.pop();
        }
    }

    /// Requests that it failed between two instants.
    pub(crate) fn failed_between(&self, from: Instant, to: Instant) -> usize {
        self.state.lock().failed.iter().filter(|&&at| at >= from && at < to).count()
    }

    /// Requests accepted and refused between two instants.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> (usize, usize) {
        let state = self.state.lock();
        let count = |times: &[Instant]| times.iter().filter(|&&at| at >= from && at < to).count();
        (count(&state.accepted), count(&state.throttled))
    }
}
