//! When the next state is due.

use crate::pace::bank::Bank;
use crate::pace::lease::Lease;
use crate::pace::secs::secs;
use crate::time::Mono;

/// The last state that was to be stored, and what became of it.
#[derive(Debug, Default)]
pub(in crate::pace) struct Storing {
    /// One should be stored at once.
    pub(in crate::pace) due: bool,
    /// When the last one was taken, and its revision.
    begun: Option<(Mono, u64)>,
    /// The revision of the last one that is stored, while none failed since.
    stored: Option<u64>,
}

impl Storing {
    /// Somebody asks: what is stored has to be fresh.
    pub(in crate::pace) fn asked(&mut self, now: Mono) {
        let is_old = |(begun, _)| now - begun >= Bank::STORE_EVERY;
        self.due |= self.stored.is_some() && self.begun.is_some_and(is_old);
    }

    pub(super) fn begin(&mut self, now: Mono, revision: u64) {
        self.due = false;
        self.begun = Some((now, revision));
    }

    /// Until when it holds.
    pub(super) fn stored(&mut self) -> f64 {
        self.stored = self.begun.map(|(_, revision)| revision);
        self.begun.map_or(f64::INFINITY, |(begun, _)| secs(begun + Lease::GOOD))
    }

    pub(super) fn not_stored(&mut self) {
        self.stored = None;
    }

    /// Whether what is stored has this revision.
    pub(super) fn holds(&self, revision: u64) -> bool {
        self.stored == Some(revision)
    }
}
