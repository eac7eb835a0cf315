//! How many attempts may be in flight at once.
//!
//! Two reasons to bound it. An upstream that says nothing about its limits is entered like an unknown network: one
//! attempt, then two for every answer, so concurrency doubles each clean round trip and an unlimited upstream runs at
//! full speed within a second. And a throttle while quota is left means another limit than the rate: a concurrency cap
//! or a burst rule. Then the bound is cut, once per burst, and grows by one per clean round trip (additive increase,
//! multiplicative decrease, as TCP does). The rate is left alone.
//!
//! Plain AIMD uses three quarters of a cap. A cap does not move, though. Once a throttle at the level of the one before has
//! confirmed it, or a burst has shown it, the bound **tracks** it: each refusal takes one place away, each answer gives a
//! four-hundredth back, which is in balance where one attempt in four hundred is refused (a stochastic approximation of
//! that quantile, Robbins and Monro 1951). Where answers spend a share of their time on the way, more may be out than the
//! cap allows, and the bound finds by itself how many.
//!
//! A refusal that orders a wait costs more than a place: nobody sends until the wait has passed. So after it the bound rests for
//! twenty times as long before it grows again: a cap whose refusals carry hints is closed a twentieth of the time at most.

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
    /// The bound is a cap's, and follows it.
    tracks: bool,
    /// Until then, in seconds, a tracked bound does not grow.
    rests: f64,
}

impl Concurrency {
    /// From here on the bound means nothing to anybody and is dropped.
    const BOUNDLESS: f64 = 4096.0;
    /// What a throttle at an unexpected level leaves.
    const CUT: f64 = 0.7;
    /// What a burst leaves of the level it was met at, before those that it refused are taken off.
    const BELOW: f64 = 0.95;
    /// Share of what a burst left standing that stood at once.
    const STANDING: f64 = 0.9;
    /// Throttles within this share of each other are the same ceiling.
    const SAME: f64 = 0.1;
    /// A tracked bound aims at one refusal in so many answers.
    const ANSWERS: f64 = 400.0;
    /// Seconds without growth per second of a closing.
    const PATIENCE: f64 = 20.0;

    /// No bound.
    pub(super) fn boundless() -> Self {
        Self {
            bound: f64::INFINITY,
            slow_start: false,
            credit: 0.0,
            ceiling: f64::INFINITY,
            held: f64::INFINITY,
            tracks: false,
            rests: 0.0,
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

    /// A clean answer at `now`.
    pub(super) fn accepted(&mut self, now: f64) {
        if self.credit < 1.0 || self.tracks && now < self.rests {
            return;
        }
        self.credit -= 1.0;
        self.bound += match (self.slow_start, self.tracks) {
            (true, _) => 1.0,
            (false, true) => 1.0 / Self::ANSWERS,
            (false, false) => 1.0 / self.bound,
        };
        if self.bound >= Self::BOUNDLESS {
            *self = Self::boundless();
        }
    }

    /// A throttle, once per burst, while `in_flight` others were on their way.
    pub(super) fn throttled(&mut self, in_flight: u32) {
        if self.tracks {
            return self.crowded();
        }
        let (before, used) = (self.ceiling, self.cut(in_flight));
        if before.is_finite() && (used - before).abs() <= Self::SAME * before {
            self.track();
        }
    }

    /// The refusal of a cap at `now` closes for so many seconds.
    pub(super) fn closed(&mut self, now: f64, seconds: f64) {
        self.rests = now + (1.0 + Self::PATIENCE) * seconds;
    }

    /// Fewer at once, for whatever reason. Returns how many there were.
    pub(super) fn cut(&mut self, in_flight: u32) -> f64 {
        let used = (f64::from(in_flight) + 1.0).min(self.bound);
        self.ceiling = used;
        self.held = Self::BELOW * used;
        self.bound = (Self::CUT * used).max(1.0);
        self.credit = 0.0;
        self.slow_start = false;
        used
    }

    /// Another throttle of the burst that cut the bound: what was in flight was too much by one more.
    pub(super) fn crowded(&mut self) {
        if self.tracks {
            self.bound = (self.bound - 1.0).max(1.0);
            return;
        }
        self.held = (self.held - 1.0).max(1.0);
        self.bound = self.bound.min(self.held);
        self.ceiling = self.ceiling.min(self.held / Self::BELOW);
    }

    /// It is a cap that was met: what the burst left standing is the bound.
    pub(super) fn track(&mut self) {
        self.tracks = true;
        self.slow_start = false;
        if self.held.is_finite() {
            self.bound = self.held;
        }
    }

    /// The server named its cap. If others hold places of it, fewer are left.
    pub(super) fn named(&mut self, cap: u32) {
        let cap = f64::from(cap).max(1.0);
        if self.tracks && self.bound <= cap {
            return self.crowded();
        }
        self.held = cap;
        self.track();
    }

    /// A burst left so many standing; some of them on places that others had left meanwhile.
    pub(super) fn left_standing(&mut self, standing: u32) {
        self.held = (Self::STANDING * f64::from(standing)).max(1.0);
        self.track();
    }
    /// What was learnt, if a throttle taught something. A doubling that never met one begins anew.
    pub(super) fn keep(&self) -> Option<Bound> {
        let &Self { bound, slow_start: _, credit: _, ceiling, held: _, tracks, rests: _ } = self;
        let ceiling = ceiling.is_finite().then_some(ceiling);
        (bound.is_finite() && (tracks || ceiling.is_some())).then_some(Bound {
            in_flight: bound,
            ceiling,
            tracks,
        })
    }

    /// A bound that was learnt before.
    pub(super) fn restore(&mut self, kept: Bound) {
        let Bound { in_flight, ceiling, tracks } = kept;
        let ceiling = ceiling.unwrap_or(f64::INFINITY);
        *self = Self { bound: in_flight.max(1.0), ceiling, tracks, ..Self::boundless() };
    }
}

/// A learnt bound on attempts in flight, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bound {
    in_flight: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ceiling: Option<f64>,
    tracks: bool,
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
            concurrency.accepted(0.0);
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
            concurrency.accepted(0.0);
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
    fn a_tracked_cap_that_is_halved_is_found_again() {
        let mut concurrency = Concurrency::boundless();
        concurrency.named(50);
        assert_eq!(round_trip(&mut concurrency), 50);
        for _ in 0..25 {
            concurrency.crowded();
        }
        assert_eq!(round_trip(&mut concurrency), 25);
    }

    #[test]
    fn a_named_cap_that_refuses_all_the_same_is_shared_with_others() {
        let mut concurrency = Concurrency::boundless();
        for _ in 0..11 {
            concurrency.named(50);
        }
        assert_eq!(round_trip(&mut concurrency), 40);
    }

    #[test]
    fn a_refusal_that_closes_is_paid_off_before_the_cap_is_tried_again() {
        let mut concurrency = Concurrency::boundless();
        concurrency.named(50);
        concurrency.crowded();
        concurrency.closed(100.0, 1.0);
        let mut grown = |now: f64| {
            for _ in 0..4000 {
                concurrency.taken(49);
                concurrency.accepted(now);
            }
            concurrency.bound().is_some_and(|bound| bound > 49.0)
        };
        assert!(!grown(120.9), "a second of closing, twenty of peace");
        assert!(grown(121.1));
    }

    #[test]
    fn a_cap_met_twice_is_tracked() {
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
        assert!(throttles * 100 <= attempts && throttles > 0, "{throttles} of {attempts}");
        assert!(used * 10 >= 400 * 50 * 9, "{used}");
    }
}
