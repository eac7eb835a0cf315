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

/// One listing, however it is asked for.
fn listing(body: &'static str) -> String {
    common::raw_server(move |first| {
        if first.contains("/oauth/token") {
            return common::token_answer();
        }
        if first.contains("/none") {
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    })
}

fn export_of(world: &World, api: &str, args: &[&str]) -> common::Ran {
    let mut command = world.command(&["export"]);
    command.args(args).args(["--api", api, "--login", api, "--profile", "genesys-guide", "--quiet"]);
    ran(command)
}

#[test]
fn a_listing_that_tells_of_more_than_its_pages_had_is_not_complete() {
    let world = World::new("limit = 0\n");
    for body in [
        r#"{"entities":[{"id":1},{"id":2}],"total":500,"pageNumber":1}"#,
        r#"{"entities":[{"id":1},{"id":2}],"pageCount":3}"#,
        r#"{"entities":[{"id":1},{"id":2}],"total":1}"#,
    ] {
        let api = listing(body);
        let args = ["/api/v2/things", "--out", "t.ndjson", "--force"];
        export_of(&world, &api, &args).assert(1, &["NOT COMPLETE", "2 rows"]);
        let text = std::fs::read(world.path("t.ndjson.manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(manifest["complete"], false, "{body}");
        // Looking again does not make it so.
        export_of(&world, &api, &["/api/v2/things", "--out", "t.ndjson", "--resume"])
            .assert(1, &["NOT COMPLETE"]);
        export_of(&world, &api, &["/api/v2/things"]).assert(1, &["NOT COMPLETE"]);
    }
    let api = listing(r#"{"entities":[{"id":1},{"id":2}],"total":6,"pageNumber":3,"pageCount":3}"#);
    export_of(&world, &api, &["/api/v2/things?pageNumber=3&pageSize=2"]).assert(0, &[]);
}

#[test]
fn a_complete_export_is_compared_with_its_manifest_before_it_is_called_so() {
    let world = World::new("limit = 0\nusers = 30");
    let args = ["/api/v2/users", "--quiet", "--out", "u.ndjson"];
    ran(export(&world, &args)).assert(0, &["30 rows"]);
    let again = [&args[..], &["--resume"]].concat();
    ran(export(&world, &again)).assert(0, &["complete already"]);
    let whole = std::fs::read(world.path("u.ndjson")).unwrap();
    let mut changed = whole.clone();
    changed[9] ^= 1;
    for damaged in [&changed[..], &whole[..100], &[&whole[..], b"{}\n"].concat()] {
        world.write("u.ndjson", damaged);
        ran(export(&world, &again)).assert(2, &["is not what its manifest says", "--force"]);
        assert_eq!(std::fs::read(world.path("u.ndjson")).unwrap(), damaged, "it is left as it is");
    }
    world.write("u.ndjson", &whole);
    world.write("u.ndjson.manifest.json", "[");
    ran(export(&world, &again)).assert(2, &["u.ndjson.manifest.json", "damaged", "--force"]);
}

#[test]
fn what_is_left_of_an_export_that_read_nothing_is_nothing() {
    let world = World::new("limit = 0\n");
    let api = listing(r#"{"entities":[{"id":1}]}"#);
    export_of(&world, &api, &["/api/v2/none", "--out", "n.ndjson"]).assert(2, &["404"]);
    assert!(std::fs::read_dir(world.folder.path()).unwrap().next().is_none(), "nothing is left");
    export_of(&world, &api, &["/api/v2/things", "--out", "n.ndjson"]).assert(0, &["1 rows"]);
    let missing = export_of(&world, &api, &["/api/v2/things", "--out", "nowhere/n.ndjson"]);
    missing.assert(2, &["nowhere"]);
    assert!(!missing.err.contains("--resume"), "{}", missing.err);
    // Interrupted, and its rows are gone.
    let running = World::new("limit = 0\nusers = 300\nlatency = \"30ms\"");
    let args = ["/api/v2/users", "--page-size", "5", "--quiet", "--out", "p.ndjson"];
    let process = Running::new(export(&running, &args).spawn().unwrap());
    let begun = Instant::now();
    while lines(&running.path("p.ndjson.part.log")) < 3 {
        assert!(begun.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(2));
    }
    process.signal("KILL");
    process.end();
    std::fs::remove_file(running.path("p.ndjson.part")).unwrap();
    let gone = ran(export(&running, &[&args[..], &["--resume"]].concat()));
    gone.assert(2, &["p.ndjson.part", "start again with --force"]);
}
