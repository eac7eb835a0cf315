//! Items that the upstream goes on working on: submitted once, followed to their end by whichever process is there.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use common::{Ran, Running, World, by_status, ran};

/// Jobs that take two seconds.
const JOBS: &str = "limit = 0\n[jobs]\nqueued = \"500ms\"\nrunning = \"1500ms\"\n";

/// `tidegate bulk run` of `input` by `recipe`.
fn run(world: &World, input: &str, recipe: &str) -> std::process::Command {
    world.bulk_run(&[input, "--recipe", recipe, "--profile", "genesys", "--quiet", "--output", "out.csv"])
}

fn resume(world: &World, input: &str) -> Ran {
    let journal = format!("{input}.journal");
    ran(world.bulk(&["resume", "--journal", &journal, "--quiet", "--output", "out.csv"]))
}

fn queries(count: usize) -> String {
    let mut csv = "id,interval\n".to_owned();
    for n in 1..=count {
        writeln!(csv, "q{n},2026-01-{n:02}T00:00:00Z/P1D").unwrap();
    }
    csv
}

fn recordings(count: usize) -> String {
    let mut rows = String::new();
    for n in 1..=count {
        writeln!(
            rows,
            r#"{{"id":"r{n}","action":"EXPORT","action_date":"2026-01-01T00:00:00Z","conversation_query":{{"interval":"{n}"}}}}"#
        )
        .unwrap();
    }
    rows
}

fn users(count: usize) -> String {
    let mut csv = "name,email\n".to_owned();
    for n in 1..=count {
        writeln!(csv, "Agent {n},new{n}@example.com").unwrap();
    }
    csv
}

/// Tries each point in a world of its own, at the same time: most of it is waiting for jobs.
fn at_each(points: &[&str], test: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for point in points {
            scope.spawn(|| test(point));
        }
    });
}

/// The ids in the file of results, and how many lines it has.
fn found(world: &World, input: &str) -> (BTreeSet<String>, usize) {
    let text = std::fs::read_to_string(world.path(&format!("{input}.journal.results.ndjson"))).unwrap();
    let id = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["conversationId"].as_str().unwrap().to_owned()
    };
    (text.lines().map(id).collect(), text.lines().count())
}

#[test]
fn queries_run_as_jobs_and_their_results_are_read_through_every_cursor_once() {
    let world = World::new(JOBS);
    world.write("q.csv", queries(3));
    ran(run(&world, "q.csv", "analytics-conversations")).assert(0, &["3 ok, 0 failed, 0 unknown, 0 pending"]);
    // Each job of the simulator finds the same 250 conversations, 100 a page.
    let (ids, lines) = found(&world, "q.csv");
    assert_eq!((ids.len(), lines), (250, 750));
    let jobs = world.sim.stats().jobs["analytics-conversations"];
    assert_eq!((jobs.submitted, jobs.duplicates), (3, 0));
    assert!(jobs.polls <= 12, "{} polls for three jobs of two seconds", jobs.polls);
}

#[test]
fn a_job_is_submitted_once_and_followed_on_after_every_kind_of_kill() {
    let points = [
        "journal.planned.after",
        "journal.intend.before",
        "journal.intend.before:2",
        "journal.accept.after",
        "journal.accept.after:2",
        "journal.polled.before",
        "journal.polled.after:2",
        "bulk.page",
        "bulk.page:2",
        "journal.fetched.before",
        "journal.fetched.after:3",
        "journal.record-ok.before",
    ];
    at_each(&points, |point| {
        let world = World::new("limit = 0\n[jobs]\nqueued = \"200ms\"\nrunning = \"600ms\"\n");
        world.write("q.csv", queries(2));
        let mut command = run(&world, "q.csv", "analytics-conversations");
        // One after the other: what another one has in flight at the kill is in doubt, as it should be.
        command.args(["--concurrency", "1"]).env("TIDEGATE_FAULT_POINT", point);
        assert_eq!(ran(command).code, None, "{point}");
        resume(&world, "q.csv").assert(0, &["2 ok, 0 failed, 0 unknown, 0 pending"]);
        let (ids, lines) = found(&world, "q.csv");
        assert_eq!((ids.len(), lines), (250, 500), "{point}");
        let stats = world.sim.stats().jobs["analytics-conversations"];
        assert_eq!((stats.submitted, stats.duplicates), (2, 0), "{point}");
    });
}

