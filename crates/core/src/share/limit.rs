//! One limit in the ledger: what is held of it, and what is there.
//!
//! One arithmetic for all refill rules, with the least of:
//! * what the server certified, less what is out and not certified ([`Limit::by_level`]);
//! * the quota less own attempts of a window and what is out ([`Limit::by_log`]), unless steps are proven;
//! * for even refill, the same in a sixteenth of the window ([`Limit::by_part`]);
//! * a cap less what is out.
//!
//! "Out" is every permit that was granted and every attempt in flight, of all holders, as they last told. A permit stays
//! out until its holder says what became of it, so a report that is late or lost only makes less available. The refill rule
//! says when there is something again: in steps, at the end of the epoch (one scout finds out); otherwise as own attempts
//! come back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::share::certificate::Certificate;
use crate::share::foreign::Foreign;
use crate::share::log::Log;
use crate::share::wire::{At, HolderId, Kind, LimitReply, LimitView, Ms, Refill, Terms};

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) terms: Terms,
    /// When somebody last said these terms.
    pub(super) said: At,
    /// The rule was found out by the ledger itself: no holder's word changes it.
    pub(super) settled: bool,
    /// Evidence for steps, and for a log.
    pub(super) steps: u8,
    pub(super) logs: u8,
    /// When the state of it began, and from when it may be dropped.
    pub(super) born: At,
    pub(super) expires: At,
    /// Holders of the state before this one, where that was lost.
    pub(super) missed: u32,

    /// Counts throttles: permits of an earlier one are void.
    pub(super) generation: u64,
    /// An attempt that left before belongs to a throttle that is known.
    pub(super) fence: At,
    /// Nothing leaves before.
    pub(super) pause: At,
    /// One at a time for each holder before.
    pub(super) slow_until: At,
    /// Only scouts, until an attempt that left after this is certified.
    pub(super) shut: Option<At>,
    /// Who scouts, since when.
    pub(super) scout: Option<(HolderId, At)>,
    /// How long a scout takes, from grant to report.
    pub(super) trip: Ms,

    /// Counts refills in steps.
    pub(super) epoch: u64,
    /// When the epoch ends, at the earliest and at the latest.
    pub(super) ends: Option<(At, At)>,
    /// The earliest end that this epoch was ever told to have at the latest.
    pub(super) promised: At,
    /// When a scout for the next epoch is best sent.
    pub(super) scout_at: Option<At>,
    /// Own attempts certified in the epoch.
    pub(super) own: u64,
    pub(super) seen: Certificate,

    pub(super) log: Log,
    /// What came back until then is in the candidates.
    pub(super) rolled: At,

    pub(super) foreign: Foreign,
    /// Used by urgent classes: permits per 1000 s, and those counted since.
    pub(super) urgent: u32,
    pub(super) urgent_count: u32,
    pub(super) urgent_since: At,
    /// Of the quota, in thousandths; below 1000 only where nothing is told.
    pub(super) share: u32,
    pub(super) clean_since: At,
    pub(super) cut_at: At,
    /// Throttles that refuted the quota since `cut_at`, and until when refill is taken for even because of them.
    pub(super) blames: u8,
    pub(super) even_until: At,

    pub(super) rows: BTreeMap<HolderId, Row>,
}

/// What one holder has of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// It counts as one of the fleet until then, and is given up then: it should have spoken.
    pub(super) until: At,
    pub(super) unspent: u32,
    pub(super) in_flight: u32,
    /// Ended since it began, as far as it is in the log.
    pub(super) all: u64,
    pub(super) unseen: u64,
    /// It comes from an earlier life of the state and has not told what it knows.
    pub(super) owes: bool,
}

impl Row {
    /// Granted or in flight.
    pub(super) fn out(&self) -> u32 {
        self.unspent.saturating_add(self.in_flight)
    }
}

