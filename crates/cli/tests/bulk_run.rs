//! Whole runs of the real binary against the simulator, which is the judge.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]

mod common;

use std::path::Path;

use common::{Running, World, agents, by_status, expected, ran, skilled, tidegate};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agent-skills.csv");

#[test]
fn the_example_is_applied_once_each_without_a_throttle_while_tokens_live_two_seconds() {
    let world = World::new(
        "limit = 300\nwindow = \"5s\"\nheaders = \"guide\"\nlatency = \"50ms\"\ndedup = \"24h\"\n[oauth]\ntoken_ttl = \"2s\"\nlatency = \"30ms\"\n",
    );
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    let input = world.write("agent-skills.csv", &example);
    let output = world.path("result.csv");
    let run = ran(world.bulk_run(&[
        input.to_str().unwrap(),
        "--recipe",
        "user-skills",
        "--profile",
        "genesys-guide",
        "--concurrency",
        "4",
        "--output",
        output.to_str().unwrap(),
    ]));
    run.assert(0, &["1500 rows become 500 requests; journal ", "500 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!(stats.writes.values().sum::<u64>(), 500);
    assert_eq!((stats.duplicates, stats.lost, stats.throttled), (0, 0, 0), "{stats:?}");
    assert_eq!(skilled(&stats), expected(&example));
    assert_eq!((stats.oauth.overlap_max, stats.oauth.refused), (1, 0));
    assert!(stats.oauth.calls >= 3, "{} logins in {} s", stats.oauth.calls, stats.elapsed);
    let result = std::fs::read_to_string(&output).unwrap();
    assert_eq!(by_status(&result)["ok"].len(), 500);
    assert!(!world.path("result.csv.new").exists());
    assert!(world.path("agent-skills.csv.journal").exists(), "beside the input");
}

#[test]
fn a_run_uses_what_the_organisation_was_granted_beyond_the_declared_quota() {
    let world = World::new("limit = 1000\nwindow = \"60s\"\nheaders = \"none\"\n");
    let input = world.write("a.csv", agents(400, 1));
    let input = input.to_str().unwrap();
    let run = ran(world.bulk_run(&[input, "--recipe", "user-skills", "--profile", "genesys"]));
    run.assert(0, &["400 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.throttled, stats.duplicates), (0, 0));
    assert!(
        stats.elapsed < 60.0,
        "300 per minute are declared, so it would take a minute: {} s",
        stats.elapsed
    );
    // The run asked for the listing and for the defaults, and 400 writes and the two are all that was counted.
    assert_eq!(stats.accepted, 402);
}

#[test]
fn a_run_that_is_finished_is_not_sent_again() {
    let world = World::new("limit = 0\n");
    let input = world.write("a.csv", agents(5, 1));
    let args = [input.to_str().unwrap(), "--recipe", "user-skills"];
    ran(world.bulk_run(&args)).assert(0, &[]);
    let journal = world.path("a.csv.journal");
    ran(world.bulk_run(&args)).assert(
        2,
        &[&format!(
            "journal {}: already exists; continue it with `tidegate bulk resume`, or choose another --journal",
            journal.display()
        )],
    );
    // Not even the upstream is asked for.
    let mut resume = world.bulk(&["resume", "--journal", journal.to_str().unwrap()]);
    resume.args(["--api", "http://127.0.0.1:1"]);
    ran(resume).assert(0, &["5 ok, 0 failed, 0 unknown, 0 pending; 0 attempts"]);
    assert_eq!(world.writes(), 5);
}

#[test]
fn a_dry_run_shows_requests_and_forecast_and_sends_nothing() {
    let world = World::new("limit = 0\n");
    let input = world.write("a.csv", agents(7, 2));
    let mut dry = tidegate(world.folder.path());
    dry.args(["bulk", "run", input.to_str().unwrap(), "--recipe", "user-skills", "--dry-run"]);
    let run = ran(dry);
    run.assert(0, &[]);
    let shown = "14 rows become 7 requests; nothing was sent.\n\n\
        PATCH /api/v2/users/00000000-0000-4000-8000-000000000001/routingskills/bulk\n\
        [{\"id\":\"10000000-0000-4000-8000-000000000001\",\"proficiency\":2},{\"id\":\"10000000-0000-4000-8000-000000000002\",\"proficiency\":3}]\n";
    assert!(run.out.starts_with(shown), "{}", run.out);
    assert!(run.out.contains("… and 2 more.\n\nForecast: about 1 s at limit "), "{}", run.out);
    assert!(!world.path("a.csv.journal").exists());
    // With names it has to ask what they are, and nothing more.
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    world.write("b.csv", &example);
    let run = ran(world.bulk_run(&["b.csv", "--recipe", "user-skills", "--dry-run"]));
    run.assert(0, &[]);
    assert!(run.out.contains("1500 rows become 500 requests; nothing was sent."), "{}", run.out);
    assert_eq!(world.writes(), 0);
}

#[test]
fn requests_written_out_one_per_line_are_sent_as_they_are() {
    let world = World::new("limit = 0\n");
    let user = "00000000-0000-4000-8000-000000000001";
    let lines = format!(
        "{{\"id\":\"new\",\"method\":\"POST\",\"path\":\"/api/v2/users\",\"body\":{{\"name\":\"Ada\",\"email\":\"ada@example.com\"}}}}\n\
         {{\"id\":\"skills\",\"method\":\"PATCH\",\"path\":\"/api/v2/users/{user}/routingskills/bulk\",\"body\":[{{\"id\":\"10000000-0000-4000-8000-000000000001\",\"proficiency\":4}}]}}\n\
         {{\"id\":\"nobody\",\"method\":\"PATCH\",\"path\":\"/api/v2/users/11111111-0000-4000-8000-000000000001/routingskills/bulk\",\"body\":[]}}\n"
    );
    world.write("r.ndjson", lines);
    let run = ran(world.bulk_run(&["r.ndjson", "--recipe", "requests", "--output", "r.csv"]));
    run.assert(1, &["2 ok, 1 failed, 0 unknown, 0 pending"]);
    let statuses = by_status(&std::fs::read_to_string(world.path("r.csv")).unwrap());
    let ids: Vec<&str> = statuses["ok"].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(ids, ["new", "skills"]);
    let failed = &statuses["failed"][0];
    assert_eq!((failed[0].as_str(), failed[2].as_str(), failed[3].as_str()), ("nobody", "404", "1"));
    assert!(failed[5].contains("not found") || failed[5].contains("not.found"), "{failed:?}");
    let stats = world.stats();
    assert_eq!(stats.users_total, 501);
    let skills = &stats.users.unwrap()[user];
    assert!((skills["10000000-0000-4000-8000-000000000001"] - 4.0).abs() < 1e-9, "{skills:?}");
    // `report` and `status` say the same again, from the journal alone.
    let report = ran(world.bulk(&["report", "--journal", "r.ndjson.journal"]));
    report.assert(1, &[]);
    assert_eq!(report.out, std::fs::read_to_string(world.path("r.csv")).unwrap());
    let look = ran(world.bulk(&["status", "--journal", "r.ndjson.journal", "--format", "json"]));
    let look: serde_json::Value = serde_json::from_str(&look.out).unwrap();
    assert_eq!((&look["ok"], &look["failed"], &look["items"]), (&2.into(), &1.into(), &3.into()));
}

#[test]
fn a_recipe_of_ones_own_is_a_file() {
    let world = World::new("limit = 0\nrequire_version = true\n");
    // The example of docs/bulk.md.
    world.write(
        "rename.toml",
        r#"name = "rename-users"
method = "PATCH"
path = "/api/v2/users/{user_id}"
id = "user_id"
body = { name = "{first} {last}", title = "{title?}", version = "{version:number}" }

[column.version]
min = 1
"#,
    );
    world.write(
        "people.csv",
        "user_id,first,last,title,version\n\
         00000000-0000-4000-8000-000000000001,Ada,Lovelace,,1\n\
         00000000-0000-4000-8000-000000000002,\"Grace \"\"G\"\"\",Hopper,Admiral,1\n\
         00000000-0000-4000-8000-000000000003,Alan,Turing,,9\n",
    );
    let run = ran(world.bulk_run(&["people.csv", "--recipe", "rename.toml", "--output", "out.csv"]));
    run.assert(1, &["2 ok, 1 failed"]);
    let statuses = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
    assert_eq!(statuses["failed"][0][0], "00000000-0000-4000-8000-000000000003");
    assert_eq!(statuses["failed"][0][2], "409");
    assert_eq!(world.writes(), 2);
}

#[test]
fn names_are_looked_up_and_the_result_file_replaces_an_old_one_at_the_end() {
    let world = World::new("limit = 0\n");
    world.write("a.csv", "user_id,skill,proficiency\n00000000-0000-4000-8000-000000000001,VIP,5\n");
    world.write("out.csv", "old\n");
    let run = ran(world.bulk_run(&["a.csv", "--recipe", "user-skills", "--output", "out.csv", "--quiet"]));
    run.assert(0, &["1 ok"]);
    assert!(std::fs::read_to_string(world.path("out.csv")).unwrap().starts_with("id,status,"));
    assert_eq!(skilled(&world.stats()).len(), 1);
    let nowhere = ran(world.bulk_run(&[
        "a.csv",
        "--recipe",
        "user-skills",
        "--journal",
        "j",
        "--output",
        "no/out.csv",
    ]));
    nowhere.assert(2, &["--output: cannot write no/out.csv: No such file or directory"]);
    assert!(!Path::new(&world.path("j")).exists());
    assert_eq!(world.writes(), 1);
}

/// A gateway in front of the simulator (or of what else is given), and its address.
fn gateway(world: &World, api: &str, args: &[&str]) -> (Running, String) {
    use std::io::{BufRead as _, BufReader};
    let mut serve =
        world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--api", api]);
    serve.args(args);
    let mut child = serve.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    (Running::new(child), url)
}

#[test]
fn a_run_goes_through_a_gateway_that_holds_the_credential() {
    let world = World::new("limit = 100\nwindow = \"1s\"\nheaders = \"guide\"\n");
    let (serving, url) = gateway(&world, &world.sim.url(), &["--profile", "genesys-guide"]);
    let csv = agents(200, 2);
    world.write("a.csv", &csv);
    let mut run = tidegate(world.folder.path());
    run.args([
        "bulk",
        "run",
        "a.csv",
        "--recipe",
        "user-skills",
        "--via",
        &url,
        "--profile",
        "genesys-guide",
    ]);
    ran(run).assert(0, &["400 rows become 200 requests", "200 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates, stats.oauth.calls), (200, 0, 1));
    assert_eq!(skilled(&stats), expected(&csv));
    serving.signal("INT");
    serving.end().assert(0, &["draining"]);
}

#[test]
fn what_a_gateway_could_not_send_stays_pending_and_is_never_called_unknown() {
    let world = World::new("limit = 0\n");
    let (_serving, url) = gateway(&world, "http://127.0.0.1:1", &["--max-wait", "1s"]);
    world.write("a.csv", agents(12, 1));
    let profile = world.quick_profile("genesys");
    let mut run = tidegate(world.folder.path());
    run.args([
        "bulk",
        "run",
        "a.csv",
        "--recipe",
        "user-skills",
        "--via",
        &url,
        "--profile",
        &profile,
        "--patience",
        "1s",
    ]);
    ran(run).assert(
        4,
        &[
            "0 ok, 0 failed, 0 unknown, 12 pending",
            "go on with: tidegate bulk resume --journal a.csv.journal",
        ],
    );
}
