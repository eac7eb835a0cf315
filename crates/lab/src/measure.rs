//! From what happened to numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tidegate_core::pace::Class;
use tidegate_core::time::Mono;
use tidegate_sim::Stats;

use crate::call::End;
use crate::ideal::Ideal;
use crate::leave::fair_share;
use crate::plan::Plan;
use crate::sharing::{Record, Sharing};
use crate::strategy::StrategyName;
use crate::tape::Tape;

/// The numbers of one strategy in one scenario. Times in seconds of virtual time.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Measures {
    /// The strategy's name.
    pub strategy: &'static str,
    /// With jobs: `ideal_makespan` over the time it took; above 1 it says that the job was served at the cost of other loads.
    /// Without: good answers over those of the ideal. The ideal leaves the strangers what they took in this very run.
    pub efficiency: f64,
    /// From the jobs' first call to their last answer; absent if they did not end or there are none.
    pub makespan: Option<f64>,
    /// When the jobs' first call was due; absent without jobs.
    pub jobs_began: Option<f64>,
    /// The shortest time in which as many of the jobs' calls could have ended well as did; absent without jobs. A call that is
    /// given up takes no time from the quota, so whoever loses calls is compared with an ideal that has fewer to make.
    pub ideal_makespan: Option<f64>,
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended well.
    pub succeeded: u64,
    /// Calls that ended badly: refused for good, given up, or with an unknown outcome.
    pub failed: u64,
    /// The part of `failed` of which nobody knows whether they were executed.
    pub unknown: u64,
    /// Calls that had not ended, or not begun, when the run did.
    pub unfinished: u64,
    /// Calls with a deadline and no good answer by then.
    pub late: u64,
    /// Attempts sent.
    pub attempts: u64,
    /// Answers "too fast".
    pub throttles: u64,
    /// `throttles` per 100 calls that ended well.
    pub throttles_per_100: f64,
    /// How often the server went from admitting our calls to refusing them.
    pub closings: u64,
    /// The same numbers without the time of learning; absent unless the scenario says how long that is.
    pub settled: Option<Settled>,
    /// Strangers' calls that were admitted.
    pub strangers: u64,
    /// Strangers' calls that were throttled.
    pub strangers_throttled: u64,
    /// `strangers_throttled` per 100 of their admitted calls.
    pub strangers_throttles_per_100: f64,
    /// The part of what strangers were due that they got, at most 1; absent if they were due nothing. Due is what they ask for, up to half
    /// of every limit, whether or not anybody meant to leave it to them.
    pub strangers_served: Option<f64>,
    /// The most attempts in progress at the server at once.
    pub max_in_flight: u64,
    /// From the end of the last brown-out to the next admitted call; absent without one.
    pub recovery: Option<f64>,
    /// Attempts decided from the end of the last brown-out to the first admitted one: 1 if that was the first probe.
    pub recovery_probes: Option<u64>,
    /// The pause before that probe over the pause before the probe before it; absent if there were fewer than three refusals.
    pub recovery_growth: Option<f64>,
    /// Warnings that Retry-After and reset disagree.
    pub hint_mismatches: u64,
    /// What came of sharing the quota; absent without a store.
    pub sharing: Option<Sharing>,
    /// From the beginning of a call to the departure of its last attempt, by class.
    pub waits: BTreeMap<&'static str, Waits>,
    /// When the run ended.
    pub ended_at: f64,
    /// Hash of every decision and every ending, in order: equal traces are equal runs.
    pub trace: String,
}

/// What was reached when learning was over.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Settled {
    /// Good answers since then, over those of the ideal since then.
    pub efficiency: f64,
    /// Answers "too fast" since then, per 100 good ones since then.
    pub throttles_per_100: f64,
}

/// Waits of one class, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Waits {
    /// Calls.
    pub calls: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// A running hash of what happened (FNV-1a over words).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace(u64);