impl Limit {
    /// The longest that permits are valid without being told of.
    pub(super) const LEASE: Ms = 5_000;
    /// The shortest: exchanges must stay rare where windows are short.
    const SHORT_LEASE: Ms = 500;
    /// Of places in a cap, which come free at any time.
    const CAP_LEASE: Ms = 2_000;
    /// What a holder that fell silent has is given up so long after its lease: attempts in flight have ended by then.
    const GRACE: Ms = 3_000;
    /// A scout that was not reported for so long is lost.
    pub(super) const PATIENCE: Ms = 3_000;
    /// How long a scout is taken to take before one was seen.
    const TRIP: Ms = 50;
    /// One at a time for so long after a pause or where the state was lost, at most.
    const SLOW: Ms = 2_000;
    /// The state outlives its use by so much.
    pub(super) const KEEP: Ms = 60_000;
    /// What is there of a limit of which nothing is known, once a scout has come back: everything.
    pub(super) const PLENTY: i64 = 1_000_000;
    /// Silent holders given up by one exchange, so that it stays short.
    const REAPED: usize = 16;
    /// Of a declared quota, the least that throttles leave.
    const LEAST_SHARE: u32 = 50;

    /// A limit of which nothing is known but what a holder says that it is.
    pub(super) fn new(now: At, name: &str, terms: Terms) -> Self {
        Self {
            name: name.to_owned(),
            terms,
            said: now,
            settled: false,
            steps: 0,
            logs: 0,
            born: now,
            expires: now,
            missed: 0,
            generation: 1,
            fence: 0,
            pause: 0,
            slow_until: 0,
            shut: Some(0),
            scout: None,
            trip: Self::TRIP,
            epoch: 1,
            ends: None,
            promised: 0,
            scout_at: None,
            own: 0,
            seen: Certificate::default(),
            log: Log::default(),
            rolled: now,
            foreign: Foreign::default(),
            urgent: 0,
            urgent_count: 0,
            urgent_since: now,
            share: 1_000,
            clean_since: now,
            cut_at: 0,
            blames: 0,
            even_until: 0,
            rows: BTreeMap::new(),
        }
    }

    // ---- Numbers -----------------------------------------------------------------------------------------------------

    /// Quota and window of a rate.
    pub(super) fn rate(&self) -> Option<(u32, Ms)> {
        match self.terms.kind {
            Kind::Rate { quota, window, .. } => Some((quota, window.max(1))),
            Kind::Unknown | Kind::Cap { .. } => None,
        }
    }

    /// Answers tell of it.
    pub(super) fn is_told(&self) -> bool {
        matches!(self.terms.kind, Kind::Rate { told: true, .. })
    }

    /// The rule that is gone by.
    pub(super) fn rule(&self, now: At) -> Refill {
        if now < self.even_until { Refill::Even } else { self.terms.rule }
    }

    /// All comes back at once, and answers tell when: only then the epoch says anything.
    pub(super) fn is_stepped(&self, now: At) -> bool {
        self.is_told() && self.rule(now) == Refill::Step
    }

    /// What own attempts of a window leave counts: unless refill is proven to be in steps.
    pub(super) fn counts_log(&self, now: At) -> bool {
        !(self.is_stepped(now) && self.terms.proven)
    }

    /// For how long permits are valid.
    pub(super) fn lease(&self) -> Ms {
        match self.terms.kind {
            Kind::Unknown => Self::LEASE,
            Kind::Cap { .. } => Self::CAP_LEASE,
            Kind::Rate { window, .. } => (window / 8).clamp(Self::SHORT_LEASE, Self::LEASE),
        }
    }

    /// For how long permits are given one at a time after a pause, or where the state was lost.
    pub(super) fn slow(&self) -> Ms {
        self.lease().min(Self::SLOW)
    }

    /// How far ahead permits are dated. Where strangers draw, what comes back later may be theirs.
    pub(super) fn horizon(&self) -> Ms {
        if self.foreign.rate > 0 { self.lease() / 4 } else { self.lease() }
    }

    /// How far ends may differ within one epoch.
    pub(super) fn tolerance(window: Ms) -> Ms {
        (window / 20).max(3_000).min(window / 2)
    }

    /// Granted or in flight, of all holders.
    pub(super) fn out(&self) -> i64 {
        self.rows.values().map(|row| i64::from(row.out())).sum()
    }

    /// Holders that are there or were told to come back; at least one.
    pub(super) fn holders(&self, now: At) -> u32 {
        let active = self.rows.values().filter(|row| row.until > now).count();
        u32::try_from(active).unwrap_or(u32::MAX).max(1)
    }

    /// For how long a holder may be silent before it is given up: its permits are void then, and its attempts in flight have
    /// ended.
    pub(super) fn silence(&self) -> Ms {
        (2 * self.lease()).max(self.lease() + Self::GRACE)
    }

