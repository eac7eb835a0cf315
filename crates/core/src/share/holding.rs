//! What a process holds of one shared limit.
//!
//! The local side of the ledger's row: permits leased, attempts in flight, what has ended and is not told yet. It decides
//! whether an attempt may leave without asking anybody, and when the store is to be asked again.
//!
//! Rules: permits are void when their lease ends, counted from when the exchange was *said*, so that the store never
//! counts them for less time than they are used; with another generation; and while nobody may leave. What has ended is
//! kept until an answer says that it was told.

use std::collections::VecDeque;
use std::time::Duration;

use crate::share::wire::{
    Ended, Grant, Kind, LimitKey, LimitReply, LimitSide, Ms, Recall, Refusal, Sight, Terms,
};
use crate::time::Mono;

/// Whether an attempt may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// A permit is there.
    Now,
    /// One will be there then.
    At(Mono),
    /// Not before an exchange, or an attempt in flight, ends.
    Event,
}

/// A throttle, on the holder's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When its attempt left.
    pub sent: Mono,
    /// When it was answered.
    pub answered: Mono,
    /// Nothing may leave before.
    pub until: Mono,
    /// It refutes the quota that is held for true.
    pub blames_quota: bool,
}

/// Permits for later: the next from `next` on, each further one `gap` later.
#[derive(Clone, Copy, Debug)]
struct Dated {
    next: Mono,
    gap: Duration,
    left: u32,
}

/// What an attempt took: it goes back as what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Of which generation it is: what comes back of an earlier one is void.
    generation: u64,
    /// When the fleet's scout took it.
    scout: Option<Mono>,
}

/// The fleet's scout, if it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scout {
    No,
    /// Its permit is here.
    Granted,
    /// It is in flight since then: nothing else leaves.
    Sent(Mono),
}

/// Attempts that ended, told up to a count.
#[derive(Clone, Copy, Debug)]
struct Group {
    first: Mono,
    last: Mono,
    all: u64,
    unseen: u64,
}

/// Attempts that are told.
#[derive(Clone, Copy, Debug)]
struct Past {
    first: Mono,
    last: Mono,
    count: u32,
}

/// What this process holds of one limit.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Holding {
    key: LimitKey,
    name: String,
    partition: String,
    window: Duration,
    generation: u64,

    plain: u32,
    dated: VecDeque<Dated>,
    lease: Mono,
    pause: Mono,
    scout: Scout,
    in_flight: u32,

    all: u64,
    unseen: u64,
    /// Counts that the latest answered exchange contained, and those of the one under way.
    told: (u64, u64),
    saying: (u64, u64),
    ended: VecDeque<Group>,
    /// Told attempts of the last window.
    log: VecDeque<Past>,
    refused: Option<Refused>,
    refused_said: bool,
    /// When the fleet's scout left here, once it has ended and until that is told.
    scouted: Option<Mono>,
    /// What the exchange under way tells of it.
    scouted_said: Option<Mono>,
    recall: Option<VecDeque<Past>>,
    share: u32,
    holders: u32,
    /// Nothing is there before, as was last heard.
    dry: Mono,

    come_back: Mono,
    /// Something must be told at once.
    urgent: bool,
    scarce: bool,
    /// Its last word was said.
    left: bool,
    heard: Option<Mono>,
    /// Permits drawn of late, per second, and when the last was.
    rate: f64,
    drew: Option<Mono>,
}

impl Holding {
    /// Without an answer for so long beyond the leases, the store is away.
    pub const LOST: Duration = Duration::from_millis(500);

    /// Permits are asked for anew before they are void, if one was drawn within this time.
    const IN_USE: Duration = Duration::from_secs(5);

    /// Nothing is held yet of the limit `key`, which people know as `name`.
    pub fn new(key: LimitKey, name: &str) -> Self {
        Self {
            key,
            name: name.to_owned(),
            partition: String::new(),
            window: Duration::from_mins(1),
            generation: 0,
            plain: 0,
            dated: VecDeque::new(),
            lease: Mono::ZERO,
            pause: Mono::ZERO,
            scout: Scout::No,
            in_flight: 0,
            all: 0,
            unseen: 0,
            told: (0, 0),
            saying: (0, 0),
            ended: VecDeque::new(),
            log: VecDeque::new(),
            refused: None,
            refused_said: false,
            scouted: None,
            scouted_said: None,
            recall: None,
            share: 1_000,
            holders: 0,
            dry: Mono::ZERO,
            come_back: Mono::ZERO,
            urgent: false,
            scarce: false,
            left: false,
            heard: None,
            rate: 0.0,
            drew: None,
        }
    }

