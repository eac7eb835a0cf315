//! Own attempts as a sliding log would hold them.
//!
//! The server handled an attempt at some instant between its sending and its answer, so each entry comes back one window
//! after an instant known to within a round trip. What came back **for certain** by some time may be spent; what **may**
//! have come back may be contained in a certificate already. Both are counts from the beginning, so that differences
//! between two times are exact whatever was forgotten in between.

use std::collections::VecDeque;

use crate::pace::secs::{Interval, num};

/// An own attempt that the server accepted. Times in seconds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sent: f64,
    answered: f64,
}

/// Own accepted attempts that may still be in a log's window, ascending by answer.
#[derive(Debug, Default)]
pub(super) struct Own {
    entries: VecDeque<Entry>,
    accepted: u64,
    /// The longest round trip of an entry: how far the order of sending may differ from that of answering.
    longest: f64,
    /// An entry was forgotten before its time.
    overflowed: bool,
}

impl Own {
    /// Own attempts remembered. A log with more entries per window is ridden by its measured rate.
    const MEMORY: usize = 8192;

    /// Adds an accepted attempt and forgets what left the log before `gone`.
    pub(super) fn remember(&mut self, sent: f64, answered: f64, gone: f64) {
        self.accepted += 1;
        self.longest = self.longest.max(answered - sent);
        self.entries.push_back(Entry { sent, answered });
        while self.entries.front().is_some_and(|entry| entry.answered < gone) {
            self.entries.pop_front();
        }
        while self.entries.len() > Self::MEMORY {
            self.entries.pop_front();
            self.overflowed = true;
        }
    }

    /// All entries of a window are remembered.
    pub(super) fn is_whole(&self) -> bool {
        !self.overflowed
    }

    /// How many were ever accepted.
    pub(super) fn accepted(&self) -> f64 {
        num(self.accepted)
    }

    /// Attempts answered after `at`.
    pub(super) fn answered_after(&self, at: f64) -> f64 {
        num((self.entries.len() - self.answered_by(at)) as u64)
    }

    /// Attempts answered by `at`, from the beginning.
    pub(super) fn answered_before(&self, at: f64) -> f64 {
        self.accepted() - self.answered_after(at)
    }

    fn answered_by(&self, at: f64) -> usize {
        self.entries.partition_point(|entry| entry.answered <= at)
    }

    /// How many surely left a log of this `length` before an attempt that leaves at `at` arrives.
    pub(super) fn surely_back(&self, at: f64, length: Interval, one_way: f64) -> f64 {
        self.answered_before(at + 2.0 * one_way - length.up)
    }

    /// How many may have left a log of this `length` before an attempt answered at `at` was handled.
    pub(super) fn maybe_back(&self, at: f64, length: Interval, one_way: f64) -> f64 {
        let latest = at - 2.0 * one_way - length.lo;
        let sure = self.answered_by(latest);
        let late = self.entries.range(sure..);
        let overtaken = late
            .take_while(|entry| entry.answered <= latest + self.longest)
            .filter(|entry| entry.sent <= latest)
            .count();
        self.accepted() - num((self.entries.len() - sure - overtaken) as u64)
    }

    /// The length of a log that gave back at least `count` of all entries by an answer at `at` is no longer than this.
    pub(super) fn length_shown(&self, count: f64, at: f64, one_way: f64) -> f64 {
        let forgotten = self.accepted() - num(self.entries.len() as u64);
        let index = crate::pace::secs::whole(count - 1.0 - forgotten);
        let entry = self.entries.get(usize::try_from(index).unwrap_or(usize::MAX));
        let bound = |entry: &Entry| at - 2.0 * one_way - (entry.answered - self.longest);
        entry.filter(|_| count > forgotten).map_or(f64::INFINITY, bound)
    }

    /// When to send so as to arrive after `wanted` entries more than `back` have surely left the log.
    pub(super) fn send_at(&self, back: f64, wanted: f64, length: f64, one_way: f64) -> Option<f64> {
        let forgotten = self.accepted() - num(self.entries.len() as u64);
        let index = crate::pace::secs::whole(back + wanted - 1.0 - forgotten);
        let entry = self.entries.get(usize::try_from(index).unwrap_or(usize::MAX))?;
        // A little later than the boundary itself, where rounding decides.
        Some(entry.answered + length - 2.0 * one_way + 1e-6)
    }

    /// When the next entry after `spare` others leaves the log, at the latest, counted from `after`, when at most
    /// `standing` entries were in it.
    pub(super) fn next_expiry(&self, length: f64, after: f64, spare: u64, standing: u64) -> Option<f64> {
        let index = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let by_time = self.answered_by(after - length);
        let by_count = self.entries.len().saturating_sub(index(standing));
        let entry = self.entries.get(by_time.max(by_count).saturating_add(index(spare)))?;
        Some(entry.answered + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Interval = Interval { lo: 5.0, up: 5.0 };

    #[test]
    fn what_is_surely_back_is_never_more_than_what_may_be() {
        let mut own = Own::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut answers: Vec<(f64, f64)> = (0..500)
            .map(|_| {
                let sent = 3.0 * rng.f64();
                (sent, sent + 0.01 + 0.2 * rng.f64())
            })
            .collect();
        answers.sort_by(|one, other| one.1.total_cmp(&other.1));
        for &(sent, answered) in &answers {
            own.remember(sent, answered, 0.0);
        }
        for step in 0..100 {
            let at = 4.0 + 0.05 * f64::from(step);
            let surely = answers.iter().filter(|&&(_, answered)| answered + 5.0 <= at + 0.01).count();
            let maybe = answers.iter().filter(|&&(sent, _)| sent + 5.0 <= at - 0.01).count();
            assert!((own.surely_back(at, LENGTH, 0.005) - num(surely as u64)).abs() < 1e-9);
            assert!((own.maybe_back(at, LENGTH, 0.005) - num(maybe as u64)).abs() < 1e-9);
        }
    }

    #[test]
    fn the_permit_of_the_next_expiry_is_sent_ahead_by_the_two_one_way_trips() {
        let mut own = Own::default();
        for (sent, answered) in [(0.0, 0.1), (0.3, 0.4), (0.7, 0.8)] {
            own.remember(sent, answered, 0.0);
        }
        let back = own.surely_back(5.2, LENGTH, 0.02);
        assert!((back - 1.0).abs() < 1e-9);
        let at = own.send_at(back, 2.0, 5.0, 0.02).unwrap();
        assert!((at - (0.8 + 5.0 - 0.04)).abs() < 1e-5, "{at}");
        assert_eq!(own.send_at(back, 3.0, 5.0, 0.02), None);
    }
}
