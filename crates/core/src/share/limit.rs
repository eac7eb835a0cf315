//! One limit in the ledger: what is held of it, and of those who hold permits of it. What is there is in `room`, who finds out
//! what is there in `scout`, what a throttle does to it in `refuse`, and what is told of it in `told`.
//!
//! "Out" is every permit that was granted and every attempt in flight, of all holders, as they last told. A permit stays
//! out until its holder says what became of it, so a report that is late or lost only makes less available.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::share::certificate::Certificate;
use crate::share::foreign::Foreign;
use crate::share::log::Log;
use crate::share::wire::{At, HolderId, Kind, LimitSide, Ms, Refill, Terms};

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) partition: String,
    pub(super) terms: Terms,
    /// When somebody last said these terms.
    pub(super) said: At,
    /// What another configuration declared in vain, and when.
    pub(super) other: Option<(Kind, At)>,
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
    /// How often it was found to be older than what holders knew of it.
    pub(super) losses: u32,
    /// Nobody is given up before: it may not know that the state was lost.
    pub(super) spared: At,
    /// At most a tenth is used before.
    pub(super) careful: At,
    /// Holders that told what they know and were given up since.
    pub(super) departed: u32,
    /// Nothing is there before, as was known of a state that was lost.
    pub(super) dry: At,

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
    /// Who scouts, since when, the latest last. One that is late does not keep another from going, but its report counts.
    pub(super) scouts: Vec<(HolderId, At)>,
    /// A scout that left after the epoch's promised end did not see another begin.
    pub(super) vain: bool,
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
    /// [`Limit::losses`] when it last spoke.
    pub(super) losses: u32,
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
    pub(super) const SHORT_LEASE: Ms = 500;
    /// Of places in a cap, which come free at any time.
    const CAP_LEASE: Ms = 2_000;
    /// What a holder that fell silent has is given up so long after its lease: attempts in flight have ended by then.
    const GRACE: Ms = 3_000;
    /// A scout that was not reported for so long is late or lost.
    pub(super) const PATIENCE: Ms = 3_000;
    /// How long a scout is taken to take before one was seen.
    const TRIP: Ms = 50;
    /// One at a time for so long after a pause or where the state was lost, at most.
    const SLOW: Ms = 2_000;
    /// What is there of a limit of which nothing is known, once a scout has come back: everything.
    pub(super) const PLENTY: i64 = 1_000_000;
    /// Epochs that a holder is told to sit out, at most.
    pub(super) const SAT_OUT: u64 = 8;
    /// Silent holders given up by one exchange, so that it stays short.
    const REAPED: usize = 16;

    /// A limit of which nothing is known but what `side` says that it is; at most a tenth of it is used before `careful`.
    pub(super) fn new(now: At, side: &LimitSide, careful: At) -> Self {
        Self {
            name: side.name.clone(),
            partition: side.partition.clone(),
            terms: side.terms,
            said: now,
            other: None,
            settled: false,
            steps: 0,
            logs: 0,
            born: now,
            expires: now,
            missed: 0,
            losses: 0,
            spared: 0,
            careful,
            departed: 0,
            dry: 0,
            generation: 1,
            fence: 0,
            pause: 0,
            slow_until: 0,
            shut: Some(0),
            scouts: Vec::new(),
            vain: false,
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
            Kind::Rate { quota, window, .. } => Some((quota, window.clamp(1, Terms::LONGEST_WINDOW))),
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

    /// A holder's place among all, from zero on: another one with each epoch or window, so that nobody is always last.
    pub(super) fn turn_of(&self, now: At, holder: HolderId) -> u64 {
        let turn = match self.rate() {
            _ if self.is_stepped(now) => self.epoch,
            Some((_, window)) => now / window,
            None => now / self.lease(),
        };
        self.place_in(now, holder, turn)
    }

    /// Its place in an epoch or window.
    pub(super) fn place_in(&self, now: At, holder: HolderId, turn: u64) -> u64 {
        // Squares modulo a prime scatter as well as anything, and their numbers are small in any language.
        const PRIME: u64 = 65_521;
        let mixed = ((holder.0 & 0xffff) + (turn % PRIME) * 40_503) % PRIME;
        mixed * mixed % PRIME % u64::from(self.holders(now))
    }

    /// For how long a holder may be silent before it is given up: its permits are void then, and its attempts in flight have
    /// ended.
    pub(super) fn silence(&self) -> Ms {
        (2 * self.lease()).max(self.lease() + Self::GRACE)
    }

    /// A holder spoke, and was told to come back after so long. While something of it is out it speaks once per lease anyway,
    /// and what a dead one had is not kept from the others for longer.
    pub(super) fn expect(&mut self, now: At, holder: HolderId, come_back: Ms) {
        let longest = self.rate().map_or(0, |(_, window)| Self::SAT_OUT * window);
        let silence = self.silence();
        if let Some(row) = self.rows.get_mut(&holder) {
            let wait = if row.out() > 0 { 0 } else { come_back.min(longest) };
            row.until = row.until.max(now + wait + silence);
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
        let late = |&&(_, since): &&(HolderId, At)| {
            since + Self::PATIENCE > self.rolled && since + Self::PATIENCE <= now
        };
        if let Some(&(_, since)) = self.scouts.iter().rev().find(late) {
            self.end_scout(now, since);
        }
        self.rolled = now;
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

    /// Gives up what silent holders have: it counts as spent now. The speaker is none of them. Who had something out should have
    /// spoken, and has died or is stopped: those are returned.
    pub(super) fn reap(&mut self, now: At, speaker: HolderId) -> Vec<HolderId> {
        let mut died = Vec::new();
        if now < self.spared {
            return died;
        }
        let gone = |(&holder, row): (&HolderId, &Row)| {
            (holder != speaker && row.until <= now).then_some((row.until, holder))
        };
        let mut gone: Vec<(At, HolderId)> = self.rows.iter().filter_map(gone).collect();
        gone.sort_unstable();
        for (_, holder) in gone.into_iter().take(Self::REAPED) {
            let row = self.rows.remove(&holder).expect("it was just found");
            if row.losses != self.losses {
                // It was gone before the state was lost, or with it.
                self.missed = self.missed.saturating_sub(1);
            }
            self.departed += u32::from(row.is_heard(self.losses));
            self.lost(now, row.out());
            if row.out() > 0 {
                died.push(holder);
            }
        }
        died
    }

    /// Attempts that nobody will tell about any more, or that were told without a certificate.
    pub(super) fn lost(&mut self, ended: At, count: u32) {
        self.seen.lost(ended, count);
        if let Some((_, window)) = self.rate() {
            self.log.add(ended, count, window);
        }
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
}

/// A count as a signed number.
pub(super) fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add(one: u32, other: u64) -> u32 {
    u32::try_from(u64::from(one).saturating_add(other)).unwrap_or(u32::MAX)
}