    /// The same, with whose calls the limit counts, for people.
    #[must_use]
    pub fn counted_for(self, partition: String) -> Self {
        Self { partition, ..self }
    }

    /// Which limit it is of.
    pub fn key(&self) -> LimitKey {
        self.key
    }

    /// Permits that are valid at `now`, those for later included.
    pub fn unspent(&self, now: Mono) -> u32 {
        if now >= self.lease { 0 } else { self.dated.iter().fold(self.plain, |sum, dated| sum + dated.left) }
    }

    /// Until when its permits are valid.
    pub fn lease(&self) -> Mono {
        self.lease
    }

    /// Attempts that took a permit and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The fleet's scout is here: its permit, or the attempt in flight.
    pub fn scouts(&self) -> bool {
        self.scout != Scout::No
    }

    /// The fleet's scout left here and has not ended.
    pub fn has_scout_out(&self) -> bool {
        matches!(self.scout, Scout::Sent(_))
    }

    /// The share of the quota that the fleet uses, in thousandths, as last heard.
    pub fn share(&self) -> u32 {
        self.share
    }

    /// Whether an attempt may leave. `certified`: how many more the server's own word still covers, where it has given it for
    /// the present window; a permit is never worth more than that.
    pub fn may(&self, now: Mono, certified: Option<f64>) -> May {
        if now < self.pause {
            return May::At(self.pause);
        }
        if self.has_scout_out() || now >= self.lease {
            return May::Event;
        }
        if self.scout == Scout::No && certified.is_some_and(|certified| certified < 1.0) {
            return May::Event;
        }
        if self.plain > 0 {
            return May::Now;
        }
        match self.dated.iter().map(|dated| dated.next).min() {
            Some(next) if next <= now => May::Now,
            Some(next) if next < self.lease => May::At(next),
            _ => May::Event,
        }
    }

    /// An attempt takes a permit; where none is there (the gate goes by something else), it is counted all the same.
    pub fn took(&mut self, now: Mono) -> Permit {
        self.in_flight += 1;
        let scout = (self.scout == Scout::Granted).then_some(now);
        if scout.is_some() {
            self.scout = Scout::Sent(now);
        }
        self.draw(now);
        self.spend(now);
        Permit { generation: self.generation, scout }
    }

    /// One permit less.
    fn spend(&mut self, now: Mono) {
        if now >= self.lease {
            return;
        }
        if self.plain > 0 {
            self.plain -= 1;
            return;
        }
        let first = (0..self.dated.len()).min_by_key(|&place| self.dated[place].next);
        if let Some(place) = first {
            let dated = &mut self.dated[place];
            dated.left -= 1;
            dated.next += dated.gap;
            if dated.left == 0 {
                self.dated.remove(place);
            }
        }
    }

    fn draw(&mut self, now: Mono) {
        // Over a second; the first draw says nothing of a rate.
        if let Some(last) = self.drew {
            let since = (now - last).as_secs_f64();
            self.rate = self.rate * (-since).exp() + if since < 1.0 { 1.0 - (-1.0_f64).exp() } else { 0.0 };
        }
        self.drew = Some(now);
    }

