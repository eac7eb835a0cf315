//! How long it takes to ask for an answer, from what it took lately.
//!
//! One slow call says little: it may have met the start of a day, or a machine that was busy. Were it believed, every renewal would leave
//! too early for a while, and each such renewal is a call too many. So of the last three the middle one is believed: it takes two slow calls
//! to make renewals earlier, and two fast ones to forget them. A renewal that is late for once costs its readers a wait and breaks no promise.

use std::time::Duration;

/// What the last calls took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trip {
    /// The newest first.
    last: [Option<Duration>; 3],
}

impl Trip {
    /// The first call took so long.
    pub(super) fn first(took: Duration) -> Self {
        Self { last: [Some(took), None, None] }
    }

    /// One more call took so long.
    pub(super) fn and(self, took: Duration) -> Self {
        let [newest, older, _] = self.last;
        Self { last: [Some(took), newest, older] }
    }

    /// How long the next one may take: the middle of three, the faster of two.
    pub(super) fn expected(self) -> Duration {
        let mut known: Vec<Duration> = self.last.into_iter().flatten().collect();
        known.sort_unstable();
        known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(millis: &[u64]) -> u64 {
        let mut took = millis.iter().map(|millis| Duration::from_millis(*millis));
        let first = Trip::first(took.next().unwrap());
        u64::try_from(took.fold(first, Trip::and).expected().as_millis()).unwrap()
    }

    #[test]
    fn one_slow_call_is_not_believed_and_two_are() {
        assert_eq!(expected(&[20]), 20);
        assert_eq!(expected(&[1000, 20]), 20, "a slow start is forgotten with the next call");
        assert_eq!(expected(&[20, 20, 1000]), 20);
        assert_eq!(expected(&[20, 1000, 1000]), 1000);
        assert_eq!(expected(&[1000, 1000, 20, 20]), 20);
    }
}
