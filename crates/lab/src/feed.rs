//! When calls come to be: the same for every strategy and for the ideal.

use std::time::Duration;

use crate::fleet::Load;

/// The calls of one load of one instance that have not begun yet.
#[derive(Debug)]
pub(crate) struct Feed {
    from: Duration,
    to: Option<Duration>,
    left: Option<u64>,
    taken: u64,
    arrivals: Option<Arrivals>,
}

/// Calls that come by themselves.
#[derive(Debug)]
struct Arrivals {
    interval: f64,
    burst: u64,
    irregular: bool,
    /// The instant of the burst that is under way.
    at: Duration,
    rng: fastrand::Rng,
}

impl Feed {
    /// The calls of `load` at an instance that starts at `start` and has this rate of it.
    pub(crate) fn new(load: &Load, rate: Option<f64>, start: Duration, rng: fastrand::Rng) -> Self {
        let arrivals = rate.map(|rate| Arrivals {
            interval: f64::from(load.burst) / rate,
            burst: u64::from(load.burst),
            irregular: load.irregular,
            at: Duration::ZERO,
            rng,
        });
        Self {
            from: start + load.from,
            to: load.to.map(|to| start + to),
            left: load.requests,
            taken: 0,
            arrivals,
        }
    }

    /// When its closed loop begins.
    pub(crate) fn from(&self) -> Duration {
        self.from
    }

    /// Calls that will never be taken if nobody takes any more; 0 where there is no fixed number.
    pub(crate) fn left(&self) -> u64 {
        self.left.unwrap_or(0)
    }

    /// The number of the next call, from 0; `None` if there is no more.
    pub(crate) fn take(&mut self, now: Duration) -> Option<u64> {
        if self.left == Some(0) || self.to.is_some_and(|to| now >= to) {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        self.taken += 1;
        Some(self.taken - 1)
    }

    /// When the next call arrives by itself; ask once per call. `None` if no more does.
    pub(crate) fn next_arrival(&mut self) -> Option<Duration> {
        let arrivals = self.arrivals.as_mut()?;
        if self.left == Some(0) {
            return None;
        }
        if self.taken.is_multiple_of(arrivals.burst) {
            #[expect(clippy::cast_precision_loss, reason = "2^53 bursts are never reached")]
            let burst = (self.taken / arrivals.burst) as f64;
            let shift = if arrivals.irregular { arrivals.rng.f64() } else { 0.0 };
            arrivals.at = self.from + Duration::from_secs_f64(arrivals.interval * (burst + shift));
        }
        (self.to.is_none_or(|to| arrivals.at < to)).then_some(arrivals.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(load: &Load) -> Vec<Duration> {
        let mut feed = Feed::new(load, load.rate, Duration::from_secs(1), fastrand::Rng::with_seed(3));
        let mut times = Vec::new();
        while let Some(at) = feed.next_arrival() {
            times.push(at);
            assert!(feed.take(at).is_some());
        }
        times
    }

    #[test]
    fn bursts_come_at_one_instant_and_end_in_time() {
        let load = Load { rate: Some(2.0), burst: 10, to: Some(Duration::from_secs(10)), ..Load::default() };
        let times = arrivals(&load);
        assert_eq!(times.len(), 20);
        assert_eq!((times[9], times[10]), (Duration::from_secs(1), Duration::from_secs(6)));
    }

    #[test]
    fn irregular_calls_keep_their_number_and_order() {
        let load = Load { rate: Some(4.0), irregular: true, requests: Some(40), ..Load::default() };
        let times = arrivals(&load);
        assert_eq!(times.len(), 40);
        assert!(times.is_sorted());
        assert!(*times.last().unwrap() < Duration::from_secs(11));
    }

    #[test]
    fn a_closed_loop_takes_until_its_number_is_reached() {
        let load = Load { requests: Some(2), ..Load::default() };
        let mut feed = Feed::new(&load, None, Duration::ZERO, fastrand::Rng::with_seed(3));
        let taken: Vec<_> = (0..3).map(|_| feed.take(Duration::ZERO)).collect();
        assert_eq!(taken, [Some(0), Some(1), None]);
        assert_eq!(feed.next_arrival(), None);
    }
}