    /// A holder spoke, and was told to come back after so long.
    pub(super) fn expect(&mut self, now: At, holder: HolderId, come_back: Ms) {
        let longest = self.rate().map_or(0, |(_, window)| window);
        let until = now + come_back.min(longest) + self.silence();
        if let Some(row) = self.rows.get_mut(&holder) {
            row.until = row.until.max(until);
        }
    }

    // ---- Time passes -------------------------------------------------------------------------------------------------

    /// Brings the state to `now`.
    pub(super) fn roll(&mut self, now: At) {
        if let Some((quota, window)) = self.rate() {
            if !self.is_stepped(now) {
                let (from, error) = (self.rolled, self.error(now, window));
                for (answered, left) in &mut self.seen.left {
                    let back = self.log.back(from.max(*answered + error), now, window);
                    *left = add(*left, back).min(quota);
                }
                self.seen.tidy();
            }
            self.log.forget(now.saturating_sub(self.lease()), window);
            if self.share < 1_000 {
                while self.clean_since + window <= now && self.share < 1_000 {
                    self.share = (self.share + (self.share * 3 / 100).max(1)).min(1_000);
                    self.clean_since += window;
                }
            }
        }
        self.rolled = now;
        if self.scout.is_some_and(|(_, since)| since + Self::PATIENCE <= now) {
            self.scout = None;
        }
    }

    /// By how much an attempt may be dated after the server handled it: what comes back within it after an answer may be
    /// contained in the answer. It is of no account where nobody else draws, because own attempts bound what is there then.
    /// Holders that recall what a lost state knew date it to a sixteenth of a window only.
    pub(super) fn error(&self, now: At, window: Ms) -> Ms {
        let recalled = self.missed > 0 && now < self.born + 2 * window;
        if self.foreign.rate == 0 && !recalled {
            return 0;
        }
        Log::width(window) + self.trip + if recalled { window / 16 } else { 0 }
    }

    /// Gives up what silent holders have: it counts as spent now. The speaker is none of them.
    pub(super) fn reap(&mut self, now: At, speaker: HolderId) {
        let gone = |(&holder, row): (&HolderId, &Row)| {
            (holder != speaker && row.until <= now).then_some((row.until, holder))
        };
        let mut gone: Vec<(At, HolderId)> = self.rows.iter().filter_map(gone).collect();
        gone.sort_unstable();
        for (_, holder) in gone.into_iter().take(Self::REAPED) {
            let row = self.rows.remove(&holder).expect("it was just found");
            self.lost(now, row.out());
        }
    }

    /// Attempts that nobody will tell about any more, or that were told without a certificate.
    pub(super) fn lost(&mut self, ended: At, count: u32) {
        self.seen.lost(ended, count);
        if let Some((_, window)) = self.rate() {
            self.log.add(ended, count, window);
        }
    }

    // ---- What is there -----------------------------------------------------------------------------------------------

    /// Permits that may leave at `at`, now or later, if nothing else is granted until then; below zero where more is out
    /// than may be.
    pub(super) fn available(&self, now: At, at: At) -> i64 {
        let out = self.out();
        let (quota, window) = match self.terms.kind {
            Kind::Unknown => return Self::PLENTY,
            Kind::Cap { cap } => return i64::from(cap) - out,
            Kind::Rate { quota, window, .. } => (quota, window.max(1)),
        };
        let quota = i64::from(quota) * i64::from(self.share) / 1_000;
        let rule = self.rule(now);
        let mut least = i64::MAX;
        if self.is_told() {
            least = least.min(self.by_level(now, at, window) - out);
        }
        if self.counts_log(now) {
            let quota = if rule == Refill::Even { quota * 98 / 100 } else { quota };
            least = least.min(quota - whole(self.log.alive(at, window)) - out);
        }
        if !self.is_told() && self.is_partial(now, window) {
            let since = at.saturating_sub(self.born);
            least = least.min((quota / 10).max(1) - whole(self.log.alive(at, since.min(window))) - out);
        }
        if rule == Refill::Even {
            let part = (window / 16).max(1);
            least = least.min((quota * 98 / 1_600).max(1) - whole(self.log.alive(at, part)) - out);
        }
        least
    }

