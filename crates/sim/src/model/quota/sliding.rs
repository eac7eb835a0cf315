//! Sliding windows: the exact log, and the two-counter approximation of it.
//!
//! The log remembers every call for one window. The counter remembers two numbers and pretends that the previous window's calls
//! were spread evenly; it is therefore sometimes stricter and sometimes laxer than the log.

use std::collections::VecDeque;
use std::time::Duration;

use super::fixed::until_next_edge;
use super::{Admission, nanos, units};

/// Every admitted call counts for exactly one window.
#[derive(Debug, Clone)]
pub struct SlidingLog {
    limit: u32,
    window: Duration,
    /// Admission time and cost, oldest first; a call at `t` counts while `now < t + window`.
    log: VecDeque<(Duration, u32)>,
    used: u32,
}

impl SlidingLog {
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, log: VecDeque::new(), used: 0 }
    }

    pub(super) fn look(&mut self, now: Duration, cost: u32) -> Admission {
        while let Some(&(at, drawn)) = self.log.front()
            && at + self.window <= now
        {
            self.used -= drawn;
            self.log.pop_front();
        }
        let left = self.limit - self.used;
        let expiry = |entry: Option<&(Duration, u32)>| {
            entry.map_or(Duration::ZERO, |(at, _)| (*at + self.window).saturating_sub(now))
        };
        let ok = cost <= left;
        Admission {
            ok,
            limit: self.limit,
            remaining: left,
            reset_after: expiry(self.log.back()),
            next_after: expiry(self.log.front()),
            retry_after: if ok { Duration::ZERO } else { self.until_free(now, cost) },
        }
    }

    /// Time until enough of the oldest calls have expired for `cost` units.
    fn until_free(&self, now: Duration, cost: u32) -> Duration {
        let mut left = self.limit - self.used;
        for (at, drawn) in &self.log {
            left += drawn;
            if cost <= left {
                return (*at + self.window).saturating_sub(now);
            }
        }
        self.window
    }

    pub(super) fn draw(&mut self, now: Duration, cost: u32) {
        self.log.push_back((now, cost));
        self.used += cost;
    }
}

/// The previous window's count, weighted by how much of it a sliding window would still cover, plus the current one's.
#[derive(Debug, Clone)]
pub struct SlidingCounter {
    limit: u32,
    window: Duration,
    phase: Duration,
    /// End of the current window.
    end: Option<Duration>,
    previous: u32,
    current: u32,
}

impl SlidingCounter {
    pub(super) fn new(limit: u32, window: Duration, phase: Duration) -> Self {
        Self { limit, window, phase, end: None, previous: 0, current: 0 }
    }

    /// Moves to the window that contains `now`; returns the time left in it.
    fn advance(&mut self, now: Duration) -> Duration {
        let to_edge = until_next_edge(now, self.window, self.phase);
        if let Some(end) = self.end
            && now >= end
        {
            // Only the window just before the current one is remembered.
            self.previous = if now < end + self.window { self.current } else { 0 };
            self.current = 0;
        }
        self.end = Some(now + to_edge);
        to_edge
    }

    pub(super) fn look(&mut self, now: Duration, cost: u32) -> Admission {
        let to_edge = self.advance(now);
        let window = self.window.as_nanos();
        // Everything is scaled by the window so that the comparison is exact.
        let weighted = u128::from(self.previous) * to_edge.as_nanos() + u128::from(self.current) * window;
        let whole = u128::from(self.limit) * window;
        let ok = weighted + u128::from(cost) * window <= whole;
        let reset_after = match (self.current, self.previous) {
            (0, 0) => Duration::ZERO,
            (0, _) => to_edge,
            _ => to_edge + self.window,
        };
        let remaining = units(whole.saturating_sub(weighted) / window);
        Admission {
            ok,
            limit: self.limit,
            remaining,
            reset_after,
            next_after: if reset_after.is_zero() {
                reset_after
            } else {
                self.until_free(to_edge, remaining + 1)
            },
            retry_after: if ok { Duration::ZERO } else { self.until_free(to_edge, cost) },
        }
    }

    /// Time until `cost` units fit, if nobody draws.
    fn until_free(&self, to_edge: Duration, cost: u32) -> Duration {
        if cost > self.limit {
            return self.window;
        }
        let window = self.window.as_nanos();
        // In this window the previous count fades; what must be left of the window when the cost fits:
        if let Some(room) = (self.limit - cost).checked_sub(self.current)
            && self.previous > 0
        {
            let left = u128::from(room) * window / u128::from(self.previous);
            return nanos(to_edge.as_nanos().saturating_sub(left));
        }
        // In the next one the current count fades.
        let left = u128::from(self.limit - cost) * window / u128::from(self.current.max(1));
        to_edge + nanos(window.saturating_sub(left))
    }

    pub(super) fn draw(&mut self, cost: u32) {
        self.current += cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn the_log_gives_back_each_call_one_window_after_it() {
        let mut log = SlidingLog::new(2, ms(100));
        log.draw(ms(0), 1);
        log.draw(ms(30), 1);
        assert_eq!(log.look(ms(40), 1).retry_after, ms(60));
        assert_eq!(log.look(ms(40), 2).retry_after, ms(90));
        assert_eq!(log.look(ms(99), 1).remaining, 0);
        assert_eq!(log.look(ms(100), 1).remaining, 1);
        assert_eq!(log.look(ms(130), 1).reset_after, ms(0));
    }

    #[test]
    fn the_counter_fades_the_previous_window_linearly() {
        let mut counter = SlidingCounter::new(10, ms(100), ms(0));
        assert!(counter.look(ms(50), 10).ok);
        counter.draw(10);
        // At a quarter of the next window 7.5 of the 10 still count.
        assert_eq!(counter.look(ms(125), 0).remaining, 2);
        assert_eq!(counter.look(ms(125), 3).retry_after, ms(5));
        assert_eq!(counter.look(ms(125), 0).reset_after, ms(75));
        // Two windows later nothing does.
        assert_eq!(counter.look(ms(200), 0).remaining, 10);
    }

    #[test]
    fn a_full_current_window_fades_only_in_the_next() {
        let mut counter = SlidingCounter::new(4, ms(100), ms(0));
        counter.look(ms(20), 4);
        counter.draw(4);
        assert_eq!(counter.look(ms(20), 1).retry_after, ms(80 + 25));
    }
}
