//! Waits and budgets keep to their formulas: bounds by property, distributions by the Kolmogorov-Smirnov distance.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;
use tidegate_core::backoff::{Backoff, HINT_FLOOR, Kind, Step, hinted};
use tidegate_core::budget::{Budget, BudgetRules, Cost};
use tidegate_core::time::Mono;

const BASE: f64 = 0.5;
const CAP: f64 = 60.0;
const SAMPLES: u32 = 20_000;

/// The largest distance between the samples' distribution and `cdf`.
fn distance(mut samples: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let n = f64::from(SAMPLES);
    let mut worst: f64 = 0.0;
    for (rank, sample) in (0_u32..).zip(samples) {
        let expected = cdf(sample);
        worst = worst.max((f64::from(rank) / n - expected).abs());
        worst = worst.max((f64::from(rank + 1) / n - expected).abs());
    }
    worst
}

/// The distribution function of a number uniform in `[low, high]`.
fn uniform(low: f64, high: f64) -> impl Fn(f64) -> f64 {
    move |x| ((x - low) / (high - low)).clamp(0.0, 1.0)
}

fn samples(kind: Kind, step: Step) -> Vec<f64> {
    let backoff =
        Backoff::try_new(kind, Duration::from_secs_f64(BASE), Duration::from_secs_f64(CAP)).unwrap();
    let mut rng = Rng::with_seed(20_240_607);
    (0..SAMPLES).map(|_| backoff.delay(step, &mut rng).as_secs_f64()).collect()
}

#[test]
fn waits_are_distributed_as_their_formulas_say() {
    // At 1 % significance the distance of a true sample stays below 1.63 / sqrt(n).
    let critical = 1.63 / f64::from(SAMPLES).sqrt();
    for attempt in 0..6_u32 {
        let step = Step { attempt, ..Step::default() };
        let t = BASE * 2_f64.powi(attempt.try_into().unwrap());
        let cases = [(Kind::Full, 0.0, t), (Kind::Equal, t / 2.0, t), (Kind::Guide, t, t + BASE)];
        for (kind, low, high) in cases {
            let distance = distance(samples(kind, step), uniform(low, high));
            assert!(distance < critical, "{kind:?} at {attempt}: {distance}");
        }
        let previous = Duration::from_secs(u64::from(attempt) + 1);
        let step = Step { attempt, previous, ..Step::default() };
        let high = 3.0 * previous.as_secs_f64();
        let distance = distance(samples(Kind::Decorrelated, step), uniform(BASE, high));
        assert!(distance < critical, "decorrelated after {previous:?}: {distance}");
    }
}

#[test]
fn the_first_decorrelated_wait_is_drawn_between_base_and_three_bases() {
    let distance = distance(samples(Kind::Decorrelated, Step::default()), uniform(BASE, 3.0 * BASE));
    assert!(distance < 1.63 / f64::from(SAMPLES).sqrt());
}

#[test]
fn the_cap_cuts_the_sum_of_wait_and_jitter() {
    // 0.5 s · 2⁷ = 64 s: above the cap whatever the jitter. Decorrelated: U(0.5, 90) cut at 60.
    assert!(samples(Kind::Guide, Step { attempt: 7, ..Step::default() }).iter().all(|w| *w == CAP));
    let step = Step { attempt: 7, previous: Duration::from_secs(30), ..Step::default() };
    let capped = samples(Kind::Decorrelated, step).iter().filter(|w| **w == CAP).count();
    let share = f64::from(u32::try_from(capped).unwrap()) / f64::from(SAMPLES);
    assert!((share - 30.0 / 89.5).abs() < 0.02, "{share}");
}

#[test]
fn those_who_got_the_same_hint_come_back_spread() {
    let hint = Duration::from_secs(10);
    let waits: Vec<f64> = (0..u64::from(SAMPLES))
        .map(|seed| hinted(hint, Duration::from_secs(2), &mut Rng::with_seed(seed)).as_secs_f64())
        .collect();
    let distance = distance(waits, uniform(10.0, 12.0));
    assert!(distance < 1.63 / f64::from(SAMPLES).sqrt(), "{distance}");
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::Full,
        Kind::Equal,
        Kind::Decorrelated,
        Kind::Guide,
        Kind::GenesysOfficial,
    ])
}

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Success,
    Take(Cost),
}

