//! When something may happen.

/// A scout that has not answered for so many seconds no longer holds up the others.
pub(super) const SCOUT_PATIENCE: f64 = 3.0;

/// The answer of a gate to "may one more go?".
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    /// Now.
    Now,
    /// Not before this instant (seconds), if nothing happens before.
    At(f64),
    /// Not before an attempt in flight ends.
    Event,
}

impl When {
    /// Instants closer than this are the same: a wake-up must not find its own instant still ahead.
    const GRAIN: f64 = 1e-6;

    /// `at`, or now if that has passed.
    pub(super) fn at(at: f64, now: f64) -> Self {
        if at <= now + Self::GRAIN { Self::Now } else { Self::At(at) }
    }

    /// When both allow it.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Event, _) | (_, Self::Event) => Self::Event,
            (Self::Now, other) | (other, Self::Now) => other,
            (Self::At(one), Self::At(other)) => Self::At(one.max(other)),
        }
    }

    /// When one of both allows it.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Now, _) | (_, Self::Now) => Self::Now,
            (Self::Event, other) | (other, Self::Event) => other,
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
        }
    }
}
