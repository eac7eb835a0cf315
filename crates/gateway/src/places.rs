//! How many calls may be under way at once: waiting for quota, or in flight.
//!
//! A gateway has places for so many connections, and a call that waits holds one. Without a bound of its own a tenant that is
//! offered ten times its quota would hold all of them, and nobody else could even ask.

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
        self.came.fetch_add(1, Ordering::Relaxed);
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
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
}
