//! Round trips: how far ahead of a reset a scout may leave.
//!
//! An attempt spends time on the way. A scout that leaves at the very reset wastes its outward trip, one that leaves too
//! early is refused. Both one-way trips take a share of the least round trip ever seen; sending earlier by that much is
//! safe where paths are roughly symmetric. Where they are not, an early arrival shows it and the lead is halved.

/// The least, the usual and the spread of the round trips of one gate, in seconds.
#[derive(Debug)]
pub(super) struct Trip {
    least: f64,
    mean: f64,
    deviation: f64,
    lead_share: f64,
}

impl Trip {
    /// Share of the least round trip that surely passes on the way there plus the way back of another attempt: less than
    /// one, because the fastest way back may have belonged to a slow way there.
    const LEAD_SHARE: f64 = 0.8;

    pub(super) fn new() -> Self {
        Self { least: f64::INFINITY, mean: 0.0, deviation: 0.0, lead_share: Self::LEAD_SHARE }
    }

    /// Smoothed as TCP smooths its own (RFC 6298), with gains of one tenth.
    pub(super) fn observe(&mut self, took: f64) {
        if self.least.is_infinite() {
            self.mean = took;
            self.deviation = took / 4.0;
        } else {
            self.deviation += 0.1 * ((took - self.mean).abs() - self.deviation);
            self.mean += 0.1 * (took - self.mean);
        }
        self.least = self.least.min(took);
    }

    /// How long before the latest possible reset a scout may leave.
    pub(super) fn lead(&self) -> f64 {
        if self.least.is_finite() { self.lead_share * self.least } else { 0.0 }
    }

    /// A scout arrived before the reset: trust the symmetry of the path less.
    pub(super) fn arrived_early(&mut self) {
        self.lead_share /= 2.0;
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// The least one-way trip that may be assumed.
    pub(super) fn one_way(&self) -> f64 {
        self.lead() / 2.0
    }

    /// What is worth keeping: the least, the usual, their spread and the share that is led by.
    pub(super) fn keep(&self) -> Option<[f64; 4]> {
        let &Self { least, mean, deviation, lead_share } = self;
        least.is_finite().then_some([least, mean, deviation, lead_share])
    }

    /// Trips that were kept.
    pub(super) fn restore([least, mean, deviation, lead_share]: [f64; 4]) -> Self {
        Self { least, mean, deviation, lead_share }
    }

    /// A round trip that is only rarely exceeded.
    pub(super) fn long(&self) -> f64 {
        self.mean + 2.0 * self.deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lead_stays_below_the_least_round_trip_and_shrinks_after_an_early_arrival() {
        let mut trip = Trip::new();
        assert!(trip.lead() <= 0.0);
        for took in [0.020, 0.015, 0.040] {
            trip.observe(took);
        }
        let lead = trip.lead();
        assert!(lead > 0.0 && lead < 0.015);
        trip.arrived_early();
        assert!(trip.lead() < 0.6 * lead);
    }
}
