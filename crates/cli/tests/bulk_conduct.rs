//! What a run does beside sending: a plan that did not end, a stop, rows about one thing, files that meet.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use std::fmt::Write as _;

use common::{Running, World, agents, by_status, ran, raw_server, token_answer};

const RUN: [&str; 6] = ["a.csv", "--recipe", "user-skills", "--profile", "genesys-guide", "--quiet"];

fn report(world: &World, name: &str) -> std::collections::BTreeMap<String, Vec<Vec<String>>> {
    by_status(&std::fs::read_to_string(world.path(name)).unwrap())
}

#[test]
fn a_run_whose_planning_did_not_end_is_never_called_done() {
    for point in ["journal.append.before", "journal.append.after", "journal.planned.before"] {
        let world = World::new("limit = 0\n");
        world.write("a.csv", agents(30, 1));
        let mut run = world.bulk_run(&RUN);
        run.env("TIDEGATE_FAULT_POINT", point);
        assert_eq!(ran(run).code, None, "{point}");
        let words = "was left while it was being planned";
        let journal = ["--journal", "a.csv.journal"];
        ran(world.bulk(&[&["resume"], &journal[..]].concat())).assert(2, &[words]);
        ran(world.bulk(&[&["report"], &journal[..]].concat())).assert(2, &[words]);
        ran(world.bulk(&[&["cancel", "--yes"], &journal[..]].concat())).assert(2, &[words]);
        let status = ran(world.bulk(&[&["status"], &journal[..]].concat()));
        status.assert(0, &[]);
        assert!(status.out.contains("planning did not end; nothing was sent"), "{point}: {}", status.out);
        assert_eq!(world.writes(), 0, "{point}");
    }
}

#[test]
fn no_job_is_submitted_once_the_run_was_told_to_stop() {
    let world = World::new("limit = 0\n[jobs]\nqueued = \"300ms\"\nrunning = \"1200ms\"\n");
    let mut rows = String::from("id,action,action_date,conversation_query\n");
    for n in 1..=5 {
        writeln!(rows, r#"r{n},EXPORT,2026-01-01T00:00:00Z,"{{""interval"":""{n}""}}""#).unwrap();
    }
    world.write("r.csv", rows);
    let args =
        ["r.csv", "--recipe", "recording-jobs", "--profile", "genesys", "--quiet", "--output", "out.csv"];
    let running = Running::new(world.bulk_run(&args).spawn().unwrap());
    world.await_writes(2);
    std::thread::sleep(std::time::Duration::from_millis(200));
    running.signal("INT");
    running.end().assert(130, &["0 ok, 0 failed, 0 unknown, 5 pending"]);
    let resume = ["resume", "--journal", "r.csv.journal", "--quiet", "--output", "out.csv"];
    ran(world.bulk(&resume)).assert(0, &["5 ok, 0 failed, 0 unknown, 0 pending"]);
    let jobs = world.sim.stats().jobs["recording-jobs"];
    assert_eq!((jobs.submitted, jobs.duplicates, jobs.at_once), (5, 0, 2));
}

#[test]
fn requests_about_one_target_arrive_in_the_order_of_the_input() {
    let world = World::new("limit = 0\nlatency = \"5ms..80ms\"\nusers = 40\n");
    let user = |n: usize| format!("00000000-0000-4000-8000-{n:012x}");
    let mut rows = String::new();
    for title in ["A", "B", "C"] {
        for n in 1..=40 {
            let path = format!("/api/v2/users/{}", user(n));
            writeln!(
                rows,
                r#"{{"id":"{n}{title}","method":"PATCH","path":"{path}","body":{{"title":"{title}"}}}}"#
            )
            .unwrap();
        }
    }
    world.write("o.ndjson", rows);
    let args = ["o.ndjson", "--recipe", "requests", "--profile", "genesys-guide", "--quiet"];
    ran(world.bulk_run(&args)).assert(0, &["120 ok"]);
    let listing = ran(world.command(&[
        "export",
        "/api/v2/users?pageSize=40",
        "--api",
        &world.sim.url(),
        "--profile",
        "genesys-guide",
    ]));
    let titles: Vec<serde_json::Value> = listing
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["title"].clone())
        .collect();
    assert_eq!(titles, vec![serde_json::json!("C"); 40]);
}