    /// An attempt that took a permit was never sent. The fleet's scout goes back to the store at once: what kept this one from
    /// leaving may keep the next one here, too, and all others wait for it.
    pub fn gave_back(&mut self, permit: Permit) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if permit.scout.is_some() {
            self.scout_ended(permit);
        } else if permit.generation == self.generation {
            self.plain += 1;
        }
    }

    /// Of a cap: an attempt ended that had this permit, and another may take its place without asking. The store counts the place
    /// as ours until it is told otherwise, or has voided it.
    pub fn takes_place(&mut self, now: Mono, permit: Permit) {
        if now < self.lease && permit.generation == self.generation {
            self.plain += 1;
        }
    }

    /// The fleet's scout is not out any more; one that was late may not be the latest that this process was given.
    fn scout_ended(&mut self, permit: Permit) {
        if permit.scout.is_some_and(|taken| self.scout == Scout::Sent(taken)) {
            self.scout = Scout::No;
        }
        self.urgent = true;
    }

    /// The attempt with this permit was answered or lost; `certified`: its answer told of this limit.
    pub fn ended(&mut self, now: Mono, permit: Permit, certified: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.all += 1;
        self.unseen += u64::from(!certified);
        if permit.scout.is_some() {
            self.scouted = permit.scout;
            self.scout_ended(permit);
        }
        self.urgent |= self.scarce;
        let width = self.window / 64;
        match self.ended.back_mut() {
            Some(group) if group.last <= now && now - group.first < width => {
                (group.last, group.all, group.unseen) = (now, self.all, self.unseen);
            }
            _ => {
                let group = Group { first: now, last: now, all: self.all, unseen: self.unseen };
                self.ended.push_back(group);
            }
        }
        while self.ended.len() > LimitSide::MAX_ENDED {
            self.join(now);
        }
    }

    /// Makes one group of two: of those that no window holds any more, else of the two that are closest.
    fn join(&mut self, now: Mono) {
        let gone = |group: &Group| now - group.last > self.window;
        let distance = |&place: &usize| match (&self.ended[place], &self.ended[place + 1]) {
            (_, next) if gone(next) => Duration::ZERO,
            (group, next) => next.last - group.last,
        };
        let place = (0..self.ended.len() - 1).min_by_key(distance).unwrap_or(0);
        let first = self.ended[place].first;
        self.ended.remove(place);
        self.ended[place].first = first;
    }

    /// The server refused an attempt.
    pub fn refused(&mut self, refused: Refused) {
        let before = self.refused.filter(|_| !self.refused_said);
        self.refused = Some(before.map_or(refused, |before| Refused {
            sent: before.sent.max(refused.sent),
            answered: before.answered.max(refused.answered),
            until: before.until.max(refused.until),
            blames_quota: before.blames_quota || refused.blames_quota,
        }));
        self.refused_said = false;
        self.urgent = true;
    }

    /// When an exchange is due for this limit: `waiting` calls are stopped by it, or would draw from it. `None`: nothing to
    /// ask and nothing to tell.
    pub fn due(&self, now: Mono, waiting: u32, round_trip: Duration) -> Option<Mono> {
        if self.urgent || self.recall.is_some() {
            return Some(now);
        }
        let unspent = self.unspent(now);
        let mut due = None;
        let mut by = |at: Mono| due = Some(due.map_or(at, |due: Mono| due.min(at)));
        if waiting > 0 && unspent == 0 && !self.has_scout_out() {
            by(now.max(self.come_back));
        }
        let ahead = self.rate * 2.0 * round_trip.as_secs_f64();
        let drew = self.drew.is_some_and(|drew| now - drew < Duration::from_secs(1));
        if unspent > 0 && drew && f64::from(unspent) <= ahead {
            by(now.max(self.come_back));
        }
        let used = self.drew.is_some_and(|drew| now - drew < Self::IN_USE);
        if unspent > 0 && used {
            by(now.max(self.lease.back(2 * round_trip)));
        } else if unspent > 0 || self.plain > 0 || !self.dated.is_empty() {
            // Nobody wants them: they are given back when they are void.
            by(now.max(self.lease));
        } else if !self.ended.is_empty() || self.in_flight > 0 {
            // Who is silent for long is given up, and what it has counts as spent.
            by(now.max(self.heard.map_or(now, |_| self.lease)));
        }
        due
    }

    /// This process ends: all permits are given back by what is said next. Whether there is anything to say: permits, what has
    /// ended, or that it goes.
    pub fn leave(&mut self, now: Mono) -> bool {
        let holds = self.plain > 0 || !self.dated.is_empty();
        self.lease = self.lease.min(now);
        self.void();
        let goes = !std::mem::replace(&mut self.left, true) && self.heard.is_some();
        goes || holds || !self.ended.is_empty() || self.refused.is_some()
    }

    /// Its last word was heard, and it is a stranger there: what it told is counted, and asked for again it would be counted twice. So
    /// it begins anew. Not where attempts are in flight, of which the store still waits to hear.
    pub fn has_left(&mut self) {
        if self.in_flight > 0 {
            return;
        }
        let (all, unseen) = std::mem::take(&mut self.told);
        (self.all, self.unseen) = (self.all - all, self.unseen - unseen);
        for group in &mut self.ended {
            (group.all, group.unseen) = (group.all - all, group.unseen - unseen);
        }
        self.log.clear();
    }

    /// What to say of it. The exchange is answered by [`Holding::hear`], or said again as it is.
    pub fn say(&mut self, now: Mono, terms: Terms, seen: Option<Sight>) -> LimitSide {
        if let Kind::Rate { window, .. } = terms.kind {
            self.window = Duration::from_millis(window);
        }
        if now >= self.lease {
            self.void();
        }
        self.saying = (self.all, self.unseen);
        self.refused_said = self.refused.is_some();
        self.scouted_said = self.scouted;
        self.urgent = false;
        let group = |group: &Group| Ended { age: age(now, group.last), all: group.all, unseen: group.unseen };
        LimitSide {
            key: self.key,
            name: self.name.clone(),
            partition: self.partition.clone(),
            terms,
            generation: self.generation,
            unspent: self.unspent(now),
            in_flight: self.in_flight,
            told: self.told.0,
            told_unseen: self.told.1,
            ended: self.ended.iter().map(group).collect(),
            seen,
            refused: self.refused.map(|refused| Refusal {
                sent: age(now, refused.sent),
                age: age(now, refused.answered),
                stay_away: ceil(refused.until - now),
                blames_quota: refused.blames_quota,
            }),
            scouted: self.scouted.map(|left| age(now, left)),
            recall: self.recall.as_ref().map(|log| self.recalled(now, log)),
        }
    }

    fn recalled(&self, now: Mono, log: &VecDeque<Past>) -> Recall {
        let window = self.window;
        let log = log.iter().filter(|past| now - past.last <= window);
        Recall {
            log: log.map(|past| (age(now, past.last), past.count)).collect(),
            share: self.share,
            holders: self.holders,
            generation: self.generation,
            dry: ceil(self.dry - now),
        }
    }

    /// The exchange that was said at `said_at` is answered, by a store that knows of so many `holders`.
    pub fn hear(&mut self, now: Mono, said_at: Mono, holders: u32, reply: &LimitReply) {
        // What this exchange told of is known to whom it was told.
        self.recall = reply.recall.then(|| self.log.clone());
        self.remember();
        self.heard = Some(now);
        if reply.generation != self.generation {
            self.void();
            self.generation = reply.generation;
        }
        self.lease = said_at + Duration::from_millis(reply.lease);
        self.pause = if reply.pause > 0 { now + Duration::from_millis(reply.pause) } else { Mono::ZERO };
        if self.refused_said {
            self.refused = None;
            self.refused_said = false;
        }
        if self.scouted_said.take() == self.scouted {
            self.scouted = None;
        }
        // Of those that a store has forgotten it does not know the number, nor what they have used.
        if !reply.recall {
            self.holders = holders;
            self.dry = now + Duration::from_millis(reply.dry);
        }
        self.scarce = reply.scarce;
        self.share = reply.share;
    }

    /// What one of its asks got.
    pub fn granted(&mut self, now: Mono, grant: &Grant) {
        self.left = false;
        self.come_back = now + Duration::from_millis(grant.come_back);
        if grant.permits == 0 {
            return;
        }
        if grant.scout {
            self.scout = Scout::Granted;
        }
        if grant.from == 0 && grant.gap == 0 {
            self.plain += grant.permits;
        } else {
            let next = now + Duration::from_millis(grant.from);
            let gap = Duration::from_millis(grant.gap);
            self.dated.push_back(Dated { next, gap, left: grant.permits });
        }
    }

    /// What was told goes from the untold to the log.
    fn remember(&mut self) {
        let width = self.window / u32::try_from(Recall::MAX_LOG).unwrap_or(1);
        let mut told = self.told.0;
        while let Some(group) = self.ended.front().copied().filter(|_| told < self.saying.0) {
            // The last group may have grown since it was told.
            let all = group.all.min(self.saying.0);
            if all == group.all {
                self.ended.pop_front();
            }
            let count = u32::try_from(all - told).unwrap_or(u32::MAX);
            told = all;
            match self.log.back_mut() {
                Some(past) if group.last - past.first < width => {
                    (past.last, past.count) = (group.last, past.count.saturating_add(count));
                }
                _ => self.log.push_back(Past { first: group.first, last: group.last, count }),
            }
        }
        if let Some(newest) = self.log.back().map(|past| past.last) {
            let window = self.window;
            self.log.retain(|past| newest - past.last <= window);
        }
        while self.log.len() > Recall::MAX_LOG {
            let oldest = self.log.pop_front().map_or(0, |past| past.count);
            self.log[0].count = self.log[0].count.saturating_add(oldest);
        }
        self.told = self.saying;
    }

    /// No permit is worth anything any more.
    fn void(&mut self) {
        self.plain = 0;
        self.dated.clear();
        if self.scout == Scout::Granted {
            self.scout = Scout::No;
        }
    }
}

/// How long ago, in whole milliseconds: never longer than it was.
fn age(now: Mono, then: Mono) -> Ms {
    Ms::try_from((now - then).as_millis()).unwrap_or(Ms::MAX)
}

/// At least so long, in whole milliseconds.
fn ceil(time: Duration) -> Ms {
    Ms::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(Ms::MAX)
}