#[test]
fn a_submission_whose_answer_was_not_written_down_is_unknown_and_not_repeated() {
    for point in ["bulk.answered", "journal.accept.before"] {
        let world = World::new(JOBS);
        world.write("q.csv", queries(1));
        let mut command = run(&world, "q.csv", "analytics-conversations");
        command.env("TIDEGATE_FAULT_POINT", point);
        assert_eq!(ran(command).code, None, "{point}");
        resume(&world, "q.csv").assert(3, &["0 ok, 0 failed, 1 unknown"]);
        assert_eq!(world.sim.stats().jobs["analytics-conversations"].submitted, 1, "{point}");
    }
    // Where keys are recognised, the same submission is asked about again, and its job is followed.
    let world = World::new(&format!("dedup = \"24h\"\n{JOBS}"));
    world.write("q.csv", queries(1));
    let mut command = world.bulk_run(&[
        "q.csv",
        "--recipe",
        "analytics-conversations",
        "--profile",
        "genesys-guide",
        "--quiet",
        "--output",
        "out.csv",
    ]);
    command.env("TIDEGATE_FAULT_POINT", "journal.accept.before");
    assert_eq!(ran(command).code, None);
    resume(&world, "q.csv").assert(0, &["1 ok"]);
    let stats = world.sim.stats();
    assert_eq!((stats.jobs["analytics-conversations"].submitted, stats.replayed), (1, 1));
}

/// The recipe of recordings, and how to find a job again whose name was lost: by the interval, which each row has alone.
fn findable() -> String {
    let recipe = include_str!("../../../recipes/recording-jobs.toml");
    format!(
        r#"{recipe}
[reconcile]
read = "GET /api/v2/recording/jobs?pageSize=100"
items = "/entities"
total = "/total"
key = "/recordingJobsQuery/conversationQuery/interval = /conversationQuery/interval"
same = ["/recordingJobsQuery/action = /action", "/recordingJobsQuery/actionDate = /actionDate", "/recordingJobsQuery/conversationQuery = /conversationQuery"]
absent = "not-applied"
settle = "1s"
"#
    )
}

#[test]
fn a_job_whose_name_was_lost_is_found_in_the_listing_and_followed() {
    at_each(&["bulk.answered", "journal.accept.before"], |point| {
        let world = World::new(JOBS);
        world.write("r.toml", findable());
        world.write("r.ndjson", recordings(1));
        let mut command = run(&world, "r.ndjson", "r.toml");
        command.env("TIDEGATE_FAULT_POINT", point);
        assert_eq!(ran(command).code, None, "{point}");
        std::fs::remove_file(world.path("r.toml")).unwrap();
        resume(&world, "r.ndjson").assert(0, &["1 ok, 0 failed, 0 unknown, 0 pending"]);
        let jobs = world.sim.stats().jobs["recording-jobs"];
        assert_eq!((jobs.submitted, jobs.duplicates), (1, 0), "{point}");
    });
    // Accepted and not answered; and never arrived: the listing tells them apart.
    let faults =
        "[faults]\nmatch = \"POST /api/v2/recording/jobs\"\nscript = [\"drop-after\", \"drop-before\"]\n";
    let world = World::new(&format!("{JOBS}{faults}"));
    world.write("r.toml", findable());
    world.write("r.ndjson", recordings(3));
    ran(run(&world, "r.ndjson", "r.toml")).assert(0, &["3 ok, 0 failed, 0 unknown, 0 pending"]);
    let jobs = world.sim.stats().jobs["recording-jobs"];
    assert_eq!((jobs.submitted, jobs.duplicates), (3, 0));
}

