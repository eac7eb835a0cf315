//! Without the store.
//!
//! Permits in hand stay valid to the end of their lease. When the store has not answered for a while beyond that, each
//! process keeps to nine tenths of an equal part of what the fleet may use, among as many as there were when it last heard:
//! together they stay below the quota, whoever of them still reaches the store or not.

use std::time::Duration;

use crate::share::holding::Holding;
use crate::share::part::Away;
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
}

impl Fallback {
    /// A bank that has not met the store yet. `holders`: of an earlier life, if it is remembered.
    pub fn new(max_instances: u32, holders: Option<u32>) -> Self {
        Self { holders, max_instances: max_instances.max(1), failing: None, unusable: false }
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

    /// Processes among which the quota is divided: as many as were last heard of; if none ever were, the most there can be.
    pub fn holders(&self) -> u32 {
        self.holders.map_or(self.max_instances, |holders| holders.min(self.max_instances))
    }

    /// What this process may use of a quota per window, of which the fleet used `share` thousandths; at least one.
    ///
    /// ```
    /// use tidegate_core::share::Fallback;
    ///
    /// let mut fallback = Fallback::new(64, None);
    /// assert_eq!(fallback.part(300, 1_000), 4, "nine tenths of a 64th");
    /// fallback.heard(3);
    /// assert_eq!(fallback.part(300, 1_000), 90);
    /// ```
    pub fn part(&self, quota: u32, share: u32) -> u32 {
        let used = u64::from(quota) * u64::from(share.min(1_000)) * 9 / 10_000;
        u32::try_from(used / u64::from(self.holders())).unwrap_or(u32::MAX).max(1)
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
        let mut fallback = Fallback::new(8, None);
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
        let mut fallback = Fallback::new(8, Some(4));
        assert_eq!(fallback.part(300, 1_000), 67);
        assert_eq!(fallback.part(300, 850), 57, "of what throttles left of it");
        assert_eq!(fallback.part(3, 1_000), 1, "never none");
        fallback.heard(100);
        assert_eq!(fallback.holders(), 8, "there cannot be more");
        assert_eq!((Fallback::in_flight(7), Fallback::in_flight(0)), (3, 1));
    }
}
