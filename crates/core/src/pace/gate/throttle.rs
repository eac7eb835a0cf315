//! What a throttle does to a gate: it closes, it learns, or it finds that too many were sent at once.

use std::time::Duration;

use super::{Gate, Knowledge};
use crate::observe::Reading;
use crate::pace::secs::{mono, secs, span};
use crate::pace::spec::LimitKind;
use crate::pace::ticket::Attempt;
use crate::time::{Mono, Wall};

/// What a throttle did to a gate.
#[derive(Debug)]
pub(in crate::pace) struct Closed {
    /// Not part of a burst already known.
    pub(in crate::pace) news: bool,
    pub(in crate::pace) stay_away: Duration,
    /// The reset that contradicts the retry-after.
    pub(in crate::pace) contradicted_by: Option<Duration>,
}

/// The 429 as far as one gate is concerned.
#[derive(Debug)]
pub(in crate::pace) struct Throttle<'a> {
    pub(in crate::pace) retry_after: Option<Duration>,
    pub(in crate::pace) reading: Option<&'a Reading>,
    pub(in crate::pace) date: Option<Wall>,
    pub(in crate::pace) jitter: Duration,
}

impl Gate {
    /// A throttle that this gate explains.
    pub(in crate::pace) fn throttled(
        &mut self,
        now: Mono,
        attempt: &Attempt,
        throttle: &Throttle<'_>,
    ) -> Closed {
        let (at, sent) = (secs(now), mono(attempt.sent));
        let quota_left = throttle.reading.and_then(|reading| reading.remaining).is_some_and(|left| left > 0);
        self.throttles += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
        if quota_left && throttle.retry_after.is_none() {
            return self.crowded(now, attempt);
        }
        let news = !self.closing.scouting() || sent >= self.closing.began();
        let mut reset = self.learn_from_throttle(now, attempt, throttle, news);
        if quota_left {
            // Another limit than the rate: the reset says nothing about it.
            reset = None;
        }
        if news && (quota_left || !self.knows_rate(at)) {
            self.concurrency.throttled(self.in_flight);
        }
        let hint = throttle.retry_after.max(reset);
        self.closing.close(now, sent, hint, throttle.jitter);
        if let (Knowledge::Silent(learnt), true) = (&mut self.knowledge, news && !self.backed) {
            learnt.throttled(at, self.closing.closed_until(now).map_or(at, secs));
        }
        let contradicted_by = self.contradiction(throttle, reset).filter(|_| news);
        if contradicted_by.is_some() && !quota_left && self.knows_rate(at) {
            self.concurrency.throttled(self.in_flight);
        }
        let stay_away = self.closing.closed_until(now).map_or(Duration::ZERO, |until| until - now);
        Closed { news, stay_away, contradicted_by }
    }

    /// Throttled with quota left and no word of how long: too many at once. The rate is left alone.
    fn crowded(&mut self, now: Mono, attempt: &Attempt) -> Closed {
        if let Knowledge::Told(tide) = &mut self.knowledge {
            tide.ended_unseen(secs(now), attempt, true);
        }
        let news = attempt.sent >= self.crowded_at;
        if news {
            self.crowded_at = secs(now);
            self.concurrency.throttled(self.in_flight);
        } else {
            self.concurrency.crowded();
        }
        Closed { news, stay_away: Duration::ZERO, contradicted_by: None }
    }

    fn learn_from_throttle(
        &mut self,
        now: Mono,
        attempt: &Attempt,
        throttle: &Throttle<'_>,
        news: bool,
    ) -> Option<Duration> {
        let at = secs(now);
        match &mut self.knowledge {
            Knowledge::Told(tide) => {
                let due = tide.throttled(attempt, at, throttle.reading, throttle.date, news)?;
                Some(span(due - at))
            }
            Knowledge::Declared(sliding) => {
                if news {
                    sliding.throttled(at, self.in_flight);
                }
                throttle.reading.and_then(|reading| reading.reset).map(|reset| reset.after)
            }
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => {
                throttle.reading.and_then(|reading| reading.reset).map(|reset| reset.after)
            }
        }
    }

    /// `Retry-After` and reset differ by more than their grain, a second of rounding and a tenth allow.
    fn contradiction(&self, throttle: &Throttle<'_>, reset: Option<Duration>) -> Option<Duration> {
        let (retry_after, reset) = (throttle.retry_after?, reset?);
        let grain = throttle.reading?.reset?.grain;
        let trip = match &self.knowledge {
            Knowledge::Told(tide) => span(tide.trip()),
            _ => Duration::ZERO,
        };
        let allowed = Duration::from_secs(1) + grain + trip + retry_after.max(reset) / 10;
        (retry_after.abs_diff(reset) > allowed).then_some(reset)
    }

    /// The upstream told another number than was declared. What headers told of the rate holds.
    pub(in crate::pace) fn set_kind(&mut self, kind: LimitKind) {
        match (&mut self.knowledge, kind) {
            (Knowledge::Declared(sliding), LimitKind::Rate { quota, .. }) => sliding.set_quota(quota),
            (Knowledge::Capped(own), LimitKind::Concurrent { cap }) => *own = cap,
            _ => {}
        }
    }
}
