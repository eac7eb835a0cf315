//! `tidegate export` against the simulator, killed as often as it can be.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Running, World, ran};

fn export(world: &World, args: &[&str]) -> std::process::Command {
    let mut command = world.command(&["export"]);
    command.args(args).args(["--api", &world.sim.url(), "--profile", "genesys-guide"]);
    command
}

fn lines(log: &Path) -> usize {
    std::fs::read_to_string(log).map_or(0, |text| text.lines().count())
}

#[test]
fn an_export_killed_ten_times_is_the_unbroken_one() {
    let world = World::new("limit = 0\nusers = 300\nlatency = \"20ms\"");
    let listing = ["/api/v2/users", "--page-size", "5", "--quiet"];
    ran(export(&world, &[&listing[..], &["--out", "whole.ndjson"]].concat()))
        .assert(0, &["300 rows in 60 pages"]);
    let broken = [&listing[..], &["--out", "broken.ndjson", "--resume"]].concat();
    let log = world.path("broken.ndjson.part.log");
    for kill in 1..=10 {
        let before = lines(&log);
        let mut running = Running::new(export(&world, &broken).spawn().unwrap());
        let begun = Instant::now();
        // The moments differ: behind a page, in the middle of one, before the first.
        while lines(&log) < before + kill % 4 {
            assert!(running.is_running() && begun.elapsed() < Duration::from_mins(1), "kill {kill}");
            std::thread::sleep(Duration::from_millis(2));
        }
        running.signal("KILL");
        assert_eq!(running.end().code, None, "kill {kill}");
        assert!(!world.path("broken.ndjson").exists());
    }
    ran(export(&world, &broken)).assert(0, &["300 rows in 60 pages"]);
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert_eq!(read("whole.ndjson"), read("broken.ndjson"));
    let manifest = |name: &str| serde_json::from_slice::<serde_json::Value>(&read(name)).unwrap();
    let (whole, broken) = (manifest("whole.ndjson.manifest.json"), manifest("broken.ndjson.manifest.json"));
    for key in ["sha256", "rows", "pages", "bytes", "request", "paging"] {
        assert_eq!(whole[key], broken[key], "{key}");
    }
    assert_eq!(world.stats().duplicates, 0);
}

#[test]
fn standard_output_is_the_rows_and_nothing_else() {
    let world = World::new("limit = 0\nusers = 30\nlatency = \"0ms\"");
    let run = ran(export(&world, &["/api/v2/scim/v2/users", "--page-size", "7"]));
    run.assert(0, &[]);
    let rows: Vec<serde_json::Value> =
        run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), rows[0]["active"].as_bool()), (30, Some(true)));
    assert!(std::fs::read_dir(world.folder.path()).unwrap().next().is_none(), "no file was written");
}

#[test]
fn ctrl_c_leaves_what_a_resume_goes_on_with() {
    let world = World::new("limit = 0\nusers = 300\nlatency = \"30ms\"");
    let args = ["/api/v2/users", "--page-size", "5", "--quiet", "--out", "out.ndjson"];
    let running = Running::new(export(&world, &args).spawn().unwrap());
    let begun = Instant::now();
    while lines(&world.path("out.ndjson.part.log")) < 3 {
        assert!(begun.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal("INT");
    running.end().assert(130, &["go on with the same command and --resume"]);
    ran(export(&world, &args)).assert(2, &["was interrupted after", "--resume", "--force"]);
    ran(export(&world, &[&args[..], &["--resume"]].concat())).assert(0, &["300 rows in 60 pages"]);
    ran(export(&world, &args)).assert(2, &["out.ndjson exists (replace it with --force)"]);
}

#[test]
fn mistakes_are_told_before_anything_is_read() {
    let world = World::new(
        "limit = 0\nusers = 3\n[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:scripts\"]",
    );
    for (args, part) in [
        (&["users"][..], "must start with one `/`"),
        (&["https://api.example.com/users"], "must start with one `/`"),
        (&["/api/v2/users", "--paging", "circles"], "`circles` is no style of paging"),
        (&["/api/v2/users", "--items", "entities"], "write /entities"),
        (&["/api/v2/users", "--resume"], "--out"),
    ] {
        ran(export(&world, args)).assert(2, &[part]);
    }
    ran(export(&world, &["/api/v2/scripts/none"])).assert(2, &["404"]);
    ran(export(&world, &["/api/v2/users"])).assert(4, &["403", "the credential lacks view:users"]);
}