#[test]
fn a_journal_has_one_writer_whatever_name_it_is_opened_by() {
    let world = World::new("limit = 0\nlatency = \"40ms\"\n");
    world.write("a.csv", agents(150, 1));
    let mut run = world.bulk_run(&RUN);
    run.args(["--concurrency", "4"]);
    let running = Running::new(run.spawn().unwrap());
    world.await_writes(10);
    std::os::unix::fs::symlink(world.path("a.csv.journal"), world.path("link.journal")).unwrap();
    std::fs::create_dir(world.path("sub")).unwrap();
    std::os::unix::fs::symlink("../a.csv.journal", world.path("sub/x.journal")).unwrap();
    for name in ["link.journal", "sub/x.journal", "sub/../a.csv.journal"] {
        let pid = format!("is in use by process {}", running.pid());
        ran(world.bulk(&["resume", "--journal", name])).assert(2, &[&pid]);
        let status = ran(world.bulk(&["status", "--journal", name]));
        assert!(status.out.contains(&format!("process {} is at it", running.pid())), "{}", status.out);
    }
    std::fs::remove_file(world.path("a.csv.journal.lock")).unwrap();
    ran(world.bulk(&["resume", "--journal", "a.csv.journal"])).assert(2, &["is in use by another process"]);
    running.end().assert(0, &["150 ok"]);
    assert_eq!(world.writes(), 150);
}

#[test]
fn each_row_of_a_batch_in_doubt_is_named() {
    let api = raw_server(|first| {
        if first.contains("/oauth/token") {
            return token_answer();
        }
        b"HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let world = World::new("limit = 0\n");
    let profile = world.quick_profile("genesys");
    // As the platform has it a repeat of these does no harm, and nothing would stay in doubt.
    let text = std::fs::read_to_string(world.path(&profile)).unwrap();
    world.write(&profile, text.replace("/routing/queues/*/members", "/routing/elsewhere"));
    let mut members = String::from("queue_id,user_id\n");
    for n in 1..=150 {
        writeln!(members, "q1,u{n}").unwrap();
    }
    world.write("q.csv", members);
    world.write("u.csv", "name,email\nAda,ada@example.com\nGrace,grace@example.com\n");
    for (input, recipe) in [("q.csv", "queue-members"), ("u.csv", "bulk-users")] {
        let output = format!("{recipe}.out");
        let mut run = world.command(&["bulk", "run", input, "--recipe", recipe, "--profile", &profile]);
        run.args(["--api", &api, "--login", &api, "--quiet", "--output", &output]);
        ran(run).assert(3, &[]);
    }
    let rows = &report(&world, "queue-members.out")["unknown"];
    let lines: Vec<&str> = rows.iter().map(|row| row[6].as_str()).collect();
    let expected: Vec<String> = (2..=151).map(|line| line.to_string()).collect();
    assert_eq!(lines, expected, "a line of the report for each of the input");
    assert!(rows.iter().all(|row| row[2] == "504"), "{:?}", rows[0]);
    assert_eq!((rows[0][0].as_str(), rows[149][0].as_str()), ("q1", "q1#2"));
    let rows = &report(&world, "bulk-users.out")["unknown"];
    let named: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(named, ["ada@example.com", "grace@example.com"]);
}

#[test]
fn files_that_meet_are_refused_before_anything_is_touched() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", agents(3, 1));
    let input = std::fs::read(world.path("a.csv")).unwrap();
    std::fs::create_dir(world.path("sub")).unwrap();
    for more in [
        &["--output", "a.csv"][..],
        &["--output", "sub/../a.csv"],
        &["--output", "a.csv.journal"],
        &["--output", "a.csv.journal-wal"],
        &["--output", "a.csv.journal.lock"],
        &["--journal", "a.csv"],
    ] {
        let mut run = world.bulk_run(&RUN);
        run.args(more);
        ran(run).assert(2, &[more[0]]);
        assert_eq!(std::fs::read(world.path("a.csv")).unwrap(), input, "{more:?}");
        assert!(!world.path("a.csv.journal").exists(), "{more:?}");
    }
    world.write("u.csv", "name,email\nAda,ada@example.com\n");
    for more in [
        &["--results", "u.csv.journal"][..],
        &["--results", "r.out", "--output", "r.out"],
        &["--results", "u.csv"],
    ] {
        let mut run = world.bulk_run(&["u.csv", "--recipe", "bulk-users", "--profile", "genesys", "--quiet"]);
        run.args(more);
        ran(run).assert(2, &[more[more.len() - 2]]);
        assert!(!world.path("u.csv.journal").exists(), "{more:?}");
    }
    assert_eq!(world.writes(), 0);
    // A draft beside the result is nobody else's file.
    world.write("e.out.new", "precious");
    let mut run = world.bulk_run(&RUN);
    run.args(["--output", "e.out"]);
    ran(run).assert(0, &["3 ok"]);
    assert_eq!(std::fs::read_to_string(world.path("e.out.new")).unwrap(), "precious");
    let journal = std::fs::read(world.path("a.csv.journal")).unwrap();
    let over = ["report", "--journal", "a.csv.journal", "--output", "a.csv.journal"];
    ran(world.bulk(&over)).assert(2, &["--output"]);
    assert_eq!(std::fs::read(world.path("a.csv.journal")).unwrap(), journal);
}

#[test]
fn every_call_is_told_at_vv() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", agents(3, 1));
    let mut run = world.bulk_run(&RUN);
    run.arg("-vv");
    let told = ran(run);
    told.assert(0, &["3 ok"]);
    let calls = told.err.lines().filter(|line| line.contains("PATCH ") && line.ends_with(": 200"));
    let calls = calls.count()
        + told.err.lines().filter(|line| line.contains("PATCH ") && line.contains(": 200 ")).count();
    assert_eq!(calls, 3, "{}", told.err);
}