proptest! {
    #[test]
    fn waits_stay_between_their_floor_and_the_cap(
        kind in kind(),
        base_ms in 1_u64..100_000,
        more_ms in 0_u64..10_000_000,
        attempt in prop_oneof![0_u32..70, any::<u32>()],
        previous_ms in any::<u32>(),
        seed in any::<u64>(),
    ) {
        let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(base_ms + more_ms));
        let backoff = Backoff::try_new(kind, base, cap).unwrap();
        let step = Step { attempt, previous: Duration::from_millis(previous_ms.into()), elapsed: Duration::ZERO };
        let wait = backoff.delay(step, &mut Rng::with_seed(seed));
        prop_assert!(wait <= cap);
        let doubled = u128::from(base_ms) << attempt.min(60);
        let doubled = Duration::from_millis(u64::try_from(doubled).unwrap_or(u64::MAX)).min(cap);
        let floor = match kind {
            Kind::Full => Duration::ZERO,
            Kind::Equal => doubled / 2,
            Kind::Decorrelated => base,
            Kind::Guide => doubled,
            Kind::GenesysOfficial => Duration::from_secs(3).min(cap),
        };
        prop_assert!(wait >= floor, "{wait:?} < {floor:?}");
        prop_assert_eq!(backoff.delay(step, &mut Rng::with_seed(seed)), wait, "same seed, same wait");
    }

    #[test]
    fn a_hint_is_a_lower_bound(hint_ms in any::<u64>(), spread_ms in any::<u64>(), seed in any::<u64>()) {
        let (hint, spread) = (Duration::from_millis(hint_ms), Duration::from_millis(spread_ms));
        let wait = hinted(hint, spread, &mut Rng::with_seed(seed));
        prop_assert!(wait >= hint && wait >= HINT_FLOOR);
        prop_assert!(wait <= hint.max(HINT_FLOOR) + spread);
    }

    #[test]
    fn a_budget_never_grants_more_than_it_earned_nor_refuses_what_it_has(
        ops in prop::collection::vec(prop_oneof![
            (0_u64..4_000_000_000).prop_map(Op::Pass),
            Just(Op::Success),
            Just(Op::Take(Cost::Light)),
            Just(Op::Take(Cost::Heavy)),
        ], 0..300),
        capacity in 10_u32..60,
        per_second in 0_u32..4,
    ) {
        // The oracle counts in billionths of a token and never rounds.
        const TOKEN: u64 = 1_000_000_000;
        let rules = BudgetRules { capacity, per_second, ..BudgetRules::default() };
        let full = u64::from(capacity) * TOKEN;
        let (mut level, mut now) = (full, Mono::ZERO);
        let mut budget = Budget::new(rules, now);
        for op in ops {
            match op {
                Op::Pass(nanos) => {
                    now += Duration::from_nanos(nanos);
                    level = (level + nanos * u64::from(per_second)).min(full);
                }
                Op::Success => {
                    budget.success(now, None);
                    level = (level + TOKEN).min(full);
                }
                Op::Take(cost) => {
                    let price = if cost == Cost::Light { 5 } else { 10 } * TOKEN;
                    let in_time = budget.affordable_in(now, cost);
                    let granted = budget.try_take(now, cost);
                    prop_assert_eq!(granted, in_time == Some(Duration::ZERO));
                    // The machine counts whole milliseconds: it may lag by one.
                    let lag = u64::from(per_second) * 1_000_000;
                    prop_assert!(!granted || level >= price, "granted what was not there");
                    prop_assert!(granted || level < price + lag, "refused what was there");
                    if granted {
                        level -= price;
                    } else if let Some(wait) = in_time {
                        prop_assert!(budget.clone().try_take(now + wait, cost), "affordable when it said");
                    }
                }
            }
        }
    }
}
