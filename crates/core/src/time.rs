//! Instants as the core sees them.
//!
//! Monotonic and wall time are different types, because mixing them is how limiters break when a clock is stepped.
//! Decisions use [`Mono`] only. [`Wall`] exists to read absolute times out of response headers, always against the
//! response's own `Date`. Both are plain numbers, so that virtual worlds can start at zero and journals can store
//! them. All arithmetic saturates: a hostile header must not be able to overflow a deadline into the past.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A monotonic instant: nanoseconds since an origin the caller chose (usually the start of the process).
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::time::Mono;
///
/// let start = Mono::ZERO;
/// let later = start + Duration::from_millis(250);
/// assert_eq!(later - start, Duration::from_millis(250));
/// assert_eq!(start - later, Duration::ZERO, "differences never go below zero");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// The far end: later than every instant that will be reached.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the origin, for arithmetic that needs fractions.
    #[expect(clippy::cast_precision_loss, reason = "a nanosecond in 104 days is below every use of this")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The time from `earlier` to `self`, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self` moved back by `by`, not below the origin.
    #[must_use]
    pub fn back(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

impl AddAssign<Duration> for Mono {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub for Mono {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.as_secs_f64())
    }
}

/// A wall-clock instant: milliseconds since the Unix epoch. Only for reading and writing absolute times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(i64);

impl Wall {
    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// The instant as RFC 3339 writes it, in UTC; empty where the year has no four digits.
    ///
    /// ```
    /// use tidegate_core::time::Wall;
    ///
    /// assert_eq!(Wall::from_unix_millis(1_700_000_000_250).rfc3339(), "2023-11-14T22:13:20.25Z");
    /// ```
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(|_| String::new(), |at| at.to_string())
    }

    /// The time from `earlier` to `self`, or `None` if `self` lies before it.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        u64::try_from(self.0.saturating_sub(earlier.0)).ok().map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Mono::MAX + Duration::from_secs(1), Mono::MAX);
        assert_eq!(Mono::ZERO + Duration::MAX, Mono::MAX);
        assert_eq!(Mono::ZERO.back(Duration::from_secs(1)), Mono::ZERO);
    }

    #[test]
    fn a_wall_instant_before_another_has_no_distance_from_it() {
        let early = Wall::from_unix_millis(1_000);
        let late = Wall::from_unix_millis(3_500);
        assert_eq!(late.since(early), Some(Duration::from_millis(2_500)));
        assert_eq!(early.since(late), None);
    }
}
