//! A throttle closes the gate for everybody.
//!
//! One caller's 429 is everybody's: while the server refuses, every further attempt is wasted and some servers extend
//! the punishment. The gate closes until the hint has passed, plus a little chance so that several processes do not
//! return together, never less than the hint. Then one scout goes, and only its acceptance opens the gate.
//! Answers to attempts that left before the closing belong to the same burst: they may lengthen it, they are no news.

use std::time::Duration;

use crate::time::Mono;

/// Whether, and until when, a gate is closed by a throttle.
#[derive(Debug, Default)]
pub(super) struct Closing {
    began: Mono,
    until: Mono,
    /// Throttled scouts in a row.
    strikes: u32,
    /// Nothing was accepted since the closing.
    scouting: bool,
}

impl Closing {
    /// Waiting without any hint starts here and doubles.
    const FIRST_WAIT: Duration = Duration::from_secs(1);
    const LONGEST_WAIT: Duration = Duration::from_mins(1);

    /// Closes for `hint` (or a growing guess) plus `jitter`. True if this throttle is news, not part of a known burst.
    pub(super) fn close(&mut self, now: Mono, sent: Mono, hint: Option<Duration>, jitter: Duration) -> bool {
        let news = !self.scouting || sent >= self.began;
        if news {
            self.strikes = self.strikes.saturating_add(1);
            self.began = now;
        }
        // A scout that kept to the hint and was refused all the same proves the hint too short: then the growing guess
        // counts beside it, or a server that punishes early calls would never open again.
        let wait = match hint {
            Some(hint) if self.strikes <= 1 => hint,
            hint => self.guess().max(hint.unwrap_or_default()),
        };
        if news || hint.is_some() {
            self.until = self.until.max(now + wait + jitter);
        }
        self.scouting = true;
        news
    }

    fn guess(&self) -> Duration {
        let doublings = self.strikes.saturating_sub(1).min(6);
        (Self::FIRST_WAIT * 2_u32.pow(doublings)).min(Self::LONGEST_WAIT)
    }

    /// An attempt that left at `sent` was accepted. True if that opened the gate.
    pub(super) fn accepted(&mut self, now: Mono, sent: Mono) -> bool {
        if !self.scouting || sent < self.began || now < self.until {
            return false;
        }
        self.scouting = false;
        self.strikes = 0;
        true
    }

    /// The end of the closing, if it lies ahead.
    pub(super) fn closed_until(&self, now: Mono) -> Option<Mono> {
        (now < self.until).then_some(self.until)
    }

    /// When the present closing began.
    pub(super) fn began(&self) -> Mono {
        self.began
    }

    /// Whether only one attempt at a time may go.
    pub(super) fn scouting(&self) -> bool {
        self.scouting
    }

    /// Throttled scouts in a row.
    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Closed as it was kept: until `opens`, and then for all but a scout.
    pub(super) fn restore(now: Mono, opens: Mono, strikes: u32) -> Self {
        Self { began: now, until: opens, strikes, scouting: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn scouts_refused_after_the_hint_wait_longer_and_longer() {
        let mut closing = Closing::default();
        let hint = Some(Duration::from_secs(1));
        let mut waits = Vec::new();
        let mut now = at(0);
        for _ in 0..5 {
            closing.close(now, now, hint, Duration::ZERO);
            let until = closing.closed_until(now).unwrap();
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_burst_of_throttles_is_one_closing() {
        let mut closing = Closing::default();
        assert!(closing.close(at(100), at(50), Some(Duration::from_secs(2)), Duration::ZERO));
        for late in 101..140 {
            assert!(!closing.close(at(late), at(60), Some(Duration::from_secs(2)), Duration::ZERO));
        }
        assert_eq!(closing.closed_until(at(150)), Some(at(2139)), "the latest hint of the burst holds");
        assert_eq!(closing.closed_until(at(2139)), None);
    }

    #[test]
    fn only_an_attempt_sent_after_the_closing_opens_it() {
        let mut closing = Closing::default();
        closing.close(at(100), at(50), Some(Duration::from_secs(1)), Duration::ZERO);
        assert!(!closing.accepted(at(110), at(60)), "it overtook the throttle");
        assert!(closing.scouting());
        assert!(closing.accepted(at(1120), at(1100)));
        assert!(!closing.scouting());
    }

    #[test]
    fn without_a_hint_the_wait_doubles() {
        let mut closing = Closing::default();
        closing.close(at(0), at(0), None, Duration::ZERO);
        assert_eq!(closing.closed_until(at(0)), Some(at(1000)));
        closing.close(at(1100), at(1000), None, Duration::ZERO);
        assert_eq!(closing.closed_until(at(1100)), Some(at(3100)));
    }
}
