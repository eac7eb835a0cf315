//! How far the server's wall clock and the own monotonic one are apart.

use crate::pace::secs::Interval;

/// The server's wall clock less the own monotonic clock, as an interval.
#[derive(Debug)]
pub(super) struct ClockOffset {
    pub(super) range: Interval,
    at: f64,
}

impl ClockOffset {
    /// Clocks drift apart by less than this per second (RFC 5905 assumes 15e-6; cheap virtual machines are worse).
    const DRIFT: f64 = 1e-4;

    pub(super) fn new() -> Self {
        Self { range: Interval::ALL, at: 0.0 }
    }

    /// `Date` is the server's clock cut to the second, at some instant between `sent` and `answered`.
    pub(super) fn learn(&mut self, date: f64, sent: f64, answered: f64) {
        let drift = Self::DRIFT * (answered - self.at).max(0.0);
        let known = Interval::new(self.range.lo - drift, self.range.up + drift);
        let seen = Interval::new(date - answered, date + 1.0 - sent);
        self.range = known.and(seen, 0.0).unwrap_or(seen);
        self.at = answered;
    }
}