    /// Some of those who drew before the state was lost have not told what they know, and nobody else can: only a probe of a
    /// tenth is there, until they have or a window has passed.
    fn is_partial(&self, now: At, window: Ms) -> bool {
        now < self.born + window && self.rows.len() < self.missed as usize
    }

    /// What the server certified, with what surely comes back until `at`, less what may not be counted in it.
    fn by_level(&self, now: At, at: At, window: Ms) -> i64 {
        let stepped = self.is_stepped(now);
        let error = self.error(now, window);
        // Of what strangers may take first, no more than comes back evenly is sure.
        let evenly = u64::from(self.rate().map_or(0, |(quota, _)| quota)) * (at - now) / window;
        let surely = if self.foreign.rate > 0 { evenly } else { u64::MAX };
        let advanced = |&(answered, left): &(At, u32)| {
            let back =
                if stepped { 0 } else { self.log.back(now.max(answered + error), at, window).min(surely) };
            whole(u64::from(left) + back)
        };
        let level = self.seen.left.iter().map(advanced).min().unwrap_or(0);
        let age = now.saturating_sub(self.seen.newest().unwrap_or(now)).min(window);
        level - whole(self.seen.unseen()) - whole(self.foreign.margin(age).max(self.reserve(now, window)))
    }

    /// What is left at least where strangers draw and attempts come back one by one: without it each burst of theirs takes what
    /// was promised already, and one of ours is refused. It is no more than a 32nd of the quota.
    fn reserve(&self, now: At, window: Ms) -> u64 {
        let Some((quota, _)) = self.rate().filter(|_| !self.is_stepped(now)) else { return 0 };
        u64::from(quota / 32).min(Foreign::draw(self.foreign.rate, window) / 2)
    }

    /// When the next refill in steps is due; none if nothing says so.
    pub(super) fn refill_at(&self) -> Option<At> {
        let (_, window) = self.rate()?;
        match self.ends {
            Some((lo, up)) => Some(self.scout_at.map_or(up, |best| best.clamp(lo, up))),
            None => Some(self.seen.latest_sent + window),
        }
    }

    /// Whether only a scout may leave.
    pub(super) fn needs_scout(&self, now: At) -> bool {
        if self.shut.is_some() {
            return true;
        }
        let Some((_, window)) = self.rate().filter(|_| self.is_told()) else { return false };
        if self.is_stepped(now) {
            let over = self.refill_at().is_none_or(|refill| refill <= now);
            return over && self.by_level(now, now, window) - self.out() < 1;
        }
        self.seen.newest().is_none_or(|newest| newest + window <= now)
    }

    /// Whether a scout may leave now: nobody else scouts, and there is room for it by what is known of own attempts. Those
    /// that were lost since the refill may have been counted after it.
    pub(super) fn may_scout(&self, now: At) -> bool {
        let room = self.rate().is_none_or(|(quota, window)| {
            if !self.is_stepped(now) {
                return whole(self.log.alive(now, window)) + self.out() < i64::from(quota);
            }
            let refill = self.refill_at().unwrap_or(0);
            if refill > now && self.seen.level().is_some() {
                return self.by_level(now, now, window) - self.out() >= 1;
            }
            let held = self.seen.unseen_after(refill.max(now.saturating_sub(window)));
            whole(held) + self.out() < i64::from(quota)
        });
        self.scout.is_none() && self.pause <= now && room
    }

    /// What a class may take of `room`.
    pub(super) fn for_class(&self, now: At, room: i64, leave: u32, fair: bool) -> i64 {
        let mut rest = room - i64::from(leave);
        if fair {
            let time = match self.ends.filter(|_| self.is_stepped(now)) {
                Some((_, up)) => up.saturating_sub(now),
                None => self.lease(),
            };
            rest -= whole(Foreign::draw(self.foreign.rate, time)) + whole(Foreign::draw(self.urgent, time));
        }
        rest
    }

    /// How much of `room` one exchange may take: an equal part of half of it, so that it shrinks to one near the end.
    pub(super) fn chunk(&self, now: At, room: i64) -> i64 {
        if room < 1 { 0 } else { (room / (2 * i64::from(self.holders(now)))).max(1) }
    }

    /// How many one exchange may have until `until`: of what is there as always, of what comes back twice an equal part.
    pub(super) fn dated_chunk(&self, now: At, until: At) -> i64 {
        let back = match self.rate() {
            Some((_, window)) if self.counts_log(now) => whole(self.log.back(now, until, window)),
            _ => 0,
        };
        let holders = i64::from(self.holders(now));
        self.chunk(now, self.available(now, now)) + (2 * back + holders - 1) / holders
    }

