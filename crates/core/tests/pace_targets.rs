//! The targets of pacing, in virtual time against independent servers: 40 callers in a closed loop, 1500 requests, 300
//! per 5 s, round trips of 20 ms.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;
mod pace_world;

use std::time::Duration;

use pace_world::{Cell, Form, Rule, Who, World};
use tidegate_core::glob::PathGlob;
use tidegate_core::pace::{BankConfig, Class, LimitSpec, Partition};

const PHASES: [f64; 4] = [0.0, 0.2, 0.5, 0.8];
const WINDOWS: [Rule; 2] = [Rule::Fixed, Rule::Aligned];
const LOGS: [Rule; 2] = [Rule::LogOldest, Rule::LogNewest];
const CONTINUOUS: [Rule; 3] = [Rule::Counter, Rule::BucketFull, Rule::BucketNext];
const FORMS: [Form; 3] = [Form::Exact, Form::Whole, Form::Epoch];

/// Efficiency and throttles of one world.
fn run(world: &World) -> (f64, usize, String) {
    let outcome = world.play(BankConfig::default());
    let ideal = world.ideal(&outcome.stranger_times);
    (ideal / outcome.makespan, outcome.throttled, format!("{:?}", outcome.states))
}

/// Throttles per 100 of the requests.
fn per_100(throttled: usize) -> f64 {
    count(throttled) / 15.0
}