impl Trace {
    pub(crate) fn note(&mut self, words: [u64; 3]) {
        for word in words {
            self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
    }
}

/// What remains of a call that has ended.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) class: Class,
    pub(crate) serial: u64,
    pub(crate) wait: Duration,
    pub(crate) sent: bool,
    pub(crate) deadline: Option<Mono>,
}

/// Everything that is written down during a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: StrategyName,
    pub(crate) tape: Tape,
    pub(crate) trace: Trace,
    pub(crate) calls: u64,
    pub(crate) attempts: u64,
    pub(crate) late: u64,
    pub(crate) unfinished: u64,
    pub(crate) job_left: u64,
    pub(crate) hint_mismatches: u64,
    pub(crate) ended_at: Duration,
    /// Of each instance that shares its quotas.
    pub(crate) records: Vec<Record>,
    succeeded: u64,
    settled_good: u64,
    settle: Option<Duration>,
    failed: u64,
    unknown: u64,
    job_good: u64,
    job_end: Duration,
    recovered: Option<Duration>,
    waits: [Vec<Duration>; 4],
    throttles: u64,
    strangers: u64,
    strangers_throttled: u64,
    max_in_flight: u64,
}

impl Outcome {
    /// Nothing has happened yet; learning is over at `settle`, if that is to be told.
    pub(crate) fn new(name: StrategyName, tape: Tape, settle: Option<Duration>) -> Self {
        Self {
            name,
            tape,
            trace: Trace(0xCBF2_9CE4_8422_2325),
            calls: 0,
            attempts: 0,
            late: 0,
            unfinished: 0,
            job_left: 0,
            hint_mismatches: 0,
            ended_at: Duration::ZERO,
            records: Vec::new(),
            succeeded: 0,
            settled_good: 0,
            settle,
            failed: 0,
            unknown: 0,
            job_good: 0,
            job_end: Duration::ZERO,
            recovered: None,
            waits: Default::default(),
            throttles: 0,
            strangers: 0,
            strangers_throttled: 0,
            max_in_flight: 0,
        }
    }

    /// A call of ours was admitted; `recovers` is when the last brown-out ends.
    pub(crate) fn admitted(&mut self, now: Duration, recovers: Option<Duration>) {
        if self.recovered.is_none() && recovers.is_some_and(|end| now >= end) {
            self.recovered = Some(now);
        }
    }

    /// A call has ended.
    pub(crate) fn ended(&mut self, now: Duration, call: &Summary, end: End, is_job: bool) {
        let good = end == End::Good;
        self.succeeded += u64::from(good);
        self.settled_good += u64::from(good && self.settle.is_some_and(|since| now >= since));
        self.failed += u64::from(!good);
        self.unknown += u64::from(end == End::Unknown);
        self.late += u64::from(call.deadline.is_some_and(|deadline| !good || deadline < Mono::ZERO + now));
        if is_job {
            self.job_good += u64::from(good);
            self.job_end = now;
        }
        if call.sent {
            self.waits[call.class as usize].push(call.wait);
        }
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.trace.note([nanos, call.serial, 1_000 + end as u64]);
    }

    /// Takes over what only the server knows.
    pub(crate) fn judge(&mut self, stats: &Stats) {
        self.throttles = stats.throttled;
        self.strangers = stats.strangers;
        self.strangers_throttled = stats.strangers_throttled;
        self.max_in_flight = stats.max_in_flight;
    }

    /// The most calls in progress at the server at once.
    pub(crate) fn max_in_flight(&self) -> u64 {
        self.max_in_flight
    }

    /// The time the jobs took, if all their calls ended.
    fn makespan(&self, plan: &Plan<'_>) -> Option<Duration> {
        let begin = plan.jobs_begin()?;
        (self.job_left == 0).then(|| self.job_end.saturating_sub(begin))
    }

    /// See [`Measures::ideal_makespan`]. More than the ideal reached before the run's end is chance of latencies, at the very
    /// edge; then its last answer counts.
    fn ideal_makespan(&self, ideal: &Ideal) -> Option<Duration> {
        let good = usize::try_from(self.job_good).unwrap_or(usize::MAX);
        good.checked_sub(1).and_then(|last| ideal.job_times.get(last).or(ideal.job_times.last())).copied()
    }

