//! The only reader of time and chance in this crate.
//!
//! Everything below takes `now` as an argument. Keeping the reads in one place is what lets the whole client run
//! under tokio's paused time, and what makes a clock step harmless: decisions use the monotonic clock, the wall
//! clock is only compared with what a response's own headers say.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_core::time::{Mono, Wall};
use tokio::time::Instant;

/// Monotonic and wall time since this clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose [`Mono::ZERO`] is now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
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
        fastrand::u64(..)
    }

    /// 128 random bits, for the transaction id of a call whose caller gave none.
    pub fn random_id(&self) -> u128 {
        fastrand::u128(..)
    }
}

/// Ten years: beyond it a sleep is for ever, and adding more would overflow the runtime's instant.
const FAR: u64 = 10 * 365 * 24 * 3600 * 1_000_000_000;
