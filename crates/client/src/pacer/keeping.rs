//! The state of the gates on its way to a file and back.

use std::time::Duration;

use tidegate_core::pace::{Kept, Restored};
use tidegate_core::time::Wall;

use super::Pacer;

impl Pacer {
    /// The state of the gates, to be stored for a successor; see [`Bank::keep`](tidegate_core::pace::Bank::keep).
    pub fn keep(&self) -> Kept {
        let (now, wall) = (self.shared.clock.now(), self.wall());
        self.shared.state.lock().bank.keep(now, wall)
    }

    /// The state of the gates, to be stored now; see [`Bank::begin_store`](tidegate_core::pace::Bank::begin_store).
    pub(crate) fn begin_store(&self) -> Kept {
        let (now, wall) = (self.shared.clock.now(), self.wall());
        self.shared.state.lock().bank.begin_store(now, wall)
    }

    /// What became of it.
    pub(crate) fn end_store(&self, stored: bool) {
        self.locked(|state, _| if stored { state.bank.stored() } else { state.bank.not_stored() });
    }

    /// Begins with what another process stored; see [`Bank::restore`](tidegate_core::pace::Bank::restore). To be called before the first
    /// [`acquire`](Pacer::acquire).
    pub fn restore(&self, kept: &Kept, uncovered: Duration) -> Restored {
        self.restore_at(self.wall(), kept, uncovered)
    }

    /// The same when it is `today`, whatever the wall clock shows.
    pub(crate) fn restore_at(&self, today: Wall, kept: &Kept, uncovered: Duration) -> Restored {
        let now = self.shared.clock.now();
        self.shared.state.lock().bank.restore(now, today, kept, uncovered)
    }

    /// Changes with the state, but for the passing of time.
    pub fn revision(&self) -> u64 {
        self.shared.state.lock().bank.revision()
    }

    pub(crate) fn wall(&self) -> Wall {
        self.shared.clock.wall()
    }

    /// Whether a state should be stored, if the last one is old; see [`Bank::has_unstored`](tidegate_core::pace::Bank::has_unstored).
    pub(crate) fn has_unstored(&self) -> bool {
        self.shared.state.lock().bank.has_unstored()
    }

    /// Waits until half of a lease is used or what is stored is old: who comes later may have to wait for a stored state. One task
    /// may wait.
    pub(crate) async fn to_lease(&self) {
        self.shared.to_lease.notified().await;
    }

    /// Waits until the state should be stored soon. One task may wait.
    pub(crate) async fn to_keep(&self) {
        self.shared.to_keep.notified().await;
    }
}
