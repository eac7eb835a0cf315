//! How many calls may be under way at once: waiting for quota, or in flight.
//!
//! A gateway has places for so many calls, and a call that waits holds one. Without a bound of its own a tenant that is
//! offered ten times its quota would hold all of them, and nobody else could even ask. A fixed part for each would leave most
//! places empty, or be none where several are noisy. So who shares places with others holds no more of them than are free: the
//! one that is noisy alone gets half, two get a third each, and however many they are, as much as each of them holds is left for those
//! who come (Choudhury and Hahne, *Dynamic Queue Length Thresholds for Shared-Memory Packet Switches*, IEEE/ACM Transactions on
//! Networking 6(2), 1998).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A number of places.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    max: usize,
    came: AtomicU64,
    refused: AtomicU64,
}

/// How they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) taken: usize,
    /// Calls that came, and those of them that found no place.
    pub(crate) came: u64,
    pub(crate) refused: u64,
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
            came: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Takes a place until it is dropped; `None` if there is none.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        self.take_up_to(self.max)
    }

    /// The same for one of several who share places of which so many are `free`: it holds no more than that.
    pub(crate) fn take_beside(self: &Arc<Self>, free: usize) -> Option<Place> {
        self.take_up_to(self.max.min(free))
    }

    /// Places that nobody has taken.
    pub(crate) fn free(&self) -> usize {
        self.max.saturating_sub(self.taken())
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    fn take_up_to(self: &Arc<Self>, most: usize) -> Option<Place> {
        self.came.fetch_add(1, Ordering::Relaxed);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok() {
            return Some(Place(Arc::clone(self)));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    pub(crate) fn used(&self) -> Used {
        Used {
            taken: self.taken.load(Ordering::Relaxed),
            came: self.came.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// The places that a call holds, its caller's, its tenant's and the gateway's, until the last of those that work for it ends.
pub(crate) type Held = Arc<[Place]>;

/// A place that is taken.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_left_is_free_again_and_refusals_are_counted() {
        let places = Places::new(2);
        let held = [places.take(), places.take()];
        assert!(held.iter().all(Option::is_some) && places.take().is_none());
        assert_eq!(places.used(), Used { taken: 2, came: 3, refused: 1 });
        drop(held);
        assert!(places.take().is_some());
        assert_eq!(places.used().taken, 0);
    }
    #[test]
    fn the_noisy_hold_no_more_than_they_leave() {
        for noisy in 1..6 {
            let all = Places::new(120);
            let own: Vec<_> = (0..noisy).map(|_| Places::new(120)).collect();
            let mut held = Vec::new();
            for places in own.iter().cycle().take(200 * noisy) {
                held.extend(places.take_beside(all.free()).map(|own| (own, all.take())));
            }
            assert_eq!(all.free(), 120 / (noisy + 1), "{noisy} of them");
            assert!(own.iter().all(|places| places.taken() == all.free()), "{noisy} of them");
            let quiet = Places::new(120);
            assert!(quiet.take_beside(all.free()).is_some());
        }
    }
}