#[test]
fn two_recording_jobs_at_once_at_most_also_after_kills() {
    let world = World::new(JOBS);
    world.write("r.ndjson", recordings(5));
    let mut command = run(&world, "r.ndjson", "recording-jobs");
    command.env("TIDEGATE_FAULT_POINT", "journal.accept.after:2");
    assert_eq!(ran(command).code, None);
    // Killed at a moment of no meaning, too.
    let again = world.bulk(&["resume", "--journal", "r.ndjson.journal", "--quiet"]).spawn().unwrap();
    let again = Running::new(again);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    again.signal("KILL");
    assert_eq!(again.end().code, None);
    resume(&world, "r.ndjson").assert(0, &["5 ok, 0 failed, 0 unknown, 0 pending"]);
    let jobs = world.sim.stats().jobs["recording-jobs"];
    assert_eq!((jobs.submitted, jobs.duplicates, jobs.at_once), (5, 0, 2));
}

#[test]
fn items_that_say_retryable_are_sent_again_and_no_others() {
    let world = World::new("limit = 0\n[jobs]\nqueued = \"100ms\"\nrunning = \"300ms\"\nretryable = 0.2\n");
    world.write("u.csv", format!("{}X,agent00001@example.com\n", users(150)));
    // The simulator refuses nothing else here, so in the end all exist once, in spite of the refusals.
    let mut ran_at = ran(run(&world, "u.csv", "bulk-users"));
    let rows = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
    let given_up = rows.get("failed").map_or(0, Vec::len);
    assert!(given_up <= 5, "three rounds leave hardly any: {rows:?}");
    ran_at.code = ran_at.code.filter(|code| *code == i32::from(given_up > 0));
    assert!(ran_at.code.is_some(), "{ran_at:#?}");
    let ok: BTreeSet<String> = rows["ok"].iter().map(|row| row[0].clone()).collect();
    assert_eq!(ok.len() + given_up, 151, "one row of the report for each of the input");
    let stats = world.sim.stats();
    assert_eq!(stats.users_total, 500 + ok.len() as u64);
    assert_eq!(stats.duplicate_emails, u64::from(ok.contains("agent00001@example.com")));
    let jobs = stats.jobs["bulk-users"];
    assert!((3..=8).contains(&jobs.submitted) && jobs.duplicates == 0, "{jobs:?}");
}

#[test]
fn a_round_of_retries_is_written_down_with_what_it_repeats() {
    at_each(&["journal.follow.before", "journal.follow.after", "journal.record-failed.before"], |point| {
        let world = World::new(
            "limit = 0\nseed = 5\n[jobs]\nqueued = \"100ms\"\nrunning = \"300ms\"\nretryable = 0.3\n",
        );
        world.write("u.csv", users(60));
        let mut command = run(&world, "u.csv", "bulk-users");
        command.env("TIDEGATE_FAULT_POINT", point);
        let first = ran(command);
        let last = if first.code.is_none() { resume(&world, "u.csv") } else { first };
        assert!(matches!(last.code, Some(0 | 1)), "{point}: {last:#?}");
        let rows = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
        assert_eq!(rows.values().map(Vec::len).sum::<usize>(), 60, "{point}");
        let stats = world.sim.stats();
        assert_eq!(stats.users_total, 500 + rows["ok"].len() as u64, "{point}");
        assert_eq!((stats.duplicate_emails, stats.jobs["bulk-users"].duplicates), (0, 0), "{point}");
    });
}

#[test]
fn answers_that_hold_the_results_are_told_row_by_row() {
    let world = World::new("limit = 0\n[jobs]\nretryable = 0.1\n");
    let mut csv = "first_name,last_name,external_id\n".to_owned();
    for n in 1..=120 {
        writeln!(csv, "F,L{n},x{n}").unwrap();
    }
    world.write("c.csv", csv);
    let done = ran(run(&world, "c.csv", "external-contacts"));
    let rows = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
    let failed = rows.get("failed").map_or(0, Vec::len);
    assert_eq!((rows["ok"].len() + failed, done.code), (120, Some(i32::from(failed > 0))), "{done:#?}");
    assert!(rows["ok"].iter().any(|row| row[0] == "x1"), "{rows:?}");
    assert!(world.sim.stats().jobs["external-contacts"].submitted > 2, "some were sent again");
}

