//! A limit the server tells about: paced by its answers alone.
//!
//! Spent is only what the best certificate still covers, whatever the refill rule. The learnt rule decides one thing: when
//! nothing is covered, at which instant a lone **scout** will find a permit. Its answer is the next certificate. So a
//! wrong belief about the server costs one attempt, and a right one costs a round trip per window.
//!
//! While something about the rule or the phase of the window is unknown, the last few permits of a window are held as
//! **evidence**: attempts that a certificate still covers, sent alone at the instants at which their answers tell most
//! (to see whether permits come back early; to halve what whole seconds hide). They cost nothing but a wait, and no
//! throttle.

use crate::observe::Reading;
use crate::pace::certificate::Certificate;
use crate::pace::promise::{Change, Promise, Told};
use crate::pace::refill::{Evidence, Refill, Rule};
use crate::pace::ride::{Ride, Swell};
use crate::pace::secs::{Interval, num, whole};
use crate::pace::strangers::Strangers;
use crate::pace::ticket::Attempt;
use crate::pace::trip::Trip;
use crate::pace::when::When;
use crate::time::Wall;

/// What an answer taught.
#[derive(Debug, Default)]
pub(super) struct Lesson {
    /// The quota, if it was not known or changed.
    pub(super) quota: Option<u64>,
    /// Permits that a refill has just made available at once.
    pub(super) opened: Option<f64>,
    /// The strangers' draw, if it is news.
    pub(super) strangers: Option<f64>,
}

/// The pacing of one told limit.
#[derive(Debug)]
pub(super) struct Tide {
    limit: f64,
    certificate: Certificate,
    promise: Promise,
    refill: Refill,
    ride: Ride,
    strangers: Strangers,
    trip: Trip,
    /// The window a header names, used where no reset is told.
    named_window: Option<f64>,
    last_answer: f64,
    last_event: f64,
    scout_left: Option<f64>,
    unread: u32,
}

impl Tide {
    /// A scout that has not answered for so long no longer holds up the others.
    const SCOUT_PATIENCE: f64 = 3.0;
    /// An urgent caller waits no longer than this for the sake of evidence.
    const URGENT_PATIENCE: f64 = 1.0;
    /// Where neither a reset nor a window is told, a scout goes this often.
    const BLIND_WAIT: f64 = 1.0;
    /// A net refill below this share of the quota is not believed.
    const NEXT_PERMIT: f64 = 0.02;
    /// Of the gross refill so much is measured at least.
    const GROSS: f64 = 0.9;
    /// After so many answers without a word about the limit the server has stopped telling.
    const SILENCE: u32 = 64;

    pub(super) fn new() -> Self {
        Self {
            limit: 0.0,
            certificate: Certificate::default(),
            promise: Promise::new(),
            refill: Refill::new(),
            ride: Ride::default(),
            strangers: Strangers::new(),
            trip: Trip::new(),
            named_window: None,
            last_answer: 0.0,
            last_event: 0.0,
            scout_left: None,
            unread: 0,
        }
    }

    pub(super) fn limit(&self) -> u64 {
        whole(self.limit)
    }

    pub(super) fn rule(&self) -> Rule {
        self.refill.rule()
    }

    pub(super) fn strangers(&self) -> f64 {
        self.strangers.rate()
    }

    pub(super) fn has_gone_silent(&self) -> bool {
        self.unread >= Self::SILENCE
    }

    pub(super) fn trip(&self) -> f64 {
        self.trip.mean()
    }

    /// The length of a window, as far as known.
    pub(super) fn length(&self) -> f64 {
        let log = self.refill.rule() == Rule::Log;
        let length = if log { self.log_length() } else { self.promise.length() };
        length.map(|length| length.up).or(self.named_window).unwrap_or(Self::BLIND_WAIT).max(1e-3)
    }

    /// Permits covered beyond what is in flight and what strangers may take, for an attempt that leaves at `now`.
    pub(super) fn available(&self, now: f64, in_flight: u32) -> f64 {
        let certified = self.certificate.level().unwrap_or(f64::NEG_INFINITY);
        let left = certified - self.margin();
        let level =
            self.swell().map_or(left, |swell| self.ride.level(now, &swell, self.ride_margin(now)).max(left));
        level - f64::from(in_flight) - num(self.certificate.unseen() as u64)
    }

