//! What goes wrong: refusals without reason, answers that never come, answers that come although the work failed.
//!
//! # Why
//!
//! Whether a write may be sent again depends on what is known about the first attempt. Each fault here leaves the client with
//! different knowledge, and the judge knows the truth:
//!
//! | fault | quota drawn | executed | what the client sees |
//! | --- | --- | --- | --- |
//! | `throttle` | yes | no | 429, although quota is left |
//! | `unavailable` | yes | no | 503, with or without Retry-After |
//! | `drop-before` | yes | no | the connection closes |
//! | `drop-after` | yes | yes | the connection closes |
//! | `late` | yes | yes, but later | the connection closes |
//! | `timeout-after` | yes | yes | 504 |
//! | `internal-error` | yes | no | 500 |
//!
//! Probabilities draw one number per call from their own stream, so the n-th call meets the same fate in every run of a seed. A
//! `script` decides the next calls exactly and goes before the probabilities.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::push::faults::{HookFaults, PushFaults};
use crate::model::route::{Caller, RouteMatch};
use crate::text::Spread;

/// The fate of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing goes wrong.
    None,
    /// 429 although quota is left.
    Throttle,
    /// 503, not executed.
    Unavailable,
    /// The connection closes before the work is done.
    DropBefore,
    /// The connection closes after the work was done.
    DropAfter,
    /// The connection closes, and the work is done [`Faults::late_by`] later.
    Late,
    /// 504 after the work was done.
    TimeoutAfter,
    /// 500, not executed.
    InternalError,
}

impl Fault {
    /// The name used in configuration and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Throttle => "throttle",
            Self::Unavailable => "unavailable",
            Self::DropBefore => "drop-before",
            Self::DropAfter => "drop-after",
            Self::Late => "late",
            Self::TimeoutAfter => "timeout-after",
            Self::InternalError => "internal-error",
        }
    }
}

/// A stretch of time in which every matching call is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrownOut {
    /// Start, counted from when the faults were set (the start of the simulation, or the `POST /sim/faults`).
    #[serde(with = "crate::text::duration")]
    pub from: Duration,
    /// End, counted likewise.
    #[serde(with = "crate::text::duration")]
    pub to: Duration,
    /// 429 or 503.
    pub status: u16,
    /// Whether the refusals carry a Retry-After that names the end.
    pub hints: bool,
    /// Which calls are refused.
    #[serde(rename = "match")]
    pub route: RouteMatch,
}

impl Default for BrownOut {
    fn default() -> Self {
        Self { from: Duration::ZERO, to: Duration::ZERO, status: 503, hints: true, route: api() }
    }
}

/// Everything that goes wrong; the body of `POST /sim/faults`, where absent keys mean "nothing of this kind".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Which calls the probabilities and the script are about; the whole API (not the token endpoint) by default.
    #[serde(rename = "match")]
    pub route: RouteMatch,
    /// Probability of [`Fault::Unavailable`].
    pub unavailable: f64,
    /// Retry-After of those 503 answers, rounded up to seconds; absent if "none".
    #[serde(with = "crate::text::maybe_duration")]
    pub unavailable_hint: Option<Duration>,
    /// Probability of [`Fault::DropBefore`].
    pub drop_before: f64,
    /// Probability of [`Fault::DropAfter`].
    pub drop_after: f64,
    /// Probability of [`Fault::Late`].
    pub late: f64,
    /// How long after the connection has closed such a call is executed.
    pub late_by: Spread,
    /// Probability of [`Fault::TimeoutAfter`].
    pub timeout_after: f64,
    /// Probability of [`Fault::InternalError`].
    pub internal_error: f64,
    /// The fate of the next matching calls, in order; probabilities apply again when it is used up.
    pub script: Vec<Fault>,
    /// Stretches of time in which everything is refused.
    pub brown_outs: Vec<BrownOut>,
    /// Replaces the configured latency while set.
    pub latency: Option<Spread>,
    /// What goes wrong with notifications channels.
    pub push: PushFaults,
    /// What goes wrong with webhooks.
    pub hooks: HookFaults,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            route: api(),
            unavailable: 0.0,
            unavailable_hint: None,
            drop_before: 0.0,
            drop_after: 0.0,
            late: 0.0,
            late_by: LATE_BY,
            timeout_after: 0.0,
            internal_error: 0.0,
            script: Vec::new(),
            brown_outs: Vec::new(),
            latency: None,
            push: PushFaults::default(),
            hooks: HookFaults::default(),
        }
    }
}

/// What a slow server takes whose front has given up on it.
const LATE_BY: Spread = Spread { min: Duration::from_millis(500), max: Duration::from_secs(2) };

fn api() -> RouteMatch {
    "/api/**".parse().expect("a valid pattern")
}

