//! When the next attempt under a told limit may leave: what is covered goes at once, evidence when it tells most, a
//! scout when a permit should be there.

use super::Tide;
use crate::pace::refill::Rule;
use crate::pace::secs::whole;
use crate::pace::when::{SCOUT_PATIENCE, When};

impl Tide {
    /// So many permits a counter has given back when evidence is to show it, should others have taken what is held.
    const SHOWN_BY: f64 = 3.0;
    /// And so many when a scout looks that nothing covers, while others take some of them.
    const LOOK_FOR: f64 = 10.0;
    /// What strangers took is carried forward for so many times as long as it was seen, before somebody looks.
    const CARRIED: f64 = 2.0;
    /// A first window that was under way may be so many times as long as it seems.
    const LONGER_YET: f64 = 3.0;

    /// When one more attempt may go that leaves `reserve` permits and waits `patience` seconds for the sake of evidence.
    ///
    /// Whoever leaves more never goes sooner: what is held as evidence is held from it too, or its scout would take that from
    /// under those who wait for it, and each answer would put these off anew.
    pub(in crate::pace) fn when(&self, now: f64, in_flight: u32, reserve: f64, patience: f64) -> When {
        let available = self.available(now, in_flight);
        let held = if available >= 1.0 { self.hold(now, available, in_flight, patience) } else { When::Now };
        if available - reserve >= 1.0 {
            return held;
        }
        let missing = 1.0 + reserve - available;
        let next = self.swell().filter(|_| missing.is_finite()).and_then(|swell| swell.next(now, missing));
        match next {
            Some(at) if at > now => When::At(at),
            _ => self.scout(now, in_flight, reserve).and(held),
        }
    }

    fn hold(&self, now: f64, available: f64, in_flight: u32, patience: f64) -> When {
        if available - 1.0 >= self.evidence_wanted() {
            return When::Now;
        }
        let at = if in_flight > 0 { self.quiet() } else { self.evidence_at(available) };
        let held = if at > now + patience { When::Now } else { When::at(at, now) };
        // Who has little patience waits beside a permit no longer than without any, which where all comes back at once is later.
        let impatient = patience.is_finite() && self.refill.rule() == Rule::Log;
        if impatient { held.or(self.scout(now, in_flight, 0.0)) } else { held }
    }

    /// Nothing will answer any more, most likely.
    fn quiet(&self) -> f64 {
        self.last_event + 3.0 * self.trip.long() + 0.05
    }

    fn blurred(&self) -> bool {
        self.promise.blur() > (1.5 * self.trip.long()).max(0.01 * self.length())
    }

    /// How many permits to keep as evidence attempts, at most an eighth of the quota.
    fn evidence_wanted(&self) -> f64 {
        // In a log what is held now would come back as late in every window.
        let windows = self.refill.is_proven_step();
        let wanted: f64 = match (self.refill.settled(), self.blurred()) {
            (_, true) if windows && self.promise.passed() < 3 => 4.0,
            (false, _) if self.seems_under_way() => 3.0,
            (false, _) => 1.0,
            (true, _) => 0.0,
        };
        wanted.min((self.limit / 8.0).floor())
    }

    /// No window was seen to pass, and the present one was not opened by an own attempt: it is aligned, or a counter's.
    pub(super) fn seems_under_way(&self) -> bool {
        self.refill.rule() == Rule::Step && self.promise.passed() == 0 && !self.promise.began_with_us()
    }

    /// When the answer of a held permit tells most. In a window always early enough to be counted in it: what is left of
    /// a window is lost. The first goes soon, for a bucket refills at once. A sliding counter shows nothing before its
    /// next window, and at a promise that names the second next, where all is back, it would pass for a window for ever:
    /// so where the window was under way one permit goes when the counter's would end and one just before the promise. (A
    /// log would get those back as late in every window.)
    fn evidence_at(&self, held: f64) -> f64 {
        let pause = self.last_answer + 4.0 * self.length() / self.limit.max(1.0);
        let (Rule::Step, Some(due)) = (self.refill.rule(), self.promise.due()) else { return pause };
        let latest = due.lo - 2.0 * self.trip.long();
        let after = match (!self.refill.settled() && self.seems_under_way(), held) {
            (true, held) if held < 2.0 => latest,
            (true, held) if held < 3.0 => {
                self.after_edge(Self::SHOWN_BY).unwrap_or_else(|| self.promise.opened().lo.midpoint(due.lo))
            }
            _ => pause,
        };
        let after = after.max(pause);
        let telling = if self.blurred() && self.refill.is_proven_step() {
            self.promise.halving(after, &self.trip)
        } else {
            None
        };
        telling.unwrap_or(after).min(latest)
    }

