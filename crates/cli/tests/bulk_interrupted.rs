//! Runs that do not get to their end at the first try: nothing is lost, nothing is done twice, and what nobody can
//! know is said so.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use std::time::{Duration, Instant};

use common::{Cable, Ran, Running, World, agents, by_status, expected, ran, skilled, tidegate};

/// Slow enough to be caught in the middle, without a limit of its own.
const SLOW: &str = "limit = 0\nlatency = \"40ms\"\ndedup = \"24h\"\n";

const RUN: [&str; 8] =
    ["a.csv", "--recipe", "user-skills", "--profile", "genesys-guide", "--concurrency", "16", "--quiet"];

const GENESYS: &str = include_str!("../../../profiles/genesys.toml");

/// The platform's profile, without a way to find out what became of a write.
fn without_rules() -> String {
    let (before, rules) = GENESYS.split_once("[[reconcile]]").unwrap();
    let (_, after) = rules.split_once("[oauth]").unwrap();
    format!("{before}[oauth]{after}")
}

fn resume(world: &World) -> Ran {
    ran(world.bulk(&["resume", "--journal", "a.csv.journal", "--output", "out.csv"]))
}

fn result(world: &World) -> std::collections::BTreeMap<String, Vec<Vec<String>>> {
    by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap())
}

