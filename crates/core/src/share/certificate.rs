//! What the server is known to have left, seen by all holders together.
//!
//! The same half-lattice as [`crate::pace`]'s certificate, in the store's milliseconds: the latest send time among the
//! answered, and the answers that may have been handled last. Merging takes maxima and minima only, so order, repetition
//! and loss of reports do not matter, and a report that is older than it says only makes the level lower or leaves it.
//!
//! Rules: an answer is dated as late as it may have come and a sending as early as it may have been, so "sent after that
//! was answered" is only concluded where it is true. Attempts that ended without a certificate stay spent until a
//! certificate arrives whose attempt left after them.

use serde::{Deserialize, Serialize};

use crate::share::wire::At;

/// The best certificate of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certificate {
    /// Latest send time among the answered, at the earliest.
    pub(super) latest_sent: At,
    /// Answers that may have been handled last: (answered at the latest, remaining), both ascending.
    pub(super) left: Vec<(At, u32)>,
    /// Ended without being included in the level for certain: (at the latest, how many), ascending.
    unseen: Vec<(At, u32)>,
}

impl Certificate {
    /// Answers kept. Beyond it two are taken for one that was answered as the later and left as little as the lower.
    const MAX_LEFT: usize = 8;
    /// Groups of unseen attempts kept.
    const MAX_UNSEEN: usize = 16;

    /// What was left at least.
    pub(super) fn level(&self) -> Option<u32> {
        self.left.iter().map(|&(_, left)| left).min()
    }

    /// When the newest answer came.
    pub(super) fn newest(&self) -> Option<At> {
        self.left.last().map(|&(answered, _)| answered)
    }

    /// Attempts that count beside the level.
    pub(super) fn unseen(&self) -> u64 {
        self.unseen_after(0)
    }

    /// Of them, those that ended after `at`.
    pub(super) fn unseen_after(&self, at: At) -> u64 {
        self.unseen.iter().filter(|&&(ended, _)| ended > at).map(|&(_, count)| u64::from(count)).sum()
    }

    /// Somebody saw this.
    pub(super) fn merge(&mut self, latest_sent: At, left: &[(At, u32)]) {
        self.latest_sent = self.latest_sent.max(latest_sent);
        self.left.extend_from_slice(left);
        self.tidy();
        self.unseen.retain(|&(ended, _)| ended > self.latest_sent);
    }

    /// Drops what cannot have been handled last.
    pub(super) fn tidy(&mut self) {
        self.left.sort_unstable();
        // From the latest answer backwards, only what left less than all later ones can be the level.
        let mut lowest = u32::MAX;
        let mut kept: Vec<(At, u32)> = Vec::with_capacity(self.left.len());
        for &(answered, left) in self.left.iter().rev() {
            let handled_before = answered < self.latest_sent && !kept.is_empty();
            if left < lowest && !handled_before {
                lowest = left;
                kept.push((answered, left));
            }
        }
        kept.reverse();
        while kept.len() > Self::MAX_LEFT {
            // The two latest: the earlier of them left less.
            let (answered, _) = kept.pop().expect("there are several");
            kept.last_mut().expect("there were several").0 = answered;
        }
        self.left = kept;
    }

    /// Attempts ended that no certificate is known to include.
    pub(super) fn lost(&mut self, ended: At, count: u32) {
        if count == 0 || ended <= self.latest_sent {
            return;
        }
        let place = self.unseen.partition_point(|&(at, _)| at < ended);
        match self.unseen.get_mut(place) {
            Some((at, others)) if *at == ended => *others = others.saturating_add(count),
            _ => self.unseen.insert(place, (ended, count)),
        }
        while self.unseen.len() > Self::MAX_UNSEEN {
            let (_, count) = self.unseen.remove(0);
            self.unseen[0].1 = self.unseen[0].1.saturating_add(count);
        }
    }

    /// The answers belong to a window that has passed.
    pub(super) fn void(&mut self) {
        self.left.clear();
    }

    /// Whether an answer to an attempt that left after one of ours was answered shows more left: something came back.
    pub(super) fn rises(&self, latest_sent: At, left: &[(At, u32)]) -> bool {
        let lowest = left.iter().map(|&(_, left)| left).min();
        lowest.is_some_and(|lowest| {
            self.left.iter().any(|&(answered, ours)| answered < latest_sent && ours < lowest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_two_that_overlapped_is_the_level() {
        let mut one = Certificate::default();
        one.merge(0, &[(10, 7)]);
        one.merge(0, &[(11, 9)]);
        let mut other = Certificate::default();
        other.merge(0, &[(11, 9)]);
        other.merge(0, &[(10, 7)]);
        assert_eq!(one, other);
        assert_eq!(one.level(), Some(7));
        one.merge(12, &[(20, 40)]);
        assert_eq!(one.level(), Some(40), "sent after both were answered");
    }

    #[test]
    fn a_lost_attempt_stays_spent_until_a_later_one_is_certified() {
        let mut seen = Certificate::default();
        seen.merge(0, &[(100, 10)]);
        seen.lost(500, 1);
        seen.merge(400, &[(600, 9)]);
        assert_eq!(seen.unseen(), 1, "it left before the lost one ended");
        seen.merge(700, &[(800, 7)]);
        assert_eq!(seen.unseen(), 0);
    }

    #[test]
    fn too_many_candidates_only_lower_the_level() {
        let mut seen = Certificate::default();
        for step in 0..40_u32 {
            seen.merge(0, &[(u64::from(10 * step), 100 + step)]);
        }
        assert_eq!(seen.left.len(), Certificate::MAX_LEFT);
        assert_eq!(seen.level(), Some(100));
        assert_eq!(seen.newest(), Some(390));
    }
}
