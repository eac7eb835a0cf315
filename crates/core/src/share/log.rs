//! Own attempts of the whole fleet as a sliding log would hold them.
//!
//! An attempt is dated when it was answered, at the latest, and rounded up to a group: it is never taken to come back
//! before the server gives it back. Groups are a 64th of the window, so the list has a bound whatever the quota is, and what
//! that costs is less than a hundredth of the quota on average.

use serde::{Deserialize, Serialize};

use crate::share::wire::{At, Ms};

/// Attempts of one limit: (dated, how many), ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Log(pub(super) Vec<(At, u32)>);

impl Log {
    /// Groups of a window.
    const GROUPS: u64 = 64;
    /// Groups kept: those of a window, those that have just come back, and some with the dates of another window's length.
    const MAX: usize = 96;

    /// How far apart groups of a window are.
    pub(super) fn width(window: Ms) -> Ms {
        window.div_ceil(Self::GROUPS).max(1)
    }

    /// Adds attempts that ended at `ended`, at the latest.
    pub(super) fn add(&mut self, ended: At, count: u32, window: Ms) {
        if count == 0 {
            return;
        }
        let width = Self::width(window);
        let dated = ended.div_ceil(width).saturating_mul(width);
        let place = self.0.partition_point(|&(at, _)| at < dated);
        match self.0.get_mut(place) {
            Some((at, others)) if *at == dated => *others = others.saturating_add(count),
            _ => self.0.insert(place, (dated, count)),
        }
        while self.0.len() > Self::MAX {
            let (_, count) = self.0.remove(0);
            self.0[0].1 = self.0[0].1.saturating_add(count);
        }
    }

    /// Attempts that a log of this length still holds at `at`.
    pub(super) fn alive(&self, at: At, window: Ms) -> u64 {
        self.sum(|dated| dated + window > at)
    }

    /// Attempts that a log of this length gives back after `from` and not after `to`.
    pub(super) fn back(&self, from: At, to: At, window: Ms) -> u64 {
        self.sum(|dated| dated + window > from && dated + window <= to)
    }

    /// When something comes back, after `from` and not after `to`, ascending.
    pub(super) fn returns(&self, from: At, to: At, window: Ms) -> impl Iterator<Item = At> {
        let back = self.0.iter().map(move |&(dated, _)| dated + window);
        back.filter(move |&back| back > from && back <= to)
    }

    fn sum(&self, which: impl Fn(At) -> bool) -> u64 {
        self.0.iter().filter(|&&(dated, _)| which(dated)).map(|&(_, count)| u64::from(count)).sum()
    }

    /// Forgets what came back before `at`.
    pub(super) fn forget(&mut self, at: At, window: Ms) {
        self.0.retain(|&(dated, _)| dated + window > at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_comes_back_a_window_after_its_group_and_never_before_its_time() {
        let mut log = Log::default();
        log.add(1_001, 3, 6_400);
        assert_eq!(log.alive(7_401, 6_400), 3);
        assert_eq!(log.alive(7_500, 6_400), 0, "dated 1100");
        assert_eq!(log.back(7_401, 7_500, 6_400), 3);
        assert_eq!(log.returns(0, 10_000, 6_400).collect::<Vec<_>>(), [7_500]);
    }

    #[test]
    fn a_log_has_a_bound_and_forgets_nothing_before_its_time() {
        let mut log = Log::default();
        for step in 0..1_000 {
            log.add(10 * step, 1, 640);
        }
        assert_eq!(log.0.len(), Log::MAX);
        assert_eq!(log.alive(0, 640), 1_000);
        assert_eq!(log.alive(9_990, 640), 64);
    }
}
