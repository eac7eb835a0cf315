//! Who finds out what is there of a limit of which nothing is known: one attempt alone for the whole fleet.
//!
//! One that does not come back does not keep the others for ever: after [`Limit::PATIENCE`] another may go beside it, and whichever
//! comes back first opens the limit.

use crate::share::limit::{Limit, whole};
use crate::share::wire::{At, HolderId};

impl Limit {
    /// Scouts that are remembered, late ones too.
    const SCOUTS: usize = 8;

    /// A scout that left at `since` is back or late. A new epoch would end after it had left.
    pub(super) fn end_scout(&mut self, now: At, since: At) {
        self.vain |= self.is_stepped(now) && self.promised > 0 && since >= self.promised;
    }

    /// Somebody's scout is out, and may be reported any moment.
    pub(super) fn is_scouted(&self, now: At) -> bool {
        self.scouts.iter().any(|&(_, since)| since + Self::PATIENCE > now)
    }

    /// A scout leaves.
    pub(super) fn scout_leaves(&mut self, now: At, holder: HolderId) {
        self.scouts.push((holder, now));
        if self.scouts.len() > Self::SCOUTS {
            self.scouts.remove(0);
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
                return self.by_log(now) >= 1;
            }
            let refill = self.refill_at().unwrap_or(0);
            if refill > now && self.seen.level().is_some() {
                return self.by_level(now, now, window) - self.out() >= 1;
            }
            // Where steps are only assumed, one that was lost or came in vain may have taken all that came back.
            let lost = self.seen.unseen_after(refill.max(now.saturating_sub(window)));
            let first = lost == 0 && !self.vain;
            whole(lost) + self.out() < i64::from(quota)
                && (first || self.terms.proven || self.by_log(now) >= 1)
        });
        !self.is_scouted(now) && self.pause <= now && room
    }

    /// Nobody scouts and somebody must, but own attempts of a window leave no room for it.
    pub(super) fn is_barred(&self, now: At) -> bool {
        let must = self.is_stepped(now) && !self.is_scouted(now) && self.pause <= now;
        must && self.needs_scout(now) && !self.may_scout(now)
    }
}
