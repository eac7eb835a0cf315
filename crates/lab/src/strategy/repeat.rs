//! What the hand-written clients share: how they judge an answer, how often they repeat, how long they wait.
//!
//! They read what the seeds of this project read: the status, and `Retry-After` as a whole number of seconds. A date in it is
//! no number to them, as it is none to `parseInt`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tidegate_core::time::Mono;
use tidegate_sim::wire::message::ApiResponse;

use crate::call::{CallId, CallInfo, End};

/// Repeats before giving up: the guide's and the seeds' `max_retries`.
const MOST_REPEATS: u32 = 5;
/// The longest computed wait.
const CAP: Duration = Duration::from_secs(60);

/// What a hand-written client makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// 2xx or 3xx.
    Good,
    /// 429.
    TooFast(Option<Duration>),
    /// 503: try again.
    Away(Option<Duration>),
    /// 401: the token is being replaced.
    Unauthorized,
    /// No answer, or 502, 504.
    Lost,
    /// Anything else.
    Final,
}

impl Seen {
    pub(super) fn of(answer: Option<&ApiResponse>) -> Self {
        let Some(answer) = answer else { return Self::Lost };
        let hint = || answer.header("retry-after")?.trim().parse().ok().map(Duration::from_secs);
        match answer.status {
            200..=399 => Self::Good,
            401 => Self::Unauthorized,
            429 => Self::TooFast(hint()),
            503 => Self::Away(hint()),
            502 | 504 => Self::Lost,
            _ => Self::Final,
        }
    }
}

/// What to do with a call after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It has ended.
    End(End),
    /// Again after this wait.
    Again(Duration),
}

/// Whether chance is added to waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jitter {
    /// Waits are as told or computed.
    None,
    /// Up to a second is added to every wait.
    Always,
    /// Up to a second is added where the server told nothing: the guide's formula.
    Computed,
}

/// Counts the repeats of calls.
#[derive(Debug)]
pub(super) struct Repeats {
    counts: HashMap<CallId, u32>,
    jitter: Jitter,
    rng: fastrand::Rng,
}

impl Repeats {
    pub(super) fn new(jitter: Jitter, rng: fastrand::Rng) -> Self {
        Self { counts: HashMap::new(), jitter, rng }
    }

    /// What becomes of `call`.
    pub(super) fn judge(&mut self, call: &CallInfo, seen: Seen) -> Then {
        let hint = match seen {
            Seen::Good => return self.ended(call.id, End::Good),
            Seen::Final => return self.ended(call.id, End::Rejected),
            Seen::Lost if call.route.is_write() => return self.ended(call.id, End::Unknown),
            Seen::TooFast(hint) | Seen::Away(hint) => hint,
            Seen::Lost => None,
            Seen::Unauthorized => Some(Duration::ZERO),
        };
        let count = self.counts.entry(call.id).or_insert(0);
        if *count >= MOST_REPEATS {
            return self.ended(call.id, End::GaveUp);
        }
        let computed = CAP.min(Duration::from_secs(1 << (*count).min(6)));
        *count += 1;
        let wait = hint.unwrap_or(computed);
        let jittered = match self.jitter {
            Jitter::None => false,
            Jitter::Always => seen != Seen::Unauthorized,
            Jitter::Computed => hint.is_none(),
        };
        Then::Again(if jittered { wait + Duration::from_secs_f64(self.rng.f64()) } else { wait })
    }

    fn ended(&mut self, call: CallId, end: End) -> Then {
        self.counts.remove(&call);
        Then::End(end)
    }
}

/// Calls that sleep.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Mono, u64, CallId)>>, u64);

impl Timers {
    /// `call` sleeps until `at`.
    pub(super) fn set(&mut self, at: Mono, call: CallId) {
        self.1 += 1;
        self.0.push(Reverse((at, self.1, call)));
    }

    /// A call that has slept enough; those that sleep until the same instant wake in the order they lay down.
    pub(super) fn due(&mut self, now: Mono) -> Option<CallId> {
        let Reverse((at, _, _)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, _, call))| call)
    }

    /// When the next one wakes.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.peek().map(|Reverse((at, _, _))| *at)
    }
}
