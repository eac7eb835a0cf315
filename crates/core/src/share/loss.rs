//! What a limit makes of a state that was lost.
//!
//! A store that comes back empty shows it by another life of the state: its holders then tell what they know of the last window
//! (`recall`). One that comes back with *older* state says nothing of it, but it knows less of some holder's endings than that
//! holder was told it knew. From then on it is taken to know too little of every holder until each has spoken.
//!
//! Until they have, a declared quota is used for a tenth only, because nobody else knows what of it is gone. That holds for the
//! first second of a new state whoever speaks: a process that has just started has nothing to recall, and cannot tell an
//! empty store from a new one, while those who lost it try again within a second.

use crate::share::limit::{Limit, Row};
use crate::share::wire::{At, HolderId, LimitSide, Ms};

impl Limit {
    /// At most a tenth is used for so long after a state began: whoever lost the one before has come back by then.
    pub(super) const CAREFUL: Ms = 1_000;

    /// A holder was answered that more of its attempts were known than are: the state is an older one.
    pub(super) fn notice_loss(&mut self, now: At, holder: HolderId, side: &LimitSide) {
        let lost = |row: &Row| row.all < side.told && row.losses == self.losses;
        if !self.rows.get(&holder).is_some_and(lost) {
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

    /// Some of those who drew before the state was lost have not told what they know, and nobody else can: only a probe of a
    /// tenth is there, until they have or a window has passed.
    fn is_partial(&self, now: At, window: Ms) -> bool {
        let heard = self.rows.values().filter(|row| row.is_heard(self.losses)).count();
        now < self.born + window && heard + (self.departed as usize) < self.missed as usize
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
