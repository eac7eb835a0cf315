//! What is there of a limit.
//!
//! One arithmetic for all refill rules, with the least of:
//! * what the server certified, less what is out and not certified ([`Limit::by_level`]);
//! * the quota less own attempts of a window and what is out ([`Limit::by_log`]), unless steps are proven;
//! * for even refill, the same in a sixteenth of the window;
//! * a cap less what is out.
//!
//! The refill rule says when there is something again: in steps, at the end of the epoch (one scout finds out); otherwise as own
//! attempts come back.

use crate::share::foreign::Foreign;
use crate::share::limit::{Limit, whole};
use crate::share::wire::{At, Kind, Ms, Refill, Terms};

impl Limit {
    /// Permits that may leave at `at`, now or later, if nothing else is granted until then; below zero where more is out
    /// than may be.
    pub(super) fn available(&self, now: At, at: At) -> i64 {
        let out = self.out();
        let (quota, window) = match self.terms.kind {
            Kind::Unknown => return Self::PLENTY,
            Kind::Cap { cap } if now < self.careful => return i64::from((cap / 10).max(1)) - out,
            Kind::Cap { cap } => return i64::from(cap) - out,
            Kind::Rate { quota, window, .. } => (quota, window.clamp(1, Terms::LONGEST_WINDOW)),
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
        if self.is_probed(now, window) {
            let since = at.saturating_sub(self.born);
            least = least.min((quota / 10).max(1) - whole(self.log.alive(at, since.min(window))) - out);
        }
        if rule == Refill::Even {
            let part = (window / 16).max(1);
            least = least.min((quota * 98 / 1_600).max(1) - whole(self.log.alive(at, part)) - out);
        }
        least
    }

    /// What the server certified, with what surely comes back until `at`, less what may not be counted in it.
    pub(super) fn by_level(&self, now: At, at: At, window: Ms) -> i64 {
        let stepped = self.is_stepped(now);
        let error = self.error(now, window);
        // Of what strangers may take first, no more than comes back evenly is sure.
        let quota = self.rate().map_or(0, |(quota, _)| quota);
        let surely = if self.foreign.rate > 0 { evenly(quota, at - now, window) } else { u64::MAX };
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

    /// What own attempts of a window leave at `at`.
    pub(super) fn by_log(&self, at: At) -> i64 {
        self.rate()
            .map_or(0, |(quota, window)| i64::from(quota) - whole(self.log.alive(at, window)) - self.out())
    }

    /// What a class may take of `room`. What is left of an epoch that is over is nobody's reserve: the quota has come back, and were
    /// it left, no attempt would ever find that out.
    pub(super) fn for_class(&self, now: At, room: i64, leave: u32, fair: bool) -> i64 {
        let ends = self.ends.filter(|_| self.is_stepped(now)).map(|(_, up)| up);
        if ends.is_some_and(|up| up <= now) {
            return room;
        }
        let mut rest = room - i64::from(leave);
        if fair {
            let time = ends.map_or(self.lease(), |up| up - now);
            rest -= whole(Foreign::draw(self.foreign.rate, time)) + whole(Foreign::draw(self.urgent, time));
        }
        rest
    }

    /// In how much time strangers and more important classes are expected to draw so many, at most.
    pub(super) fn forecast_of(&self, permits: u64) -> Ms {
        let rate = u64::from(self.foreign.rate) + u64::from(self.urgent);
        permits.saturating_mul(1_000_000).checked_div(rate).unwrap_or(Ms::MAX)
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
}

/// What comes back of a quota within a time, if it comes back evenly: rounded down, and of a long window in steps of a millionth,
/// so that no product is above 2^53.
fn evenly(quota: u32, time: Ms, window: Ms) -> u64 {
    let step = window / (1 << 20) + 1;
    u64::from(quota).saturating_mul(time / step) / window.div_ceil(step)
}
