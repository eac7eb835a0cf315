//! Without the store.
//!
//! Permits in hand stay valid to the end of their lease. When the store has not answered for a while beyond that, each
//! process keeps to nine tenths of an equal part of what the fleet may use, and until the window is over of what was left of
//! it, among as many as there were when it last heard:
//! together they stay below the quota, whoever of them still reaches the store or not. Where there are more processes than
//! permits, each has a permit for several windows, and a turn of its own in them, by its number.

use std::time::Duration;

use crate::share::holding::Holding;
use crate::share::part::Away;
use crate::share::wire::HolderId;
use crate::time::Mono;

/// What a bank knows of the store's absence, and of the fleet it was part of.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Processes of the fleet, as last heard; none was ever heard.
    holders: Option<u32>,
    /// The most there can be.
    max_instances: u32,
    /// Since when the store has not answered.
    failing: Option<Mono>,
    unusable: bool,
    /// Where in several windows its turn is, from 0 to 1.
    turn: f64,
}

/// What one process may use of a quota without the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// So many permits.
    pub permits: u32,
    /// In so many windows together.
    pub windows: u32,
}

impl Fallback {
    /// A bank of `holder` that has not met the store yet. `holders`: of an earlier life, if it is remembered.
    pub fn new(holder: HolderId, max_instances: u32, holders: Option<u32>) -> Self {
        // Fractions of multiples of the golden ratio lie evenly, for numbers drawn by chance and for those that count up.
        let mixed = holder.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let turn = f64::from(u32::try_from(mixed).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        Self { holders, max_instances: max_instances.max(1), failing: None, unusable: false, turn }
    }

    /// The store answered.
    pub fn heard(&mut self, holders: u32) {
        self.holders = Some(holders.max(1));
        (self.failing, self.unusable) = (None, false);
    }

    /// The store did not answer.
    pub fn away(&mut self, now: Mono, away: Away) {
        self.failing.get_or_insert(now);
        self.unusable |= away == Away::Unusable;
    }

    /// When the bank is on its own, where its last lease ends at `lease`; `None`: it is not.
    pub fn alone_at(&self, lease: Mono) -> Option<Mono> {
        let failing = self.failing?;
        Some(if self.unusable { failing } else { failing.max(lease) + Holding::LOST })
    }

    /// The store has told how many there are.
    pub fn has_met(&self) -> bool {
        self.holders.is_some()
    }

    /// Processes among which the quota is divided: as many as were last heard of; if none ever were, the most there can be.
    pub fn holders(&self) -> u32 {
        self.holders.unwrap_or(self.max_instances)
    }

    /// What this process may use of a quota, of which the fleet used `share` thousandths and `known` processes drew when that
    /// was last heard of it.
    ///
    /// ```
    /// use tidegate_core::share::{Fallback, HolderId, Part};
    ///
    /// let mut fallback = Fallback::new(HolderId(7), 64, None);
    /// assert_eq!(fallback.part(300, 1_000, 1), Part { permits: 4, windows: 1 }, "nine tenths of a 64th");
    /// fallback.heard(3);
    /// assert_eq!(fallback.part(300, 1_000, 1), Part { permits: 90, windows: 1 });
    /// fallback.heard(1_000);
    /// assert_eq!(fallback.part(300, 1_000, 1), Part { permits: 1, windows: 5 });
    /// ```
    pub fn part(&self, quota: u32, share: u32, known: u32) -> Part {
        let among = u64::from(self.holders().max(known).max(1));
        let whole = u64::from(quota) * u64::from(share.clamp(1, 1_000)) * 10;
        let used = whole * 9 / 10;
        let parts = among * 10_000;
        if parts <= whole {
            // One for each is not more than there is, even where nine tenths of it would be.
            return Part { permits: u32::try_from(used / parts).unwrap_or(u32::MAX).max(1), windows: 1 };
        }
        // No clock is common to them, so as many turns fall into one window as chance will have: twice its deviation is left free,
        // of few permits half.
        let evenly = used.saturating_sub(2 * (used * 10_000).isqrt()).max(used / 2).max(1);
        Part { permits: 1, windows: u32::try_from(parts.div_ceil(evenly)).unwrap_or(u32::MAX) }
    }

    /// What this process may use of what was `left` of a quota when the store was last heard of it, until the window is over.
    ///
    /// ```
    /// use tidegate_core::share::{Fallback, HolderId};
    ///
    /// let fallback = Fallback::new(HolderId(7), 64, Some(2));
    /// assert_eq!(fallback.part_of_rest(285, 1), 128, "nine tenths of a half, whoever used the rest");
    /// ```
    pub fn part_of_rest(&self, left: u32, known: u32) -> u64 {
        u64::from(left) * 9 / 10 / u64::from(self.holders().max(known).max(1))
    }

    /// How far into `windows` windows its turn is, in windows.
    pub fn turn(&self, windows: u32) -> f64 {
        self.turn * f64::from(windows)
    }

    /// Attempts that may be in flight at once, where `most` were in the last window: half of them, at least one.
    pub fn in_flight(most: u32) -> u32 {
        (most / 2).max(1)
    }

    /// Permits are given one at a time for so long after the store has come back.
    pub const SLOW: Duration = Duration::from_secs(2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_in_hand_outlive_the_store() {
        let mut fallback = Fallback::new(HolderId(1), 8, None);
        let at = |millis| Mono::ZERO + Duration::from_millis(millis);
        assert_eq!(fallback.alone_at(at(9_000)), None);
        fallback.away(at(5_000), Away::Until(None));
        fallback.away(at(6_000), Away::Until(None));
        assert_eq!(fallback.alone_at(at(9_000)), Some(at(9_500)));
        assert_eq!(fallback.alone_at(at(1_000)), Some(at(5_500)), "no lease was left");
        fallback.away(at(7_000), Away::Unusable);
        assert_eq!(fallback.alone_at(at(9_000)), Some(at(5_000)), "it never will answer");
        fallback.heard(2);
        assert_eq!(fallback.alone_at(at(9_000)), None);
    }

    #[test]
    fn a_share_is_nine_tenths_of_an_equal_part() {
        let mut fallback = Fallback::new(HolderId(1), 8, Some(4));
        let in_one = |permits| Part { permits, windows: 1 };
        assert_eq!(fallback.part(300, 1_000, 1), in_one(67));
        assert_eq!(fallback.part(300, 850, 1), in_one(57), "of what throttles left of it");
        assert_eq!(fallback.part(4, 1_000, 1), in_one(1), "one for each is there");
        fallback.heard(100);
        assert_eq!(fallback.holders(), 100, "what was heard refutes what was set");
        assert_eq!((Fallback::in_flight(7), Fallback::in_flight(0)), (3, 1));
    }

    #[test]
    fn more_processes_than_permits_take_turns() {
        let mut fallback = Fallback::new(HolderId(1), 8, Some(4));
        assert_eq!(fallback.part(3, 1_000, 1), Part { permits: 1, windows: 3 });
        assert_eq!(
            fallback.part(3, 1_000, 27),
            Part { permits: 1, windows: 20 },
            "more were heard of this limit"
        );
        fallback.heard(1_000);
        for (quota, share) in [(1, 1_000), (300, 1_000), (300, 400), (999, 1_000), (1_000, 1_000)] {
            let part = fallback.part(quota, share, 1);
            let together = u64::from(part.permits) * 1_000 / u64::from(part.windows);
            assert!(together * 1_000 <= u64::from(quota * share), "{part:?} of {quota}");
        }
    }

    #[test]
    fn turns_lie_evenly() {
        for first in [1, 1 << 20, u64::MAX / 3] {
            let all = first..first + 1_000;
            let turns: Vec<f64> =
                all.map(|holder| Fallback::new(HolderId(holder), 8, None).turn(10)).collect();
            for window in 1..=10 {
                let before = turns.iter().filter(|&&turn| turn < f64::from(window)).count();
                assert!(
                    before.abs_diff(100 * usize::try_from(window).unwrap()) <= 20,
                    "{before} by {window}"
                );
            }
        }
    }
}