    /// Too little is left for reports to wait.
    pub(super) fn is_scarce(&self, now: At, room: i64) -> bool {
        self.is_stepped(now) && self.foreign.rate > 0 && room < 2 * i64::from(self.holders(now))
    }

    // ---- Permits leave -----------------------------------------------------------------------------------------------

    /// `permits` are granted, `urgent` of them to classes that somebody waits for.
    pub(super) fn take(&mut self, now: At, holder: HolderId, permits: u32, urgent: u32) {
        if let Some(row) = self.rows.get_mut(&holder) {
            row.unspent = row.unspent.saturating_add(permits);
        }
        self.urgent_count = self.urgent_count.saturating_add(urgent);
        let since = now - self.urgent_since.min(now);
        let part = self.rate().map_or(Self::LEASE, |(_, window)| (window / 4).max(1_000));
        if since >= part {
            let sample = u64::from(self.urgent_count) * 1_000_000 / since;
            let urgent = (7 * u64::from(self.urgent) + 3 * sample) / 10;
            self.urgent = u32::try_from(urgent).unwrap_or(u32::MAX);
            (self.urgent_count, self.urgent_since) = (0, now);
        }
    }

    // ---- Throttles ---------------------------------------------------------------------------------------------------

    /// The server refused an attempt that left at `sent`, at the earliest; nothing may leave for `stay_away`.
    pub(super) fn refuse(&mut self, now: At, sent: At, stay_away: Ms, blames: bool) {
        let until = now.saturating_add(stay_away);
        self.pause = self.pause.max(until);
        if sent >= self.fence {
            self.generation += 1;
            self.shut = Some(now);
            self.scout = None;
            if blames && !self.is_told() {
                self.cut(now);
            }
        }
        self.slow_until = self.slow_until.max(self.pause + self.slow());
        self.fence = self.fence.max(self.pause);
    }

    /// A declared quota is refuted.
    fn cut(&mut self, now: At) {
        let Some((_, window)) = self.rate() else { return };
        if self.cut_at == 0 || self.cut_at + window <= now {
            self.share = (self.share * 85 / 100).max(Self::LEAST_SHARE);
            self.cut_at = now;
            self.blames = 0;
        }
        self.clean_since = now;
        self.blames = self.blames.saturating_add(1);
        if self.blames >= 3 {
            self.even_until = now + 32 * window;
        }
    }

    // ---- What is told of it ------------------------------------------------------------------------------------------

    /// The state of it may be dropped then.
    pub(super) fn keep(&mut self, now: At) {
        let window = self.rate().map_or(0, |(_, window)| window);
        let used = now + (2 * window).max(window + self.silence());
        self.expires = used.max(self.pause) + Self::KEEP;
    }

    /// For a holder.
    pub(super) fn reply(&self, now: At, recall: bool) -> LimitReply {
        let room = if self.shut.is_some() { 0 } else { self.available(now, now) };
        LimitReply {
            generation: self.generation,
            epoch: self.epoch,
            lease: self.lease(),
            pause: self.pause.saturating_sub(now),
            recall,
            scarce: self.is_scarce(now, room),
            terms: Terms { rule: self.rule(now), ..self.terms },
            available: room,
            ends: self.ends.map(|(lo, up)| (lo.saturating_sub(now), up.saturating_sub(now))),
            share: self.share,
            foreign: self.foreign.rate,
        }
    }

    /// For people.
    pub(super) fn view(&self, now: At) -> LimitView {
        LimitView {
            name: self.name.clone(),
            quota: match self.terms.kind {
                Kind::Unknown => None,
                Kind::Rate { quota, .. } => Some(quota),
                Kind::Cap { cap } => Some(cap),
            },
            available: self.available(now, now),
            out: u32::try_from(self.out()).unwrap_or(u32::MAX),
            holders: self.holders(now),
            paused_for: self.pause.saturating_sub(now),
            epoch: self.epoch,
            generation: self.generation,
        }
    }
}

/// A count as a signed number.
pub(super) fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add(one: u32, other: u64) -> u32 {
    u32::try_from(u64::from(one).saturating_add(other)).unwrap_or(u32::MAX)
}
