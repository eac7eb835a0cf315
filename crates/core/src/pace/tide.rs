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

mod learn;
mod lore;
mod share;
mod wait;

pub(super) use lore::Lore;

use crate::pace::certificate::Certificate;
use crate::pace::promise::Promise;
use crate::pace::refill::{Refill, Rule};
use crate::pace::ride::{Others, Ride, Swell};
use crate::pace::secs::{Interval, num, whole};
use crate::pace::standing::Standing;
use crate::pace::strangers::Strangers;
use crate::pace::ticket::Attempt;
use crate::pace::trip::Trip;

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
    standing: Standing,
    trip: Trip,
    /// The window a header names, used where no reset is told.
    named_window: Option<f64>,
    last_answer: f64,
    last_event: f64,
    scout_left: Option<f64>,
    /// A scout left before the promise that nothing had proven.
    looked: bool,
    unread: u32,
    /// Others that are no strangers draw from it.
    siblings: bool,
}

impl Tide {
    /// Where neither a reset nor a window is told, a scout goes this often.
    const BLIND_WAIT: f64 = 1.0;
    /// Deviations of what strangers may do that a lone scout waits for.
    const SCOUT_DEVIATIONS: f64 = 1.3;
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
            standing: Standing::default(),
            trip: Trip::new(),
            named_window: None,
            last_answer: 0.0,
            last_event: 0.0,
            scout_left: None,
            looked: false,
            unread: 0,
            siblings: false,
        }
    }

    pub(super) fn limit(&self) -> u64 {
        whole(self.limit)
    }

    pub(super) fn rule(&self) -> Rule {
        self.refill.rule()
    }

    /// What strangers draw, permits per second over a window.
    pub(super) fn strangers(&self) -> f64 {
        self.strangers.overall(self.limit / self.length())
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

    /// The length of a window for who watches since `since`: before one was seen to end, until the present one does.
    pub(super) fn watched(&self, since: f64) -> f64 {
        let known = self.length();
        let ends = self.closes().filter(|_| self.promise.length().is_none());
        ends.map_or(known, |(_, last)| known.max(last - since))
    }

    pub(super) fn is_proven_step(&self) -> bool {
        self.refill.is_proven_step()
    }

    /// Until when an attempt may leave that is to be counted in the present window: a trip before it can end, and a trip before
    /// a scout for the next one goes.
    pub(super) fn closes(&self) -> Option<(f64, f64)> {
        let due = self.promise.due()?;
        let scout = self.promise.send_at(&self.trip, self.refill.is_proven_step())?;
        let trip = self.trip.long();
        Some((due.lo.min(scout) - trip, scout - trip))
    }

    /// When a continuous refill has brought `wanted` permits, if nobody takes them.
    pub(super) fn refilled(&self, now: f64, in_flight: u32, wanted: f64) -> f64 {
        let missing = wanted - self.available(now, in_flight).max(0.0);
        self.last_answer + missing.max(0.0) * self.spacing()
    }

    /// Permits covered beyond what is in flight and what strangers may take, for an attempt that leaves at `now`.
    pub(super) fn available(&self, now: f64, in_flight: u32) -> f64 {
        let certified = self.certificate.level().unwrap_or(f64::NEG_INFINITY);
        let left = certified - self.margin(now);
        let level = self.swell().map_or(left, |swell| {
            let others = self.others(now);
            let level = self.ride.level(now, &swell, &others).max(left);
            if !others.fresh && self.ride.in_company(now) { level.min(1.0) } else { level }
        });
        level - f64::from(in_flight) - num(self.certificate.unseen() as u64)
    }

    /// What strangers may take before an attempt that leaves at `now` arrives, of what was certified.
    fn margin(&self, now: f64) -> f64 {
        let age = (now - self.last_answer).clamp(0.0, self.length());
        match self.refill.rule() {
            Rule::Continuous => self.strangers.margin_of_flow(self.trip.long() + age, self.refill.rate()),
            Rule::Step | Rule::Log => {
                let margin = self.strangers.margin(self.trip.long() + age);
                // What was seen in a window that has passed may be false, and whoever leaves all to it is never told.
                let half =
                    self.certificate.level().filter(|_| self.strangers.is_hearsay()).map(|level| level / 2.0);
                margin.min(half.unwrap_or(f64::INFINITY))
            }
        }
    }

    /// What is known of others in the log, for an attempt that leaves at `now`.
    fn others(&self, now: f64) -> Others {
        let arrives = now + self.trip.long() / 2.0;
        let fresh = now < self.last_answer + 2.0 * self.trip.long() && self.certificate.level().is_some();
        // A lone scout risks one throttle, a crowd many.
        let deviations = if fresh { Strangers::DEVIATIONS } else { Self::SCOUT_DEVIATIONS };
        let standing = self.standing.at(arrives, deviations);
        Others {
            margin: self.margin(now),
            standing: standing.filter(|_| !fresh).map(|stand| stand + self.strangers.pad()),
            fresh,
        }
    }

    fn log_length(&self) -> Option<Interval> {
        self.promise.log_length(self.refill.shown())
    }

    /// The log to ride, if one is proven.
    fn swell(&self) -> Option<Swell<'_>> {
        let length = self.log_length().filter(|_| self.refill.is_proven_log())?;
        Some(Swell { own: self.refill.own(), limit: self.limit, length, one_way: self.trip.one_way() })
    }

    /// A permit was taken; `in_flight` counts the others.
    pub(super) fn take(&mut self, now: f64, in_flight: u32, attempt: &mut Attempt) {
        self.last_event = now;
        self.strangers.sent(now);
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
        self.strangers.not_counted(attempt.sent);
        if attempt.scout {
            self.scout_left = None;
        }
    }

    /// An attempt that had left came to an end. One that was given back has looked at nothing, and is none.
    fn ended(&mut self, attempt: &Attempt) {
        if attempt.scout {
            self.scout_left = None;
            self.looked |= attempt.send_at.is_some_and(|at| attempt.sent < at);
        }
    }

    /// An attempt ended without a word about this limit, or was lost: the server may have counted it.
    pub(super) fn ended_unseen(&mut self, now: f64, attempt: &Attempt, answered: bool) {
        self.ended(attempt);
        self.strangers.ended(attempt.sent, now);
        self.certificate.ended_unseen(now);
        self.ride.company(now, self.length());
        self.last_event = now;
        if answered {
            self.unread = self.unread.saturating_add(1);
            self.trip.observe(now - attempt.sent);
        }
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
            // A counter that names its second next edge gives all back in half of that.
            Rule::Continuous if self.refill.promises_an_edge() => {
                next + (missing - 1.0) * self.spacing().min(self.length() / 2.0 / self.limit.max(1.0))
            }
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
