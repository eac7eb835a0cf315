//! What a throttle does to a limit: nothing leaves for as long as it says, what was granted is void, and a quota that is only
//! declared shrinks.

use crate::share::limit::Limit;
use crate::share::wire::{At, Ms};

impl Limit {
    /// Of a declared quota, the least that throttles leave.
    const LEAST_SHARE: u32 = 50;

    /// The server refused an attempt that left at `sent`, at the earliest; nothing may leave for `stay_away`.
    pub(super) fn refuse(&mut self, now: At, sent: At, stay_away: Ms, blames: bool) {
        let until = now.saturating_add(stay_away);
        self.pause = self.pause.max(until);
        if sent >= self.fence {
            self.generation += 1;
            self.shut = Some(now);
            self.scouts.clear();
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
}
