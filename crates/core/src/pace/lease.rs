//! How far a declared gate may run ahead of its stored state.
//!
//! A process that crashes takes with it what was spent since its state was last stored. How much that is nobody can tell
//! afterwards: a burst leaves at once. So it is bounded before: a gate lets only so many attempts leave that no stored
//! state knows of, its **lease**, and waits for the next state to be stored when they are used up. The successor counts the
//! lease as spent, and is never above the quota. A new state is due when half of the lease is used, so that mostly nobody
//! waits.
//!
//! The size is a trade: what is left of it is lost by a crash, and each half of it costs a write.

use std::time::Duration;

use crate::pace::secs::num;

/// Permits taken that no stored state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lease {
    taken: u32,
    /// Of them, those that the state holds which is being stored.
    written: u32,
    /// States are stored.
    bound: bool,
}

impl Lease {
    /// Of a window up to this everything is leased: it would want a state each second or more often.
    const SHORT: Duration = Duration::from_secs(16);
    /// A lease is this part of a quota, and never less than so many permits.
    const PART: u64 = 8;
    const LEAST: u64 = 8;

    /// Permits of a `quota` per `window` seconds that may leave before a state is stored.
    pub(super) fn size(quota: u64, window: f64) -> u64 {
        if window <= Self::SHORT.as_secs_f64() {
            quota
        } else {
            (quota / Self::PART).max(Self::LEAST).min(quota)
        }
    }

    pub(super) fn taken(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }

    /// Whether the permits of this quota that may leave have left. One that was given back stays counted.
    pub(super) fn is_used_up(self, quota: u64, window: f64) -> bool {
        self.bounds(window) && u64::from(self.taken) >= Self::size(quota, window)
    }

    /// Whether a new state is due.
    pub(super) fn is_low(self, quota: u64, window: f64) -> bool {
        let since = f64::from(self.taken - self.written);
        self.bounds(window) && 2.0 * since >= num(Self::size(quota, window))
    }

    pub(super) fn is_bound(self) -> bool {
        self.bound
    }

    fn bounds(self, window: f64) -> bool {
        self.bound && window > Self::SHORT.as_secs_f64()
    }

    /// From here on states are stored, or from here on none can be.
    pub(super) fn bind(&mut self, bound: bool) {
        self.bound = bound;
    }

    /// A state that holds everything up to now begins to be stored.
    pub(super) fn writing(&mut self) {
        self.written = self.taken;
    }

    /// It is stored.
    pub(super) fn stored(&mut self) {
        self.taken -= self.written;
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_low_at_its_half_and_free_again_for_what_was_stored() {
        let mut lease = Lease::default();
        (0..20).for_each(|_| lease.taken());
        assert!(!lease.is_low(320, 60.0), "nothing is stored");
        lease.bind(true);
        assert!(lease.is_low(320, 60.0) && !lease.is_used_up(320, 60.0));
        lease.writing();
        assert!(!lease.is_low(320, 60.0), "a state is under way");
        (0..20).for_each(|_| lease.taken());
        assert!(lease.is_used_up(320, 60.0), "which is not stored yet");
        lease.stored();
        assert!(!lease.is_used_up(320, 60.0) && lease.is_low(320, 60.0), "the next one is due");
        assert!(!lease.is_used_up(20, 5.0), "a short window is leased as a whole");
        assert_eq!((Lease::size(3, 60.0), Lease::size(20, 60.0), Lease::size(20, 5.0)), (3, 8, 20));
    }
}
