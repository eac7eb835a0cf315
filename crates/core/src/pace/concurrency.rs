//! How many attempts may be in flight at once.
//!
//! Two reasons to bound it. An upstream that says nothing about its limits is entered like an unknown network: one
//! attempt, then two for every answer, so concurrency doubles each clean round trip and an unlimited upstream runs at
//! full speed within a second. And a throttle while quota is left means another limit than the rate: a concurrency cap
//! or a burst rule. Either way a throttle halves the bound, once per burst, and it grows by one per clean round trip
//! (additive increase, multiplicative decrease, as TCP does). The rate is left alone.

/// A bound on attempts in flight.
#[derive(Debug)]
pub(super) struct Concurrency {
    bound: f64,
    slow_start: bool,
    /// Answers that may still raise the bound: as many as were in flight when it was last reached. A bound that is not
    /// used does not grow.
    credit: f64,
}

impl Concurrency {
    /// From here on the bound means nothing to anybody and is dropped.
    const BOUNDLESS: f64 = 4096.0;

    /// No bound.
    pub(super) fn boundless() -> Self {
        Self { bound: f64::INFINITY, slow_start: false, credit: 0.0 }
    }

    /// Starts with one and doubles each clean round trip.
    pub(super) fn doubling() -> Self {
        Self { bound: 1.0, slow_start: true, credit: 0.0 }
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
        self.bound += if self.slow_start { 1.0 } else { 1.0 / self.bound };
        if self.bound >= Self::BOUNDLESS {
            *self = Self::boundless();
        }
    }

    /// A throttle, once per burst, while `in_flight` others were on their way.
    pub(super) fn throttled(&mut self, in_flight: u32) {
        let used = (f64::from(in_flight) + 1.0).min(self.bound);
        self.bound = (used / 2.0).max(1.0);
        self.credit = 0.0;
        self.slow_start = false;
    }
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
        assert_eq!(concurrency.bound(), Some(20.0));
    }

    #[test]
    fn a_throttle_halves_and_clean_round_trips_add_one() {
        let mut concurrency = Concurrency::boundless();
        concurrency.throttled(39);
        assert_eq!(round_trip(&mut concurrency), 20);
        assert!((20..=21).contains(&round_trip(&mut concurrency)));
        assert!((21..=22).contains(&round_trip(&mut concurrency)));
    }
}