/// Every violation of a target at once.
fn expect(rules: &[Rule], forms: &[Form], who: Who, efficiency: f64, most: f64) {
    let mut violations = Vec::new();
    for &rule in rules {
        for &form in forms {
            for (seed, phase) in (0..).zip(PHASES) {
                let mut world = World::new(rule, form, phase, seed);
                world.who = who;
                let (reached, refused, states) = run(&world);
                if reached < efficiency || per_100(refused) > most {
                    violations.push(format!(
                        "{rule:?} {form:?} {phase}: {reached:.3}, {refused} throttles, {states}"
                    ));
                }
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// What is asked for: the least efficiency, and the most throttles per 100 accepted.
type Goal = (f64, f64);

/// Beside strangers, and of what they leave.
const BESIDE: Goal = (0.95, 0.3);
/// A quota that is declared to the gate and that the server never speaks of.
const DECLARED: Goal = (0.95, 0.5);
/// A cap on attempts at once: the share of it in use, and throttles.
const CAPPED: Goal = (0.9, 1.0);

/// Goals that are missed, each with what is held instead and why. What stands here is a debt and no target: a mend tightens it
/// or takes it away.
struct Miss {
    of: &'static str,
    goal: Goal,
    held: Goal,
    why: &'static str,
}

const MISSES: [Miss; 11] = [
    Miss {
        of: "log in epoch seconds, alone, near",
        goal: (0.97, 0.0),
        held: (0.96, 0.0),
        why: "a whole second hides how long the log is",
    },
    Miss {
        of: "log in epoch seconds, alone, far",
        goal: (5.0 / 5.25, 0.0),
        held: (0.93, 0.0),
        why: "the same, and a round trip of 200 ms on top of it",
    },
    Miss {
        of: "log in whole seconds, alone, every phase",
        goal: (0.97, 0.0),
        held: (0.92, 0.0),
        why: "a whole second hides when an entry comes back, in some phases nearly all of it",
    },
    Miss {
        of: "declared aligned",
        goal: DECLARED,
        held: (0.77, 0.0),
        why: "the ideal takes two windows around an edge that nobody tells; of five windows one is lost",
    },
    Miss {
        of: "declared counter",
        goal: DECLARED,
        held: (0.8, 7.34),
        why: "a counter shows itself by refusing the second burst, of which at 200 ms all that is in flight is refused",
    },
    Miss {
        of: "cap",
        goal: CAPPED,
        held: (0.82, 1.0),
        why: "a share of what is in flight is on the way, and nobody knows how much: one refusal in a hundred allows .86",
    },
    Miss {
        of: "counter beside strangers, 60 s",
        goal: BESIDE,
        held: (0.94, 0.3),
        why: "a counter whose first window has a usual length by chance passes for a window once",
    },
    Miss {
        of: "continuous refill beside strangers, far",
        goal: BESIDE,
        held: (0.9, 0.3),
        why: "the margin for what strangers take in a round trip of 200 ms is never spent",
    },
    Miss {
        of: "every form beside strangers, windows",
        goal: BESIDE,
        held: (0.95, 1.0),
        why: "the goal is about medians of phases; this is held by every single phase",
    },
    Miss {
        of: "every form beside strangers, continuous",
        goal: BESIDE,
        held: (0.93, 1.34),
        why: "the goal is about medians of phases; this is held by every single phase",
    },
    Miss {
        of: "every form beside strangers, logs",
        goal: BESIDE,
        held: (0.92, 0.67),
        why: "as above, and whole seconds hide when an entry comes back",
    },
];

/// What is held where `goal` is asked for and missed.
fn held(of: &str, goal: Goal) -> Goal {
    let miss = MISSES.iter().find(|miss| miss.of == of).unwrap();
    assert_eq!(miss.goal, goal, "{of}");
    assert!(miss.held.0 < goal.0 || miss.held.1 > goal.1, "{of} is met: {}", miss.why);
    miss.held
}

/// The forms that differ most; the bench plays all of them.
const APART: [Form; 2] = [Form::Exact, Form::Epoch];
/// Windows and round trips in seconds.
const NEAR: [(f64, f64); 2] = [(5.0, 0.02), (60.0, 0.02)];
const FAR: [(f64, f64); 2] = [(5.0, 0.2), (60.0, 0.2)];
/// The first scout may meet one throttle where a first window has a usual length by chance, or a reset names one permit.
const HARDLY_ANY: f64 = 0.05;

/// The least median efficiency that is asked for alone.
fn reachable((window, trip): (f64, f64)) -> f64 {
    0.97_f64.min(window / (window + 1.25 * trip))
}

/// Every cell that misses, at once: the median efficiency of five phases, and the throttles per 100 over all of them.
fn cells(
    rules: &[Rule],
    forms: &[Form],
    who: Who,
    at: &[(f64, f64)],
    least: impl Fn((f64, f64)) -> f64,
    most: f64,
) {
    let mut missed = Vec::new();
    for &rule in rules {
        for &form in forms {
            for &place in at {
                let cell = Cell::play(rule, form, who, place);
                if cell.median < least(place) || cell.throttles > most {
                    missed.push(format!("{rule:?} {form:?} {place:?}: {cell:?}"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn alone_every_rule_is_ridden_at_full_speed_near_and_far() {
    for at in [NEAR, FAR] {
        cells(&WINDOWS, &APART, Who::Nobody, &at, reachable, 0.0);
        cells(&LOGS, &[Form::Exact, Form::Whole], Who::Nobody, &at, reachable, 0.0);
        cells(&[Rule::LogNewest], &[Form::Epoch], Who::Nobody, &at, reachable, 0.0);
        cells(&CONTINUOUS, &APART, Who::Nobody, &at, reachable, HARDLY_ANY);
    }
    let (least, most) = held("log in epoch seconds, alone, near", (0.97, 0.0));
    cells(&[Rule::LogOldest], &[Form::Epoch], Who::Nobody, &NEAR, |_| least, most);
    let (least, most) = held("log in epoch seconds, alone, far", (reachable(FAR[0]), 0.0));
    cells(&[Rule::LogOldest], &[Form::Epoch], Who::Nobody, &FAR, |_| least, most);
}

#[test]
fn strangers_cost_windows_hardly_a_throttle_however_far_the_server() {
    for at in [NEAR, FAR] {
        cells(&WINDOWS, &APART, Who::Steady(0.4), &at, |_| 0.95, 0.15);
    }
    cells(&WINDOWS, &APART, Who::From(0.4, 10.0), &FAR, |_| 0.95, 0.3);
    cells(&WINDOWS, &APART, Who::Bursts(0.2), &NEAR, |_| 0.95, 0.3);
}

#[test]
fn strangers_cost_a_continuous_refill_hardly_a_throttle() {
    cells(&CONTINUOUS, &APART, Who::Steady(0.4), &NEAR[..1], |_| 0.95, 0.3);
    let (least, most) = held("counter beside strangers, 60 s", BESIDE);
    cells(&CONTINUOUS, &APART, Who::Steady(0.4), &NEAR[1..], |_| least, most);
    let (least, most) = held("continuous refill beside strangers, far", BESIDE);
    cells(&CONTINUOUS, &APART, Who::Steady(0.4), &FAR, |_| least, most);
    cells(&CONTINUOUS, &APART, Who::From(0.4, 10.0), &NEAR, |_| 0.95, 0.3);
}

#[test]
fn a_counter_that_names_its_second_next_edge_is_found_out_beside_strangers() {
    let mut missed = Vec::new();
    for (seed, phase) in (1..).zip([0.2, 0.4, 0.6, 0.8]) {
        let mut world = World::new(Rule::CounterFull, Form::Exact, phase, seed);
        world.who = Who::Steady(0.4);
        let (reached, throttled, states) = run(&world);
        // Passing for a window it gives .53.
        if reached < 0.9 || throttled > 5 {
            missed.push(format!("{phase}: {reached:.3}, {throttled} throttles, {states}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn strangers_cost_a_log_hardly_a_throttle_and_far_away_some_speed() {
    cells(&LOGS, &[Form::Exact, Form::Whole], Who::Steady(0.4), &NEAR, |_| 0.95, 0.3);
    cells(&LOGS, &[Form::Exact, Form::Whole], Who::From(0.4, 10.0), &NEAR, |_| 0.95, 0.3);
    cells(&LOGS, &[Form::Exact, Form::Whole], Who::Bursts(0.2), &NEAR, |_| 0.95, 0.3);
    cells(&LOGS, &[Form::Exact, Form::Whole], Who::Steady(0.4), &FAR[1..], |_| 0.95, 0.3);
}

#[test]
fn alone_in_windows_the_quota_is_reached_without_a_throttle() {
    expect(&WINDOWS, &FORMS, Who::Nobody, 1.0 / 1.05, 0.0);
}

#[test]
fn alone_under_continuous_refill_the_quota_is_reached_without_a_throttle() {
    expect(&CONTINUOUS, &FORMS, Who::Nobody, 0.97, 0.0);
}

#[test]
fn alone_under_a_sliding_log_exact_headers_reach_the_quota_without_a_throttle() {
    expect(&LOGS, &[Form::Exact], Who::Nobody, 0.97, 0.0);
}

#[test]
fn alone_under_a_sliding_log_coarse_headers_cost_time_but_no_throttle() {
    let (least, most) = held("log in whole seconds, alone, every phase", (0.97, 0.0));
    expect(&LOGS, &[Form::Whole, Form::Epoch], Who::Nobody, least, most);
}

#[test]
fn urgent_callers_reach_the_quota_of_windows_too() {
    for form in FORMS {
        for (seed, phase) in (0..).zip(PHASES) {
            let mut world = World::new(Rule::Fixed, form, phase, seed);
            world.class = Class::Interactive;
            let (reached, throttled, _) = run(&world);
            assert!(reached >= 1.0 / 1.05, "{form:?} {phase}: {reached:.3}");
            assert_eq!(throttled, 0, "{form:?} {phase}");
        }
    }
}

#[test]
fn any_phase_of_the_second_will_do() {
    let mut violations = Vec::new();
    for seed in 0..40_u32 {
        let mut world = World::new(Rule::Fixed, Form::Epoch, f64::from(seed) / 40.0, u64::from(seed));
        world.server.phase += 1.0;
        let (reached, throttled, _) = run(&world);
        if reached < 1.0 / 1.05 || throttled > 0 {
            violations.push(format!("{}: {reached:.3}, {throttled} throttles", world.server.phase));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn long_round_trips_cost_one_scout_a_window() {
    for rule in WINDOWS {
        for (seed, phase) in (0..).zip(PHASES) {
            let mut world = World::new(rule, Form::Exact, phase, seed);
            world.trip = 0.2;
            let (reached, throttled, _) = run(&world);
            assert!(reached >= 5.0 / (5.0 + 1.25 * 0.2), "{rule:?} {phase}: {reached:.3}");
            assert_eq!(throttled, 0);
        }
    }
}

#[test]
fn a_steady_stranger_costs_each_phase_and_form_no_more_than_is_held() {
    for (rules, of) in [
        (&WINDOWS[..], "every form beside strangers, windows"),
        (&CONTINUOUS, "every form beside strangers, continuous"),
        (&LOGS, "every form beside strangers, logs"),
    ] {
        let (least, most) = held(of, BESIDE);
        expect(rules, &FORMS, Who::Steady(0.4), least, most);
    }
}

/// The users' 300 per `window`, declared.
fn declared(window: f64) -> BankConfig {
    let users = PathGlob::parse("/api/v2/users/**").unwrap();
    let kind = pace_parts::rate(300, Duration::from_secs_f64(window));
    let limit = LimitSpec { path: users, ..pace_parts::limit("users", kind, &[Partition::Credential]) };
    BankConfig { limits: vec![limit], ..BankConfig::default() }
}

/// Efficiency and throttles of a silent server whose quota is declared, alone.
fn by_declaration(rule: Rule, window: f64, trip: f64, phase: f64) -> (f64, usize) {
    let mut world = World::new(rule, Form::Silent, 0.0, 1);
    world.server = pace_world::Server::new(rule, 300, window, phase * window);
    world.trip = trip;
    let outcome = world.play(declared(window));
    (world.ideal(&[]) / outcome.makespan, outcome.throttled)
}

#[test]
fn a_declared_quota_of_a_silent_server_is_reached_without_a_throttle() {
    for window in [5.0, 60.0] {
        for rule in [Rule::Fixed, Rule::LogOldest, Rule::BucketFull] {
            for phase in PHASES {
                let (reached, throttled) = by_declaration(rule, window, 0.02, phase);
                let met = reached >= DECLARED.0 && per_100(throttled) <= DECLARED.1;
                assert!(met, "{rule:?} {window} s {phase}: {reached:.3}, {throttled} throttles");
                assert_eq!(throttled, 0, "{rule:?} {phase}");
            }
        }
    }
}

#[test]
fn an_aligned_declared_quota_is_spent_as_if_the_edge_were_everywhere() {
    let (least, most) = held("declared aligned", DECLARED);
    for window in [5.0, 60.0] {
        for phase in PHASES {
            let (reached, throttled) = by_declaration(Rule::Aligned, window, 0.02, phase);
            let kept = reached >= least && per_100(throttled) <= most;
            assert!(kept, "{window} s {phase}: {reached:.3}, {throttled} throttles");
        }
    }
}

#[test]
fn a_declared_quota_of_a_counter_is_spent_evenly_after_the_burst_that_showed_it() {
    let (least, most) = held("declared counter", DECLARED);
    for window in [5.0, 60.0] {
        for trip in [0.02, 0.2] {
            for phase in PHASES {
                let (reached, throttled) = by_declaration(Rule::Counter, window, trip, phase);
                let kept = reached >= least && per_100(throttled) <= most;
                assert!(kept, "{window} s, {trip} s, {phase}: {reached:.3}, {throttled} throttles");
            }
        }
    }
}

#[test]
fn headers_replace_a_declared_number_that_is_too_low() {
    let users = PathGlob::parse("/api/v2/users/**").unwrap();
    let kind = pace_parts::rate(30, Duration::from_secs(5));
    let limit = LimitSpec { path: users, ..pace_parts::limit("users", kind, &[Partition::Credential]) };
    let world = World::new(Rule::Fixed, Form::Exact, 0.2, 1);
    let told = world.play(BankConfig { limits: vec![limit.clone()], ..BankConfig::default() });
    assert!(world.ideal(&[]) / told.makespan > 0.95);
    let pinned = LimitSpec { pin: true, ..limit };
    let mut few = world;
    few.requests = 90;
    let kept = few.play(BankConfig { limits: vec![pinned], ..BankConfig::default() });
    assert!(kept.makespan > 10.0, "the pinned number holds: {}", kept.makespan);
}

#[test]
fn an_unlimited_silent_upstream_runs_at_full_speed_within_a_second() {
    let mut world = World::new(Rule::BucketFull, Form::Silent, 0.0, 3);
    world.server = pace_world::Server::new(Rule::BucketFull, 1_000_000, 1.0, 0.0);
    world.requests = 4000;
    let outcome = world.play(BankConfig::default());
    assert_eq!(outcome.throttled, 0);
    assert!(world.ideal(&[]) / outcome.makespan > 0.9, "{}", outcome.makespan);
}

/// Share of what is left of the quota, and throttles per 100, of a silent undeclared server after five windows: the mean
/// of three seeds.
fn settled(rule: Rule, who: Who, window: f64, trip: f64) -> (f64, f64) {
    let (mut share, mut throttles) = (0.0, 0.0);
    let from = 5.0 * window;
    for seed in 1..=3 {
        let mut world = World::new(rule, Form::Silent, 0.2, seed);
        world.server = pace_world::Server::new(rule, 300, window, 0.2);
        (world.requests, world.who, world.trip) = (6000, who, trip);
        let outcome = world.play(BankConfig::default());
        let after = || outcome.answers.iter().filter(|&&(at, _)| at > from);
        let accepted = count(after().filter(|&&(_, accepted)| accepted).count());
        let strangers = count(outcome.stranger_times.iter().filter(|&&at| at > from).count());
        share += accepted / (300.0 / window * (outcome.makespan - from) - strangers) / 3.0;
        throttles += 100.0 * (count(after().count()) - accepted) / accepted / 3.0;
    }
    (share, throttles)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

/// Every silent cell that misses the target.
fn expect_settled(who: Who, window: f64, share: f64) {
    let mut violations = Vec::new();
    for rule in [Rule::Fixed, Rule::Aligned, Rule::LogOldest, Rule::Counter, Rule::BucketFull] {
        for trip in [0.02, 0.2] {
            let (reached, throttles) = settled(rule, who, window, trip);
            if reached < share || throttles > 2.0 {
                violations.push(format!("{rule:?}, trips of {trip} s: {reached:.3}, {throttles:.2} per 100"));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_silent_undeclared_server_is_settled_after_five_windows() {
    expect_settled(Who::Nobody, 5.0, 0.85);
}

#[test]
fn a_silent_undeclared_server_with_minutes_is_settled_after_five_windows() {
    expect_settled(Who::Nobody, 60.0, 0.85);
}

#[test]
fn a_silent_undeclared_server_with_strangers_is_settled_after_five_windows() {
    expect_settled(Who::Steady(0.4), 5.0, 0.85);
}

#[test]
fn a_silent_undeclared_server_with_minutes_and_strangers_is_settled_after_five_windows() {
    expect_settled(Who::Steady(0.4), 60.0, 0.85);
}

#[test]
fn a_cap_on_attempts_at_once_is_found_with_few_throttles() {
    let (least, most) = held("cap", CAPPED);
    for (form, trip) in [(Form::Exact, 0.02), (Form::Exact, 0.2), (Form::Silent, 0.02), (Form::Silent, 0.2)] {
        let (used, throttled) = pace_world::capped(form, trip, 20_000);
        assert!(
            used >= least && throttled <= most,
            "{form:?} {trip} s: {used:.3} of the cap, {throttled:.2} throttles per 100"
        );
    }
}

#[test]
fn the_same_inputs_are_decided_alike() {
    let mut world = World::new(Rule::LogOldest, Form::Epoch, 0.2, 9);
    world.who = Who::Steady(0.4);
    let (once, again) = (world.play(BankConfig::default()), world.play(BankConfig::default()));
    assert_eq!(once.sends, again.sends);
    assert_eq!(once.answers, again.answers);
}