#[test]
fn ctrl_c_drains_and_a_resume_finishes() {
    let world = World::new(SLOW);
    let csv = agents(300, 3);
    world.write("a.csv", &csv);
    let mut run = world.bulk_run(&RUN);
    run.args(["--output", "out.csv"]);
    let run = Running::new(run.spawn().unwrap());
    world.await_writes(80);
    run.signal("INT");
    run.end().assert(
        130,
        &["stopping: ", "tidegate: interrupted", "go on with: tidegate bulk resume --journal a.csv.journal"],
    );
    let so_far = result(&world);
    assert_eq!(so_far["ok"].len() as u64, world.writes(), "what was in flight was awaited and written down");
    assert_eq!(so_far["ok"].len() + so_far["pending"].len(), 300, "{:?}", so_far.keys());
    // The journal knows where the run went.
    resume(&world).assert(0, &["300 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates, stats.lost), (300, 0, 0));
    assert_eq!((stats.retried, stats.replayed), (0, 0), "nothing was in doubt");
    assert_eq!(skilled(&stats), expected(&csv));
    ran(world.bulk(&["resume", "--journal", "a.csv.journal"])).assert(0, &["300 ok", "0 attempts"]);
    assert_eq!(world.writes(), 300);
}

#[test]
fn ctrl_c_does_not_wait_for_quota() {
    let world = World::new("limit = 20\nwindow = \"1h\"\nheaders = \"guide\"\n");
    world.write("a.csv", agents(100, 1));
    let run = Running::new(world.bulk_run(&RUN).spawn().unwrap());
    world.await_writes(15);
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    run.signal("INT");
    run.end().assert(130, &[" ok, 0 failed, 0 unknown, "]);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_done_twice_where_keys_are_recognised() {
    for at in [1, 20, 50, 75] {
        let world = World::new(SLOW);
        let csv = agents(80, 3);
        world.write("a.csv", &csv);
        let run = Running::new(world.bulk_run(&RUN).spawn().unwrap());
        world.await_writes(at);
        run.signal("KILL");
        assert_eq!(run.end().code, None);
        resume(&world).assert(0, &["80 ok, 0 failed, 0 unknown, 0 pending"]);
        let stats = world.stats();
        let books = (stats.writes.values().sum::<u64>(), stats.duplicates, stats.lost);
        assert_eq!(books, (80, 0, 0), "killed after {at} writes");
        assert_eq!(skilled(&stats), expected(&csv), "killed after {at} writes");
    }
}

#[test]
fn killed_where_keys_are_not_recognised_writes_in_doubt_are_unknown_and_never_sent_again() {
    let world = World::new("limit = 0\nlatency = \"40ms\"\n");
    world.write("a.csv", agents(200, 1));
    let mut run = world.bulk_run(&["a.csv", "--recipe", "user-skills", "--concurrency", "16"]);
    world.write("plain.toml", without_rules());
    run.args(["--profile", "plain.toml"]);
    let run = Running::new(run.spawn().unwrap());
    world.await_writes(90);
    run.signal("KILL");
    run.end();
    resume(&world).assert(3, &[" unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.duplicates, stats.retried), (0, 0));
    let rows = result(&world);
    let unknown = &rows["unknown"];
    assert!((1..=16).contains(&unknown.len()), "{} unknown", unknown.len());
    assert!(unknown.iter().all(|row| row[5].contains("not repeatable")), "{unknown:?}");
    assert_eq!(rows["ok"].len() + unknown.len(), 200);
    // Those in doubt may have been done; all others were, once.
    let done = skilled(&stats);
    assert!(rows["ok"].iter().all(|row| done.contains_key(&row[0])));
    // Looking again changes nothing.
    resume(&world).assert(3, &["; 0 attempts"]);
}

#[test]
fn an_upstream_that_goes_away_leaves_the_rest_pending_and_resumable() {
    let world = World::new(SLOW);
    let mut cable = Cable::new(&world);
    let csv = agents(150, 2);
    world.write("a.csv", &csv);
    let profile = world.quick_profile("genesys-guide");
    let mut run = world.command(&["bulk", "run", "a.csv", "--recipe", "user-skills", "--concurrency", "8"]);
    run.args(["--profile", &profile, "--api", &cable.url(), "--patience", "1s"]);
    let run = Running::new(run.spawn().unwrap());
    world.await_writes(50);
    cable.cut(&world);
    let run = run.end();
    run.assert(4, &["Connection refused", " 0 failed, 0 unknown, ", "go on with: tidegate bulk resume"]);
    // Still away: nothing changes, also not for what is in doubt.
    resume(&world).assert(4, &["cannot connect to", "nothing was sent; check --api, --region or --via"]);
    let look = ran(world.bulk(&["status", "--journal", "a.csv.journal"]));
    assert!(look.out.contains(" 0 failed, 0 unknown, "), "{}", look.out);
    cable.mend(&world);
    resume(&world).assert(0, &["150 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates, stats.lost), (150, 0, 0));
    assert_eq!(skilled(&stats), expected(&csv));
}

#[test]
fn a_wrong_secret_is_told_by_the_credentials_name_before_there_is_a_journal() {
    let world = World::new(SLOW);
    world.write("a.csv", agents(20, 1));
    let mut run = world.bulk_run(&RUN);
    run.env("GENESYSCLOUD_OAUTHCLIENT_SECRET", "wrong-s3cret").env("TIDEGATE_CREDENTIAL_NAME", "wfm");
    let run = ran(run);
    run.assert(
        4,
        &[
            "no token for credential wfm: the token endpoint refused the client id or secret",
            "nothing was sent; check the client id and secret, and that they belong to this region",
        ],
    );
    assert!(!run.err.contains("wrong-s3cret"), "{}", run.err);
    assert!(!world.path("a.csv.journal").exists());
    assert_eq!(world.writes(), 0);
}

#[test]
fn a_resume_with_a_wrong_secret_changes_nothing() {
    let world = World::new(SLOW);
    world.write("a.csv", agents(100, 1));
    let run = Running::new(world.bulk_run(&RUN).spawn().unwrap());
    world.await_writes(30);
    run.signal("KILL");
    run.end();
    let before = ran(world.bulk(&["status", "--journal", "a.csv.journal"])).out;
    let mut wrong = world.bulk(&["resume", "--journal", "a.csv.journal"]);
    wrong.env("GENESYSCLOUD_OAUTHCLIENT_SECRET", "wrong-s3cret");
    ran(wrong).assert(4, &["no token for credential default"]);
    assert_eq!(ran(world.bulk(&["status", "--journal", "a.csv.journal"])).out, before);
    resume(&world).assert(0, &["100 ok, 0 failed, 0 unknown, 0 pending"]);
}

#[test]
fn a_journal_in_use_names_the_process_that_holds_it() {
    let world = World::new(SLOW);
    world.write("a.csv", agents(200, 1));
    let run = Running::new(world.bulk_run(&RUN).spawn().unwrap());
    world.await_writes(10);
    let held = format!("is in use by process {}; wait until it ends, or stop it with Ctrl-C", run.pid());
    resume(&world).assert(2, &[&held]);
    ran(world.bulk_run(&RUN)).assert(2, &[&held]);
    // Looking is allowed meanwhile.
    ran(world.bulk(&["status", "--journal", "a.csv.journal"])).assert(0, &[]);
    run.end().assert(0, &["200 ok"]);
    assert_eq!(world.stats().duplicates, 0);
}

#[test]
fn a_resume_for_another_tenant_is_refused() {
    let world = World::new(SLOW);
    world.write("a.csv", agents(50, 1));
    let mut run = world.bulk_run(&RUN);
    run.env("TIDEGATE_TENANT", "acme");
    let run = Running::new(run.spawn().unwrap());
    world.await_writes(5);
    run.signal("INT");
    run.end().assert(130, &[]);
    let writes = world.writes();
    resume(&world).assert(
        2,
        &["a.csv.journal is a run for tenant `acme`, not `default` (set tenant in tidegate.toml or TIDEGATE_TENANT)"],
    );
    assert_eq!(world.writes(), writes);
    let mut right = world.bulk(&["resume", "--journal", "a.csv.journal"]);
    right.env("TIDEGATE_TENANT", "acme");
    ran(right).assert(0, &["50 ok"]);
}

#[test]
fn faults_on_the_way_change_nothing_where_keys_are_recognised() {
    let faults = "[faults]\ndrop_after = 0.02\ndrop_before = 0.02\nunavailable = 0.02\nunavailable_hint = \"1s\"\ntimeout_after = 0.02\n";
    let world = World::new(&format!("limit = 0\ndedup = \"24h\"\nlatency = \"5ms\"\n{faults}"));
    let csv = agents(500, 2);
    world.write("a.csv", &csv);
    let profile = world.quick_profile("genesys-guide");
    let run = ran(world.bulk_run(&[
        "a.csv",
        "--recipe",
        "user-skills",
        "--profile",
        &profile,
        "--output",
        "out.csv",
    ]));
    run.assert(0, &["500 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.duplicates, stats.lost), (500, 0, 0));
    assert!(stats.faults.len() == 4 && stats.replayed > 0, "the faults happened: {:?}", stats.faults);
    assert_eq!(skilled(&stats), expected(&csv));
    assert!(result(&world)["ok"].iter().any(|row| row[3] != "1"), "the attempts are told");
}

#[test]
fn faults_where_keys_are_not_recognised_leave_unknowns_and_no_duplicate() {
    let world = World::new(
        "limit = 0\n[faults]\nmatch = \"PATCH /api/**\"\ndrop_after = 0.03\ntimeout_after = 0.03\nunavailable = 0.03\nunavailable_hint = \"1s\"\n",
    );
    world.write("a.csv", agents(200, 1));
    world.write("plain.toml", without_rules());
    let run = ["a.csv", "--recipe", "user-skills", "--output", "out.csv", "--profile", "plain.toml"];
    let run = ran(world.bulk_run(&run));
    run.assert(3, &[" 0 failed, ", " unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.duplicates, stats.writes.values().sum::<u64>()), (0, 200), "all were done, once");
    let rows = result(&world);
    let doubtful = stats.faults["drop-after"] + stats.faults["timeout-after"];
    assert_eq!(rows["unknown"].len() as u64, doubtful);
    assert!(rows["unknown"].iter().all(|row| row[5].contains("the upstream may have executed it")));
}

/// The platform's profile, finding out sooner than it is safe against the platform.
fn hasty() -> String {
    GENESYS.replace("settle = \"30s\"", "settle = \"5s\"").replace("settle = \"10s\"", "settle = \"5s\"")
}

/// 80 creations, 60 updates, 20 changes of skills and 40 deletions.
fn mixed() -> String {
    let user = |number: u32| format!("/api/v2/users/00000000-0000-4000-8000-{number:012x}");
    let line = |id: u32, method: &str, path: &str, body: &str| {
        format!("{{\"id\":\"{id}\",\"method\":\"{method}\",\"path\":\"{path}\"{body}}}\n")
    };
    (0..200)
        .map(|n| match n % 10 {
            0..=3 => {
                let body = format!(",\"body\":{{\"name\":\"New {n}\",\"email\":\"new{n}@example.com\"}}");
                line(n, "POST", "/api/v2/users", &body)
            }
            4..=6 => {
                line(n, "PATCH", &user(n + 1), &format!(",\"body\":{{\"title\":\"T{n}\",\"version\":1}}"))
            }
            7 => {
                let body = ",\"body\":[{\"id\":\"10000000-0000-4000-8000-000000000001\",\"proficiency\":3}]";
                line(n, "PATCH", &format!("{}/routingskills/bulk", user(n + 1)), body)
            }
            _ => line(n, "DELETE", &user(n + 1), ""),
        })
        .collect()
}

#[test]
fn with_rules_to_find_out_nothing_stays_unknown_and_nothing_is_done_twice() {
    // Reading late and executing late take less than the 5 s of the rules together.
    let world = World::new(
        "limit = 0\nlag = \"2s\"\n[faults]\ndrop_after = 0.05\ndrop_before = 0.05\ntimeout_after = 0.05\nlate = 0.03\n",
    );
    world.write("hasty.toml", hasty());
    world.write("a.ndjson", mixed());
    let run = ["a.ndjson", "--recipe", "requests", "--profile", "hasty.toml", "--concurrency", "64"];
    ran(world.bulk_run(&run)).assert(0, &["200 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.duplicates, stats.lost), (0, 0));
    assert_eq!(stats.writes["POST /api/v2/users"], 80);
    assert_eq!(stats.writes["PATCH /api/v2/users/{id}"], 60);
    assert!(stats.faults.len() == 4, "the faults happened: {:?}", stats.faults);
}

/// Finds out by the version of a user.
const RETITLE: &str = r#"
name = "retitle"
method = "PATCH"
path = "/api/v2/users/{user_id}"
id = "user_id"
body = { title = "{title}", version = "{version:number}" }

[reconcile]
version = "/version"
same = "/title"
"#;

#[test]
fn killed_a_run_finds_out_by_the_rule_its_recipe_had_then() {
    let world = World::new("limit = 0\nlatency = \"40ms\"\n");
    let rows = (1..=200).map(|n| format!("00000000-0000-4000-8000-{n:012x},Title {n},1\n"));
    world.write("a.csv", format!("user_id,title,version\n{}", rows.collect::<String>()));
    world.write("retitle.toml", RETITLE);
    world.write("plain.toml", without_rules());
    let mut run = world.bulk_run(&["a.csv", "--recipe", "retitle.toml", "--concurrency", "16"]);
    run.args(["--profile", "plain.toml"]);
    let run = Running::new(run.spawn().unwrap());
    world.await_writes(90);
    run.signal("KILL");
    run.end();
    std::fs::remove_file(world.path("retitle.toml")).unwrap();
    resume(&world).assert(0, &["200 ok, 0 failed, 0 unknown, 0 pending"]);
    let stats = world.stats();
    assert_eq!((stats.writes["PATCH /api/v2/users/{id}"], stats.duplicates), (200, 0));
    assert_eq!(stats.statuses.get(&409), None, "nothing that was done was sent again");
}

#[test]
fn no_credential_at_all_is_told_before_anything_is_sent() {
    let world = World::new(SLOW);
    world.write("a.csv", agents(2, 1));
    let mut run = tidegate(world.folder.path());
    run.args(["bulk", "run", "a.csv", "--recipe", "user-skills", "--api", &world.sim.url()]);
    ran(run).assert(2, &["no credential for http://127.0.0.1:", "set GENESYSCLOUD_OAUTHCLIENT_ID and"]);
    assert!(!world.path("a.csv.journal").exists());
}
