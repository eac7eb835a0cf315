//! How long to wait where nothing better is known.
//!
//! A server that says when to come back is always obeyed; this module is for the failures that carry no hint, and
//! for the spread that is added to hints so that all who got the same one do not return together.
//!
//! Rules:
//!
//! * every wait is drawn from a generator the caller seeds, so that virtual worlds repeat bit for bit;
//! * nothing overflows: attempt 4 000 000 000 waits the cap;
//! * a hint is a lower bound. Jitter is only ever added to it ([`hinted`]); subtracting it sends early, which is
//!   the second most common bug of retry libraries;
//! * a hint of zero still waits [`HINT_FLOOR`], else a server that always says "0" is hammered.

use std::time::Duration;

use fastrand::Rng;

/// The shortest wait a hint can order: servers that answer `Retry-After: 0` mean "soon", not "in a loop".
pub const HINT_FLOOR: Duration = Duration::from_millis(100);

/// The longest cap that makes sense: a day. Longer waits belong in a schedule, not in a retry loop.
const LONGEST_CAP: Duration = Duration::from_hours(24);

/// The families of backoff. `n` counts from 0 for the wait behind the first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `U(0, min(cap, base·2ⁿ))`. The least load in total; single waits may be near zero
    /// (AWS architecture blog, "Exponential Backoff and Jitter").
    Full,
    /// `t/2 + U(0, t/2)` with `t = min(cap, base·2ⁿ)`: half of the wait is certain.
    Equal,
    /// `min(cap, U(base, 3·previous))`: grows by chance, forgets the attempt number.
    Decorrelated,
    /// `min(cap, base·2ⁿ + U(0, base))`: the additive jitter of the Genesys resilience guide.
    Guide,
    /// The tiers that Genesys' SDKs document: 3 s in the first five minutes of a call, 9 s in the next five, 27 s
    /// after. Without jitter, exactly as documented; the cap applies, the base does not.
    GenesysOfficial,
}

impl Kind {
    /// Every kind with its name in profiles.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("full", Self::Full),
        ("equal", Self::Equal),
        ("decorrelated", Self::Decorrelated),
        ("guide", Self::Guide),
        ("genesys-official", Self::GenesysOfficial),
    ];
}

/// A backoff whose numbers make sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    kind: Kind,
    base: Duration,
    cap: Duration,
}

/// Why a [`Backoff`] cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackoffProblem {
    /// A base of zero would retry in a loop.
    #[error("a backoff base of zero would retry in a loop (give at least 1ms)")]
    NoBase,
    /// The cap is below the base.
    #[error("the base of {base:?} is above the cap of {cap:?} (lower the base)")]
    CapBelowBase {
        /// The base given.
        base: Duration,
        /// The cap given.
        cap: Duration,
    },
    /// The cap is longer than a day.
    #[error("a backoff cap of {cap:?} is longer than 24h (lower it, and schedule such calls instead)")]
    CapTooLong {
        /// The cap given.
        cap: Duration,
    },
}

/// Where in its life a call stands when it needs a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How many waits of this kind the call has had before: 0 behind the first attempt.
    pub attempt: u32,
    /// The wait before this one; zero if there was none.
    pub previous: Duration,
    /// The time since the call began.
    pub elapsed: Duration,
}

impl Backoff {
    /// A backoff of `kind` from `base` up to `cap`, or every reason why there is none.
    pub fn try_new(kind: Kind, base: Duration, cap: Duration) -> Result<Self, Vec<BackoffProblem>> {
        let problems: Vec<_> = [
            base.is_zero().then_some(BackoffProblem::NoBase),
            (cap < base).then_some(BackoffProblem::CapBelowBase { base, cap }),
            (cap > LONGEST_CAP).then_some(BackoffProblem::CapTooLong { cap }),
        ]
        .into_iter()
        .flatten()
        .collect();
        if problems.is_empty() { Ok(Self { kind, base, cap }) } else { Err(problems) }
    }

    /// The tiers of Genesys' SDKs, 3 s to 27 s.
    pub const fn official() -> Self {
        Self { kind: Kind::GenesysOfficial, base: Duration::from_secs(3), cap: Duration::from_secs(27) }
    }

    /// The kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The wait in its first, smallest form.
    pub const fn base(&self) -> Duration {
        self.base
    }

    /// The longest wait this ever gives.
    pub const fn cap(&self) -> Duration {
        self.cap
    }

