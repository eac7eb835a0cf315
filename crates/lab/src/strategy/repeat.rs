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
const CAP: Duration = Duration::from_mins(1);

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_core::key::CredentialId;
    use tidegate_core::pace::{CallerId, Class};

    use super::*;
    use crate::call::{Route, RouteText};

    fn call(method: &str) -> CallInfo {
        let text: RouteText = format!("{method} /api/v2/users/{{user}}").parse().unwrap();
        let route = Route::new(&text, 3);
        CallInfo {
            id: CallId(7),
            path: route.path(0).into(),
            route: Arc::new(route),
            credential: CredentialId::new("c"),
            class: Class::Bulk,
            caller: CallerId::ANYBODY,
            deadline: None,
        }
    }

    #[test]
    fn hints_are_believed_and_what_is_no_number_is_no_hint() {
        let mut repeats = Repeats::new(Jitter::None, fastrand::Rng::with_seed(1));
        let answer = |hint: &str| {
            ApiResponse { status: 429, headers: Vec::new(), body: Vec::new() }.with("Retry-After", hint)
        };
        let told = Seen::of(Some(&answer("7")));
        assert_eq!(repeats.judge(&call("GET"), told), Then::Again(Duration::from_secs(7)));
        let date = Seen::of(Some(&answer("Mon, 13 May 2024 18:00:42 GMT")));
        assert_eq!(
            repeats.judge(&call("GET"), date),
            Then::Again(Duration::from_secs(2)),
            "the second wait doubles"
        );
    }

    #[test]
    fn after_five_repeats_it_is_given_up_and_a_lost_write_is_unknown() {
        let mut repeats = Repeats::new(Jitter::None, fastrand::Rng::with_seed(1));
        let waits = (0..5).map(|_| repeats.judge(&call("GET"), Seen::TooFast(None)));
        assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4, 8, 16].map(|s| Then::Again(Duration::from_secs(s))));
        assert_eq!(repeats.judge(&call("GET"), Seen::TooFast(None)), Then::End(End::GaveUp));
        assert_eq!(repeats.judge(&call("PATCH"), Seen::Lost), Then::End(End::Unknown));
    }

    #[test]
    fn sleepers_wake_in_order() {
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        for (time, call) in [(3, 1), (2, 2), (2, 3)] {
            timers.set(at(time), CallId(call));
        }
        assert_eq!(timers.next(), Some(at(2)));
        let woken: Vec<u32> = std::iter::from_fn(|| timers.due(at(2))).map(|call| call.0).collect();
        assert_eq!(woken, [2, 3]);
    }
}
