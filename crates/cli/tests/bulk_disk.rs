//! Disks that fail under a run: a clear error, nothing lost, nothing done twice.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use common::{World, agents, ran};

const RUN: [&str; 9] = [
    "a.csv",
    "--recipe",
    "user-skills",
    "--profile",
    "genesys-guide",
    "--concurrency",
    "8",
    "--quiet",
    "--api",
];

fn run(world: &World, fault: &str) -> common::Ran {
    let mut command = world.bulk(&["run"]);
    command.args(RUN).arg(world.sim.url()).env("TIDEGATE_FAULT_POINT", fault);
    ran(command)
}

fn resume(world: &World) -> common::Ran {
    ran(world.bulk(&["resume", "--journal", "a.csv.journal", "--quiet"]))
}

#[test]
fn a_disk_that_fails_while_sending_stops_the_run_and_a_resume_finishes_it() {
    let faults = [
        ("journal.intend=full:5", "the disk is full"),
        ("journal.record-ok=full:3", "the disk is full"),
        ("journal.record-ok=readonly:3", "cannot be written"),
        ("journal.intend=io:4", "disk I/O error"),
        ("journal.record-ok=io:2", "disk I/O error"),
    ];
    for (fault, words) in faults {
        let world = World::new("limit = 0\nlatency = \"5ms\"\ndedup = \"24h\"\n");
        world.write("a.csv", agents(60, 1));
        let failed = run(&world, fault);
        failed
            .assert(5, &[words, "a.csv.journal", "go on with: tidegate bulk resume --journal a.csv.journal"]);
        let so_far = world.writes();
        assert!(so_far < 60, "{fault}: it went on");
        resume(&world).assert(0, &["60 ok, 0 failed, 0 unknown, 0 pending"]);
        let stats = world.sim.stats();
        assert_eq!((stats.duplicates, stats.lost), (0, 0), "{fault}");
        assert_eq!(world.writes(), 60, "{fault}");
    }
}

#[test]
fn an_intent_that_cannot_be_written_is_never_sent() {
    for fault in ["journal.intend=full", "journal.intend=readonly", "journal.intend=io"] {
        let world = World::new("limit = 0\n");
        world.write("a.csv", agents(30, 1));
        run(&world, fault).assert(5, &["0 ok, 0 failed, 0 unknown, 30 pending"]);
        assert_eq!(world.writes(), 0, "{fault}");
        resume(&world).assert(0, &["30 ok"]);
    }
}

#[test]
fn a_disk_that_fails_while_planning_leaves_nothing_to_send() {
    for fault in ["journal.append=full", "journal.planned=io"] {
        let world = World::new("limit = 0\n");
        world.write("a.csv", agents(30, 1));
        run(&world, fault).assert(5, &["a.csv.journal"]);
        assert_eq!(world.writes(), 0);
        let again = ran({
            let mut command = world.bulk(&["run"]);
            command.args(RUN).arg(world.sim.url());
            command
        });
        again.assert(
            2,
            &["was left while it was being planned and nothing was sent; delete it and run again"],
        );
    }
}

#[test]
fn a_damaged_journal_is_named_and_nothing_is_sent() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", agents(2_000, 1));
    let failed = run(&world, "journal.intend=full");
    failed.assert(5, &["the disk is full"]);
    let path = world.path("a.csv.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 40, "{pages} pages");
    for page in 8..pages {
        bytes[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    std::fs::write(&path, bytes).unwrap();
    resume(&world)
        .assert(5, &["is damaged", "nothing was sent on its word", "compare the upstream with the input"]);
    assert_eq!(world.writes(), 0, "nothing is sent on the word of a damaged file");
    ran(world.bulk(&["report", "--journal", "a.csv.journal"])).assert(5, &["is damaged"]);
}

#[test]
fn a_folder_or_file_that_cannot_be_written_is_told_before_anything_is_sent() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new("limit = 0\n");
    world.write("a.csv", agents(30, 1));
    run(&world, "journal.intend=full").assert(5, &[]);
    let path = world.path("a.csv.journal");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    // The superuser may write what nobody may.
    let writable = std::fs::OpenOptions::new().write(true).open(&path).is_ok();
    let ended = resume(&world);
    if writable {
        ended.assert(0, &["30 ok"]);
    } else {
        ended.assert(5, &["cannot be written", "check the permissions of the file and its folder"]);
        assert_eq!(world.writes(), 0);
    }
}
