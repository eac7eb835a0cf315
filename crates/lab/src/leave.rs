//! What the ideal leaves to others, so that a class is judged by its own policy and not by that of a greedier one.
//!
//! * **Reserve**: nothing is taken that would leave fewer units than these, of what the server says is left; of a limit that has no more
//!   than the reserve, the last unit.
//! * **Fair**: strangers together are due what they ask for, up to an equal share: half of every limit. Their calls are those of the
//!   run that is judged, admitted or not; which of them are due is found by playing them, alone, against a server of half the
//!   limits. The ideal knows them beforehand and takes no unit that one of them would miss. What strangers ask beyond their
//!   share they get where a unit is left.
//!
//! This is the policy as a promise, not as the core keeps it: the core has to guess, and what it guesses wrong shows. Other
//! strategies know no policy and are compared with a greedy ideal.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::pace::Taking;
use tidegate_sim::SimConfig;
use tidegate_sim::model::limits::{Described, LimitRule, Limits};
use tidegate_sim::model::quota::Rule;
use tidegate_sim::model::route::Caller;

use crate::plan::Plan;
use crate::strategy::StrategyName;
use crate::tape::{Tape, Visit};

/// Whoever leaves a unit looks again when the next one comes back, but not sooner than after this part of the window: the ideal of a
/// fair class may be later by as much, each time that it waits.
const LOOKS: u32 = 1000;

/// What one load leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Leave {
    /// Units of every limit that it never takes.
    pub(crate) reserve: u64,
    /// Whether it leaves strangers their share.
    pub(crate) fair: bool,
}

impl Plan<'_> {
    /// What each load of a strategy leaves.
    pub(crate) fn leaves(&self, strategy: StrategyName) -> Vec<Leave> {
        let policies = self.fleet().class.policies();
        let of_load = |class: tidegate_core::pace::Class| match strategy {
            StrategyName::Tidegate | StrategyName::NoCalendar => {
                let policy = policies[class.index()];
                Leave { reserve: policy.reserve, fair: policy.taking == Taking::Fair }
            }
            _ => Leave::default(),
        };
        self.fleet().load.iter().map(|load| of_load(load.class)).collect()
    }
}

/// The strangers' calls that are within their share, in the order of the tape.
pub(crate) fn fair_share(server: &SimConfig, tape: &Tape) -> Vec<Visit> {
    let half = |mut rule: LimitRule| {
        rule.quota.limit = (rule.quota.limit / 2).max(1);
        rule.quota.burst = rule.quota.burst.map(|burst| (burst / 2).max(1));
        rule
    };
    let mut limits = Limits::new(server.limit_rules().into_iter().map(half).collect(), None);
    let within = |visit: &&Visit| limits.admit(visit.at, &tape.callers[visit.caller]).refusal.is_none();
    tape.visits.iter().filter(within).copied().collect()
}

impl Leave {
    /// How long `caller` has to look away at `now`; `None`: it may take what there is. `due` are the strangers' calls that are still to come.
    pub(crate) fn must_wait<'a>(
        self,
        now: Duration,
        limits: &mut Limits,
        caller: &Caller,
        due: &VecDeque<Visit>,
        who: impl Fn(&Visit) -> &'a Caller,
    ) -> Option<Duration> {
        if self.reserve == 0 && (!self.fair || due.is_empty()) {
            return None;
        }
        let told = limits.describe(now, caller);
        // As for a gate: never more than half of a quota.
        let reserve = |told: &Described| self.reserve.min(u64::from(told.state.limit) / 2);
        let scarce = |told: &Described| u64::from(told.state.remaining) <= reserve(told);
        let kept = self.reserve > 0 && told.iter().any(scarce);
        let robs = || {
            let longest = limits.rules().iter().map(memory).max().unwrap_or_default();
            let refused = |mut limits: Limits| {
                let soon = due.iter().take_while(|visit| visit.at < now + longest);
                soon.filter(|visit| limits.admit(visit.at.max(now), who(visit)).refusal.is_some()).count()
            };
            let mut after = limits.clone();
            after.admit(now, caller).refusal.is_none() && {
                let robbed = refused(after);
                robbed > 0 && robbed > refused(limits.clone())
            }
        };
        let look = |told: &Described| told.state.next_after.max(told.window / LOOKS);
        let next = || told.iter().map(look).min().unwrap_or(Duration::from_millis(1));
        (kept || self.fair && !due.is_empty() && robs()).then(next)
    }
}

/// How long a unit that is taken can be missed by others.
fn memory(rule: &LimitRule) -> Duration {
    rule.quota.window * if rule.quota.rule == Rule::SlidingCounter { 2 } else { 1 }
}
