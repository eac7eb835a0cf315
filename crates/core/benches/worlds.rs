//! The pacing worlds as a table, in virtual time: `cargo xtask bench worlds`.
//!
//! Every cell is efficiency (ideal makespan / makespan) and throttles, at four phases of the wall second: 300 per 5 s,
//! 1500 requests by 40 callers. With `--trace RULE FORM PHASE [TRIP] [strangers]` it prints one world second by second
//! instead; RULE and FORM as in the table. With `--only WORD...` it prints the rows that contain one of the words, as in
//! `Log`, `Whole` or `0.02`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program of its own: it reads arguments and prints"
)]

#[path = "../tests/pace_world/mod.rs"]
mod pace_world;

use pace_world::{Form, Rule, Who, World};
use tidegate_core::pace::BankConfig;

const PHASES: [f64; 4] = [0.0, 0.2, 0.5, 0.8];
const RULES: [Rule; 7] = [
    Rule::Fixed,
    Rule::Aligned,
    Rule::LogOldest,
    Rule::LogNewest,
    Rule::Counter,
    Rule::BucketFull,
    Rule::BucketNext,
];
const FORMS: [Form; 4] = [Form::Exact, Form::Whole, Form::Epoch, Form::Silent];

#[expect(clippy::disallowed_methods, reason = "a program for a person, who chooses the world")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.split_first() {
        Some((first, rest)) if first == "--trace" => trace(rest),
        Some((first, rest)) if first == "--only" => table(rest),
        Some((first, _)) if first == "--settled" => settled(),
        Some((first, _)) if first == "--capped" => capped(),
        _ => {
            table(&[]);
            settled();
            capped();
        }
    }
}

fn table(only: &[String]) {
    let company = [
        (Who::Nobody, "alone"),
        (Who::Steady(0.4), "strangers 40 %"),
        (Who::From(0.4, 10.0), "strangers 40 % from 10 s on"),
        (Who::Bursts(0.2), "strangers 20 % in bursts"),
    ];
    for (who, name) in company {
        for trip in [0.02, 0.2] {
            println!("\n{name}, round trip {:.0} ms", trip * 1000.0);
            for rule in RULES {
                for form in FORMS {
                    let row = format!("{rule:?} {form:?} {trip}");
                    if !only.is_empty() && !only.iter().any(|word| row.contains(word.as_str())) {
                        continue;
                    }
                    let cells: Vec<String> =
                        PHASES.iter().map(|&phase| cell(rule, form, phase, trip, who)).collect();
                    println!("  {:<12}{:<8}{}", format!("{rule:?}"), format!("{form:?}"), cells.join("  "));
                }
            }
        }
    }
}

/// Silent servers without a declared quota, once they are known: after five windows.
fn settled() {
    println!(
        "\nsilent and undeclared, after five windows of a run of 6000: share of the quota, throttles per 100"
    );
    for who in [Who::Nobody, Who::Steady(0.4)] {
        for trip in [0.02, 0.2] {
            for rule in RULES {
                let mut world = World::new(rule, Form::Silent, 0.2, 1);
                (world.trip, world.who, world.requests) = (trip, who, 6000);
                let outcome = world.play(BankConfig::default());
                let after = outcome.answers.iter().filter(|&&(at, _)| at > 25.0);
                let (accepted, throttled): (Vec<(f64, bool)>, Vec<_>) =
                    after.copied().partition(|&(_, accepted)| accepted);
                let strangers = outcome.stranger_times.iter().filter(|&&at| at > 25.0).count();
                let left = 60.0 * (outcome.makespan - 25.0) - num(strangers);
                println!(
                    "  {:<12}{who:?} {trip} s  {:.3}  {:.2}",
                    format!("{rule:?}"),
                    num(accepted.len()) / left,
                    100.0 * num(throttled.len()) / num(accepted.len())
                );
            }
        }
    }
}

/// A cap of 50 at once, 200 callers, plenty of quota: throttles per 100 and the share of the cap in use.
fn capped() {
    println!("\n50 at once, 200 callers: share of the cap, throttles per 100");
    for form in [Form::Exact, Form::Silent] {
        for trip in [0.02, 0.2] {
            let (used, throttled) = pace_world::capped(form, trip, 20_000);
            println!("  {:<8}{trip} s  {used:.3}  {throttled:.2}", format!("{form:?}"));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn num(count: usize) -> f64 {
    count as f64
}

fn cell(rule: Rule, form: Form, phase: f64, trip: f64, who: Who) -> String {
    let mut world = World::new(rule, form, phase, 1);
    world.trip = trip;
    world.who = who;
    let outcome = world.play(BankConfig::default());
    let efficiency = world.ideal(&outcome.stranger_times) / outcome.makespan;
    format!("{efficiency:.3} {:>4}", outcome.throttled)
}

fn trace(arguments: &[String]) {
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    let rule = RULES.into_iter().find(|rule| format!("{rule:?}") == argument(0)).unwrap_or(Rule::Fixed);
    let form = FORMS.into_iter().find(|form| format!("{form:?}") == argument(1)).unwrap_or(Form::Epoch);
    let mut world = World::new(rule, form, argument(2).parse().unwrap_or(0.0), 1);
    world.trip = argument(3).parse().unwrap_or(0.02);
    if argument(4) == "strangers" {
        world.who = Who::Steady(0.4);
    }
    world.trace = true;
    let outcome = world.play(BankConfig::default());
    let mut from = 0.0;
    while from < outcome.makespan {
        let sends = outcome.sends.iter().filter(|&&at| at >= from && at < from + 0.5).count();
        println!("{from:>6.1} s  {sends:>4} sends");
        from += 0.5;
    }
    println!("makespan {:.3} s, {} throttles, {:?}", outcome.makespan, outcome.throttled, outcome.states);
}
