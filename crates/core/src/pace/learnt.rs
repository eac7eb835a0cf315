//! A rate learnt from throttles alone.
//!
//! Where the server says nothing until it says 429, there is no bound until the first throttle. A throttle then tells two
//! things: how many were accepted since the gate opened, and, by its `Retry-After`, when the server will accept again.
//! Their quotient is the rate that the server grants, whatever its rule: a window that was used up at once grants its
//! quota per window, a bucket its refill. Attempts are paced evenly a little below and return along a cubic curve, so
//! that the next throttle is far away and meets few attempts in flight.
//!
//! Rules:
//! * The first quotient may be far off: a bucket had its burst, an aligned window was entered late. So it is replaced by
//!   what the next cycle grants, until one confirms the rate in use; but a short cycle that granted next to nothing (a hint may tell
//!   when *one* more is accepted) leaves a third, or what all cycles together granted. From then on a cycle may lower the
//!   rate by an eighth at most, because one in which others took everything says little about the next.
//! * A refused scout says that the gate opened too early, and nothing about the rate.
//! * A rate that has risen since it was last measured is refused somewhere above what the cycle granted on average: it is
//!   taken for the mean of both.
//! * A confirmed rate is left by a few percent only. The curve is back, and goes beyond, when what the last burst cost is
//!   small against what was accepted since: its throttles about one in a hundred, its closing a sixteenth of the time. Where
//!   round trips are long and each probe costs a dozen throttles, or where hints are long, it is made more rarely.
//! * A hint of whole seconds is half a second too long on average; a cycle is taken as shorter by that.

use serde::{Deserialize, Serialize};

use crate::pace::cubic::Cubic;
use crate::pace::secs::num;

/// The pacing of a limit that shows itself only by throttles. Times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Learnt {
    curve: Option<Cubic>,
    /// A cycle granted about the rate in use.
    confirmed: bool,
    /// When the first cycle began, and how many were accepted in all before the present one.
    #[serde(default)]
    began: f64,
    #[serde(default)]
    before: u64,
    /// When the present cycle began: attempts sent since count.
    opened: f64,
    accepted: u64,
    /// The rate found at the last throttle.
    found: f64,
    /// Throttles of that burst, if it was met while paced.
    burst: Option<u32>,
    /// When it began, and how long the cycle took that it ended.
    refused: f64,
    cycle: f64,
    /// When the next attempt may leave.
    next: f64,
}

impl Learnt {
    /// What a throttle leaves of the rate that was found.
    const KEEP: f64 = 0.96;
    /// A cycle that granted this much less than the rate in use does not confirm it.
    const CONFIRMS: f64 = 0.8;
    /// A confirmed rate that was refused was too high by about so much.
    const ABOVE: f64 = 0.985;
    /// What one cycle leaves of a confirmed rate, however little it granted.
    const LEAST: f64 = 0.88;
    /// A cycle that granted so many tells the rate.
    const TELLING: u64 = 16;
    /// What another leaves of a rate that is not confirmed, where all cycles together granted more.
    const AT_ONCE: f64 = 1.0 / 3.0;
    /// Accepted attempts per throttle to aim at.
    const PRICE: f64 = 80.0;
    /// Seconds of pacing per second of closing to aim at.
    const PATIENCE: f64 = 16.0;
    /// A rate that is not confirmed is back after as long as the cycle that measured it took, in seconds at least this.
    const SOONEST: f64 = 5.0;
    const LATEST: f64 = 120.0;
    /// Seconds by which a hint is too long on average.
    const ROUNDING: f64 = 0.5;
    /// Late wake-ups are made good up to so many seconds.
    const SLACK: f64 = 0.02;
    /// A rate below this is no rate; one attempt each so many seconds goes in any case.
    const SLOWEST: f64 = 1.0 / 60.0;

    /// Nothing is bounded yet.
    pub(super) fn new(now: f64) -> Self {
        Self {
            curve: None,
            confirmed: false,
            began: now,
            before: 0,
            opened: now,
            accepted: 0,
            found: 0.0,
            burst: None,
            refused: now,
            cycle: 0.0,
            next: now,
        }
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
        let paced_at = self.rate(now);
        if paced_at.is_some() && self.accepted == 0 {
            return self.wait(opens);
        }
        let cycle = (opens - self.opened).max(1e-3);
        let granted = Self::granted(self.accepted, cycle);
        self.found = match paced_at {
            None => granted,
            Some(rate) => {
                let found = granted.min(rate);
                if found >= Self::CONFIRMS * rate {
                    self.confirmed = true;
                    Self::ABOVE * rate
                } else if self.confirmed {
                    found.max(Self::LEAST * rate)
                } else if self.curve.is_some_and(|curve| curve.is_back(now)) {
                    (found.max(self.found) * rate).sqrt()
                } else if self.accepted >= Self::TELLING {
                    found
                } else {
                    let in_all = Self::granted(self.before + self.accepted, opens - self.began);
                    found.max(in_all.min(Self::AT_ONCE * rate))
                }
            }
        };
        self.burst = paced_at.map(|_| 1);
        self.refused = now;
        self.cycle = cycle;
        self.opened = opens;
        self.before += self.accepted;
        self.accepted = 0;
        self.next = opens;
        self.bend();
    }

    /// So many accepted in so many seconds that ended with a hint.
    fn granted(accepted: u64, seconds: f64) -> f64 {
        (num(accepted) / (seconds - Self::ROUNDING).max(seconds / 2.0)).max(Self::SLOWEST)
    }

