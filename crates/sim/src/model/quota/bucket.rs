//! The token bucket: a level that rises continuously up to a capacity.
//!
//! Over any stretch of time T at most `capacity + limit * T / window` units are admitted, and a patient client gets that much.

use std::time::Duration;

use super::{Admission, nanos, units};

/// Continuous refill; see the module.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    limit: u32,
    window: Duration,
    capacity: u32,
    /// Tokens times the window in nanoseconds, so that refilling is exact: it rises by `limit` per nanosecond.
    level: u128,
    updated: Duration,
}

impl TokenBucket {
    pub(super) fn new(limit: u32, window: Duration, capacity: u32) -> Self {
        let level = u128::from(capacity) * window.as_nanos();
        Self { limit, window, capacity, level, updated: Duration::ZERO }
    }

    pub(super) fn look(&mut self, now: Duration, cost: u32) -> Admission {
        let scale = self.window.as_nanos();
        let full = u128::from(self.capacity) * scale;
        let gained = now.saturating_sub(self.updated).as_nanos() * u128::from(self.limit);
        self.level = (self.level + gained).min(full);
        self.updated = self.updated.max(now);
        let needed = u128::from(cost) * scale;
        let ok = needed <= self.level;
        let remaining = self.level / scale;
        let until = |target: u128| nanos(target.saturating_sub(self.level).div_ceil(u128::from(self.limit)));
        let retry_after = match (ok, cost <= self.capacity) {
            (true, _) => Duration::ZERO,
            (false, true) => until(needed),
            (false, false) => self.window,
        };
        Admission {
            ok,
            limit: self.capacity,
            remaining: units(remaining),
            reset_after: until(full),
            next_after: until(full.min((remaining + 1) * scale)),
            retry_after,
        }
    }

    pub(super) fn draw(&mut self, cost: u32) {
        self.level -= u128::from(cost) * self.window.as_nanos();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn tokens_come_back_one_by_one() {
        let mut bucket = TokenBucket::new(10, ms(1000), 3);
        assert!(bucket.look(ms(0), 3).ok);
        bucket.draw(3);
        let seen = bucket.look(ms(40), 1);
        assert_eq!((seen.ok, seen.retry_after, seen.reset_after), (false, ms(60), ms(260)));
        assert!(bucket.look(ms(100), 1).ok);
        assert_eq!(bucket.look(ms(5000), 0).remaining, 3);
    }
}
