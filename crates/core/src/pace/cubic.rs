//! Back to where it was good, and carefully beyond.
//!
//! After a cut a level returns along a cubic curve: fast to near where it was before, flat around it, then faster again.
//! TCP paces by it (RFC 9438 section 4.2), and so does the adaptive retry mode of the AWS SDKs, whose tables are the
//! vectors below. Unlike additive increase it spends most of the time near the level that was last found to be the bound.

use serde::{Deserialize, Serialize};

/// A level that was cut and returns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cubic {
    /// The level before the cut.
    before: f64,
    /// When it was cut.
    at: f64,
    /// Units of time until it is back.
    plateau: f64,
    /// Growth per cubed unit of time.
    growth: f64,
}

impl Cubic {
    /// What a cut leaves (RFC 9438 section 4.6).
    pub(super) const KEEP: f64 = 0.7;

    /// Cuts the level `before`; `growth` per cubed unit of time decides how fast it returns.
    pub(super) fn cut(before: f64, at: f64, growth: f64) -> Self {
        Self { before, at, plateau: (before * (1.0 - Self::KEEP) / growth).cbrt(), growth }
    }

    /// Cuts the level `before` to its share `keep` so that it is back after `plateau` units of time.
    pub(super) fn back_after(before: f64, at: f64, plateau: f64, keep: f64) -> Self {
        Self { before, at, plateau, growth: before * (1.0 - keep) / plateau.powi(3) }
    }

    /// The level at `now`.
    pub(super) fn level(&self, now: f64) -> f64 {
        self.growth.mul_add((now - self.at - self.plateau).powi(3), self.before)
    }

    /// Whether the level is what it was before the cut, or more.
    pub(super) fn is_back(&self, now: f64) -> bool {
        now >= self.at + self.plateau
    }

    /// When the level reaches `level`.
    pub(super) fn reaches(&self, level: f64) -> f64 {
        self.at + self.plateau + ((level - self.before) / self.growth).cbrt()
    }

    /// The same on a clock that shows `by` units more.
    #[must_use]
    pub(super) fn shift(self, by: f64) -> Self {
        let Self { before, at, plateau, growth } = self;
        Self { before, at: at + by, plateau, growth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_aws_sdks_are_met() {
        // Adaptive retries, SEP 2.1: a throttle at a rate of 10 per second, at five seconds; scale 0.4.
        let cubic = Cubic::cut(10.0, 5.0, 0.4);
        let expected = [7.0, 9.649, 10.000, 10.453, 13.409, 21.266, 36.426];
        for (second, rate) in (5_u32..).zip(expected) {
            let level = cubic.level(f64::from(second));
            assert!((level - rate).abs() < 1e-3, "{level} instead of {rate} at {second} s");
        }
    }

    #[test]
    fn the_level_is_back_after_the_plateau() {
        let cubic = Cubic::back_after(60.0, 3.0, 20.0, 0.7);
        assert!((cubic.level(3.0) - 42.0).abs() < 1e-9);
        assert!((cubic.level(23.0) - 60.0).abs() < 1e-9);
        assert!(cubic.level(33.0) > 60.0 && cubic.level(33.0) < 63.0);
    }
}