    /// Share of what was possible; see [`Measures::efficiency`].
    fn efficiency(&self, plan: &Plan<'_>, ideal: &Ideal) -> f64 {
        let Some(begin) = plan.jobs_begin() else {
            return share(self.succeeded, ideal.succeeded);
        };
        let took = self.makespan(plan).unwrap_or_else(|| self.ended_at.saturating_sub(begin));
        let best = self.ideal_makespan(ideal).unwrap_or_default();
        if took.is_zero() { 1.0 } else { best.as_secs_f64() / took.as_secs_f64() }
    }

    fn settled(&self, ideal: &Ideal) -> Option<Settled> {
        let since = self.settle?;
        Some(Settled {
            efficiency: share(self.settled_good, ideal.settled),
            throttles_per_100: 100.0 * share(self.tape.throttles_since(since), self.settled_good),
        })
    }

    fn strangers_served(&self, plan: &Plan<'_>) -> Option<f64> {
        let due = fair_share(&plan.server, &self.tape).len() as u64;
        (due > 0).then(|| share(self.strangers, due).min(1.0))
    }

    /// The numbers.
    pub(crate) fn measures(&self, plan: &Plan<'_>, ideal: &Ideal) -> Measures {
        let brown_out_end = crate::outage::outages(&plan.server).iter().map(|outage| outage.to).max();
        let recovered = self.recovered.zip(brown_out_end);
        let probe = brown_out_end.and_then(|end| self.tape.recovery(end));
        let waits = Class::ALL.into_iter().zip(&self.waits).filter(|(_, waits)| !waits.is_empty());
        Measures {
            strategy: self.name.name(),
            efficiency: self.efficiency(plan, ideal),
            makespan: self.makespan(plan).map(|time| time.as_secs_f64()),
            jobs_began: plan.jobs_begin().map(|begin| begin.as_secs_f64()),
            ideal_makespan: self.ideal_makespan(ideal).map(|time| time.as_secs_f64()),
            calls: self.calls,
            succeeded: self.succeeded,
            failed: self.failed,
            unknown: self.unknown,
            unfinished: self.unfinished,
            late: self.late,
            attempts: self.attempts,
            throttles: self.throttles,
            throttles_per_100: 100.0 * share(self.throttles, self.succeeded),
            closings: self.tape.closings(),
            settled: self.settled(ideal),
            strangers: self.strangers,
            strangers_throttled: self.strangers_throttled,
            strangers_throttles_per_100: 100.0 * share(self.strangers_throttled, self.strangers),
            strangers_served: self.strangers_served(plan),
            max_in_flight: self.max_in_flight,
            recovery_probes: probe.map(|probe| probe.attempts),
            recovery_growth: probe.and_then(|probe| probe.growth),
            recovery: recovered.map(|(first, end)| first.saturating_sub(end).as_secs_f64()),
            hint_mismatches: self.hint_mismatches,
            sharing: Sharing::of(plan, &self.records, self.succeeded),
            waits: waits.map(|(class, waits)| (class.name(), quantiles(waits))).collect(),
            ended_at: self.ended_at.as_secs_f64(),
            trace: format!("{:016x}", self.trace.0),
        }
    }
}

/// `part` of `whole`, where nothing of nothing is nothing, and something of nothing counts as of one.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn quantiles(waits: &[Duration]) -> Waits {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    // The smallest value that at least this share of all values does not exceed.
    let at = |hundredths: usize| {
        let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
        sorted[rank - 1].as_secs_f64()
    };
    Waits { calls: sorted.len() as u64, p50: at(50), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let waits: Vec<Duration> = (1..=200).rev().map(Duration::from_secs).collect();
        let found = quantiles(&waits);
        assert_eq!((found.p50, found.p99, found.max), (100.0, 198.0, 200.0));
        assert!((quantiles(&waits[..1]).p99 - 200.0).abs() < f64::EPSILON);
    }
}
