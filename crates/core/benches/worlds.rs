//! The pacing worlds as a table, in virtual time: `cargo xtask bench worlds`.
//!
//! 300 permits per 5 s and per 60 s, 1500 requests by 40 callers. A cell is the median efficiency (ideal makespan /
//! makespan) of five phases of the wall second, the lowest of them, and the throttles per 100 accepted over all five; a
//! star marks a goal missed, and the last lines count the cells that meet theirs. With `--only WORD...` it prints the rows
//! that contain one of the words, as in `Log`, `Whole` or `bursts`. With `--trace RULE FORM PHASE [TRIP] [WHO] [WINDOW]
//! [SEED]` it prints one world second by second instead; RULE, FORM and WHO (`alone`, `steady`, `appearing`, `bursts`)
//! as in the table.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program of its own: it reads arguments and prints"
)]

#[path = "../tests/pace_world/mod.rs"]
mod pace_world;

use pace_world::{Cell, Form, Rule, Server, Who, World};
use tidegate_core::pace::BankConfig;

/// Window and round trip in seconds.
const COLUMNS: [(f64, f64); 4] = [(5.0, 0.02), (5.0, 0.2), (60.0, 0.02), (60.0, 0.2)];
const COMPANY: [(&str, Who); 4] = [
    ("alone", Who::Nobody),
    ("steady", Who::Steady(0.4)),
    ("appearing", Who::From(0.4, 10.0)),
    ("bursts", Who::Bursts(0.2)),
];
const RULES: [Rule; 8] = [
    Rule::Fixed,
    Rule::Aligned,
    Rule::LogOldest,
    Rule::LogNewest,
    Rule::Counter,
    Rule::CounterFull,
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

/// What one goal asks of its cells, and how many of them meet it.
struct Goal {
    name: String,
    /// The least efficiency.
    least: f64,
    /// The most throttles per 100 accepted.
    most: f64,
    met: usize,
    of: usize,
}

impl Goal {
    fn new(who: Who, name: &str, window: f64, trip: f64) -> Self {
        let (least, most) = match who {
            Who::Nobody => (0.97_f64.min(window / (window + 1.25 * trip)), 0.0),
            _ => (0.95, 0.3),
        };
        Self { name: format!("{name}, {window} s, {:.0} ms", trip * 1000.0), least, most, met: 0, of: 0 }
    }

    fn judge(&mut self, cell: &Cell) -> bool {
        let met = cell.median >= self.least && cell.throttles <= self.most;
        self.of += 1;
        self.met += usize::from(met);
        met
    }
}

fn table(only: &[String]) {
    let mut goals = Vec::new();
    for (name, who) in COMPANY {
        let mut columns: Vec<Goal> =
            COLUMNS.iter().map(|&(window, trip)| Goal::new(who, name, window, trip)).collect();
        println!(
            "\n{name:<31}5 s, 20 ms             5 s, 200 ms            60 s, 20 ms            60 s, 200 ms"
        );
        for rule in RULES {
            for form in FORMS {
                let row = format!("{rule:?} {form:?} {name}");
                if !only.is_empty() && !only.iter().any(|word| row.contains(word.as_str())) {
                    continue;
                }
                print!("  {:<12}{:<8}", format!("{rule:?}"), format!("{form:?}"));
                for (goal, &(window, trip)) in columns.iter_mut().zip(&COLUMNS) {
                    let cell = Cell::play(rule, form, who, (window, trip));
                    // What a silent server allows is judged below, once it is known.
                    let missed = form != Form::Silent && !goal.judge(&cell);
                    let mark = if missed { '*' } else { ' ' };
                    print!("  {:.3} {:.3} {:>6.2} {mark}", cell.median, cell.lowest, cell.throttles);
                }
                println!();
            }
        }
        goals.extend(columns);
    }
    println!("\ncells that meet their goal");
    for goal in goals {
        let Goal { name, least, most, met, of } = goal;
        println!("  {name:<24} at least {least:.3}, at most {most:.1} throttles per 100: {met} of {of}");
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

fn trace(arguments: &[String]) {
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    let rule = RULES.into_iter().find(|rule| format!("{rule:?}") == argument(0)).unwrap_or(Rule::Fixed);
    let form = FORMS.into_iter().find(|form| format!("{form:?}") == argument(1)).unwrap_or(Form::Epoch);
    let mut world = World::new(rule, form, argument(2).parse().unwrap_or(0.0), 1);
    world.trip = argument(3).parse().unwrap_or(0.02);
    let window = argument(5).parse().unwrap_or(5.0);
    world.seed = argument(6).parse().unwrap_or(1);
    world.server = Server::new(rule, 300, window, world.server.phase);
    world.who = COMPANY.iter().find(|(name, _)| *name == argument(4)).map_or(Who::Nobody, |&(_, who)| who);
    world.who = world.who.scaled(window);
    world.trace = true;
    let outcome = world.play(BankConfig::default());
    let mut from = 0.0;
    while from < outcome.makespan {
        let sends = outcome.sends.iter().filter(|&&at| at >= from && at < from + window / 10.0).count();
        println!("{from:>6.1} s  {sends:>4} sends");
        from += window / 10.0;
    }
    println!("makespan {:.3} s, {} throttles, {:?}", outcome.makespan, outcome.throttled, outcome.states);
}
