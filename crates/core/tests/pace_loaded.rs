//! A process alone on a machine with too much to do: its attempts leave late, its answers are read late, in batches and in any
//! order. What that looks like is nobody else's draw.

mod pace_world;

use pace_world::{Form, Rule, Server, World};
use tidegate_core::pace::BankConfig;

/// A draw that may seem to be there for a moment, per second: of an answer that is half a window late, and whose reset is told in
/// whole seconds, nobody can say to which window of one second it belongs.
const SEEMING: f64 = 20.0;

/// 100 per second, 64 callers, 400 requests: so many that all of a window is in flight at once.
fn alone(form: Form, phase: f64, stall: f64, seed: u64) -> World {
    let mut world = World::new(Rule::Fixed, form, phase, seed);
    world.server = Server::new(Rule::Fixed, 100, 1.0, world.server.phase);
    (world.callers, world.requests, world.trip, world.stall) = (64, 400, 0.005, stall);
    world
}

#[test]
fn late_and_reordered_answers_are_nobody_elses_draw_and_hold_nobody_up() {
    let (mut played, mut phantoms, mut slow) = (0, Vec::new(), Vec::new());
    for form in [Form::Exact, Form::Whole, Form::Epoch] {
        for stall in [0.05, 0.2, 0.5, 1.0] {
            for seed in 0..25_u32 {
                let phase = f64::from(seed % 5) / 5.0;
                let outcome = alone(form, phase, stall, u64::from(seed)).play(BankConfig::default());
                played += 1;
                if outcome.strangers > SEEMING {
                    phantoms.push(format!("{form:?} {stall} {seed}: {:.0}/s", outcome.strangers));
                }
                if outcome.makespan > 15.0 {
                    slow.push(format!("{form:?} {stall} {seed}: {:.1} s", outcome.makespan));
                }
            }
        }
    }
    assert!(
        phantoms.is_empty() && slow.is_empty(),
        "of {played} worlds {} saw strangers, {} took longer than 15 s\n{}\n{}",
        phantoms.len(),
        slow.len(),
        phantoms.join(", "),
        slow.join(", ")
    );
}
