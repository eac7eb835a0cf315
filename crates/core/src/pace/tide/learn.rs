//! What answers and throttles teach about a told limit.

use super::{Lesson, Tide};
use crate::observe::Reading;
use crate::pace::promise::{Change, Told};
use crate::pace::refill::{Evidence, Rule};
use crate::pace::ride::Swell;
use crate::pace::secs::{Interval, num, whole};
use crate::pace::strangers::{Seen, Strangers};
use crate::pace::ticket::Attempt;
use crate::time::Wall;

impl Tide {
    /// A net refill below this share of the quota is not believed.
    const NEXT_PERMIT: f64 = 0.02;
    /// A promise that moves by this share of a counter's length, before it is due, has moved by one.
    const FORETOLD: f64 = 0.8;
    /// The promise of a log may creep by this share of a length and seem to stand.
    const CREEPING: f64 = 0.1;
    /// Of the gross refill so much is measured at least.
    const GROSS: f64 = 0.9;

    /// An answer with a reading. `in_flight` counts the others.
    pub(in crate::pace) fn accepted(
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
        self.ended(attempt);
        self.strangers.ended(attempt.sent, now);
        self.unread = 0;
        self.trip.observe(now - attempt.sent);
        self.strangers.accepted();
        let quota = self.learn_limit(reading, remaining);
        let before = self.available(now, in_flight);
        let foretold = self.foretold(now);
        let change = self.promise_of(attempt, now, reading, date, remaining);
        if attempt.scout
            && change == Change::Same
            && attempt.promised.is_some_and(|due| attempt.sent >= due.lo)
        {
            self.trip.arrived_early();
        }
        let evidence = self.evidence(attempt, now, num(remaining), change, in_flight);
        if !self.siblings {
            self.refill.weigh(&evidence);
        }
        let moved = foretold.zip(self.promise.due()).is_some_and(|(foretold, due)| due.up >= foretold);
        if moved && !self.siblings && change == (Change::Later { early: true }) {
            self.refill.is_counter();
        }
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
        if self.siblings {
            return Lesson { quota, ..Lesson::default() };
        }
        let seen = self.seen(attempt, now, num(remaining), in_flight);
        self.watch_log(&seen, in_flight);
        self.certify_ride(attempt, now, num(remaining));
        if self.refill.rule() == Rule::Continuous {
            self.strangers.is_known(if self.strangers.met() { self.missing_refill() } else { 0.0 });
        }
        // Of one that was out for a whole window nobody can say to which it belongs.
        if self.refill.rule() == Rule::Step && now - attempt.sent < self.length() {
            self.strangers.observe(&seen);
        }
        let after = self.available(now, in_flight);
        Lesson {
            quota,
            opened: (before < 1.0 && after >= 8.0).then_some(after),
            strangers: self.strangers.news(self.limit / self.length()),
        }
    }

    /// Where the window was under way and a counter would name the edge after the next: what it names next. Not near the promise,
    /// which a log lets creep.
    fn foretold(&self, now: f64) -> Option<f64> {
        let due = self.promise.due().filter(|_| self.seems_under_way())?;
        let length = due.up - self.promise.hidden_edge(self.named_window)?;
        (now < due.lo - Self::CREEPING * length).then_some(due.up + Self::FORETOLD * length)
    }

    fn seen(&self, attempt: &Attempt, now: f64, remaining: f64, in_flight: u32) -> Seen {
        let trip = self.trip.mean();
        Seen {
            sent: attempt.sent,
            answered: now,
            remaining,
            settled: self.certificate.level().filter(|_| in_flight == 0),
            trip,
            doubt: 0.75 * (self.trip.long() - trip).max(0.02 * trip),
            stretch: (0.5 * trip).max(0.005 * self.length()),
            memory: self.length(),
        }
    }

    /// What stands of others in the log, if it is one.
    fn watch_log(&mut self, seen: &Seen, in_flight: u32) {
        if self.refill.rule() == Rule::Continuous || self.refill.is_proven_step() {
            return;
        }
        let Some(length) = self.log_length() else { return };
        let handled = f64::midpoint(seen.sent, seen.answered);
        let own = self.refill.own();
        let (under_way, coming) = self.strangers.under_way(handled, seen);
        let counted = own.accepted() + f64::from(in_flight) - under_way;
        let expiry = handled + seen.trip / 2.0 - length.up;
        let going = own.answered_before(expiry + seen.doubt) - own.answered_before(expiry - seen.doubt);
        let blur = Strangers::MISPLACED * (coming + going);
        let others = self.limit - seen.remaining - (counted - own.answered_before(expiry));
        self.standing.observe(handled, others, blur, length.up, seen.trip);
        if self.standing.stands_out() {
            self.ride.company(seen.answered, length.up);
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
        self.strangers.is_known(self.standing.rate());
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
        // Siblings open windows: another answer may have told of the next one while this attempt was on its way.
        let seen_since = self.siblings && self.promise.opened().up > attempt.sent;
        let level = attempt.level_alone.filter(|_| !seen_since);
        let told = Told {
            sent: attempt.sent,
            answered: now,
            stood: self.certificate.level().is_none_or(|level| num(remaining) <= level),
            rose: level.is_some_and(|level| num(remaining) > level),
            first: !self.siblings || num(remaining) + 1.0 >= self.limit,
        };
        let change = self.promise.tell(reset, date, &told, self.refill.rule() == Rule::Step);
        let missing = level.map_or(0.0, |level| self.limit - level);
        let came_back = level.map_or(0.0, |level| num(remaining) - level);
        let due = attempt.promised.is_some_and(|due| now >= due.lo);
        let jumped = due && missing > 2.0 && came_back >= 0.5 * missing;
        if change == Change::Same && jumped && self.promise.renewed(&told) {
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
    pub(in crate::pace) fn throttled(
        &mut self,
        attempt: &Attempt,
        now: f64,
        reading: Option<&Reading>,
        date: Option<Wall>,
        news: bool,
    ) -> Option<f64> {
        self.ended(attempt);
        self.trip.observe(now - attempt.sent);
        self.last_event = now;
        let at_promise = attempt.send_at.is_some_and(|at| attempt.sent >= at);
        if attempt.scout && at_promise && self.refill.rule() == Rule::Step {
            self.trip.arrived_early();
            self.promise.guessed_wrong();
            if attempt.promised.is_some_and(|due| attempt.sent >= due.up) {
                self.promise.came_late();
            }
        }
        self.strangers.meet();
        self.strangers.not_counted(attempt.sent);
        // Under a continuous refill scouts are the rule, and permits that are left stay there for later.
        if news && (!attempt.scout || self.refill.rule() == Rule::Continuous) {
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
        let told =
            Told { sent: attempt.sent, answered: now, stood: true, rose: false, first: !self.siblings };
        self.promise.tell(reset, date, &told, self.refill.rule() == Rule::Step);
        // Where permits come back at any time the reset tells when all are back, not when one is.
        let windows = self.refill.rule() == Rule::Step;
        self.promise.due().filter(|_| windows).map(|due| due.up)
    }
}