#[test]
fn a_copy_that_lacks_what_was_done_is_not_gone_on_with() {
    let world = World::new("limit = 0\nlatency = \"20ms\"\n");
    world.write("a.csv", agents(200, 1));
    let mut run = world.bulk_run(&RUN);
    run.args(["--concurrency", "4"]);
    let running = Running::new(run.spawn().unwrap());
    world.await_writes(20);
    // Of the one file, while the run is at it; and of all of them.
    std::fs::copy(world.path("a.csv.journal"), world.path("alone.journal")).unwrap();
    for suffix in ["", "-wal"] {
        let from = world.path(&format!("a.csv.journal{suffix}"));
        std::fs::copy(from, world.path(&format!("old.journal{suffix}"))).unwrap();
    }
    world.await_writes(60);
    running.signal("KILL");
    assert_eq!(running.end().code, None);
    let resume = |name: &str| ran(world.bulk(&["resume", "--journal", name, "--quiet"]));
    let before = world.writes();
    let alone = resume("alone.journal");
    alone.assert(5, &["is damaged", "log"]);
    // Put in the place of the journal it is older than what was acknowledged.
    for suffix in ["", "-wal"] {
        let to = world.path(&format!("a.csv.journal{suffix}"));
        std::fs::rename(world.path(&format!("old.journal{suffix}")), to).unwrap();
    }
    drop(std::fs::remove_file(world.path("a.csv.journal-shm")));
    resume("a.csv.journal").assert(5, &["is damaged"]);
    ran(world.bulk(&["status", "--journal", "a.csv.journal"])).assert(5, &["is damaged"]);
    assert_eq!(world.writes(), before, "nothing was sent on the word of either");
}

#[test]
fn a_ledger_has_one_gateway_whatever_name_it_is_opened_by() {
    let world = World::new("limit = 0\n");
    let serve = |state: &str| {
        let mut command = world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--api", &world.sim.url(), "--no-fetch-limits", "--state", state]);
        command
    };
    let first = Running::new(serve("keys.db").spawn().unwrap());
    let begun = std::time::Instant::now();
    while !world.path("keys.db.mark").exists() {
        assert!(begun.elapsed().as_secs() < 60, "the gateway does not start");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::os::unix::fs::symlink(world.path("keys.db"), world.path("link.db")).unwrap();
    let pid = format!("process {}", first.pid());
    ran(serve("link.db")).assert(2, &[&pid]);
    std::fs::remove_file(world.path("keys.db.lock")).unwrap();
    ran(serve("keys.db")).assert(2, &["another process"]);
    first.signal("INT");
    first.end();
}

#[test]
fn a_file_that_may_not_grow_is_a_failed_disk_and_no_death() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", agents(700, 1));
    let run = world.bulk_run(&RUN);
    let line: Vec<String> = run.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut shell = world.command(&[]);
    let program = shell.get_program().to_owned();
    shell = {
        let mut bash = std::process::Command::new("bash");
        for (name, value) in shell.get_envs() {
            match value {
                Some(value) => bash.env(name, value),
                None => bash.env_remove(name),
            };
        }
        bash.current_dir(world.folder.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .args(["-c", "ulimit -f 40; exec \"$0\" \"$@\""])
            .arg(program)
            .args(line);
        bash
    };
    ran(shell).assert(5, &["a.csv.journal"]);
    ran(world.bulk(&["resume", "--journal", "a.csv.journal"]))
        .assert(2, &["was left while it was being planned"]);
    assert_eq!(world.writes(), 0);
}