impl Faults {
    fn probabilities(&self) -> [(Fault, &'static str, f64); 6] {
        [
            (Fault::Unavailable, "unavailable", self.unavailable),
            (Fault::DropBefore, "drop_before", self.drop_before),
            (Fault::DropAfter, "drop_after", self.drop_after),
            (Fault::Late, "late", self.late),
            (Fault::TimeoutAfter, "timeout_after", self.timeout_after),
            (Fault::InternalError, "internal_error", self.internal_error),
        ]
    }

    /// Everything that is out of bounds, one line each, keys prefixed with `prefix`.
    pub fn problems(&self, prefix: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut sum = 0.0;
        for (_, key, value) in self.probabilities() {
            sum += value;
            if !(0.0..=1.0).contains(&value) {
                problems.push(format!("{prefix}{key}: {value} is not a probability (0 to 1)"));
            }
        }
        if sum > 1.0 + 1e-9 {
            problems.push(format!("{prefix}the probabilities add up to {sum}, more than 1"));
        }
        problems.extend(self.push.problems(&format!("{prefix}push.")));
        problems.extend(self.hooks.problems(&format!("{prefix}hooks.")));
        for (index, brown_out) in self.brown_outs.iter().enumerate() {
            if brown_out.from >= brown_out.to {
                problems.push(format!("{prefix}brown_outs[{index}]: `to` must be later than `from`"));
            }
            if ![429, 503].contains(&brown_out.status) {
                problems.push(format!(
                    "{prefix}brown_outs[{index}].status: {} is not 429 or 503",
                    brown_out.status
                ));
            }
        }
        problems
    }
}

/// A refusal by a brown-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// 429 or 503.
    pub status: u16,
    /// What the Retry-After says, if there is one.
    pub hint: Option<Duration>,
}

/// The faults in force, with their state.
#[derive(Debug)]
pub struct FaultPlan {
    faults: Faults,
    script: VecDeque<Fault>,
    since: Duration,
    rng: fastrand::Rng,
}

impl FaultPlan {
    /// Faults that hold from the start.
    pub fn new(faults: Faults, rng: fastrand::Rng) -> Self {
        Self { script: faults.script.iter().copied().collect(), faults, since: Duration::ZERO, rng }
    }

    /// Replaces the faults; times in them count from `now`. The random stream goes on.
    pub fn replace(&mut self, now: Duration, faults: Faults) {
        self.script = faults.script.iter().copied().collect();
        self.faults = faults;
        self.since = now;
    }

    /// How much later a late call is executed.
    pub fn draw_late(&self, rng: &mut fastrand::Rng) -> Duration {
        self.faults.late_by.draw(rng)
    }

    /// The settings in force.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether a brown-out refuses this call.
    pub fn brown_out(&self, now: Duration, method: &str, path: &str) -> Option<Refused> {
        let now = now.saturating_sub(self.since);
        let current = self.faults.brown_outs.iter().find(|brown_out| {
            brown_out.from <= now && now < brown_out.to && brown_out.route.matches(method, path)
        })?;
        Some(Refused { status: current.status, hint: current.hints.then(|| current.to.saturating_sub(now)) })
    }

    /// Decides the fate of a call.
    pub fn pick(&mut self, caller: &Caller) -> Fault {
        let mut drawn = self.rng.f64();
        if !self.faults.route.matches(&caller.method, &caller.path) {
            return Fault::None;
        }
        if let Some(fault) = self.script.pop_front() {
            return fault;
        }
        for (fault, _, probability) in self.faults.probabilities() {
            if drawn < probability {
                return fault;
            }
            drawn -= probability;
        }
        Fault::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(faults: Faults) -> FaultPlan {
        FaultPlan::new(faults, fastrand::Rng::with_seed(3))
    }

    fn fates(faults: &Faults, calls: usize) -> Vec<Fault> {
        let mut plan = plan(faults.clone());
        let caller = Caller::new("t", "c", "GET", "/api/v2/users");
        (0..calls).map(|_| plan.pick(&caller)).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_fates() {
        let faults = Faults { drop_before: 0.3, timeout_after: 0.2, ..Faults::default() };
        let drawn = fates(&faults, 2000);
        assert_eq!(drawn, fates(&faults, 2000));
        let drops = drawn.iter().filter(|fault| **fault == Fault::DropBefore).count();
        assert!((500..700).contains(&drops), "{drops} of 2000 at 30 %");
    }

    #[test]
    fn a_script_goes_first_and_is_used_up() {
        let faults =
            Faults { script: vec![Fault::DropAfter, Fault::None, Fault::Unavailable], ..Faults::default() };
        assert_eq!(fates(&faults, 4), [Fault::DropAfter, Fault::None, Fault::Unavailable, Fault::None]);
    }

    #[test]
    fn the_token_endpoint_is_spared_by_default() {
        let mut plan = plan(Faults { drop_before: 1.0, ..Faults::default() });
        assert_eq!(plan.pick(&Caller::new("", "", "POST", "/oauth/token")), Fault::None);
    }

    #[test]
    fn a_brown_out_counts_from_when_it_was_set_and_hints_at_its_end() {
        let s = Duration::from_secs;
        let mut plan = plan(Faults::default());
        let brown_out = BrownOut { from: s(1), to: s(4), ..BrownOut::default() };
        plan.replace(s(10), Faults { brown_outs: vec![brown_out], ..Faults::default() });
        let at = |seconds| plan.brown_out(s(seconds), "GET", "/api/v2/users");
        assert_eq!(at(10), None);
        assert_eq!(at(12), Some(Refused { status: 503, hint: Some(s(2)) }));
        assert_eq!(at(14), None);
    }

    #[test]
    fn all_bounds_are_checked_at_once() {
        let faults = Faults {
            unavailable: 2.0,
            drop_before: -1.0,
            brown_outs: vec![BrownOut { status: 500, ..BrownOut::default() }],
            ..Faults::default()
        };
        assert_eq!(faults.problems("").len(), 4);
    }
}
