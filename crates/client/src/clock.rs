//! The only reader of time and chance in this crate.
//!
//! Everything below takes `now` as an argument. Keeping the reads in one place is what lets the whole client run
//! under tokio's paused time, and what makes a clock step harmless: decisions use the monotonic clock, the wall
//! clock is only compared with what a response's own headers say.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_core::share::HolderId;
use tidegate_core::time::{Mono, Wall};
use tokio::time::Instant;

/// Monotonic and wall time since this clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// From the system's source of chance: what [`fastrand`] begins with is made of time and thread, which may be the same on
    /// machines that were started alike or copied while they ran.
    chance: u128,
}

impl Clock {
    /// A clock whose [`Mono::ZERO`] is now.
    pub fn start() -> Self {
        let mut chance = [0; 16];
        // Without that source its own chance must do.
        if getrandom::fill(&mut chance).is_err() {
            chance = fastrand::u128(..).to_ne_bytes();
        }
        Self { origin: Instant::now(), chance: u128::from_ne_bytes(chance) }
    }

    /// The monotonic instant.
    pub fn now(&self) -> Mono {
        Mono::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The wall-clock instant.
    pub fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The runtime's instant for `at`, to sleep until it.
    pub fn instant(&self, at: Mono) -> Instant {
        self.origin + std::time::Duration::from_nanos(at.as_nanos().min(FAR))
    }

    /// Seeds one generator; the generators of a process are seeded apart.
    pub fn seed(&self) -> u64 {
        let [low, ..] = self.halves();
        fastrand::u64(..) ^ low
    }

    /// 128 random bits, for the transaction id of a call whose caller gave none.
    pub fn random_id(&self) -> u128 {
        fastrand::u128(..) ^ self.chance
    }

    /// A number for this process that no other has.
    pub(crate) fn holder(&self) -> HolderId {
        let [_, high] = self.halves();
        HolderId(high.max(1))
    }

    fn halves(&self) -> [u64; 2] {
        let bytes = self.chance.to_ne_bytes();
        let (low, high) = bytes.split_at(8);
        [low, high].map(|half| u64::from_ne_bytes(half.try_into().expect("it is half of sixteen bytes")))
    }
}

/// Ten years: beyond it a sleep is for ever, and adding more would overflow the runtime's instant.
const FAR: u64 = 10 * 365 * 24 * 3600 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_that_begin_with_the_same_chance_draw_different_numbers() {
        let drawn = || {
            fastrand::seed(7);
            let clock = Clock::start();
            (clock.seed(), clock.random_id(), clock.holder())
        };
        let (one, other) = (drawn(), drawn());
        assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2, "{one:?} {other:?}");
    }
}
