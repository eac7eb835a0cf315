//! How far a declared gate may run ahead of its stored state.
//!
//! A process that crashes takes with it what was spent since its state was last stored. How much that is nobody can tell
//! afterwards: a burst leaves at once. So it is bounded before: a gate lets only so many attempts leave that no stored
//! state knows of, its **lease**, and waits for the next state to be stored when they are used up. The successor counts the
//! lease as spent, and is never above the quota. A new state is due when half of the lease is used, so that mostly nobody
//! waits.
//!
//! A lease also ends: a state says nothing of what leaves long after it, and one that nothing changes is not stored anew. So
//! nothing leaves later than [`Lease::GOOD`] after the last stored state, however little of the lease was used; the first
//! call after an idle time waits for a write. The successor counts the lease at [`Lease::ENDED`], when a permit of it that
//! no state knows of has been handled.
//!
//! The size is a trade: what is left of it is lost by a crash, and each half of it costs a write.

use std::time::Duration;

use crate::pace::secs::num;

/// Permits taken that no stored state holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lease {
    taken: u32,
    /// Of them, those that the state holds which is being stored.
    written: u32,
    /// Nothing leaves from then on before a state is stored, seconds; infinite where none is.
    until: f64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { taken: 0, written: 0, until: f64::INFINITY }
    }
}

impl Lease {
    /// So long after a state permits may leave that it does not hold: a second more than it takes until the next is due.
    pub(super) const GOOD: Duration = Duration::from_secs(11);
    /// So long after its last state a process whose leases held has ended, as far as permits go that no state holds: the next state
    /// begins to be stored when the last of them leaves at the latest, and a shell waits for that for so long as is between.
    pub(super) const ENDED: Duration = Duration::from_secs(13);
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
    pub(super) fn is_used_up(self, now: f64, quota: u64, window: f64) -> bool {
        now >= self.until || (self.bounds(window) && u64::from(self.taken) >= Self::size(quota, window))
    }

    /// Whether a new state is due.
    pub(super) fn is_low(self, quota: u64, window: f64) -> bool {
        let since = f64::from(self.taken - self.written);
        self.bounds(window) && 2.0 * since >= num(Self::size(quota, window))
    }

    pub(super) fn until(self) -> f64 {
        self.until
    }

    fn bounds(self, window: f64) -> bool {
        self.until.is_finite() && window > Self::SHORT.as_secs_f64()
    }

    /// What is stored holds until then; infinite where nothing can be stored.
    pub(super) fn bind(&mut self, until: f64) {
        self.until = until;
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
        lease.bind(11.0);
        assert!(lease.is_low(320, 60.0) && !lease.is_used_up(5.0, 320, 60.0));
        lease.writing();
        assert!(!lease.is_low(320, 60.0), "a state is under way");
        (0..20).for_each(|_| lease.taken());
        assert!(lease.is_used_up(5.0, 320, 60.0), "which is not stored yet");
        lease.stored();
        assert!(!lease.is_used_up(5.0, 320, 60.0) && lease.is_low(320, 60.0), "the next one is due");
        assert!(!lease.is_used_up(5.0, 20, 5.0), "a short window is leased as a whole");
        assert!(lease.is_used_up(11.0, 20, 5.0), "but not for ever");
        lease.bind(f64::INFINITY);
        assert!(!lease.is_used_up(1e9, 20, 60.0), "where nothing can be stored nothing waits for it");
        assert_eq!((Lease::size(3, 60.0), Lease::size(20, 60.0), Lease::size(20, 5.0)), (3, 8, 20));
    }
}
