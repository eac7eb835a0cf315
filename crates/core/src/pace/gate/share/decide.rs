//! Whether one more may leave, by what is shared.
//!
//! By permits while the store answers: a permit is worth what the server's own word about the present window still covers, because
//! somebody else may have taken what was leased. Without the store by this process's part.

use std::time::Duration;

use super::{Mode, Shared, signed};
use crate::pace::gate::{Gate, Knowledge, Wish};
use crate::pace::secs::{num, secs};
use crate::pace::when::When;
use crate::share::{Fallback, May, Refill};
use crate::time::Mono;

impl Shared {
    /// Permits at the store and in hand.
    fn there(&self, now: Mono) -> f64 {
        let available = self.heard.map_or(0.0, |heard| signed(heard.reply.available));
        available + f64::from(self.holding.unspent(now))
    }
}

impl Gate {
    /// When one more may go, if the limit is shared and that decides it.
    pub(in crate::pace::gate) fn by_share(&self, now: Mono, wish: &Wish) -> Option<When> {
        let shared = self.shared()?;
        match shared.mode {
            Mode::Open => None,
            Mode::Closed => Some(When::Event),
            Mode::Joined => Some(self.by_permits(now, shared, wish)),
            Mode::Part => Some(self.by_part(now, shared, wish)),
        }
    }

    fn by_permits(&self, now: Mono, shared: &Shared, wish: &Wish) -> When {
        if !self.concurrency.allows(self.in_flight) {
            return When::Event;
        }
        if self.breaks_dated(now, shared, wish) {
            return When::Event;
        }
        if self.breaks_reserve(now, shared, wish) {
            return When::At(secs(wish.starving_at).max(secs(now + Duration::from_millis(1))));
        }
        let learnt = match &self.knowledge {
            // What throttles taught of a limit that nobody tells or declares, each process learns for itself.
            Knowledge::Silent(learnt) => When::at(learnt.next(), secs(now)),
            _ => When::Now,
        };
        learnt.and(match shared.holding.may(now, self.certified(shared)) {
            May::Now => When::Now,
            May::At(at) => When::at(secs(at), secs(now)),
            May::Event => When::Event,
        })
    }

    /// A class that leaves a number of permits to others does so with what is there for all.
    fn breaks_reserve(&self, now: Mono, shared: &Shared, wish: &Wish) -> bool {
        let reserve = self.reserve(wish);
        reserve > 0.0
            && now < wish.starving_at
            && !shared.holding.scouts()
            && !self.is_epoch_over(now, shared)
            && shared.there(now) < 1.0 + reserve
    }

    /// What is left of an epoch that is over is nobody's reserve: the quota has come back.
    fn is_epoch_over(&self, now: Mono, shared: &Shared) -> bool {
        let heard = shared.heard.filter(|_| self.is_stepped(shared));
        let ends = heard.and_then(|heard| Some(heard.at + Duration::from_millis(heard.reply.ends?.1)));
        ends.is_some_and(|ends| ends <= now)
    }

    /// What the calendar keeps for other classes is left of what is there for all, too. What they took is known of this process.
    fn breaks_dated(&self, now: Mono, shared: &Shared, wish: &Wish) -> bool {
        let dated = self.dated_now(secs(now), wish);
        dated > 0.0
            && !shared.holding.scouts()
            && !self.is_epoch_over(now, shared)
            && shared.there(now) < 1.0 + dated + self.reserve(wish)
    }

    /// What the server's own word about the present window still covers.
    fn certified(&self, shared: &Shared) -> Option<f64> {
        let Knowledge::Told(tide) = &self.knowledge else { return None };
        let heard = shared.heard.filter(|heard| heard.reply.terms.rule == Refill::Step)?;
        Some(tide.certified_since(secs(heard.epoch_since))? - f64::from(self.in_flight))
    }

    /// It has permits that the server's word no longer covers, or none.
    pub(in crate::pace) fn lacks_permits(&self, now: Mono) -> bool {
        let Some(shared) = self.shared().filter(|shared| shared.mode == Mode::Joined) else { return false };
        let none = shared.holding.unspent(now) == 0;
        let worthless = || self.certified(shared).is_some_and(|certified| certified < 1.0);
        !self.has_scout_out() && (none || (self.in_flight == 0 && !shared.holding.scouts() && worthless()))
    }

    /// Something is told or declared of it.
    pub(in crate::pace) fn is_counted(&self) -> bool {
        !matches!(self.knowledge, Knowledge::Unknown | Knowledge::Silent(_))
    }

    /// The fleet's scout left here and is not answered yet.
    pub(in crate::pace) fn has_scout_out(&self) -> bool {
        self.shared().is_some_and(|shared| shared.holding.has_scout_out())
    }

    fn by_part(&self, now: Mono, shared: &Shared, wish: &Wish) -> When {
        let at = secs(now);
        let most = shared.most.0.max(shared.most.1);
        if self.in_flight >= Fallback::in_flight(most) {
            return When::Event;
        }
        let Some(own) = &shared.own else { return self.by_itself(now, wish) };
        if let Knowledge::Capped(_) = self.knowledge {
            return if u64::from(self.in_flight) < own.quota() { When::Now } else { When::Event };
        }
        let dated = self.dated(at, wish, own.quota());
        let Some(free) = own.free_at(at, self.in_flight, 1.0 + dated) else { return When::Event };
        let part = When::at(free.max(shared.turn), at);
        if self.is_stepped(shared) {
            // What the server says of the present window holds, whoever draws.
            return part.and(self.by_itself(now, wish));
        }
        // Others may have sent more than their part in the window before: it comes back as they sent it.
        let gap = own.window() / num(own.quota().max(1));
        let turn = if at < shared.alone_since + own.window() { shared.taken_at + gap } else { at };
        part.and(When::at(turn, at))
    }

    /// Answers tell of it, and all comes back at once.
    pub(super) fn is_stepped(&self, shared: &Shared) -> bool {
        let rule = shared.heard.map_or(Refill::Step, |heard| heard.reply.terms.rule);
        matches!(self.knowledge, Knowledge::Told(_)) && rule == Refill::Step
    }
}
