//! Seconds as the learning machines compute with them.
//!
//! Beliefs about a server are intervals with fractions and differences that may be negative, so inside the gate time is
//! a plain number of seconds since the origin of [`Mono`]. Instants that leave the gate are rounded **up**: a wake-up that
//! comes a nanosecond early would find the gate still closed.

use crate::time::{Mono, Wall};
use std::time::Duration;

/// Seconds since the origin of the monotonic clock.
pub(super) fn secs(at: Mono) -> f64 {
    at.as_secs_f64()
}

/// The first instant not before `secs`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of the type just before"
)]
pub(super) fn mono(secs: f64) -> Mono {
    let nanos = (secs * 1e9).ceil();
    if nanos.is_nan() || nanos >= 9e18 {
        return Mono::MAX;
    }
    Mono::from_nanos(nanos.max(0.0) as u64)
}

/// A span of `secs` seconds; negative ones are zero, endless ones a century.
pub(super) fn span(secs: f64) -> Duration {
    const CENTURY: f64 = 3.2e9;
    if secs.is_nan() { Duration::ZERO } else { Duration::from_secs_f64(secs.clamp(0.0, CENTURY)) }
}

/// Wall seconds since the Unix epoch.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit a float exactly")]
pub(super) fn wall(at: Wall) -> f64 {
    at.unix_millis() as f64 / 1e3
}

/// A count as a number to compute with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts beyond 2^53 do not occur and would only lose their last digits"
)]
pub(super) fn num(count: u64) -> f64 {
    count as f64
}

/// The whole part of a non-negative number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and negative numbers are cut off before"
)]
pub(super) fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

/// A closed range in which a number is known to lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) lo: f64,
    pub(super) up: f64,
}

impl Interval {
    /// Nothing is known.
    pub(super) const ALL: Self = Self { lo: f64::NEG_INFINITY, up: f64::INFINITY };

    pub(super) fn new(lo: f64, up: f64) -> Self {
        Self { lo, up }
    }

    pub(super) fn width(self) -> f64 {
        self.up - self.lo
    }

    pub(super) fn mid(self) -> f64 {
        f64::midpoint(self.lo, self.up)
    }

    /// What both say, or `None` if they contradict each other by more than `tolerance`.
    pub(super) fn and(self, other: Self, tolerance: f64) -> Option<Self> {
        let both = Self { lo: self.lo.max(other.lo), up: self.up.min(other.up) };
        if both.lo <= both.up {
            return Some(both);
        }
        (both.lo - both.up <= tolerance).then_some(Self { lo: both.up, up: both.lo })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_never_rounded_below_its_number() {
        for nanos in [0_u64, 1, 999, 1_000_000_007, 86_400_000_000_123] {
            let at = Mono::from_nanos(nanos);
            assert!(secs(mono(secs(at))) >= secs(at));
        }
        assert_eq!(mono(-3.0), Mono::ZERO);
        assert_eq!(mono(f64::INFINITY), Mono::MAX);
        assert_eq!(mono(f64::NAN), Mono::MAX);
    }

    #[test]
    fn contradicting_intervals_have_nothing_in_common() {
        let early = Interval::new(1.0, 2.0);
        assert_eq!(early.and(Interval::new(1.5, 3.0), 0.0), Some(Interval::new(1.5, 2.0)));
        assert_eq!(early.and(Interval::new(2.5, 3.0), 0.1), None);
        assert!(
            early.and(Interval::new(2.05, 3.0), 0.1).is_some(),
            "a contradiction within the tolerance is noise"
        );
    }
}
