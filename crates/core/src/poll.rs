//! When a job of the upstream is looked at next.
//!
//! A job takes seconds or hours and every look costs quota. Looking at a fixed pace is wrong at both ends: each second is a
//! hundred times too often for a job of two hours, each minute makes a job of two seconds take a minute. So the wait grows
//! with the job's age: at [`PollPlan::growth`] 0.6 a job is noticed at most 60 % later than it ended, whatever it takes,
//! and a cap bounds that in the end. Age is counted from the submission, so that a restart neither begins anew nor forgets.
//!
//! * Where the job tells how far it is, the rest is estimated from that, and the next look is at nine tenths of it.
//! * A wait that the upstream asks for is a lower bound.
//! * Some jitter keeps jobs that were submitted together apart.

use std::time::Duration;

use fastrand::Rng;

/// How jobs are polled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollPlan {
    /// How long a job commonly takes; the first look is at half of it.
    pub expected: Duration,
    /// The shortest wait.
    pub floor: Duration,
    /// The longest wait, except for one that the upstream asks for.
    pub cap: Duration,
    /// A wait is this share of the job's age.
    pub growth: f64,
}

impl Default for PollPlan {
    fn default() -> Self {
        Self {
            expected: Duration::ZERO,
            floor: Duration::from_secs(1),
            cap: Duration::from_mins(1),
            growth: 0.6,
        }
    }
}

/// What is known of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// The time since it was accepted.
    pub age: Duration,
    /// How far it says it is, from 0 to 1.
    pub progress: Option<f64>,
    /// The wait that the upstream asked for.
    pub hint: Option<Duration>,
}

/// How much of the estimated rest is waited for.
const REST: f64 = 0.9;

/// Waits differ by this share in both directions.
const JITTER: f64 = 0.1;

impl PollPlan {
    /// The wait until the next look.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::poll::{PollPlan, Sight};
    ///
    /// let sight = Sight { age: Duration::from_secs(100), progress: Some(0.8), hint: None };
    /// let wait = PollPlan::default().next(&sight, &mut fastrand::Rng::with_seed(1));
    /// assert!((20..=25).contains(&wait.as_secs()), "a quarter of the time so far, less a tenth");
    /// ```
    pub fn next(&self, sight: &Sight, rng: &mut Rng) -> Duration {
        let age = sight.age.as_secs_f64();
        let known = sight.progress.filter(|done| *done > 0.0 && *done <= 1.0);
        let wait = match known {
            Some(done) => REST * age * (1.0 - done) / done,
            None => (self.growth * age).max(self.expected.as_secs_f64() / 2.0 - age),
        };
        let wait = wait.clamp(self.floor.as_secs_f64(), self.cap.max(self.floor).as_secs_f64());
        let jittered = wait * (1.0 - JITTER + 2.0 * JITTER * rng.f64());
        let wait = Duration::from_secs_f64(jittered).max(self.floor);
        sight.hint.map_or(wait, |hint| hint.max(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Looks at a job of that length until it has ended: how many looks, and how late the last one is.
    fn follow(plan: PollPlan, length: Duration, tells: bool, seed: u64) -> (u32, Duration) {
        let mut rng = Rng::with_seed(seed);
        let (mut age, mut looks) = (Duration::ZERO, 0);
        loop {
            let progress = tells.then(|| age.as_secs_f64() / length.as_secs_f64());
            age += plan.next(&Sight { age, progress, hint: None }, &mut rng);
            looks += 1;
            if age >= length {
                return (looks, age.saturating_sub(length));
            }
        }
    }

    #[test]
    fn a_job_of_two_hours_costs_at_most_150_looks_and_is_noticed_within_a_minute() {
        for seed in 0..50 {
            let (looks, late) = follow(PollPlan::default(), 7200 * S, false, seed);
            assert!(looks <= 150 && late <= 66 * S, "{looks} looks, {late:?} late");
        }
    }

    #[test]
    fn a_short_job_is_noticed_soon() {
        for seed in 0..50 {
            for length in [1, 2, 5, 20, 60] {
                let (looks, late) = follow(PollPlan::default(), length * S, false, seed);
                let bound = S + length * S * 2 / 3;
                assert!(late <= bound && looks <= 12, "{length} s: {looks} looks, {late:?} late");
            }
        }
    }

    #[test]
    fn a_job_that_tells_how_far_it_is_costs_less() {
        for seed in 0..50 {
            let (silent, _) = follow(PollPlan::default(), 7200 * S, false, seed);
            let (telling, late) =
                follow(PollPlan { cap: 3600 * S, ..PollPlan::default() }, 7200 * S, true, seed);
            assert!(telling * 5 < silent && late < 10 * S, "{telling} of {silent} looks, {late:?} late");
        }
    }

    #[test]
    fn the_first_look_is_at_half_of_what_is_expected() {
        let plan = PollPlan { expected: 60 * S, ..PollPlan::default() };
        for seed in 0..50 {
            let first = plan.next(&Sight::default(), &mut Rng::with_seed(seed));
            assert!((27 * S..=33 * S).contains(&first), "{first:?}");
        }
    }

    #[test]
    fn a_wait_is_never_shorter_than_its_hint_and_never_below_the_floor() {
        let mut rng = Rng::with_seed(7);
        for age in [0, 1, 10, 1000] {
            let hinted = Sight { age: age * S, progress: None, hint: Some(300 * S) };
            assert_eq!(PollPlan::default().next(&hinted, &mut rng), 300 * S);
            for progress in [-1.0, 0.0, 0.999, 1.0, 2.0, f64::NAN] {
                let sight = Sight { age: age * S, progress: Some(progress), hint: None };
                let wait = PollPlan::default().next(&sight, &mut rng);
                assert!((S..=66 * S).contains(&wait), "{age} s, {progress}: {wait:?}");
            }
        }
    }
}
