//! The quota models against naive oracles that keep every call and count by definition.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use proptest::prelude::*;
use tidegate_sim::model::quota::{QuotaModel, QuotaRule, Rule};

/// Calls as (pause before the call in ms, cost).
fn calls() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((prop_oneof![4 => 0_u64..40, 1 => 0_u64..3000], 1_u32..4), 1..200)
}

fn rule(rule: Rule, limit: u32, window: u64, phase: u64, burst: Option<u32>) -> QuotaRule {
    let ms = Duration::from_millis;
    QuotaRule { rule, limit, window: ms(window), phase: ms(phase), burst }
}

/// Runs the calls; returns (time in ms, cost, admitted, remaining).
fn run(rule: QuotaRule, calls: &[(u64, u32)]) -> Vec<(u64, u32, bool, u32)> {
    let mut quota = QuotaModel::new(rule);
    let mut now = 0;
    calls
        .iter()
        .map(|(pause, cost)| {
            now += pause;
            let answer = quota.admit(Duration::from_millis(now), *cost);
            (now, *cost, answer.ok, answer.remaining)
        })
        .collect()
}

/// What the admitted calls before the n-th for which `counts` holds have drawn.
fn drawn(log: &[(u64, u32, bool, u32)], counts: impl Fn(u64) -> bool) -> u32 {
    log.iter().filter(|(at, _, ok, _)| *ok && counts(*at)).map(|(_, cost, ..)| cost).sum()
}

proptest! {
    #[test]
    fn a_sliding_log_admits_exactly_what_a_recount_of_the_last_window_allows(
        calls in calls(), limit in 1_u32..20, window in 1_u64..2000,
    ) {
        let log = run(rule(Rule::SlidingLog, limit, window, 0, None), &calls);
        for (index, (now, cost, ok, remaining)) in log.iter().copied().enumerate() {
            let used = drawn(&log[..index], |at| at + window > now);
            prop_assert_eq!(ok, used + cost <= limit, "call {} at {} ms", index, now);
            prop_assert_eq!(remaining, limit - used - if ok { cost } else { 0 });
        }
    }

    #[test]
    fn aligned_windows_admit_exactly_what_a_recount_of_the_window_allows(
        calls in calls(), limit in 1_u32..20, window in 1_u64..2000, phase in 0_u64..5000,
    ) {
        let log = run(rule(Rule::FixedAligned, limit, window, phase, None), &calls);
        // Shifting by many whole windows keeps the division away from negative numbers.
        let window_of = |at: u64| (at + window * 10_000 - phase) / window;
        for (index, (now, cost, ok, _)) in log.iter().copied().enumerate() {
            let used = drawn(&log[..index], |at| window_of(at) == window_of(now));
            prop_assert_eq!(ok, used + cost <= limit, "call {} at {} ms", index, now);
        }
    }

    #[test]
    fn windows_opened_by_the_first_request_never_admit_more_than_the_limit(
        calls in calls(), limit in 1_u32..20, window in 1_u64..2000,
    ) {
        let log = run(rule(Rule::Fixed, limit, window, 0, None), &calls);
        let mut opened: Option<u64> = None;
        let mut used = 0;
        for (now, cost, ok, _) in log {
            if opened.is_some_and(|at| now >= at + window) {
                opened = None;
                used = 0;
            }
            prop_assert_eq!(ok, used + cost <= limit);
            if ok {
                opened.get_or_insert(now);
                used += cost;
            }
        }
    }

    #[test]
    fn a_token_bucket_keeps_its_bound_over_every_stretch_of_time(
        calls in calls(), limit in 1_u32..20, window in 1_u64..2000, burst in 3_u32..30,
    ) {
        let log = run(rule(Rule::TokenBucket, limit, window, 0, Some(burst)), &calls);
        for (start, (from, ..)) in log.iter().enumerate() {
            let mut used = 0_u64;
            for (at, cost, ok, _) in &log[start..] {
                used += if *ok { u64::from(*cost) } else { 0 };
                // used <= burst + limit * elapsed / window, without rounding.
                prop_assert!(used * window <= u64::from(burst) * window + u64::from(limit) * (at - from));
            }
        }
    }

    #[test]
    fn a_sliding_counter_follows_its_formula(
        calls in calls(), limit in 1_u32..20, window in 1_u64..2000, phase in 0_u64..5000,
    ) {
        let log = run(rule(Rule::SlidingCounter, limit, window, phase, None), &calls);
        let shifted = |at: u64| at + window * 10_000 - phase;
        for (index, (now, cost, ok, _)) in log.iter().copied().enumerate() {
            let current = shifted(now) / window;
            let in_window = |wanted: u64| u64::from(drawn(&log[..index], |at| shifted(at) / window == wanted));
            let left = window - shifted(now) % window;
            let weighted = in_window(current - 1) * left + in_window(current) * window;
            prop_assert_eq!(ok, weighted + u64::from(cost) * window <= u64::from(limit) * window);
        }
    }

    /// The promise that makes Retry-After usable, for every rule: exact to the nanosecond if nobody else draws.
    #[test]
    fn a_refused_call_is_admitted_at_retry_after_and_not_before(
        calls in calls(), limit in 3_u32..20, window in 2_u64..2000, phase in 0_u64..5000,
        kind in prop::sample::select(vec![
            Rule::Fixed, Rule::FixedAligned, Rule::SlidingLog, Rule::SlidingCounter, Rule::TokenBucket,
        ]),
    ) {
        let mut quota = QuotaModel::new(rule(kind, limit, window, phase, None));
        let mut now = Duration::ZERO;
        for (pause, cost) in calls {
            now += Duration::from_millis(pause);
            let answer = quota.admit(now, cost);
            if answer.ok {
                prop_assert_eq!(answer.retry_after, Duration::ZERO);
                continue;
            }
            prop_assert!(answer.retry_after > Duration::ZERO);
            let before = (now + answer.retry_after).saturating_sub(Duration::from_nanos(1));
            prop_assert!(!quota.clone().peek(before, cost).ok, "{:?} too early", kind);
            prop_assert!(quota.clone().peek(now + answer.retry_after, cost).ok, "{:?} too late", kind);
        }
    }

    #[test]
    fn after_the_full_reset_everything_is_back(
        calls in calls(), limit in 3_u32..20, window in 2_u64..2000, phase in 0_u64..5000,
        kind in prop::sample::select(vec![
            Rule::Fixed, Rule::FixedAligned, Rule::SlidingLog, Rule::SlidingCounter, Rule::TokenBucket,
        ]),
    ) {
        let mut quota = QuotaModel::new(rule(kind, limit, window, phase, None));
        let mut now = Duration::ZERO;
        for (pause, cost) in calls {
            now += Duration::from_millis(pause);
            let answer = quota.admit(now, cost);
            prop_assert!(answer.next_after <= answer.reset_after);
            let full = quota.clone().peek(now + answer.reset_after, 0);
            prop_assert_eq!((full.remaining, full.reset_after), (limit, Duration::ZERO));
            if answer.remaining < limit {
                let more = quota.clone().peek(now + answer.next_after, 0).remaining;
                prop_assert!(more > answer.remaining, "{:?}: nothing is back at next_after", kind);
            }
        }
    }
}
