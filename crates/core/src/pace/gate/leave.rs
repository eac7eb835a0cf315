//! What a class leaves to others at one limit, and until when.
//!
//! * A *reserve* is a number of permits, whatever happens.
//! * *Fair* where all comes back at once: what strangers and more important classes are expected to draw until the reset, with
//!   the chance of a Poisson process; both shrink to nothing by then, so everything is used. The instant at which one more may
//!   go is the solution of a quadratic equation, so nobody has to look twice.
//! * *Fair* where permits come back all the time: what is taken now comes back as well. More important classes find a small
//!   standing share: what they draw while an answer is on its way and one permit comes back; under a log, whose permits come
//!   back as they were taken, the chance of a whole window. (What strangers draw on the way is a margin for everybody.)
//! * Urgent waiters that this limit stops will draw for certain; a fair class leaves theirs too.
//!
//! In the first window of a limit more important classes are presumed to draw a fifth of it, until it should have shown (see
//! [`super::draw`]). Where all comes back at once that is left until the reset as what is known is; under a log they have taken
//! nothing yet that would come back, so all of it is left.
//!
//! `bulk` takes what there is, so its draw is no forecast of a need: `poll` leaves it the share that its weight gives it.
//!
//! What windows of the calendar keep for a class ([`super::dated`]) is left beside all that.
//!
//! A class that got nothing here for the whole of its *patience* though it waits, while others did, takes its next permit as
//! the greedy do, and does not even wait for the sake of evidence. Where no other class takes what it leaves, its policy
//! holds: it waits for the refill. Where strangers alone keep a limit below its reserve it waits as long as they do.

use super::draw::{DEVIATIONS, Presumed, covered, with_chance};
use super::{Gate, Knowledge};
use crate::pace::policy::{ClassPolicy, Taking};
use crate::pace::refill::Rule;
use crate::pace::secs::{num, secs};
use crate::pace::tide::Tide;
use crate::pace::when::When;
use crate::schedule::Class;
use crate::time::Mono;

/// Whose permit it would be, and what that one leaves to others.
#[derive(Clone, Copy, Debug)]
pub(in crate::pace) struct Wish {
    pub(in crate::pace) class: Class,
    pub(in crate::pace) policy: ClassPolicy,
    /// Per cent of the quota that the calendar keeps for a class, by [`Class::ALL`].
    pub(in crate::pace) reserved: [u8; Class::COUNT],
    /// More important waiters that this limit stops.
    pub(in crate::pace) urgent_waiting: u32,
    /// From then on its policy does not count.
    pub(in crate::pace) starving_at: Mono,
}

impl Gate {
    /// Strangers are left half of a quota at most: that is fair between two, and a burst of theirs is no forecast.
    const STRANGERS_SHARE: f64 = 0.5;
    /// Strangers are left theirs by whoever draws so many times as much.
    const MORE: f64 = 1.25;
    /// So many seconds an urgent class waits for the sake of evidence.
    const URGENT_PATIENCE: f64 = 1.0;
    /// Where nothing is known of a window.
    const USUAL_WINDOW: f64 = 60.0;

    /// A call of `class` asks.
    pub(in crate::pace) fn asked(&mut self, now: Mono, class: Class) {
        let window = self.window();
        self.draw.asked(secs(now), class, window);
    }

    pub(super) fn window(&self) -> f64 {
        match &self.knowledge {
            Knowledge::Told(tide) => tide.length(),
            Knowledge::Declared(sliding) => sliding.window(),
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => Self::USUAL_WINDOW,
        }
    }

    /// When one more may go as far as quota is concerned, with what its class leaves.
    pub(super) fn by_policy(&self, now: f64, wish: &Wish) -> When {
        let patience = if wish.class.is_urgent() { Self::URGENT_PATIENCE } else { f64::INFINITY };
        let starving = When::at(secs(wish.starving_at), now);
        let kept = self.kept(now, wish);
        let polite = self.by_knowledge(now, kept.standing, patience).and(kept.until);
        if polite == When::Now {
            return polite;
        }
        // Whoever starves does not wait for the sake of evidence either.
        let starved = self.by_knowledge(now, self.dated_now(now, wish), 0.0).and(starving);
        polite.or(starved).or(kept.presumed)
    }