    fn margin(&self) -> f64 {
        match self.refill.rule() {
            Rule::Continuous => self.strangers.margin_of_flow(self.trip.long(), self.refill.rate()),
            Rule::Step | Rule::Log => self.strangers.margin(self.trip.long()),
        }
    }

    fn ride_margin(&self, now: f64) -> f64 {
        let age = (now - self.last_answer).clamp(0.0, self.length());
        self.strangers.margin(self.trip.long() + age)
    }

    fn log_length(&self) -> Option<Interval> {
        self.promise.log_length(self.refill.shown())
    }

    /// The log to ride, if one is proven.
    fn swell(&self) -> Option<Swell<'_>> {
        let length = self.log_length().filter(|_| self.refill.is_proven_log())?;
        Some(Swell { own: self.refill.own(), limit: self.limit, length, one_way: self.trip.one_way() })
    }

    /// When one more attempt may go.
    pub(super) fn when(&self, now: f64, in_flight: u32, reserve: f64, urgent: bool) -> When {
        let available = self.available(now, in_flight);
        if available - reserve >= 1.0 {
            return self.hold(now, available, in_flight, urgent);
        }
        let missing = 1.0 + reserve - available;
        let next = self.swell().filter(|_| missing.is_finite()).and_then(|swell| swell.next(now, missing));
        match next {
            Some(at) if at > now => When::At(at),
            _ => self.scout(now, in_flight),
        }
    }

    fn hold(&self, now: f64, available: f64, in_flight: u32, urgent: bool) -> When {
        if available - 1.0 >= self.evidence_wanted() {
            return When::Now;
        }
        let at = if in_flight > 0 { self.quiet() } else { self.evidence_at() };
        if urgent && at > now + Self::URGENT_PATIENCE { When::Now } else { When::at(at, now) }
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
            (false, _) => 1.0,
            (true, _) => 0.0,
        };
        wanted.min((self.limit / 8.0).floor())
    }

    /// When the answer of a held permit tells most. In a window always early enough to be counted in it: what is left of
    /// a window is lost.
    fn evidence_at(&self) -> f64 {
        let pause = self.last_answer + 4.0 * self.length() / self.limit.max(1.0);
        let (Rule::Step, Some(due)) = (self.refill.rule(), self.promise.due()) else { return pause };
        let telling = if self.blurred() { self.promise.halving(pause, &self.trip) } else { None };
        let latest = due.lo - 2.0 * self.trip.long();
        telling.unwrap_or(pause).min(latest)
    }

    /// Nothing is covered: when would a lone attempt find a permit?
    fn scout(&self, now: f64, in_flight: u32) -> When {
        if let Some(left) = self.scout_left {
            let overdue = left + Self::SCOUT_PATIENCE.max(8.0 * self.trip.long());
            if now < overdue {
                return When::At(overdue);
            }
        }
        let mut at = self.next_permit();
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

    fn next_permit(&self) -> f64 {
        let send = self.promise.send_at(&self.trip, self.refill.is_proven_step());
        let Some(send) = send else {
            return self.last_answer + self.named_window.unwrap_or(Self::BLIND_WAIT);
        };
        let length = self.length();
        let permit = length / self.limit.max(1.0);
        match self.refill.rule() {
            Rule::Step if self.refill.is_proven_step() => send,
            Rule::Step => {
                // Unproven: late enough that a continuous refill has given one back too.
                let coarse = if self.blurred() { (length / 8.0).min(0.05) } else { 0.0 };
                send + (1.5 * permit).min(length / 4.0).max(coarse)
            }
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
                    self.last_answer + missing / rate
                } else if permit < self.trip.mean() / 4.0 {
                    send
                } else {
                    self.last_answer + missing * permit
                }
            }
        }
    }

    /// A permit was taken; `in_flight` counts the others.
    pub(super) fn take(&mut self, now: f64, in_flight: u32, attempt: &mut Attempt) {
        self.last_event = now;
        attempt.promised = self.promise.due();
        attempt.send_at = self.promise.send_at(&self.trip, self.refill.is_proven_step());
        attempt.scout = self.available(now, in_flight) < 1.0;
        if attempt.scout {
            self.scout_left = Some(now);
        }
        if in_flight == 0 && self.certificate.unseen() == 0 {
            attempt.level_alone = self.certificate.level();
        }
    }

    /// An attempt was given back unsent.
    pub(super) fn give_back(&mut self, attempt: &Attempt) {
        if attempt.scout {
            self.scout_left = None;
        }
    }

    /// An attempt ended without a word about this limit, or was lost: the server may have counted it.
    pub(super) fn ended_unseen(&mut self, now: f64, attempt: &Attempt, answered: bool) {
        self.give_back(attempt);
        self.certificate.ended_unseen(now);
        self.ride.company(now, self.length());
        self.strangers.ended_unseen();
        self.last_event = now;
        if answered {
            self.unread = self.unread.saturating_add(1);
            self.trip.observe(now - attempt.sent);
        }
    }

    /// An answer with a reading. `in_flight` counts the others.
    pub(super) fn accepted(
        &mut self,
        attempt: &Attempt,
        now: f64,
        reading: &Reading,
        date: Option<Wall>,
        in_flight: u32,
    ) -> Lesson {
        let Some(remaining) = reading.remaining else {
            self.ended_unseen(now, attempt, true);
            return Lesson::default();
        };
        self.give_back(attempt);
        self.unread = 0;
        self.trip.observe(now - attempt.sent);
        self.strangers.accepted();
        let quota = self.learn_limit(reading, remaining);
        let before = self.available(now, in_flight);
        let change = self.promise_of(attempt, now, reading, date, remaining);
        if attempt.scout
            && change == Change::Same
            && attempt.promised.is_some_and(|due| attempt.sent >= due.lo)
        {
            self.trip.arrived_early();
        }
        let evidence = self.evidence(attempt, now, num(remaining), change, in_flight);
        let point = self.refill.weigh(&evidence);
        self.last_answer = now;
        self.last_event = now;
        if change == Change::Stale {
            return Lesson { quota, ..Lesson::default() };
        }
        if matches!(change, Change::Later { .. }) {
            self.certificate.void();
            self.strangers.new_window();
        }
        self.certificate.certify(attempt.sent, now, num(remaining));
        self.certify_ride(attempt, now, num(remaining));
        if self.refill.rule() == Rule::Continuous && self.strangers.met() {
            self.strangers.is_known(self.missing_refill());
        }
        if self.refill.rule() == Rule::Step {
            let stretch = (2.0 * self.trip.mean()).max(0.02 * self.length());
            self.strangers.observe(now, point.least, point.most, stretch);
        }
        let after = self.available(now, in_flight);
        Lesson {
            quota,
            opened: (before < 1.0 && after >= 8.0).then_some(after),
            strangers: self.strangers.news(self.limit / self.length()),
        }
    }

    /// What a continuous refill gives but never shows, permits per second: others take it.
    fn missing_refill(&self) -> f64 {
        let net = self.refill.rate();
        if net <= 0.0 {
            return 0.0;
        }
        let gross = self.limit / self.length();
        // A reset may tell the next permit alone.
        let permit = self.promise.length().map_or(self.length(), |length| length.lo).max(1e-3);
        let gross = if net < Self::NEXT_PERMIT * gross { 1.0 / permit } else { gross };
        (Self::GROSS * gross - net).min(net)
    }

    fn certify_ride(&mut self, attempt: &Attempt, now: f64, remaining: f64) {
        let length = self.length();
        if self.refill.company() {
            self.ride.company(now, length);
        }
        let Some(length) = self.log_length().filter(|_| self.refill.is_proven_log()) else {
            self.ride.forget();
            return;
        };
        self.strangers.is_known(self.refill.strangers() / length.up);
        let swell = Swell { own: self.refill.own(), limit: self.limit, length, one_way: self.trip.one_way() };
        self.ride.certify(attempt.sent, now, remaining, &swell);
    }

    fn learn_limit(&mut self, reading: &Reading, remaining: u64) -> Option<u64> {
        if let Some(window) = reading.window {
            self.named_window = Some(window.as_secs_f64());
        }
        let told = reading.limit.map_or(self.limit.max(num(remaining) + 1.0), num).max(1.0);
        let news = (told - self.limit).abs() > 0.5;
        self.limit = told;
        news.then(|| whole(told))
    }

    fn promise_of(
        &mut self,
        attempt: &Attempt,
        now: f64,
        reading: &Reading,
        date: Option<Wall>,
        remaining: u64,
    ) -> Change {
        let Some(reset) = &reading.reset else { return Change::Same };
        let told = Told {
            sent: attempt.sent,
            answered: now,
            stood: self.certificate.level().is_none_or(|level| num(remaining) <= level),
            rose: attempt.level_alone.is_some_and(|level| num(remaining) > level),
        };
        let change = self.promise.tell(reset, date, &told, self.refill.rule() == Rule::Step);
        let missing = attempt.level_alone.map_or(0.0, |level| self.limit - level);
        let came_back = attempt.level_alone.map_or(0.0, |level| num(remaining) - level);
        let due = attempt.promised.is_some_and(|due| now >= due.lo);
        let jumped = due && missing > 2.0 && came_back >= 0.5 * missing;
        if change == Change::Same && jumped && self.promise.renewed(attempt.sent, now) {
            return Change::Later { early: false };
        }
        change
    }

    fn evidence(
        &self,
        attempt: &Attempt,
        now: f64,
        remaining: f64,
        change: Change,
        in_flight: u32,
    ) -> Evidence {
        Evidence {
            sent: attempt.sent,
            answered: now,
            limit: self.limit,
            remaining,
            change,
            level_alone: attempt.level_alone,
            promised: attempt.promised,
            send_at: attempt.send_at,
            in_flight: f64::from(in_flight),
            one_way: self.trip.one_way(),
            trip: self.trip.mean(),
            opened: self.promise.opened(),
            due: self.promise.due().unwrap_or(Interval::ALL),
            length: self.promise.length().unwrap_or(Interval::new(0.0, self.length())),
            log_length: self.log_length().unwrap_or(Interval::new(0.0, self.length())),
        }
    }

    /// A throttle of this limit. `news`: not part of a burst already known. Returns when the reset is due, at the latest.
    pub(super) fn throttled(
        &mut self,
        attempt: &Attempt,
        now: f64,
        reading: Option<&Reading>,
        date: Option<Wall>,
        news: bool,
    ) -> Option<f64> {
        self.give_back(attempt);
        self.trip.observe(now - attempt.sent);
        self.last_event = now;
        if attempt.scout && attempt.promised.is_some() && self.refill.rule() == Rule::Step {
            self.trip.arrived_early();
            self.promise.guessed_wrong();
            if attempt.promised.is_some_and(|due| attempt.sent >= due.up) {
                self.promise.came_late();
            }
        }
        self.strangers.meet();
        if news && !attempt.scout {
            self.strangers.throttled(self.limit);
        }
        self.certificate.forget();
        self.ride.forget();
        if self.refill.is_proven_log() {
            // The log holds what is not known, or is longer than it seemed.
            self.ride.company(now, self.length());
            self.promise.guessed_wrong();
        }
        let reset = reading.and_then(|reading| reading.reset.as_ref())?;
        let told = Told { sent: attempt.sent, answered: now, stood: true, rose: false };
        self.promise.tell(reset, date, &told, self.refill.rule() == Rule::Step);
        // Where permits come back at any time the reset tells when all are back, not when one is.
        let windows = self.refill.rule() == Rule::Step;
        self.promise.due().filter(|_| windows).map(|due| due.up)
    }

    /// When `wanted` permits will have been available, as far as one can tell.
    pub(super) fn forecast(&self, now: f64, in_flight: u32, wanted: f64) -> f64 {
        let missing = wanted - self.available(now, in_flight).max(0.0);
        if missing <= 0.0 {
            return now;
        }
        let next = self.next_permit().max(now);
        match self.refill.rule() {
            Rule::Step => next + self.length() * ((missing - 1.0) / self.limit.max(1.0)).floor(),
            Rule::Log | Rule::Continuous => next + (missing - 1.0) * self.spacing(),
        }
    }

    /// Seconds per permit in the long run.
    pub(super) fn spacing(&self) -> f64 {
        let rate = self.refill.rate();
        let declared = self.length() / self.limit.max(1.0);
        if self.refill.rule() == Rule::Continuous && rate > 0.0 {
            // A rate measured while others draw, or over a burst, is too small; a caller must not be refused for it.
            declared.min(1.0 / rate)
        } else {
            declared
        }
    }
}
