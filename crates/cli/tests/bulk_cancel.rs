//! Ending a run for good, with and without a process at it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use common::{Running, World, agents, by_status, ran};

const RUN: [&str; 10] = [
    "a.csv",
    "--recipe",
    "user-skills",
    "--profile",
    "genesys",
    "--concurrency",
    "8",
    "--quiet",
    "--output",
    "out.csv",
];

#[test]
fn a_running_process_stops_awaits_what_has_left_and_cancels_the_rest() {
    let world = World::new("limit = 0\nlatency = \"60ms\"\n");
    // So many that a slow machine is not done before it is asked to stop.
    world.write("a.csv", agents(3000, 1));
    let mut run = Running::new(world.bulk_run(&RUN).spawn().unwrap());
    world.await_writes(40);
    let status = ran(world.bulk(&["status", "--journal", "a.csv.journal", "--format", "json"]));
    let told: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!((&told["running"], &told["pid"]), (&true.into(), &run.pid().into()));
    let cancel = ran(world.bulk(&["cancel", "--journal", "a.csv.journal", "--yes"]));
    let asked = format!("asking process {} to stop", run.pid());
    cancel.assert(1, &[&asked, " cancelled), 0 unknown, 0 pending"]);
    assert!(!run.is_running(), "it has ended before the command did");
    run.end().assert(1, &["the run is being cancelled", "cancelled: what was not sent never will be"]);
    let rows = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
    assert_eq!(rows["ok"].len() as u64, world.writes(), "what had left was awaited and written down");
    assert_eq!(rows["ok"].len() + rows["failed"].len(), 3000);
    assert!(rows["failed"].iter().all(|row| row[5] == "cancelled before it was sent"));
    assert!(!world.path("a.csv.journal.cancel").exists());

    let writes = world.writes();
    ran(world.bulk(&["resume", "--journal", "a.csv.journal"]))
        .assert(1, &["was cancelled; nothing is left to do"]);
    ran(world.bulk(&["cancel", "--journal", "a.csv.journal", "--yes"])).assert(1, &["was cancelled before"]);
    assert_eq!(world.writes(), writes);
}

#[test]
fn a_run_that_was_killed_is_cancelled_and_what_it_sent_is_not_called_cancelled() {
    let world = World::new("limit = 0\nlatency = \"60ms\"\n");
    world.write("a.csv", agents(1000, 1));
    let run = Running::new(world.bulk_run(&RUN).spawn().unwrap());
    world.await_writes(20);
    run.signal("KILL");
    run.end();
    let status = ran(world.bulk(&["status", "--journal", "a.csv.journal"]));
    assert!(status.out.contains(" sent without a known outcome"), "{}", status.out);
    ran(world.bulk(&["cancel", "--journal", "a.csv.journal"]))
        .assert(2, &["say --yes: there is nobody to ask"]);
    assert!(!ran(world.bulk(&["status", "--journal", "a.csv.journal"])).out.contains("cancelled"));
    ran(world.bulk(&["cancel", "--journal", "a.csv.journal", "--yes"])).assert(3, &[" unknown, 0 pending"]);
    let report = ran(world.bulk(&["report", "--journal", "a.csv.journal"]));
    report.assert(3, &[]);
    let rows = by_status(&report.out);
    let (ok, unknown) = (rows["ok"].len(), rows["unknown"].len());
    assert!((1..=8).contains(&unknown), "what was in flight: {unknown}");
    let writes = usize::try_from(world.writes()).unwrap();
    assert!((ok..=ok + unknown).contains(&writes), "{ok} ok, {unknown} unknown, {writes} executed");
    assert_eq!(ok + unknown + rows["failed"].len(), 1000);
}

#[test]
fn a_request_that_nobody_stands_behind_does_not_stop_a_resume() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", agents(20, 1));
    let mut killed = world.bulk_run(&RUN);
    killed.env("TIDEGATE_FAULT_POINT", "journal.intend.before");
    assert_eq!(ran(killed).code, None);
    world.write("a.csv.journal.cancel", "");
    ran(world.bulk(&["resume", "--journal", "a.csv.journal"])).assert(0, &["20 ok"]);
    assert!(!world.path("a.csv.journal.cancel").exists());
}

#[test]
fn a_journal_that_is_none_is_not_cancelled() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", "x");
    ran(world.bulk(&["cancel", "--journal", "a.csv", "--yes"])).assert(2, &["is not a Tidegate journal"]);
    ran(world.bulk(&["cancel", "--journal", "none", "--yes"])).assert(2, &["does not exist"]);
}
