//! The store's time.
//!
//! DynamoDB has no clock that a write could use, and this machine's wall clock may be wrong by an hour. But each answer has a
//! `Date` (<https://www.rfc-editor.org/rfc/rfc9110#name-date>), cut to whole seconds. An answer with the date D that was asked
//! for at *s* and arrived at *r*, by this process's monotonic clock, says that DynamoDB's clock showed at least D at *r* and less
//! than D + 1 s at *s*. Answers at different moments of the second narrow that to little more than a round trip.
//!
//! **Now is the lower end.** So no process is ever ahead of DynamoDB, and the time in the state, which is the latest that any of
//! them wrote, is a lower end too: who reads it takes it over. One process's good knowledge is the whole fleet's with the next
//! read, and a newcomer's first second of doubt lasts for one read. The time of the state never goes back: where a process is
//! behind it, no time has passed.
//!
//! What remains in doubt is told to the ledger as slack, by which it takes what was sent to be older.

use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::share::{At, Ms};
use tokio::time::Instant;

/// A monotonic clock gains or loses less: one part in so many. NTP slews by 500 ppm at most.
const DRIFT: u32 = 2_000;
/// What `Date` leaves out.
const SECOND: Ms = 1_000;

/// The store's time, as far as it is known.
#[derive(Debug)]
pub(crate) struct Clock {
    skew: Ms,
    bounds: Mutex<Option<Bounds>>,
    /// A time that a test makes.
    #[cfg(test)]
    made: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

/// DynamoDB's clock shows at least `low` and at most `high`.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: (Instant, At),
    high: (Instant, At),
}

/// What is known of an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// It is at least that.
    pub(crate) now: At,
    /// It may be so much more.
    pub(crate) doubt: Ms,
}

/// The state is ahead of DynamoDB's clock by more than can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead(pub(crate) Ms);

impl Clock {
    pub(crate) fn new(skew: Duration) -> Self {
        Self {
            skew: millis(skew),
            bounds: Mutex::new(None),
            #[cfg(test)]
            made: None,
        }
    }

    /// A clock that a test sets.
    #[cfg(test)]
    pub(crate) fn made(time: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { made: Some(time), ..Self::new(Duration::ZERO) }
    }

    /// An answer that was asked for at `sent` and arrived at `received` had this date.
    pub(crate) fn hear(&self, date: At, sent: Instant, received: Instant) {
        let heard = Bounds { low: (received, date), high: (sent, date + SECOND) };
        let mut bounds = self.bounds.lock();
        let next = match *bounds {
            None => heard,
            // Another server's clock, or one that was set, or this process's own stood still with its machine: what was believed
            // cannot be true.
            Some(old) if old.now(received) > heard.latest(received).saturating_add(self.skew) => heard,
            Some(old) if heard.now(received) > old.latest(received).saturating_add(self.skew) => heard,
            Some(old) => old.narrowed(heard, received),
        };
        *bounds = Some(next);
    }

    /// The time, where anything was heard of it, given what the state says that it was.
    pub(crate) fn read(&self, state: At, at: Instant) -> Option<Result<Reading, Ahead>> {
        #[cfg(test)]
        if let Some(time) = &self.made {
            let now = time.load(std::sync::atomic::Ordering::Relaxed).max(state);
            return Some(Ok(Reading { now, doubt: 0 }));
        }
        let mut bounds = self.bounds.lock();
        let known = bounds.as_mut()?;
        let latest = known.latest(at);
        if state > latest.saturating_add(self.skew) {
            return Some(Err(Ahead(state - latest)));
        }
        if state > known.now(at) {
            // What is ahead of DynamoDB's own clock is borne with, but not believed.
            known.low = (at, state.min(latest));
        }
        let now = known.now(at).max(state);
        Some(Ok(Reading { now, doubt: latest.saturating_sub(now) }))
    }
}

impl Bounds {
    fn now(&self, at: Instant) -> At {
        let (since, low) = self.low;
        let passed = at.saturating_duration_since(since);
        low.saturating_add(millis(passed.saturating_sub(passed / DRIFT)))
    }

    fn latest(&self, at: Instant) -> At {
        let (since, high) = self.high;
        let passed = at.saturating_duration_since(since);
        high.saturating_add(millis(passed + passed / DRIFT) + 1)
    }

    fn narrowed(self, other: Self, at: Instant) -> Self {
        Self {
            low: if other.now(at) > self.now(at) { other.low } else { self.low },
            high: if other.latest(at) < self.latest(at) { other.high } else { self.high },
        }
    }
}