    /// Strangers take what is held as evidence. So where a counter would pass for a window for ever a lone attempt looks, once,
    /// as soon as a counter has given a few back.
    fn look(&self) -> Option<f64> {
        let taken = !self.looked && !self.refill.settled() && self.strangers.rate() > 0.0;
        self.after_edge(Self::LOOK_FOR).filter(|_| taken && self.seems_under_way())
    }

    /// A burst of strangers is a rate while it lasts, and who carries that forward sees the rest of the window gone. Where
    /// nothing is in flight no answer would ever contradict. So a lone attempt looks after twice the time that the rate was seen
    /// for, if by their average something should be left beyond its own reserve: its answer counts exactly what others took.
    fn doubt(&self, reserve: f64) -> Option<f64> {
        let seen = self.strangers.seen_for().filter(|_| self.refill.is_proven_step())?;
        let left = self.certificate.level().unwrap_or(0.0) - self.strangers.pad();
        let trip = self.trip.long();
        let pause = (Self::CARRIED * seen).max(2.0 * trip);
        (pause + trip <= self.strangers.lasts(left - reserve - 1.0)).then_some(self.last_answer + pause)
    }

    /// When a counter has given back so many `permits` since the edge that its promise hides.
    fn after_edge(&self, permits: f64) -> Option<f64> {
        let edge = self.promise.hidden_edge(self.named_window)?;
        let length = self.promise.due()?.up - edge;
        Some(edge + permits * length / self.limit.max(1.0))
    }

    /// Nothing is covered: when would a lone attempt find a permit that leaves `reserve` others?
    fn scout(&self, now: f64, in_flight: u32, reserve: f64) -> When {
        if let Some(left) = self.scout_left {
            let overdue = left + SCOUT_PATIENCE.max(8.0 * self.trip.long());
            if now < overdue {
                return When::At(overdue);
            }
        }
        let next = self.next_permit();
        let looks = [self.look(), self.doubt(reserve)].into_iter().flatten();
        let mut at = looks.fold(next, f64::min);
        let answered_since = self.certificate.latest_sent().is_some_and(|sent| sent >= at);
        if answered_since {
            // That instant has been looked at already, and nothing more was there.
            at = self.last_answer + (1.5 * self.length() / self.limit.max(1.0)).max(self.length() / 50.0);
        }
        let under_way = self.last_event >= at - 2.0 * self.trip.mean();
        if in_flight > 0 && (answered_since || under_way || self.refill.rule() != Rule::Step) {
            // An answer on its way knows better.
            at = at.max(self.quiet());
        }
        When::at(at, now)
    }

    /// How much later than a reset a scout goes while the rule is unproven: late enough that a continuous refill has given one
    /// back too.
    pub(super) fn doubtful(&self, under_way: bool) -> f64 {
        let length = self.length();
        let permit = length / self.limit.max(1.0);
        let coarse = if self.blurred() { (length / 8.0).min(0.05) } else { 0.0 };
        let longer = if under_way { Self::LONGER_YET } else { 1.0 };
        (longer * 1.5 * permit).min(length / 4.0).max(coarse)
    }

    pub(super) fn next_permit(&self) -> f64 {
        let send = self.promise.send_at(&self.trip, self.refill.is_proven_step());
        let Some(send) = send else {
            return self.last_answer + self.named_window.unwrap_or(Self::BLIND_WAIT);
        };
        let length = self.length();
        let permit = length / self.limit.max(1.0);
        match self.refill.rule() {
            Rule::Step if self.refill.is_proven_step() => send,
            Rule::Step => send + self.doubtful(self.seems_under_way()),
            Rule::Log => {
                let spare = self.strangers.margin(self.trip.long());
                let standing = self.limit - self.certificate.level().unwrap_or(0.0);
                let expiry =
                    self.refill.own().next_expiry(length, self.last_answer, whole(spare), whole(standing));
                expiry.map_or(send, |at| send.min(at - self.trip.lead()))
            }
            Rule::Continuous => {
                let missing = 1.5 - self.available(self.last_answer, 0).clamp(-self.limit, 1.0);
                let rate = self.refill.rate();
                if rate > 0.0 {
                    // In a whole length all would come back, whatever the rate seemed to be: then it is worth a look.
                    let wait = self.strangers.wait_for(missing, rate, self.trip.long());
                    self.last_answer + wait.min(length.max(Self::BLIND_WAIT))
                } else if permit < self.trip.mean() / 4.0 {
                    send
                } else {
                    self.last_answer + missing * permit
                }
            }
        }
    }
}
