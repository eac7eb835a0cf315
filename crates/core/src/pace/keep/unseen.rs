//! What a process may have spent that no stored state holds.

use crate::pace::keep::Kept;
use crate::pace::lease::Lease;
use crate::pace::secs::{num, whole};

/// The end of a bank whose last moments were not stored.
#[derive(Clone, Copy, Debug)]
pub(in crate::pace) struct Unseen {
    /// When it ended at the latest, seconds on the clock of its successor.
    pub(in crate::pace) ended: f64,
    pub(super) spent: Assumed,
}

/// What is assumed to have been spent unseen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Assumed {
    Nothing,
    Lease,
    All,
}

impl Unseen {
    /// Where nothing is known, attempts of a long window are taken to have left so many times as fast as evenly.
    const FASTER: f64 = 4.0;

    /// Of a quota per `window` seconds, what may have been spent unseen.
    pub(in crate::pace) fn of(self, quota: u64, window: f64) -> u64 {
        match self.spent {
            Assumed::Nothing => 0,
            Assumed::Lease => Lease::size(quota, window),
            Assumed::All => Self::all(quota, window),
        }
    }

    /// Whether nothing bounded what was spent; `None` if nothing was.
    pub(in crate::pace) fn unbounded(self) -> Option<bool> {
        match self.spent {
            Assumed::Nothing => None,
            Assumed::Lease => Some(false),
            Assumed::All => Some(true),
        }
    }

    /// What may have been spent where nothing is known.
    pub(in crate::pace) fn all(quota: u64, window: f64) -> u64 {
        let lost = Kept::LOST.as_secs_f64();
        if window <= lost {
            quota
        } else {
            whole((Self::FASTER * num(quota) * lost / window).ceil()).min(quota)
        }
    }
}
