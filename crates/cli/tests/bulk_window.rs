//! A bulk run of the real binary that meets a window of the calendar.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{World, agents, expected, ran, skilled};

/// A window that opened with this minute and is open for `left` more, as a configuration, and how long that is from now.
fn open_for(left: Duration, does: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (minute, hour) = (now.as_secs() / 60 % 60, now.as_secs() / 3600 % 24);
    let lasts =
        Duration::from_secs(now.as_secs() % 60) + Duration::from_millis(now.subsec_millis().into()) + left;
    format!(
        "[[window]]\nname = \"wfm publish\"\ncron = \"{minute} {hour} * * *\"\ntz = \"UTC\"\nfor = \"{}ms\"\n{does}\n",
        lasts.as_millis()
    )
}

#[test]
fn a_run_that_begins_in_a_window_is_held_and_then_goes_on() {
    let world = World::new("limit = 0\n");
    let rows = agents(40, 1);
    let input = world.write("a.csv", &rows);
    let left = Duration::from_secs(3);
    let end = world.sim.now() + left;
    let config = world.write("tidegate.toml", open_for(left, "hold = [\"bulk\"]\nstagger = \"1s\""));
    let args = [input.to_str().unwrap(), "--recipe", "user-skills", "--config", config.to_str().unwrap()];
    let run = ran(world.bulk_run(&args));
    run.assert(
        0,
        &[
            "0/40 items, 0 throttles, held by window \"wfm publish\" until ",
            "40 ok, 0 failed, 0 unknown, 0 pending",
        ],
    );
    let writes = world.sim.writes();
    let first = writes.iter().map(|write| write.attempts[0].at).fold(f64::INFINITY, f64::min);
    // The clocks of two programs are rounded to milliseconds on the way.
    assert!(first >= end.as_secs_f64() - 0.01, "sent at {first} s, and the window closed at {end:?}");
    assert_eq!(skilled(&world.stats()), expected(&rows));
}

#[test]
fn another_class_held_does_not_hold_a_run() {
    let world = World::new("limit = 0\n");
    let input = world.write("a.csv", agents(5, 1));
    let config = world.write("tidegate.toml", open_for(Duration::from_hours(1), "hold = [\"poll\"]"));
    let args = [input.to_str().unwrap(), "--recipe", "user-skills", "--config", config.to_str().unwrap()];
    let run = ran(world.bulk_run(&args));
    run.assert(0, &["5 ok, 0 failed, 0 unknown, 0 pending"]);
    assert!(!run.err.contains("held"), "{}", run.err);
}
