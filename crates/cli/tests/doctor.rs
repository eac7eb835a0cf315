//! `tidegate doctor` against simulators with one thing wrong each.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]

mod common;

use common::{Ran, World, ran};

fn doctor(world: &World, args: &[&str]) -> Ran {
    let mut command = world.command(&["doctor"]);
    command.args(args).args(["--api", &world.sim.url()]);
    ran(command)
}

#[track_caller]
fn told(ran: &Ran, code: i32, parts: &[&str]) {
    ran.assert(code, &[]);
    for part in parts {
        assert!(ran.out.contains(part), "`{part}` is missing in:\n{}", ran.out);
    }
}

#[test]
fn a_healthy_upstream_has_nothing_bad() {
    let world = World::new("headers = \"guide\"");
    let run = doctor(&world, &[]);
    told(
        &run,
        0,
        &["ok    api", "ok    login    credential default has a token", "ok    clock", "x-rate-limit"],
    );
    assert!(run.out.contains("ok    limits   the limits of this organisation can be listed"), "{}", run.out);
    assert!(!run.out.contains("BAD"), "{}", run.out);
    assert_eq!(world.writes(), 0);
}

#[test]
fn the_probe_tells_both_kinds_of_upstream_apart_and_leaves_nothing() {
    for (toml, found, writes) in [
        ("dedup = \"24h\"", "x-genesys-request-id is recognised: ", 2),
        ("", "x-genesys-request-id is not recognised: ", 4),
    ] {
        let world = World::new(toml);
        let run = doctor(&world, &["--probe-dedup", "--yes"]);
        told(&run, 0, &[found]);
        assert_eq!(world.writes(), writes, "each creation was deleted: {:?}", world.stats().writes);
        let mut list = world.command(&["export", "/api/v2/routing/skills", "--api"]);
        list.arg(world.sim.url());
        let left = ran(list);
        assert_eq!(left.out.lines().count(), 20, "{}", left.out);
    }
}

#[test]
fn a_probe_asks_before_it_writes() {
    let world = World::new("");
    doctor(&world, &["--probe-dedup"]).assert(2, &["--yes"]);
    assert_eq!(world.writes(), 0);
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let ahead = World::new("clock_ahead = \"1h\"");
    told(&doctor(&ahead, &[]), 1, &["BAD   clock", "s behind the upstream's: set it by NTP"]);

    let scopes =
        "[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:users\"]";
    let poor = World::new(scopes);
    told(
        &doctor(&poor, &[]),
        0,
        &["note  limits   cannot be listed, the credential lacks view:organizations"],
    );
    told(
        &doctor(&poor, &["--probe-dedup", "--yes"]),
        1,
        &["BAD   dedup    cannot be told: the credential lacks edit:routing"],
    );

    let other = World::new("[[oauth.clients]]\nid = \"someone\"\nsecret = \"demo-secret\"");
    told(&doctor(&other, &[]), 4, &["ok    api", "BAD   login", "check the client id and secret"]);

    let mut away = other.command(&["doctor", "--api", "http://127.0.0.1:1", "--format", "json"]);
    away.env("TIDEGATE_TIMEOUTS_CONNECT", "500ms");
    let away = ran(away);
    told(&away, 4, &["\"bad\""]);
    assert!(serde_json::from_str::<serde_json::Value>(&away.out).is_ok(), "{}", away.out);
}

#[test]
fn files_of_the_configuration_are_looked_at_whatever_the_upstream_does() {
    let world = World::new("limit = 0");
    let input = world.write("in.ndjson", "{\"method\":\"DELETE\",\"path\":\"/api/v2/users/x\"}\n");
    let mut run = world.command(&["bulk", "run", "--recipe", "requests", "--quiet"]);
    run.arg(&input).args(["--api", &world.sim.url()]);
    ran(run).assert(1, &[]);
    let journal = world.path("in.ndjson.journal");
    let state = world.path("state");
    let text = format!(
        "[state]\ndir = {:?}\nfile = {:?}\n",
        state.display().to_string(),
        world.path("keys.db").display().to_string()
    );
    let config = world.write("doctor.toml", text);
    let look = |api: &str| {
        let mut command = world.command(&["doctor", "--api", api, "--config"]);
        command.arg(&config).arg("--journal").arg(&journal);
        command.env("TIDEGATE_TIMEOUTS_CONNECT", "500ms");
        ran(command)
    };
    told(
        &look(&world.sim.url()),
        0,
        &[
            "no pacing is stored yet",
            "keys.db: is made with the first key",
            "sound, format 1.1; made ",
            ", 0 of 1 items pending",
        ],
    );
    assert!(!state.exists() && !world.path("keys.db").exists(), "looking makes nothing");

    // All that is wrong is told at once, and the upstream's absence decides the exit code.
    std::fs::create_dir(&state).unwrap();
    let host = world.sim.url().replace("http://", "").replace(':', "%3a");
    std::fs::write(state.join(format!("default@{host}.pacing.json")), "{\"version\":99}").unwrap();
    world.write("keys.db", "not a ledger");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    std::fs::write(&journal, bytes).unwrap();
    told(
        &look(&world.sim.url()),
        1,
        &[
            "ok    api",
            "BAD   state    state file ",
            "BAD   ledger   ledger ",
            "is no ledger of a gateway",
            "BAD   journal  ",
        ],
    );
    told(&look("http://127.0.0.1:1"), 4, &["BAD   api", "BAD   ledger   ", "BAD   journal  "]);
}
