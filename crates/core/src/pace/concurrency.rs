//! How many attempts may be in flight at once.
//!
//! Two reasons to bound it. An upstream that says nothing about its limits is entered like an unknown network: one
//! attempt, then two for every answer, so concurrency doubles each clean round trip and an unlimited upstream runs at
//! full speed within a second. And a throttle while quota is left means another limit than the rate: a concurrency cap
//! or a burst rule. Then the bound is cut, once per burst, and grows by one per clean round trip (additive increase,
//! multiplicative decrease, as TCP does). The rate is left alone.
//!
//! Plain AIMD uses three quarters of a cap. A cap does not move, though: a throttle at the level of the one before
//! confirms it, so the bound is cut to just below it and each further probe is twice as far away, up to a limit.

use serde::{Deserialize, Serialize};

/// A bound on attempts in flight.
#[derive(Debug)]
pub(super) struct Concurrency {
    bound: f64,
    slow_start: bool,
    /// Answers that may still raise the bound: as many as were in flight when it was last reached. A bound that is not
    /// used does not grow.
    credit: f64,
    /// Where the last throttle was met.
    ceiling: f64,
    /// What the present burst of throttles leaves: each of them was one too many.
    held: f64,
    /// Clean round trips for one more, close to the ceiling.
    patience: f64,
}

impl Concurrency {
    /// From here on the bound means nothing to anybody and is dropped.
    const BOUNDLESS: f64 = 4096.0;
    /// What a throttle at an unexpected level leaves.
    const CUT: f64 = 0.7;
    /// What a throttle near the known ceiling leaves; from there on growth is slow.
    const BELOW: f64 = 0.95;
    /// Throttles within this share of each other are the same ceiling.
    const SAME: f64 = 0.1;
    const LONGEST_PATIENCE: f64 = 16.0;

    /// No bound.
    pub(super) fn boundless() -> Self {
        Self {
            bound: f64::INFINITY,
            slow_start: false,
            credit: 0.0,
            ceiling: f64::INFINITY,
            held: f64::INFINITY,
            patience: 1.0,
        }
    }

    /// Starts with one and doubles each clean round trip.
    pub(super) fn doubling() -> Self {
        Self { bound: 1.0, slow_start: true, ..Self::boundless() }
    }

    pub(super) fn allows(&self, in_flight: u32) -> bool {
        f64::from(in_flight) + 1.0 <= self.bound.max(1.0)
    }

    pub(super) fn bound(&self) -> Option<f64> {
        self.bound.is_finite().then_some(self.bound)
    }

    /// One more attempt left; `in_flight` counts it.
    pub(super) fn taken(&mut self, in_flight: u32) {
        let in_flight = f64::from(in_flight);
        if self.bound.is_finite() && in_flight + 1.0 > self.bound {
            self.credit = in_flight;
        }
    }

    /// A clean answer.
    pub(super) fn accepted(&mut self) {
        if self.credit < 1.0 {
            return;
        }
        self.credit -= 1.0;
        self.bound += match self.slow_start {
            true => 1.0,
            false if (self.bound - self.ceiling).abs() > Self::SAME * self.ceiling => 1.0 / self.bound,
            false => 1.0 / (self.bound * self.patience),
        };
        if self.bound >= Self::BOUNDLESS {
            *self = Self::boundless();
        }
    }

    /// A throttle, once per burst, while `in_flight` others were on their way.
    pub(super) fn throttled(&mut self, in_flight: u32) {
        let used = (f64::from(in_flight) + 1.0).min(self.bound);
        let confirmed = self.ceiling.is_finite() && (used - self.ceiling).abs() <= Self::SAME * self.ceiling;
        let leaves = if confirmed {
            self.patience = (2.0 * self.patience).min(Self::LONGEST_PATIENCE);
            Self::BELOW
        } else {
            self.patience = 1.0;
            Self::CUT
        };
        self.ceiling = used;
        self.held = Self::BELOW * used;
        self.bound = (leaves * used).max(1.0);
        self.credit = 0.0;
        self.slow_start = false;
    }

    /// Another throttle of the burst that cut the bound: what was in flight was too much by one more.
    pub(super) fn crowded(&mut self) {
        self.held = (self.held - 1.0).max(1.0);
        self.bound = self.bound.min(self.held);
        self.ceiling = self.ceiling.min(self.held / Self::BELOW);
    }

    /// What was learnt, if a throttle taught something. A doubling that never met one begins anew.
    pub(super) fn keep(&self) -> Option<Bound> {
        let &Self { bound, slow_start: _, credit: _, ceiling, held: _, patience } = self;
        (bound.is_finite() && ceiling.is_finite()).then_some(Bound { in_flight: bound, ceiling, patience })
    }

    /// A bound that was learnt before.
    pub(super) fn restore(&mut self, kept: Bound) {
        let Bound { in_flight, ceiling, patience } = kept;
        *self = Self { bound: in_flight.max(1.0), ceiling, patience, ..Self::boundless() };
    }
}

/// A learnt bound on attempts in flight, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bound {
    in_flight: f64,
    ceiling: f64,
    patience: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(concurrency: &mut Concurrency) -> u32 {
        let mut flight = 0;
        while concurrency.allows(flight) && flight < 5000 {
            flight += 1;
            concurrency.taken(flight);
        }
        for _ in 0..flight {
            concurrency.accepted();
        }
        flight
    }

    #[test]
    fn an_unknown_upstream_is_entered_by_doubling() {
        let mut concurrency = Concurrency::doubling();
        let flights: Vec<u32> = (0..6).map(|_| round_trip(&mut concurrency)).collect();
        assert_eq!(flights, [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn an_unused_bound_does_not_grow() {
        let mut concurrency = Concurrency::boundless();
        concurrency.throttled(39);
        for _ in 0..1000 {
            concurrency.taken(1);
            concurrency.accepted();
        }
        assert_eq!(concurrency.bound(), Some(28.0));
    }

    #[test]
    fn a_throttle_cuts_and_clean_round_trips_add_one() {
        let mut concurrency = Concurrency::boundless();
        concurrency.throttled(39);
        assert_eq!(round_trip(&mut concurrency), 28);
        assert!((28..=29).contains(&round_trip(&mut concurrency)));
        assert!((29..=30).contains(&round_trip(&mut concurrency)));
    }

    #[test]
    fn a_burst_of_throttles_tells_how_many_were_too_many() {
        let mut concurrency = Concurrency::boundless();
        concurrency.throttled(199);
        for _ in 0..149 {
            concurrency.crowded();
        }
        assert!(concurrency.bound().is_some_and(|bound| (35.0..50.0).contains(&bound)));
    }

    #[test]
    fn a_cap_met_twice_is_probed_ever_more_rarely() {
        let mut concurrency = Concurrency::boundless();
        concurrency.throttled(70);
        let (mut attempts, mut throttles, mut used) = (0, 0, 0);
        for _ in 0..400 {
            let flight = round_trip(&mut concurrency);
            attempts += flight;
            used += flight.min(50);
            if flight > 50 {
                throttles += flight - 50;
                concurrency.throttled(flight - 1);
            }
        }
        assert!(throttles * 100 <= attempts, "{throttles} of {attempts}");
        assert!(used * 10 >= 400 * 50 * 9, "{used}");
    }
}
