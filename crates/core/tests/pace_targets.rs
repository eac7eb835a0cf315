//! The targets of pacing, in virtual time against independent servers.

mod pace_world;

use pace_world::{Form, Rule, Who, World};
use tidegate_core::pace::BankConfig;

const PHASES: [f64; 4] = [0.0, 0.2, 0.5, 0.8];

/// Efficiency and throttles of one world.
fn run(world: &World) -> (f64, usize, String) {
    let outcome = world.play(BankConfig::default());
    let ideal = world.ideal(&outcome.stranger_times);
    (ideal / outcome.makespan, outcome.throttled, format!("{:?}", outcome.states))
}

#[test]
#[ignore = "prints the table of all worlds"]
fn table() {
    for who in [Who::Nobody, Who::Steady(0.4)] {
        for trip in [0.02, 0.2] {
            for rule in [
                Rule::Fixed,
                Rule::Aligned,
                Rule::LogOldest,
                Rule::LogNewest,
                Rule::Counter,
                Rule::BucketFull,
                Rule::BucketNext,
            ] {
                for form in [Form::Exact, Form::Whole, Form::Epoch, Form::Silent] {
                    let mut line = String::new();
                    for (seed, phase) in PHASES.into_iter().enumerate() {
                        let mut world = World::new(rule, form, phase, seed as u64);
                        world.trip = trip;
                        world.who = who;
                        let (efficiency, throttled, states) =
                            std::panic::catch_unwind(|| run(&world)).unwrap_or((0.0, 9999, String::new()));
                        let state = states.split('"').nth(3).unwrap_or("").replace("told: ", "");
                        line += &format!(" {efficiency:.3}/{throttled:<3} {:9.9}", state);
                    }
                    eprintln!("{who:?} {trip} {rule:?} {form:?}: {line}");
                }
            }
        }
    }
}

#[test]
#[ignore = "traces one world"]
fn trace() {
    let named = |name: &str| std::env::var(name).unwrap_or_default();
    let rule = match named("RULE").as_str() {
        "Fixed" => Rule::Fixed,
        "Aligned" => Rule::Aligned,
        "LogOldest" => Rule::LogOldest,
        "LogNewest" => Rule::LogNewest,
        "Counter" => Rule::Counter,
        "BucketFull" => Rule::BucketFull,
        _ => Rule::BucketNext,
    };
    let form = match named("FORM").as_str() {
        "Exact" => Form::Exact,
        "Whole" => Form::Whole,
        "Epoch" => Form::Epoch,
        _ => Form::Silent,
    };
    let index: usize = named("SEED").parse().unwrap_or(0);
    let mut world = World::new(rule, form, PHASES[index % 4], index as u64);
    world.trip = named("TRIP").parse().unwrap_or(0.02);
    if !named("WHO").is_empty() {
        world.who = Who::Steady(0.4);
    }
    world.trace = true;
    let outcome = world.play(BankConfig::default());
    let mut halves = vec![0; (outcome.makespan * 2.0) as usize + 1];
    for &at in &outcome.sends {
        halves[(at * 2.0) as usize] += 1;
    }
    eprintln!("sends per half second: {halves:?}");
    eprintln!("{:?}", run(&world));
}
