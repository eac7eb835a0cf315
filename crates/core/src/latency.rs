//! How long the upstream takes to answer, of late.
//!
//! A caller that gives up after a fixed time must be refused early enough: a call is only worth sending if its
//! answer can be back before the caller is gone. [`Recent`] keeps the last answers of one family and tells a high
//! quantile of them, so that the time left for waiting is `max_wait` less what the upstream will take.

use std::time::Duration;

/// Answers remembered. Enough for a p95 that is not the maximum, few enough to follow a change within seconds.
const KEPT: usize = 64;

/// The durations of the latest answers of one family.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::latency::Recent;
///
/// let mut recent = Recent::default();
/// assert_eq!(recent.p95(), None, "nothing is known before the first answer");
/// for millis in 1..=100 {
///     recent.record(Duration::from_millis(millis));
/// }
/// assert_eq!(recent.p95(), Some(Duration::from_millis(97)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recent {
    millis: Vec<u32>,
    next: usize,
    /// The same, ascending: the quantile is asked for under locks that every call needs, so asking costs nothing.
    sorted: Vec<u32>,
}

impl Recent {
    /// Remembers one answer.
    pub fn record(&mut self, took: Duration) {
        let millis = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        if self.millis.len() < KEPT {
            self.millis.push(millis);
        } else {
            let oldest = std::mem::replace(&mut self.millis[self.next], millis);
            let place = self.sorted.partition_point(|&other| other < oldest);
            self.sorted.remove(place);
        }
        self.next = (self.next + 1) % KEPT;
        let place = self.sorted.partition_point(|&other| other < millis);
        self.sorted.insert(place, millis);
    }

    /// The 95th percentile (nearest rank) of the answers remembered, in whole milliseconds.
    pub fn p95(&self) -> Option<Duration> {
        let rank = (self.sorted.len() * 95).div_ceil(100).checked_sub(1)?;
        Some(Duration::from_millis(u64::from(self.sorted[rank])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_answers_are_forgotten() {
        let mut recent = Recent::default();
        for _ in 0..KEPT {
            recent.record(Duration::from_secs(9));
        }
        for _ in 0..KEPT {
            recent.record(Duration::from_millis(20));
        }
        assert_eq!(recent.p95(), Some(Duration::from_millis(20)));
    }

    #[test]
    fn the_quantile_is_that_of_the_latest_answers_in_any_order() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut recent = Recent::default();
        let mut all: Vec<u64> = Vec::new();
        for _ in 0..1_000 {
            all.push(rng.u64(0..50));
            recent.record(Duration::from_millis(all[all.len() - 1]));
            let mut latest = all[all.len().saturating_sub(KEPT)..].to_vec();
            latest.sort_unstable();
            // Nearest rank: the least value that at least 95 of 100 do not exceed.
            let p95 = latest.iter().find(|&&value| {
                latest.iter().filter(|&&other| other <= value).count() * 100 >= latest.len() * 95
            });
            assert_eq!(recent.p95(), p95.map(|&millis| Duration::from_millis(millis)));
        }
    }

    #[test]
    fn one_answer_is_its_own_quantile() {
        let mut recent = Recent::default();
        recent.record(Duration::from_millis(70));
        assert_eq!(recent.p95(), Some(Duration::from_millis(70)));
    }
}
