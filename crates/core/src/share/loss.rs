//! What a limit makes of a state that was lost.
//!
//! A store that comes back empty shows it by another life of the state: its holders then tell what they know of the last window
//! (`recall`). One that comes back with *older* state says nothing of it, but it knows less of some holder's endings than that
//! holder was told it knew, or not even the number of the last exchange that it answered it. From then on it is taken to know
//! too little of every holder until each has spoken. Where the first that speaks was silent since before that state, nothing
//! shows; but then the state has permits out of which nobody told for longer than a lease, and little is granted until the
//! others have had the time to speak.
//!
//! Until they have, a declared quota is used for a tenth only, because nobody else knows what of it is gone. That holds for the
//! first second of a new state whoever speaks: a process that has just started has nothing to recall, and cannot tell an
//! empty store from a new one, while those who lost it try again within a second.

use crate::share::limit::{Limit, Row};
use crate::share::wire::{At, HolderId, LimitSide, Ms};

impl Limit {
    /// At most a tenth is used for so long after a state began: whoever lost the one before has come back by then.
    pub(super) const CAREFUL: Ms = 1_000;

    /// A holder was answered that more of its attempts were known than are, or `older`: an exchange that is not. The state is an
    /// older one.
    pub(super) fn notice_loss(&mut self, now: At, holder: HolderId, side: &LimitSide, older: bool) {
        let lost = match self.rows.get(&holder) {
            Some(row) => row.losses == self.losses && (older || row.all < side.told),
            None => older && side.told > 0 && now >= self.spared,
        };
        if !lost {
            return;
        }
        self.losses += 1;
        self.departed = 0;
        self.missed = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        (self.born, self.careful, self.spared) = (now, now + Self::CAREFUL, now + self.silence());
        self.slow_until = self.slow_until.max(now + self.slow());
        self.generation = self.generation.max(side.generation);
        if self.is_told() {
            self.shut = Some(now);
        }
    }

    /// Nobody spoke for longer than anybody with permits may be silent, though some are out: either all who had them died, or the
    /// state is an older one.
    pub(super) fn doubt(&mut self, now: At, silent: Ms) {
        if silent <= self.lease() + Self::CAREFUL || self.out() == 0 {
            return;
        }
        self.careful = self.careful.max(now + Self::CAREFUL);
        self.slow_until = self.slow_until.max(now + self.slow());
        if self.is_told() {
            self.shut = Some(now);
        }
    }

    /// A holder said its last word. Attempts that it has in flight are given up in time, as those of one that was killed; if one is
    /// the scout, nobody will tell what became of it.
    pub(super) fn leave(&mut self, holder: HolderId) {
        self.scouts.retain(|&(scout, _)| scout != holder);
        if let Some(row) = self.rows.get(&holder).copied().filter(|row| row.out() == 0) {
            self.rows.remove(&holder);
            self.departed += u32::from(row.is_heard(self.losses));
        }
    }

    /// Some of those who drew before the state was lost have not told what they know, and nobody else can: only a probe of a
    /// tenth is there, until they have or a window has passed.
    fn is_partial(&self, now: At, window: Ms) -> bool {
        let heard = self.rows.values().filter(|row| row.is_heard(self.losses)).count();
        now < self.born + window && heard + (self.departed as usize) < self.missed as usize
    }

    /// For how long nothing is there by what is known, if nobody gives anything back. What a lost state knew holds here too: without
    /// it those who look again early, to see whether the quota has become another, would take what the others have used and not
    /// told again yet for what is there.
    pub(super) fn dry_for(&self, now: At) -> Ms {
        if now < self.dry {
            return self.dry - now;
        }
        let Some((_, window)) = self.rate() else { return 0 };
        if self.needs_scout(now) || self.available(now, now) >= 1 {
            return 0;
        }
        if self.is_stepped(now) && self.available(now, now + window) < 1 {
            return self.refill_at().unwrap_or(now).saturating_sub(now).min(window);
        }
        let mut back = self.log.returns(now, now + window, window);
        back.find(|&at| self.available(now, at) >= 1).map_or(0, |at| at - now)
    }

    /// Of a declared quota only a tenth may be used.
    pub(super) fn is_probed(&self, now: At, window: Ms) -> bool {
        !self.is_told() && (now < self.careful || self.is_partial(now, window))
    }
}

impl Row {
    /// It has told what it knows since the state was lost for the last time.
    pub(super) fn is_heard(&self, losses: u32) -> bool {
        !self.owes && self.losses == losses
    }
}