    /// The scout was refused: the gate opened too early, which says nothing about the rate.
    fn wait(&mut self, opens: f64) {
        self.opened = self.opened.max(opens);
        self.next = self.opened;
        self.bend();
    }

    /// Another throttle of that burst, which closes the gate until `opens`.
    pub(super) fn throttled_again(&mut self, opens: f64) {
        self.burst = self.burst.map(|burst| burst + 1);
        self.wait(opens);
    }

    fn bend(&mut self) {
        let plateau = if self.confirmed {
            let throttles = Self::PRICE * f64::from(self.burst.unwrap_or(1)) / self.found;
            throttles.max(Self::PATIENCE * (self.opened - self.refused))
        } else {
            self.cycle.max(Self::SOONEST)
        };
        let plateau = plateau.min(Self::LATEST);
        self.curve = Some(Cubic::back_after(self.found, self.opened, plateau, Self::KEEP));
    }

    /// The last `away` seconds do not raise the rate: nobody tried it.
    pub(super) fn stand_still(&mut self, away: f64) {
        self.curve = self.curve.map(|curve| curve.shift(away));
    }

    /// The same on a clock that shows `by` seconds more.
    pub(super) fn shift(&mut self, by: f64) {
        let Self {
            curve,
            confirmed: _,
            began,
            before: _,
            opened,
            accepted: _,
            found: _,
            burst: _,
            refused,
            cycle: _,
            next,
        } = self;
        *curve = curve.map(|curve| curve.shift(by));
        *began += by;
        *opened += by;
        *refused += by;
        *next += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` accepted at once, then a throttle at `now` that closes until `opens`.
    fn cycle(learnt: &mut Learnt, count: u32, now: f64, opens: f64) {
        for _ in 0..count {
            learnt.accepted(now);
        }
        learnt.throttled(now, opens);
    }

    #[test]
    fn a_window_used_up_at_once_grants_its_quota_per_window() {
        let mut learnt = Learnt::new(0.0);
        assert_eq!(learnt.rate(0.0), None, "nothing is bounded before the first throttle");
        for _ in 0..300 {
            learnt.taken(0.1);
        }
        assert!(learnt.next() <= 0.1);
        cycle(&mut learnt, 300, 0.2, 5.5);
        assert!((learnt.rate(5.5).unwrap() - Learnt::KEEP * 60.0).abs() < 1e-6);
        assert!((learnt.rate(11.0).unwrap() - 60.0).abs() < 1e-6, "back after one more cycle");
    }

    #[test]
    fn attempts_are_paced_evenly_at_the_rate() {
        let mut learnt = Learnt::new(0.0);
        cycle(&mut learnt, 30, 0.1, 3.0);
        let rate = learnt.rate(3.0).unwrap();
        learnt.taken(3.0);
        assert!((learnt.next() - (3.0 + 1.0 / rate)).abs() < 1e-9);
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
    fn a_first_rate_that_was_far_too_high_is_replaced_at_once() {
        let mut learnt = Learnt::new(0.0);
        cycle(&mut learnt, 600, 0.5, 10.0);
        cycle(&mut learnt, 100, 14.0, 20.0);
        let rate = learnt.rate(20.0).unwrap();
        assert!((9.0..11.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_short_cycle_that_granted_next_to_nothing_leaves_a_third() {
        let mut learnt = Learnt::new(0.0);
        cycle(&mut learnt, 300, 2.6, 3.9);
        let rate = learnt.rate(3.9).unwrap();
        cycle(&mut learnt, 2, 4.4, 6.5);
        assert!(learnt.rate(6.5).unwrap() > 0.3 * rate);
        assert!((0..30).any(|second| learnt.rate(6.5 + f64::from(second)).unwrap() > rate / 2.0));
    }

    #[test]
    fn refused_scouts_leave_the_rate() {
        let mut learnt = Learnt::new(0.0);
        cycle(&mut learnt, 100, 0.5, 10.5);
        let before = learnt.rate(10.5).unwrap();
        for scout in 0..20_u32 {
            let now = 10.5 + 2.0 * f64::from(scout);
            learnt.throttled(now, now + 2.0);
        }
        assert!((learnt.rate(50.5).unwrap() - before).abs() < 1e-6);
    }

    #[test]
    fn a_confirmed_rate_is_cut_by_an_eighth_at_most() {
        let mut learnt = Learnt::new(0.0);
        cycle(&mut learnt, 100, 0.5, 10.5);
        cycle(&mut learnt, 100, 20.0, 20.5);
        let rate = learnt.rate(20.5).unwrap();
        assert!(rate > 9.0, "{rate}");
        cycle(&mut learnt, 1, 20.6, 22.0);
        let after = learnt.rate(22.0).unwrap();
        assert!(after > 0.83 * rate && after < 0.9 * rate, "{after} after {rate}");
    }

    #[test]
    fn a_burst_that_cost_much_is_risked_again_later() {
        let times = |throttles: u32| {
            let mut learnt = Learnt::new(0.0);
            cycle(&mut learnt, 300, 0.2, 5.5);
            cycle(&mut learnt, 300, 10.0, 10.5);
            for _ in 1..throttles {
                learnt.throttled_again(10.5);
            }
            let before = learnt.found;
            (0..1000).find(|&tenth| learnt.rate(10.5 + f64::from(tenth) / 10.0).unwrap() >= before).unwrap()
        };
        assert!(times(1) >= 79, "sixteen times the closing: {}", times(1));
        assert!(times(12) >= 160, "nearly a thousand accepted: {}", times(12));
    }
}
