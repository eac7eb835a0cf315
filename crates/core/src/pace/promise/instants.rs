//! Which instants a promise makes worth an attempt: when a scout finds the next window, and when an answer tells most.

use super::Promise;
use crate::pace::secs::Interval;
use crate::pace::trip::Trip;

impl Promise {
    /// When to send a scout so that it arrives just after the reset. `windows`: windows are proven to be the rule, so
    /// the lengths seen so far bound this one too.
    pub(in crate::pace) fn send_at(&self, trip: &Trip, windows: bool) -> Option<f64> {
        let due = self.due?;
        let mut up = due.up;
        let by_length = self.opened.up + self.seen_length;
        if windows && self.grain > 0.0 && by_length >= due.lo {
            up = up.min(by_length);
        }
        if let Some(guess) = self.guess(due) {
            up = up.min(guess);
        }
        Some((up - trip.lead()).max(due.lo.min(up)))
    }

    /// Where an absolute whole second hides the instant of the reset: the end of the shortest window of whole seconds
    /// that fits. A server that tells whole seconds has windows of whole seconds; one that an own attempt opened ends so
    /// much later. Not so where windows are aligned: then the told second itself is the reset.
    fn guess(&self, due: Interval) -> Option<f64> {
        let epoch = self.epoch.filter(|_| self.grain >= 1.0 && !self.guessed_wrong)?;
        let longest = if self.ours {
            due.up - self.opened.lo
        } else {
            // Others opened it, some time before: only a length that is known from elsewhere says when it ends at the latest.
            self.length.filter(|_| !self.glimpsed)?.up
        };
        // If the told second is the reset itself, the window began no earlier than its usual length before.
        let whole = due.lo + self.grain - self.opened.up;
        let aligned = Self::ALIGNED.iter().any(|&length| whole <= length && epoch % length < 1e-3);
        let shortest = self.length.map_or(f64::NEG_INFINITY, |known| known.lo).max(due.lo - self.opened.up);
        let first = (shortest / self.grain).floor().mul_add(self.grain, self.grain);
        // Where two lengths fit, the longer if it alone is usual, else the one that fits less narrowly.
        let depth = |length: f64| (length - shortest).min(longest - length);
        let usual = |length: f64| Self::ALIGNED.iter().any(|other| (length - other).abs() < 1e-3);
        let second = first + self.grain;
        let longer = depth(second) > depth(first) || second < longest && usual(second) && !usual(first);
        let length = if longer { second } else { first };
        (!aligned && length < longest).then_some(self.opened.up + length)
    }

    /// A scout sent by the guess was refused.
    pub(in crate::pace) fn guessed_wrong(&mut self) {
        self.guessed_wrong = true;
    }

    /// When the window would end in whose place a sliding counter names the end of the next, where all is back: one length
    /// before the promise. The length is the one `named`, or the least usual one that fits twice; a longer one ends earlier.
    pub(in crate::pace) fn hidden_edge(&self, named: Option<f64>) -> Option<f64> {
        let due = self.due?;
        let (shortest, longest) = (due.lo - self.opened.up, due.up - self.opened.lo);
        let fits = |&length: &f64| length < longest && shortest <= 2.0 * length;
        let length = named.filter(fits).or_else(|| Self::ALIGNED.into_iter().find(fits))?;
        Some(due.up - length)
    }

    /// How much of the phase of the server's seconds is unknown: more answers at the right instants would tell.
    pub(in crate::pace) fn blur(&self) -> f64 {
        match (self.epoch, self.due) {
            (Some(_), _) => self.offset.range.width(),
            (None, Some(due)) if self.grain > 0.0 => due.width(),
            _ => 0.0,
        }
    }

    /// The first window seen may have been opened by the own first attempt: it would have a usual length. If it has not, it
    /// was under way already, as aligned windows are.
    pub(in crate::pace) fn began_with_us(&self) -> bool {
        let Some(due) = self.due else { return false };
        let seen = Interval::new(due.lo - self.opened.up, due.up - self.opened.lo);
        self.passed == 0
            && Self::ALIGNED
                .iter()
                .any(|&length| seen.lo - Self::NOISE <= length && length <= seen.up + Self::NOISE)
    }

    /// The next instant at which an attempt's answer would halve the blur.
    pub(in crate::pace) fn halving(&self, now: f64, trip: &Trip) -> Option<f64> {
        let due = self.due?;
        let arrival = now + trip.mean() / 2.0;
        if self.epoch.is_some() {
            // The server's second changes where its clock is a whole number.
            let clock = arrival + self.offset.range.mid();
            return Some(now + clock.ceil() - clock);
        }
        let left = (due.mid() - arrival) / self.grain;
        (self.grain > 0.0 && left > 0.0).then(|| now + (left - left.floor()) * self.grain)
    }
}
