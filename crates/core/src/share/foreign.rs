//! What strangers draw from a shared quota: not the siblings, whose draw the ledger knows.
//!
//! Kept in permits per 1000 s, so that whole numbers are fine enough for a quota of a few per minute.

use serde::{Deserialize, Serialize};

use crate::share::wire::{At, Ms};

/// The strangers of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Foreign {
    /// Permits per 1000 s.
    pub(super) rate: u32,
    /// When it was last measured.
    measured: At,
}

impl Foreign {
    /// What a rate draws within `time`.
    pub(super) fn draw(rate: u32, time: Ms) -> u64 {
        // In two parts, so that no product is above 2^53 within the longest window.
        let (rate, part) = (u64::from(rate / 1_000_000), u64::from(rate % 1_000_000));
        rate.saturating_mul(time).saturating_add(part.saturating_mul(time) / 1_000_000)
    }

    /// Somebody took `taken` permits within `time` that nobody of us sent. Rises by three tenths of the difference, falls by
    /// one: who overlooks strangers is throttled, who fears them wastes a little.
    pub(super) fn measure(&mut self, now: At, taken: u64, time: Ms) {
        let sample = u32::try_from(taken.saturating_mul(1_000_000) / time.max(1)).unwrap_or(u32::MAX);
        let (old, new) = (u64::from(self.rate), u64::from(sample));
        let rate =
            if new > old { old + (3 * (new - old)).div_ceil(10) } else { old - (old - new).div_ceil(10) };
        self.rate = u32::try_from(rate).unwrap_or(u32::MAX);
        self.measured = now;
    }

    /// Whether a new measurement is due: one per `every`.
    pub(super) fn is_due(&self, now: At, every: Ms) -> bool {
        now >= self.measured + every
    }

    /// What to leave for them where the newest answer is `age` old: what they draw in that time, and two standard deviations.
    pub(super) fn margin(&self, age: Ms) -> u64 {
        let expected = Self::draw(self.rate, age);
        if self.rate == 0 { 0 } else { expected + 2 * expected.isqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_rises_faster_than_it_falls_and_reaches_both_ends() {
        let mut foreign = Foreign::default();
        foreign.measure(0, 90, 60_000);
        assert_eq!(foreign.rate, 450, "three tenths of 1500 per 1000 s");
        for step in 1..40 {
            foreign.measure(step, 90, 60_000);
        }
        assert_eq!(foreign.rate, 1_500);
        foreign.measure(41, 0, 60_000);
        assert_eq!(foreign.rate, 1_350);
        for step in 42..200 {
            foreign.measure(step, 0, 60_000);
        }
        assert_eq!((foreign.rate, foreign.margin(60_000)), (0, 0));
    }
}