/// Whole milliseconds, rounded down.
fn millis(duration: Duration) -> Ms {
    Ms::try_from(duration.as_millis()).unwrap_or(Ms::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: At = 1_700_000_000_000;
    const SKEW: Duration = Duration::from_secs(2);

    /// DynamoDB's clock shows `START + 400` when this process's shows zero.
    struct World {
        zero: Instant,
        clock: Clock,
    }

    fn world() -> World {
        World { zero: Instant::now(), clock: Clock::new(SKEW) }
    }

    impl World {
        fn at(&self, ms: u64) -> Instant {
            self.zero + Duration::from_millis(ms)
        }

        fn truth(ms: u64) -> At {
            START + 400 + ms
        }

        /// A request that is sent at `ms` and answered 10 ms later.
        fn ask(&self, ms: u64) {
            let date = Self::truth(ms + 5) / SECOND * SECOND;
            self.clock.hear(date, self.at(ms), self.at(ms + 10));
        }

        fn read(&self, state: At, ms: u64) -> Reading {
            self.clock.read(state, self.at(ms)).unwrap().unwrap()
        }
    }

    #[test]
    fn nothing_is_known_before_an_answer() {
        let world = world();
        assert_eq!(world.clock.read(0, world.at(0)), None);
    }

    #[test]
    fn the_truth_is_always_within_what_is_known_and_the_doubt_shrinks() {
        let world = world();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut doubts = Vec::new();
        let mut ms = 0;
        for _ in 0..500 {
            ms += rng.u64(1..3_000);
            world.ask(ms);
            let Reading { now, doubt } = world.read(0, ms + 10);
            let truth = World::truth(ms + 10);
            assert!(now <= truth && truth <= now + doubt, "{now} + {doubt}, truly {truth}");
            doubts.push(doubt);
        }
        assert!(doubts[0] > 900, "one answer leaves about a second: {}", doubts[0]);
        assert!(doubts[20..].iter().all(|&doubt| doubt < 300), "{doubts:?}");
    }

    #[test]
    fn what_the_state_knows_better_is_taken_over_and_time_never_goes_back() {
        let world = world();
        world.ask(0);
        let alone = world.read(0, 10);
        let truth = World::truth(10);
        assert!(alone.now + 300 < truth, "it does not know better");
        assert_eq!(world.read(truth, 10).now, truth);
        assert_eq!(world.read(0, 11).now, truth, "still, with another state: 1 ms is within the drift");
        assert_eq!(world.read(truth + 1_500, 12).now, truth + 1_500, "no time has passed for the state");
    }

    #[test]
    fn a_state_from_the_future_is_told_with_how_far() {
        let world = world();
        world.ask(0);
        let hour = 3_600_000;
        let Err(Ahead(by)) = world.clock.read(World::truth(10) + hour, world.at(10)).unwrap() else {
            panic!("an hour is more than the skew")
        };
        assert!(by.abs_diff(hour) < 1_100, "{by}");
        assert!(world.read(0, 10).now <= World::truth(10), "and nothing is learnt from it");
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let world = world();
        world.ask(0);
        world.clock.hear(START - 3_600_000, world.at(100), world.at(110));
        assert_eq!(world.read(0, 110).now, START - 3_600_000);
    }

    #[test]
    fn a_process_whose_machine_was_suspended_finds_back_with_the_next_answer() {
        let world = world();
        for step in 0..10 {
            world.ask(700 * step);
        }
        // Its monotonic clock stood still for an hour.
        let hour = 3_600_000;
        let truth = |ms| World::truth(ms) + hour;
        let others = truth(7_000);
        assert!(world.clock.read(others, world.at(7_000)).unwrap().is_err(), "nothing was heard yet");
        world.clock.hear(truth(7_005) / SECOND * SECOND, world.at(7_000), world.at(7_010));
        let Reading { now, doubt } = world.read(truth(7_009), 7_010);
        assert!(now <= truth(7_010) && truth(7_010) <= now + doubt, "{now} + {doubt}");
        assert_eq!(world.read(0, 7_010).now, now, "and it knows that by itself");
    }

    #[test]
    fn a_date_within_the_skew_narrows_and_replaces_nothing() {
        let world = world();
        for step in 0..10 {
            world.ask(700 * step);
        }
        let latest = World::truth(6_310) + 300;
        // One of its servers is ahead of the others by as much as is borne with.
        world.clock.hear((latest + 1_500) / SECOND * SECOND, world.at(7_000), world.at(7_010));
        assert!(world.read(0, 7_010).now <= World::truth(7_010) + 2_000);
    }
}