    /// The wait at `step`, drawn from `rng`. Never longer than the cap.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::backoff::{Backoff, Kind, Step};
    ///
    /// let backoff = Backoff::try_new(Kind::Guide, Duration::from_secs(1), Duration::from_secs(60)).unwrap();
    /// let mut rng = fastrand::Rng::with_seed(7);
    /// let third = backoff.delay(Step { attempt: 2, ..Step::default() }, &mut rng);
    /// assert!((4..=5).contains(&third.as_secs()));
    /// ```
    pub fn delay(&self, step: Step, rng: &mut Rng) -> Duration {
        let base = nanos(self.base);
        let cap = nanos(self.cap);
        let doubled = doubled(base, step.attempt);
        let wait = match self.kind {
            Kind::Full => rng.u64(0..=doubled.min(cap)),
            Kind::Equal => {
                let whole = doubled.min(cap);
                whole - rng.u64(0..=whole / 2)
            }
            Kind::Decorrelated => {
                // Nobody waited yet: the first draw is from [base, 3·base].
                let before = nanos(step.previous).clamp(base, cap);
                rng.u64(base..=before.saturating_mul(3)).min(cap)
            }
            Kind::Guide => doubled.saturating_add(rng.u64(0..=base)).min(cap),
            Kind::GenesysOfficial => nanos(tier(step.elapsed)).min(cap),
        };
        Duration::from_nanos(wait)
    }
}

impl Default for Backoff {
    /// Full jitter, 500 ms up to 60 s: the least load in total.
    fn default() -> Self {
        Self { kind: Kind::Full, base: Duration::from_millis(500), cap: Duration::from_mins(1) }
    }
}

/// The wait a server ordered by `hint`: the hint (at least [`HINT_FLOOR`]) and up to `spread` more, never less.
pub fn hinted(hint: Duration, spread: Duration, rng: &mut Rng) -> Duration {
    hint.max(HINT_FLOOR).saturating_add(Duration::from_nanos(rng.u64(0..=nanos(spread))))
}

/// `base·2ⁿ`, at most `u64::MAX`.
fn doubled(base: u64, n: u32) -> u64 {
    1_u64.checked_shl(n).map_or(u64::MAX, |factor| base.saturating_mul(factor))
}

/// Source: the comment in class `Retry` of the Java SDK's `ApiClient`.
fn tier(elapsed: Duration) -> Duration {
    const TIER: Duration = Duration::from_mins(5);
    if elapsed < TIER {
        Duration::from_secs(3)
    } else if elapsed < 2 * TIER {
        Duration::from_secs(9)
    } else {
        Duration::from_secs(27)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = Backoff::try_new(Kind::Full, Duration::ZERO, Duration::from_hours(25)).unwrap_err();
        assert_eq!(problems, [BackoffProblem::NoBase, BackoffProblem::CapTooLong { cap: 25 * 3600 * S }]);
        let problems = Backoff::try_new(Kind::Full, 2 * S, S).unwrap_err();
        assert_eq!(problems, [BackoffProblem::CapBelowBase { base: 2 * S, cap: S }]);
        assert!(Backoff::try_new(Kind::Full, S, S).is_ok());
    }

    #[test]
    fn late_attempts_wait_the_cap_and_never_overflow() {
        let mut rng = Rng::with_seed(1);
        for attempt in [63, 64, 65, 1_000, 1_024, 1_025, u32::MAX - 1, u32::MAX] {
            let step = Step { attempt, previous: Duration::MAX, elapsed: Duration::MAX };
            let guide = Backoff::try_new(Kind::Guide, S, 60 * S).unwrap();
            assert_eq!(guide.delay(step, &mut rng), 60 * S);
            for kind in [Kind::Full, Kind::Equal, Kind::Decorrelated, Kind::GenesysOfficial] {
                let backoff = Backoff::try_new(kind, LONGEST_CAP, LONGEST_CAP).unwrap();
                assert!(backoff.delay(step, &mut rng) <= LONGEST_CAP, "{kind:?}");
            }
        }
    }

    #[test]
    fn official_tiers_follow_the_time_since_the_call_began() {
        let backoff = Backoff::try_new(Kind::GenesysOfficial, S, 60 * S).unwrap();
        let mut rng = Rng::with_seed(1);
        let cases = [(0, 3), (299, 3), (300, 9), (599, 9), (600, 27), (86_400, 27)];
        for (elapsed, wait) in cases {
            let step = Step { attempt: 3, elapsed: elapsed * S, ..Step::default() };
            assert_eq!(backoff.delay(step, &mut rng), wait * S, "at {elapsed} s");
        }
    }

    #[test]
    fn a_hint_of_zero_gets_a_floor() {
        let mut rng = Rng::with_seed(1);
        assert_eq!(hinted(Duration::ZERO, Duration::ZERO, &mut rng), HINT_FLOOR);
        assert_eq!(hinted(S, Duration::ZERO, &mut rng), S);
        assert_eq!(hinted(Duration::MAX, Duration::MAX, &mut rng), Duration::MAX);
    }
}