#[test]
fn a_job_that_ends_badly_is_told_in_the_upstreams_words_and_not_resubmitted() {
    let world = World::new("limit = 0\n[jobs]\nqueued = \"0s\"\nrunning = \"200ms\"\nfail = 1.0\n");
    world.write("q.csv", queries(1));
    ran(run(&world, "q.csv", "analytics-conversations")).assert(1, &["0 ok, 1 failed"]);
    let text = std::fs::read_to_string(world.path("out.csv")).unwrap();
    assert!(text.contains("ended FAILED: The query could not be completed."), "{text}");
    let list = "list_id,contact_id,data\nl 1,a,\"{\"\"x\"\":1}\"\nl 1,b,{}\n";
    world.write("o.csv", list);
    ran(run(&world, "o.csv", "outbound-contacts"))
        .assert(3, &["1 unknown", "rows: 0 ok, 0 failed, 2 unknown"]);
    let text = std::fs::read_to_string(world.path("out.csv")).unwrap();
    assert!(text.contains("ended Failed: The list was changed meanwhile."), "{text}");
    let stats = world.sim.stats();
    assert_eq!(stats.jobs["analytics-conversations"].submitted, 1);
    assert_eq!(stats.jobs["outbound-contacts"].submitted, 1);
}

#[test]
fn an_expired_job_is_told_and_not_resubmitted() {
    let world = World::new("limit = 0\n[jobs]\nqueued = \"0s\"\nrunning = \"100ms\"\nexpire = \"300ms\"\n");
    world.write("q.csv", queries(1));
    // The first look comes after the results are gone.
    ran(run(&world, "q.csv", "analytics-conversations")).assert(1, &["0 ok, 1 failed"]);
    let text = std::fs::read_to_string(world.path("out.csv")).unwrap();
    assert!(text.contains("ended EXPIRED"), "{text}");
    assert_eq!(world.sim.stats().jobs["analytics-conversations"].submitted, 1);
}

#[test]
fn a_job_is_let_go_at_ctrl_c_and_named_when_its_run_is_cancelled() {
    let world = World::new("limit = 0\n[jobs]\nqueued = \"10s\"\n");
    world.write("o.csv", "list_id,contact_id,data\nl,a,{}\n");
    let running = Running::new(run(&world, "o.csv", "outbound-contacts").spawn().unwrap());
    world.await_writes(1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal("INT");
    running
        .end()
        .assert(130, &["0 ok, 0 failed, 0 unknown, 1 pending", "rows: 0 ok, 0 failed, 0 unknown, 1 open"]);
    let status = ran(world.bulk(&["status", "--journal", "o.csv.journal"]));
    status.assert(0, &[]);
    assert!(status.out.contains("; open jobs: 1"), "{}", status.out);
    let cancelled = ran(world.bulk(&["cancel", "--journal", "o.csv.journal", "--yes"]));
    cancelled.assert(3, &["0 ok, 0 failed, 1 unknown, 0 pending"]);
    let report = ran(world.bulk(&["report", "--journal", "o.csv.journal"]));
    assert!(report.out.contains("goes on upstream"), "{}", report.out);
    assert_eq!(world.sim.stats().jobs["outbound-contacts"].submitted, 1);
}

#[test]
fn batches_give_addresses_and_results_of_an_older_run_are_not_written_over() {
    let world = World::new(JOBS);
    let mut csv = "conversation_id\n".to_owned();
    for n in 1..=150 {
        writeln!(csv, "c{n}").unwrap();
    }
    world.write("b.csv", csv);
    ran(run(&world, "b.csv", "recording-batch")).assert(0, &["2 ok", "rows: 150 ok"]);
    let (ids, lines) = found(&world, "b.csv");
    assert_eq!((ids.len(), lines), (150, 150));
    std::fs::remove_file(world.path("b.csv.journal")).unwrap();
    ran(run(&world, "b.csv", "recording-batch")).assert(2, &["b.csv.journal.results.ndjson exists"]);
    let mut other = run(&world, "b.csv", "user-skills");
    other.args(["--results", "x"]);
    ran(other).assert(2, &[]);
}
