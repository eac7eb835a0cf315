//! One window: when it comes, how long it lasts, and what it does to the classes.

use std::time::Duration;

use super::{Cron, Zone};
use crate::schedule::Class;
use crate::time::Wall;

/// A time in which classes are held or something is kept for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its name, in messages, headers and metrics.
    pub name: String,
    /// When it begins, by the clock of `zone`.
    pub cron: Cron,
    /// Whose clock.
    pub zone: Zone,
    /// How long it lasts: elapsed time, whatever clocks show.
    pub lasts: Duration,
    /// Classes that get nothing in it, by [`Class::ALL`].
    pub hold: [bool; Class::COUNT],
    /// Per cent of every quota that are kept for a class, by [`Class::ALL`].
    pub reserve: [u8; Class::COUNT],
    /// Over which time after the end those who were held begin, each at a moment of its own.
    pub stagger: Duration,
}

impl Window {
    /// What cannot be, in the words of a configuration: the key, what is wrong, and in parentheses what to do.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let holds = self.hold.contains(&true);
        if !holds && self.reserve == [0; Class::COUNT] {
            problems.push((
                "",
                "neither holds nor reserves anything (write hold = [\"bulk\"] or reserve = { poll = 50 })"
                    .to_owned(),
            ));
        }
        let kept: u32 = self.reserve.iter().copied().map(u32::from).sum();
        if kept > 100 {
            problems
                .push(("reserve", format!("keeps {kept} per cent of a quota in all (write 100 at most)")));
        }
        for class in Class::ALL {
            if self.hold[class.index()] && self.reserve[class.index()] > 0 {
                let name = class.name();
                problems.push((
                    "reserve",
                    format!("keeps something for {name}, which `hold` lets have nothing (remove one)"),
                ));
            }
        }
        if !holds && !self.stagger.is_zero() {
            problems.push((
                "stagger",
                "spreads the starts of those who were held, and nobody is (remove it, or write hold)"
                    .to_owned(),
            ));
        }
        let period = Duration::from_secs(u64::from(self.cron.shortest_gap()) * 60);
        let told = |length: Duration| format!("{length:?}, and it comes again after {period:?}");
        if self.lasts > period {
            let what = format!("is {} (write a shorter one, or let it come less often)", told(self.lasts));
            problems.push(("for", what));
        } else if holds && self.lasts == period {
            let what =
                format!("is {} (write a shorter one: who is held would be for ever)", told(self.lasts));
            problems.push(("for", what));
        } else if holds && self.lasts + self.stagger >= period {
            let length = told(self.lasts + self.stagger);
            let what =
                format!("with `for` is {length} (write a shorter one: somebody would be held for ever)");
            problems.push(("stagger", what));
        }
        problems
    }

    /// The instant at which it ends, if it begins at `from`.
    pub fn ends(&self, from: Wall) -> Wall {
        later(from, self.lasts)
    }

    /// The next beginning that is later than `after`.
    pub fn next(&self, after: Wall) -> Option<Wall> {
        self.zone.next(&self.cron, after)
    }

    /// When the one who has this `seed` begins after the window that began at `from`: at a moment of its own within the stagger,
    /// the same each time it is asked, and another one after another window.
    pub fn released(&self, from: Wall, seed: u64) -> Wall {
        later(self.ends(from), self.own_stagger(from, seed))
    }

    /// How long after the end that is.
    pub fn own_stagger(&self, from: Wall, seed: u64) -> Duration {
        let millis = u64::try_from(self.stagger.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return Duration::ZERO;
        }
        let mixed = mix(seed, &self.name);
        let mixed = (mixed ^ from.unix_millis().cast_unsigned()).wrapping_mul(FNV_PRIME);
        Duration::from_millis(fastrand::Rng::with_seed(mixed).u64(..millis))
    }

    /// Its beginnings after which somebody may still be held, or something kept, at `at`; the earliest first.
    pub(super) fn around(&self, at: Wall) -> impl Iterator<Item = Wall> {
        let back = Wall::from_unix_millis(at.unix_millis().saturating_sub(millis(self.lasts + self.stagger)));
        std::iter::successors(self.next(back), |&last| self.next(last)).take_while(move |&from| from <= at)
    }
}

/// Of Fowler, Noll and Vo's hash, which mixes bytes into a number (RFC 9923).
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// A number with the bytes of a text mixed into it.
pub(super) fn mix(into: u64, text: &str) -> u64 {
    text.bytes().fold(into, |mixed, byte| (mixed ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn later(at: Wall, by: Duration) -> Wall {
    Wall::from_unix_millis(at.unix_millis().saturating_add(millis(by)))
}
