//! A rate learnt from throttles alone.
//!
//! Where the server says nothing until it says 429, there is no bound until the first throttle. A throttle then tells two
//! things: how many were accepted since the gate opened, and, by its `Retry-After`, when the server will accept again.
//! Their quotient is the rate that the server grants, whatever its rule: a window that was used up at once grants its
//! quota per window, a bucket its refill. Attempts are paced evenly a little below and return along a cubic curve, so
//! that the next throttle is far away and meets few attempts in flight.
//!
//! Rules: the rate before a cut is the one in use, unless far less was accepted; only the first throttle of a burst
//! counts; the curve takes a few of the server's own cycles to come back, because each probe above it costs a closing.

use crate::pace::cubic::Cubic;
use crate::pace::secs::num;

/// The pacing of a limit that shows itself only by throttles. Times in seconds.
#[derive(Debug)]
pub(super) struct Learnt {
    curve: Option<Cubic>,
    /// When the present cycle began: attempts sent since count.
    opened: f64,
    accepted: u64,
    /// When the next attempt may leave.
    next: f64,
}

impl Learnt {
    /// The curve is back after so many cycles between two throttles.
    const CYCLES: f64 = 4.0;
    const SOONEST: f64 = 10.0;
    const LATEST: f64 = 60.0;
    /// Late wake-ups are made good up to so many seconds.
    const SLACK: f64 = 0.02;
    /// A rate below this is no rate; one attempt each so many seconds goes in any case.
    const SLOWEST: f64 = 1.0 / 60.0;

    /// Nothing is bounded yet.
    pub(super) fn new(now: f64) -> Self {
        Self { curve: None, opened: now, accepted: 0, next: now }
    }

    /// Attempts per second, once a throttle was seen.
    pub(super) fn rate(&self, now: f64) -> Option<f64> {
        self.curve.map(|curve| curve.level(now.max(self.opened)).max(Self::SLOWEST))
    }

    /// When one more attempt may leave.
    pub(super) fn next(&self) -> f64 {
        self.next
    }

    /// An attempt left.
    pub(super) fn taken(&mut self, now: f64) {
        if let Some(rate) = self.rate(now) {
            self.next = self.next.max(now - Self::SLACK) + 1.0 / rate;
        }
    }

    /// The permit that was taken at `at` comes back unsent: its turn is free again, unless a throttle came between.
    pub(super) fn given_back(&mut self, at: f64) {
        if let Some(rate) = self.rate(at).filter(|_| at >= self.opened) {
            self.next -= 1.0 / rate;
        }
    }

    /// An attempt that left at `sent` was accepted.
    pub(super) fn accepted(&mut self, sent: f64) {
        if sent >= self.opened {
            self.accepted += 1;
        }
    }

    /// The first throttle of a burst; the gate opens again at `opens`.
    pub(super) fn throttled(&mut self, now: f64, opens: f64) {
        let cycle = (opens - self.opened).max(1e-3);
        let granted = (num(self.accepted) / cycle).max(Self::SLOWEST);
        let before = self.rate(now).filter(|rate| granted >= Cubic::KEEP * rate).unwrap_or(granted);
        let plateau = (Self::CYCLES * cycle).clamp(Self::SOONEST, Self::LATEST);
        self.curve = Some(Cubic::back_after(before, opens, plateau));
        self.opened = opens;
        self.accepted = 0;
        self.next = opens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_used_up_at_once_grants_its_quota_per_window() {
        let mut learnt = Learnt::new(0.0);
        assert_eq!(learnt.rate(0.0), None, "nothing is bounded before the first throttle");
        for _ in 0..300 {
            learnt.taken(0.1);
            learnt.accepted(0.1);
        }
        assert!(learnt.next() <= 0.1);
        learnt.throttled(0.2, 5.0);
        assert!((learnt.rate(5.0).unwrap() - 42.0).abs() < 1e-6);
        assert!((learnt.rate(25.0).unwrap() - 60.0).abs() < 1e-6);
    }

    #[test]
    fn attempts_are_paced_evenly_at_the_rate() {
        let mut learnt = Learnt::new(0.0);
        learnt.accepted(0.0);
        learnt.throttled(0.1, 1.0);
        let rate = learnt.rate(1.0).unwrap();
        assert!((rate - 0.7).abs() < 1e-9);
        learnt.taken(1.0);
        assert!((learnt.next() - (1.0 + 1.0 / rate)).abs() < 1e-9);
    }

    #[test]
    fn a_turn_that_was_given_back_is_free_at_once() {
        let mut learnt = Learnt::new(0.0);
        learnt.accepted(0.0);
        learnt.throttled(0.1, 1.0);
        learnt.taken(1.0);
        let next = learnt.next();
        learnt.taken(1.2);
        learnt.given_back(1.2);
        assert!((learnt.next() - next).abs() < 1e-9);
        learnt.throttled(1.5, 3.0);
        learnt.given_back(1.0);
        assert!((learnt.next() - 3.0).abs() < 1e-9, "the throttle has voided it");
    }

    #[test]
    fn much_less_accepted_than_paced_is_the_new_rate() {
        let mut learnt = Learnt::new(0.0);
        for _ in 0..600 {
            learnt.accepted(0.0);
        }
        learnt.throttled(0.5, 10.0);
        for _ in 0..100 {
            learnt.accepted(10.0);
        }
        learnt.throttled(14.0, 20.0);
        assert!((learnt.rate(20.0).unwrap() - 7.0).abs() < 1e-6);
    }
}
