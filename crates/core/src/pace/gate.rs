//! The pacing of one limit, whatever is known about it.
//!
//! A gate is, in this order of trust: *told* (answers describe the limit), *declared* (a number from the profile, paced as
//! a sliding log), *capped* (a bound on attempts in flight), *unknown* (a scout is asked first) or *silent* (the answers say
//! nothing: a rate is learnt from throttles). On top of each lies the closing after a throttle, a learnt bound on
//! concurrency, and the spreading of what a refill releases at once. A limit that is shared with other processes is paced by
//! permits from their store instead ([`share`]).

mod dated;
mod draw;
mod forecast;
mod gist;
mod leave;
mod share;
mod throttle;
mod view;

pub(super) use leave::Wish;
pub(super) use share::{Mode, Shared};
pub(super) use throttle::{Closed, Throttle};

use std::sync::Arc;
use std::time::Duration;

use dated::Takes;
use draw::Draw;
use smallvec::SmallVec;

use crate::observe::Reading;
use crate::pace::closing::Closing;
use crate::pace::concurrency::Concurrency;
use crate::pace::crowd::Crowd;
use crate::pace::learnt::Learnt;
use crate::pace::lease::Lease;
use crate::pace::registry::GateKey;
use crate::pace::secs::{mono, num, secs, whole};
use crate::pace::sliding::Sliding;
use crate::pace::spec::LimitKind;
use crate::pace::ticket::Attempt;
use crate::pace::tide::{Lesson, Tide};
use crate::pace::when::{SCOUT_PATIENCE, When};
use crate::share::Permit;
use crate::time::{Mono, Wall};

/// What is known of the limit.
#[derive(Debug)]
pub(super) enum Knowledge {
    Unknown,
    Told(Box<Tide>),
    Declared(Sliding),
    Capped(u32),
    Silent(Learnt),
}

/// Permits released at once go out one after the other.
#[derive(Debug, Default)]
struct Release {
    next: f64,
    gap: f64,
    until: f64,
}

/// The state machine of one limit.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) name: Arc<str>,
    pub(super) key: GateKey,
    /// The limit's name in headers, once one was seen.
    pub(super) header_name: Option<String>,
    knowledge: Knowledge,
    /// A declared number is not replaced by what headers say.
    pinned: bool,
    /// What a profile takes for usual, until somebody says what this tenant has.
    assumed: Option<LimitKind>,
    /// Another, declared limit bounds the rate, so a silent gate need not.
    backed: bool,
    closing: Closing,
    concurrency: Concurrency,
    crowd: Crowd,
    release: Release,
    spread: f64,
    in_flight: u32,
    /// When the permit for the last attempt was taken.
    last_taken: f64,
    draw: Draw,
    /// What classes took for which the calendar keeps something.
    takes: Option<Box<Takes>>,
    pub(super) lanes: u32,
    /// Of an implicit gate: its lanes, which limits that only headers name must join.
    pub(super) members: SmallVec<[usize; 1]>,
    pub(super) accepted: u64,
    pub(super) throttles: u64,
    /// The last place in the queue that was told to a refused caller.
    last_slot: f64,
    /// The part of it in a fleet, if its limit is shared.
    shared: Option<Box<Shared>>,
}

impl Gate {
    /// What is released at once is spread over at most this share of a window.
    const SPREAD_SHARE: f64 = 0.02;

    pub(super) fn new(name: Arc<str>, key: GateKey, knowledge: Knowledge, spread: Duration) -> Self {
        let told_nothing = matches!(knowledge, Knowledge::Unknown);
        Self {
            name,
            key,
            header_name: None,
            knowledge,
            pinned: false,
            assumed: None,
            backed: false,
            closing: Closing::default(),
            concurrency: if told_nothing { Concurrency::doubling() } else { Concurrency::boundless() },
            crowd: Crowd::default(),
            release: Release::default(),
            spread: spread.as_secs_f64(),
            in_flight: 0,
            last_taken: 0.0,
            draw: Draw::default(),
            takes: None,
            lanes: 0,
            members: SmallVec::new(),
            accepted: 0,
            throttles: 0,
            last_slot: 0.0,
            shared: None,
        }
    }

    pub(super) fn pin(&mut self) {
        self.pinned = true;
    }

