//! How fast permits come back, net of what strangers take.
//!
//! `remaining + own attempts counted` only rises by refill. Which own attempts an answer includes is known between two
//! bounds, so a gain between two answers is certain if the least count of the later exceeds the most count of the
//! earlier. Measured over a horizon long enough that one permit more or less does not matter.

use std::collections::VecDeque;

/// One answer in the ledger of permits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) sent: f64,
    pub(super) answered: f64,
    /// Remaining plus the own attempts surely counted.
    pub(super) least: f64,
    /// Remaining plus all own attempts that may be counted.
    pub(super) most: f64,
}

/// The measured net refill.
#[derive(Debug, Default)]
pub(super) struct Flow {
    points: VecDeque<Point>,
    rate: f64,
}

impl Flow {
    const MEMORY: usize = 4096;
    /// An even refill never looks faster than this, by noise.
    const UNEVEN: f64 = 1.4;

    /// Permits per second that came back for certain; zero while unknown.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// From here on something else is measured: another rule was found, or nothing could come back any more.
    pub(super) fn interrupt(&mut self, forget: bool) {
        self.points.clear();
        if forget {
            self.rate = 0.0;
        }
    }

    /// Since some earlier answer more came back than an even refill of at most `rate` permits per second can give.
    pub(super) fn outruns(&self, point: Point, rate: f64) -> bool {
        let even = |from: &Point| Self::UNEVEN * rate * (point.answered - from.sent) + 3.0;
        self.points.iter().any(|from| point.least - from.most >= even(from))
    }

    /// Adds an answer and returns the earlier one it is compared with and the certain gain since.
    pub(super) fn record(&mut self, point: Point, trip: f64) -> (Point, f64) {
        let by_count = if self.rate > 0.0 { 100.0 / self.rate } else { 0.0 };
        let horizon = by_count.max(20.0 * trip).max(1.0);
        self.points.push_back(point);
        while self.points.len() > Self::MEMORY
            || (self.points.len() > 2 && self.points[1].sent < point.sent - horizon)
        {
            self.points.pop_front();
        }
        let from = self.points[0];
        let gain = point.least - from.most;
        let took = point.answered - from.sent;
        if took > 3.0 * trip && gain >= 10.0 {
            self.rate = gain / took;
        } else if took > horizon / 2.0 {
            self.rate = (gain / took).max(0.0);
        }
        (from, gain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_refill_is_measured_and_never_overestimated() {
        let mut flow = Flow::default();
        for step in 1..200_u32 {
            let handled = f64::from(step) * 0.05;
            let known = 60.0 * handled;
            let (sent, answered) = (handled - 0.01, handled + 0.01);
            flow.record(
                Point { sent, answered, least: known.floor() - 1.0, most: known.floor() + 1.0 },
                0.02,
            );
        }
        assert!(flow.rate() > 50.0 && flow.rate() <= 60.0, "{}", flow.rate());
    }
}