    /// What the class of `wish` leaves now.
    pub(super) fn kept(&self, now: f64, wish: &Wish) -> Kept {
        let (reserve, dated) = (self.reserve(wish), self.dated_now(now, wish));
        if wish.policy.taking == Taking::Greedy {
            return Kept::standing(reserve + dated);
        }
        let waiting = f64::from(wish.urgent_waiting);
        // The whole half: of a quota of one nothing can be left.
        let most = (num(self.quota().unwrap_or(0)) / 2.0).floor();
        let presumed = self.presumed(now, wish.class);
        let kept = match &self.knowledge {
            Knowledge::Told(tide) if tide.rule() == Rule::Step => {
                let standing = reserve + waiting + dated;
                let until = self.before_reset(now, tide, standing, wish.class);
                Kept { until, ..Kept::standing(standing) }
            }
            Knowledge::Told(tide) if tide.rule() == Rule::Continuous => {
                let draw = self.more_important(now, wish.class);
                let standing = reserve + waiting + with_chance(draw * (tide.trip() + tide.spacing()));
                let standing = standing.min(most) + dated;
                let until = if standing > 0.0 {
                    When::at(tide.refilled(now, self.in_flight, 1.0 + standing), now)
                } else {
                    When::Now
                };
                Kept { until, ..Kept::standing(standing) }
            }
            Knowledge::Told(_) | Knowledge::Declared(_) => {
                // What they took comes back to them; what is only presumed they have not taken yet.
                let first = presumed.map_or(0.0, |presumed| presumed.rate * (presumed.watched - now));
                let first = first + self.chance(now, wish.class);
                Kept::standing((reserve + waiting + first).min(most) + dated)
            }
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => Kept::standing(0.0),
        };
        Kept { presumed: presumed.map_or(When::Event, |presumed| When::At(presumed.until)), ..kept }
    }

    /// What windows of the calendar have a class leave, whoever starves.
    pub(super) fn dated_now(&self, now: f64, wish: &Wish) -> f64 {
        self.dated(now, wish, self.quota().unwrap_or(0))
    }

    pub(super) fn reserve(&self, wish: &Wish) -> f64 {
        num(wish.policy.reserve.min(self.quota().unwrap_or(0) / 2))
    }

    fn presumed(&self, now: f64, class: Class) -> Option<Presumed> {
        let window = match &self.knowledge {
            Knowledge::Told(tide) => tide.watched(self.draw.since()?),
            _ => self.window(),
        };
        self.draw.presumed(now, class, window, num(self.quota()?))
    }

    /// Until when the forecast of a window that ends all at once is more than what there is beyond one permit and `standing`.
    ///
    /// When a window ends is known between two instants. What strangers may draw is left until the earlier: if they do not draw
    /// it, it is lost. What more important classes may draw is left until the next scout: it is theirs.
    fn before_reset(&self, now: f64, tide: &Tide, standing: f64, class: Class) -> When {
        // What looks like strangers under a rule that is not proven may be the refill of another rule.
        let strangers = if tide.is_proven_step() {
            tide.strangers().min(Self::STRANGERS_SHARE * num(tide.limit()) / tide.length())
        } else {
            0.0
        };
        // Whoever draws no more than the others leaves them nothing: it has no more than its part. Else processes that know
        // nothing of each other would all wait for each other. The margin is what two estimates of the same may differ by.
        let ours: f64 = Class::ALL.into_iter().map(|class| self.draw.rate(now, class, self.window())).sum();
        let strangers = if ours < Self::MORE * strangers { 0.0 } else { strangers };
        let own = self.more_important(now, class);
        let spare = tide.available(now, self.in_flight) - 1.0 - standing;
        let Some((first, last)) = tide.closes().filter(|_| spare >= 0.0) else { return When::Now };
        let expected = strangers * (first - now).max(0.0) + own * (last - now).max(0.0);
        if expected <= 0.0 || with_chance(expected) <= spare {
            return When::Now;
        }
        // Both shrink at their rates, the strangers' until `first`: the instant at which they are down to what is covered.
        let (covered, after) = (covered(spare), own * (last - first));
        let at = if covered >= after || own <= 0.0 {
            first - (covered - after) / (strangers + own)
        } else {
            last - covered / own
        };
        When::at(at, now)
    }

    /// How many more than usual the more important may draw in a window, by chance.
    fn chance(&self, now: f64, class: Class) -> f64 {
        DEVIATIONS * (self.more_important(now, class) * self.window()).sqrt()
    }

    /// What more important classes draw, permits per second.
    fn more_important(&self, now: f64, class: Class) -> f64 {
        let window = self.window();
        let presumed = self.presumed(now, class).map_or(0.0, |presumed| presumed.rate);
        let urgent = self.draw.urgent(now, class, window).max(presumed);
        if class <= Class::Bulk {
            return urgent;
        }
        let left = num(self.quota().unwrap_or(0)) / window - urgent - self.strangers();
        let weight = |class: Class| f64::from(class.weight());
        let share = weight(Class::Bulk) / (weight(Class::Bulk) + weight(class));
        urgent + self.draw.rate(now, Class::Bulk, window).min(share * left.max(0.0))
    }
}

/// What a class leaves: so many permits, and nothing less than this long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) standing: f64,
    pub(super) until: When,
    /// When to look again, because something was only presumed.
    pub(super) presumed: When,
}

impl Kept {
    fn standing(standing: f64) -> Self {
        Self { standing, until: When::Now, presumed: When::Event }
    }
}