    /// What is declared of it is a profile's, and nobody has confirmed it.
    pub(super) fn assume(&mut self, kind: LimitKind) {
        self.assumed = Some(kind);
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// A declared limit bounds the rate of everything that passes here.
    pub(super) fn back(&mut self) {
        if !self.backed {
            self.backed = true;
            self.bounded_elsewhere();
        }
    }

    /// How many may be out at once is declared by another limit, so this one need not find out.
    pub(super) fn bounded_elsewhere(&mut self) {
        // A bound that throttles taught stays: it is another one.
        if !matches!(self.knowledge, Knowledge::Told(_)) && self.concurrency.keep().is_none() {
            self.concurrency = Concurrency::boundless();
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn knows_rate(&self, now: f64) -> bool {
        match &self.knowledge {
            Knowledge::Told(_) | Knowledge::Declared(_) => true,
            Knowledge::Silent(learnt) => learnt.rate(now).is_some(),
            Knowledge::Unknown | Knowledge::Capped(_) => false,
        }
    }

    /// When one more attempt may go.
    pub(super) fn when(&self, now: Mono, wish: &Wish) -> When {
        if let Some(until) = self.closing.closed_until(now) {
            return When::At(secs(until));
        }
        self.by_share(now, wish).unwrap_or_else(|| self.by_itself(now, wish))
    }

    /// When one more attempt may go, as far as this process knows alone.
    fn by_itself(&self, now: Mono, wish: &Wish) -> When {
        let at = secs(now);
        if self.closing.scouting() || matches!(self.knowledge, Knowledge::Unknown) {
            // What answers told is void; what was declared still holds.
            let alone = self.alone(at);
            return if matches!(self.knowledge, Knowledge::Told(_)) {
                alone
            } else {
                alone.and(self.by_policy(at, wish))
            };
        }
        if !self.concurrency.allows(self.in_flight) {
            return When::Event;
        }
        let when = self.by_policy(at, wish);
        if when == When::Now && at < self.release.until { When::at(self.release.next, at) } else { when }
    }

    /// When one more may go if `reserve` permits are left, and it waits `patience` seconds for the sake of evidence.
    fn by_knowledge(&self, at: f64, reserve: f64, patience: f64) -> When {
        match &self.knowledge {
            Knowledge::Told(tide) => tide.when(at, self.in_flight, reserve, patience),
            Knowledge::Declared(sliding) if sliding.waits_for_store(at) => When::Event,
            Knowledge::Declared(sliding) => match sliding.free_at(at, self.in_flight, 1.0 + reserve) {
                Some(free) => When::at(free.max(sliding.turn(at, self.in_flight)), at),
                None => When::Event,
            },
            Knowledge::Capped(cap) if self.in_flight >= *cap => When::Event,
            Knowledge::Silent(learnt) => When::at(learnt.next(), at),
            Knowledge::Capped(_) | Knowledge::Unknown => When::Now,
        }
    }

    /// One attempt at a time, but a lost one does not hold up the next for ever.
    fn alone(&self, now: f64) -> When {
        if self.in_flight == 0 { When::Now } else { When::at(self.last_taken + SCOUT_PATIENCE, now) }
    }

    /// Takes one permit.
    pub(super) fn take(&mut self, now: Mono) -> Attempt {
        let at = secs(now);
        let mut attempt = Attempt { sent: at, ..Attempt::default() };
        match &mut self.knowledge {
            Knowledge::Told(tide) => tide.take(at, self.in_flight, &mut attempt),
            Knowledge::Silent(learnt) => learnt.taken(at),
            Knowledge::Declared(sliding) => sliding.taken(at),
            Knowledge::Unknown | Knowledge::Capped(_) => {}
        }
        self.in_flight += 1;
        self.concurrency.taken(self.in_flight);
        self.last_taken = at;
        self.release.next = at + self.release.gap;
        attempt.permit = self.share_took(now);
        attempt
    }

    /// A permit comes back unsent.
    pub(super) fn give_back(&mut self, attempt: &Attempt) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.share_gave_back(attempt.permit);
        self.forget_take(attempt.sent);
        match &mut self.knowledge {
            Knowledge::Told(tide) => tide.give_back(attempt),
            Knowledge::Silent(learnt) => learnt.given_back(attempt.sent),
            Knowledge::Declared(sliding) => sliding.given_back(attempt.sent),
            Knowledge::Unknown | Knowledge::Capped(_) => {}
        }
    }

    /// An attempt of a family that proved to exist goes on under that family's own gate.
    pub(super) fn moved_on(&mut self, attempt: &Attempt) {
        self.give_back(attempt);
        if matches!(self.knowledge, Knowledge::Unknown) {
            self.knowledge = Knowledge::Silent(Learnt::new(attempt.sent));
        }
    }

    /// An attempt already in flight counts here from now on.
    pub(super) fn adopt(&mut self, now: Mono) -> Permit {
        self.in_flight += 1;
        if let Some(lease) = self.lease() {
            lease.taken();
        }
        self.share_took(now)
    }

    /// What left of a declared quota that no stored state holds.
    pub(super) fn lease(&mut self) -> Option<&mut Lease> {
        match &mut self.knowledge {
            Knowledge::Declared(sliding) => Some(sliding.lease()),
            _ => None,
        }
    }

    /// Half of the lease was used.
    pub(super) fn wants_store(&self) -> bool {
        matches!(&self.knowledge, Knowledge::Declared(sliding) if sliding.wants_store())
    }

    /// A sent attempt was lost: the server may have counted it.
    pub(super) fn lost(&mut self, now: Mono, attempt: &Attempt) {
        self.ended(now, attempt, false);
    }

    fn ended(&mut self, now: Mono, attempt: &Attempt, answered: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.share_ended(now, attempt.permit, false);
        match &mut self.knowledge {
            Knowledge::Told(tide) => {
                tide.ended_unseen(secs(now), attempt, answered);
                if tide.has_gone_silent() {
                    // What it told last is the best that is known: from now on it is a declaration.
                    let mut sliding = Sliding::new(tide.limit(), tide.length());
                    let left = whole(tide.available(secs(now), self.in_flight));
                    sliding.assume_spent(secs(now), tide.limit().saturating_sub(left));
                    (self.knowledge, self.assumed) = (Knowledge::Declared(sliding), None);
                }
            }
            Knowledge::Declared(sliding) => sliding.spent(secs(now)),
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => {}
        }
    }

    /// An answer that is no throttle. `counts`: the server surely handled it, so it may open the gate.
    pub(super) fn answered(
        &mut self,
        now: Mono,
        attempt: &Attempt,
        reading: Option<&Reading>,
        date: Option<Wall>,
        counts: bool,
    ) -> Lesson {
        let was_scouting = self.closing.scouting() || matches!(self.knowledge, Knowledge::Unknown);
        self.hear(reading);
        let mut lesson = Lesson::default();
        match (&mut self.knowledge, reading) {
            (Knowledge::Told(tide), Some(reading)) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                lesson = tide.accepted(attempt, secs(now), reading, date, self.in_flight);
                self.share_ended(now, attempt.permit, reading.remaining.is_some());
            }
            _ => self.ended(now, attempt, true),
        }
        if counts {
            self.accepted += 1;
            self.concurrency.accepted(secs(now));
            if matches!(self.knowledge, Knowledge::Unknown) {
                self.knowledge = Knowledge::Silent(Learnt::new(attempt.sent));
            }
            match &mut self.knowledge {
                Knowledge::Silent(learnt) => learnt.accepted(attempt.sent),
                Knowledge::Declared(sliding) => sliding.accepted(secs(now), attempt.sent),
                Knowledge::Unknown | Knowledge::Told(_) | Knowledge::Capped(_) => {}
            }
            let opened = self.closing.accepted(now, mono(attempt.sent));
            self.crowd.accepted(attempt.sent);
            self.judge_crowd(now);
            if lesson.opened.is_some() {
                self.forget_takes();
            }
            self.spread_release(now, lesson.opened.filter(|_| !was_scouting || opened));
        }
        lesson
    }

    /// A reading that says what is left takes over from what was declared, unless that is pinned.
    fn hear(&mut self, reading: Option<&Reading>) {
        let Some(reading) = reading.filter(|_| !self.pinned) else { return };
        let declares = reading.limit.zip(reading.window);
        match (&self.knowledge, reading.remaining) {
            (Knowledge::Told(_) | Knowledge::Capped(_), _) | (Knowledge::Declared(_), None) => {}
            (_, Some(_)) => {
                let mut tide = Tide::new();
                tide.has_siblings(self.may_have_siblings());
                self.knowledge = Knowledge::Told(Box::new(tide));
                self.concurrency = Concurrency::boundless();
            }
            (Knowledge::Unknown | Knowledge::Silent(_), None) => {
                if let Some((quota, window)) = declares {
                    self.knowledge = Knowledge::Declared(Sliding::new(quota, window.as_secs_f64()));
                }
            }
        }
    }

    fn spread_release(&mut self, now: Mono, permits: Option<f64>) {
        let (Some(permits), Knowledge::Told(tide)) = (permits, &self.knowledge) else { return };
        let spread = self.spread.min(Self::SPREAD_SHARE * tide.length());
        let at = secs(now);
        self.release = Release { next: at, gap: spread / permits.clamp(32.0, 256.0), until: at + spread };
    }

    /// How much of a declared quota is still free, as a share. `None` if the gate is not paced by a declaration.
    pub(super) fn free_share(&self, now: Mono) -> Option<f64> {
        match &self.knowledge {
            Knowledge::Declared(sliding) => {
                Some(sliding.available(secs(now), self.in_flight) / num(sliding.quota().max(1)))
            }
            _ => None,
        }
    }

    /// A declared quota whose bursts are put to the proof, or that proved to be less than was declared.
    pub(super) fn is_suspect(&self, now: Mono) -> bool {
        matches!(&self.knowledge, Knowledge::Declared(sliding) if sliding.is_suspect(secs(now)))
    }

    /// Refusals are taken for those of a cap on attempts at once.
    pub(super) fn meets_cap(&self) -> bool {
        self.crowd.is_cap()
    }

    pub(super) fn closed_for(&self, now: Mono) -> Option<Duration> {
        let until = self.closing.closed_until(now).max(self.paused_until(now));
        until.map(|until| until - now)
    }
}
