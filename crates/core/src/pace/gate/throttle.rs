//! What a throttle does to a gate: it closes, it learns, or it finds that too many were sent at once.

use std::time::Duration;

use super::{Gate, Knowledge};
use crate::observe::Reading;
use crate::pace::closing::Order;
use crate::pace::concurrency::Concurrency;
use crate::pace::learnt::Learnt;
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
    /// The cap on attempts at once that the body named as the limit that was hit.
    pub(in crate::pace) cap: Option<u32>,
    /// A number from 0 to 1, drawn by chance.
    pub(in crate::pace) chance: f64,
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
        self.share_ended(now, attempt.permit, false);
        let blind = quota_left || !self.knows_rate(at);
        if let Some(cap) = throttle.cap {
            self.crowd.believe(cap);
            self.concurrency.named(cap);
            return self.capped(now, attempt, throttle);
        }
        if blind && self.crowd.is_cap() {
            self.crowd.refused(attempt.sent, self.in_flight + 1);
            if self.crowd.is_cap() {
                self.concurrency.throttled(self.in_flight);
                return self.capped(now, attempt, throttle);
            }
            self.concurrency = Concurrency::boundless();
        }
        if quota_left && throttle.retry_after.is_none() {
            return self.crowded(now, attempt);
        }
        let news = self.closing.is_news(sent);
        let mut reset = self.learn_from_throttle(now, attempt, throttle, news);
        if quota_left {
            // Another limit than the rate: the reset says nothing about it.
            reset = None;
        }
        match (news, blind) {
            (true, true) => {
                let hint = throttle.retry_after.map(|hint| hint.as_secs_f64());
                self.crowd.begin(attempt.sent, at, self.in_flight + 1, hint);
                self.concurrency.throttled(self.in_flight);
            }
            (true, false) => self.crowd.forget(),
            (false, _) => self.crowd.refused(attempt.sent, self.in_flight + 1),
        }
        let order = Order {
            hint: throttle.retry_after,
            window: reset,
            reset: told_reset(throttle).filter(|_| !quota_left),
            spread: span(self.spread),
            chance: throttle.chance,
        };
        self.closing.close(now, sent, &order);
        self.learn_rate(now, news);
        let contradicted_by = self.contradiction(throttle, reset).filter(|_| news);
        if contradicted_by.is_some() && !quota_left && self.knows_rate(at) {
            self.concurrency.cut(self.in_flight);
        }
        let stay_away = self.closing.closed_until(now).map_or(Duration::ZERO, |until| until - now);
        Closed { news, stay_away, contradicted_by }
    }

    fn learn_rate(&mut self, now: Mono, news: bool) {
        let opens = self.closing.closed_until(now).map_or(secs(now), secs);
        match &mut self.knowledge {
            Knowledge::Silent(learnt) if self.backed || learnt.rate(secs(now)).is_none() && !news => {}
            Knowledge::Silent(learnt) if news => learnt.throttled(secs(now), opens),
            Knowledge::Silent(learnt) => learnt.throttled_again(opens),
            _ => {}
        }
    }

    /// When the last burst is over: if it showed a cap on attempts at once, that is the bound, and no rate. A wait that the
    /// server ordered is kept to the end all the same.
    pub(in crate::pace) fn judge_crowd(&mut self, now: Mono) {
        let over = self.crowd.is_over() || !self.closing.scouting();
        if !over || self.closing.ordered() {
            return;
        }
        let standing = self.crowd.shows();
        self.crowd.forget();
        let Some(standing) = standing else { return };
        self.crowd.believe(standing);
        self.concurrency.left_standing(standing);
        self.concurrency.closed(secs(now), self.closing.ordered_for());
        self.closing.reopen();
        if matches!(self.knowledge, Knowledge::Silent(_)) {
            self.knowledge = Knowledge::Silent(Learnt::new(secs(now)));
        }
    }

    /// The upstream is away for `hint`: that closes the gate and says nothing about its limit. Returns how long to stay
    /// away.
    pub(in crate::pace) fn hold_off(
        &mut self,
        now: Mono,
        attempt: &Attempt,
        hint: Duration,
        chance: f64,
    ) -> Duration {
        let order = Order { hint: Some(hint), window: None, reset: None, spread: span(self.spread), chance };
        self.closing.close(now, mono(attempt.sent), &order);
        self.closing.closed_until(now).map_or(Duration::ZERO, |until| until - now)
    }

    /// Throttled with quota left and no word of how long: too many at once. The rate is left alone.
    fn crowded(&mut self, now: Mono, attempt: &Attempt) -> Closed {
        if self.crowd.met(attempt.sent, secs(now)) {
            self.concurrency.throttled(self.in_flight);
            self.too_many(now, attempt)
        } else {
            self.concurrency.crowded();
            Closed { news: false, ..self.too_many(now, attempt) }
        }
    }

    /// A cap refused it. A hint is kept, though a place may be free sooner.
    fn capped(&mut self, now: Mono, attempt: &Attempt, throttle: &Throttle<'_>) -> Closed {
        let closed = self.too_many(now, attempt);
        let Some(hint) = throttle.retry_after.filter(|hint| !hint.is_zero()) else { return closed };
        let order = Order {
            hint: Some(hint),
            window: None,
            reset: None,
            spread: span(self.spread),
            chance: throttle.chance,
        };
        let news = self.closing.close(now, mono(attempt.sent), &order);
        let stay_away = self.closing.closed_until(now).map_or(Duration::ZERO, |until| until - now);
        self.concurrency.closed(secs(now), stay_away.as_secs_f64());
        Closed { news, stay_away, ..closed }
    }

    /// Nothing closes: a place is free as soon as an attempt is answered.
    fn too_many(&mut self, now: Mono, attempt: &Attempt) -> Closed {
        if let Knowledge::Told(tide) = &mut self.knowledge {
            tide.ended_unseen(secs(now), attempt, true);
        }
        Closed { news: true, stay_away: Duration::ZERO, contradicted_by: None }
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
                told_reset(throttle)
            }
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => told_reset(throttle),
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
        self.assumed = None;
        match (&mut self.knowledge, kind) {
            (Knowledge::Declared(sliding), LimitKind::Rate { quota, .. }) => sliding.set_quota(quota),
            (Knowledge::Capped(own), LimitKind::Concurrent { cap }) => *own = cap,
            _ => {}
        }
    }
}

fn told_reset(throttle: &Throttle<'_>) -> Option<Duration> {
    Some(throttle.reading?.reset?.after)
}
