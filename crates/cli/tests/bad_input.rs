//! Everything a person can hand over wrongly, exactly what they are told, and with which exit code. Nothing of it is
//! applied, and nothing is left behind.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]

mod common;

use std::net::TcpListener;

use common::{Ran, World, agents, by_status, ran, raw_server, tidegate, token_answer};

const HEADER: &str = "user_id,skill_id,proficiency\n";
const SKILL: &str = "10000000-0000-4000-8000-000000000001";
const USER: &str = "00000000-0000-4000-8000-000000000001";

fn world() -> World {
    World::new("limit = 0\n")
}

/// Runs `input` by `recipe`, and proves that the upstream saw no write and that no journal was made.
#[track_caller]
fn refused(world: &World, input: &str, recipe: &str, code: i32, parts: &[&str]) -> Ran {
    let run = ran(world.bulk_run(&[input, "--recipe", recipe]));
    run.assert(code, parts);
    assert_eq!(world.writes(), 0);
    assert!(!world.path(&format!("{input}.journal")).exists(), "nothing is left behind");
    run
}

/// `user-skills` over this CSV ends with exit code 2 and these words.
#[track_caller]
fn csv(text: impl AsRef<[u8]>, parts: &[&str]) {
    let world = world();
    world.write("in.csv", text);
    refused(&world, "in.csv", "user-skills", 2, parts);
    // Without asking the upstream for anything: what is wrong with a file shows offline.
    assert_eq!(world.sim.stats().oauth.calls, 0);
}

#[test]
fn a_missing_csv_column_is_named_with_what_there_is() {
    csv(
        format!("userid,skill_id\n{USER},{SKILL}\n"),
        &[
            "in.csv has 2 problems:",
            "line 1: column `proficiency` is missing; the header has: userid, skill_id",
            "line 1: column `user_id` is missing; the header has: userid, skill_id; did you mean `userid`?",
        ],
    );
}

#[test]
fn a_duplicate_header_is_named_with_both_places() {
    csv(
        "user_id,skill_id,user_id,proficiency\n",
        &["line 1: column `user_id` appears twice, in fields 1 and 3"],
    );
}

#[test]
fn an_empty_id_is_named_with_its_line() {
    csv(format!("{HEADER}{USER},{SKILL},1\n,{SKILL},3\n"), &["line 3, column `user_id`: is empty"]);
}

#[test]
fn invalid_utf8_is_named_with_line_and_byte() {
    csv(
        [HEADER.as_bytes(), b"u\xe9,s1,3\n"].concat(),
        &["line 2: field 1: byte 0xe9 is not UTF-8; save the file as UTF-8"],
    );
}

#[test]
fn a_ten_megabyte_field_is_refused() {
    csv(
        format!("{HEADER}u1,{},3\n", "s".repeat(10 << 20)),
        &["line 2: the row is longer than 1048576 bytes"],
    );
}

#[test]
fn an_unclosed_quote_is_named_where_it_opens() {
    csv(
        format!("{HEADER}u1,s1,3\nu2,\"s1,3\nu3,s1,3\n"),
        &["line 3: the quote that opens here is never closed"],
    );
}

#[test]
fn an_empty_file_is_no_run() {
    csv("", &["in.csv has 1 problem:\n  is empty; the first line names the columns"]);
}

#[test]
fn an_unknown_skill_is_told_with_a_near_one() {
    let world = world();
    world.write("in.csv", format!("user_id,skill,proficiency\n{USER},Suport,3\n{USER},Plumbing,1\n"));
    let parts = [
        "line 2, column `skill`: unknown skill `Suport` (of 20 at /api/v2/routing/skills); did you mean `Support`?",
        "line 3, column `skill`: unknown skill `Plumbing` (of 20 at /api/v2/routing/skills)",
    ];
    refused(&world, "in.csv", "user-skills", 2, &parts);
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_told() {
    let world = world();
    refused(&world, "none.csv", "user-skills", 2, &["cannot read none.csv: No such file or directory"]);
    std::fs::create_dir(world.path("folder")).unwrap();
    refused(
        &world,
        "folder",
        "user-skills",
        2,
        &["folder is not a regular file (write the input to a file first)"],
    );
}

#[test]
fn an_unknown_recipe_is_told_with_a_near_one() {
    let world = world();
    world.write("in.csv", agents(1, 1));
    let parts = [
        "unknown recipe `user-skils`; did you mean `user-skills`?",
        "built in: analytics-conversations, bulk-users,",
    ];
    refused(&world, "in.csv", "user-skils", 2, &parts);
}

#[test]
fn a_recipe_that_names_an_absent_column_is_told_with_the_header() {
    let world = world();
    world.write(
        "r.toml",
        "name = \"r\"\nmethod = \"PATCH\"\npath = \"/api/v2/users/{user}\"\nbody = { name = \"{name}\" }\n",
    );
    world.write("in.csv", "user_id,name\nu1,Ada\n");
    let parts = ["line 1: column `user` is missing; the header has: user_id, name"];
    refused(&world, "in.csv", "r.toml", 2, &parts);
}

#[test]
fn an_unknown_key_of_a_recipe_is_named_with_its_line() {
    let world = world();
    world.write("r.toml", "name = \"r\"\nmethod = \"PATCH\"\npath = \"/api/v2/users/{id}\"\nboddy = \"x\"\n");
    world.write("in.csv", "id\nu1\n");
    refused(&world, "in.csv", "r.toml", 2, &["r.toml has 1 problem:", "line 4: ", "boddy", "body"]);
}

#[test]
fn unknown_keys_of_the_configuration_are_named_with_their_lines_and_all_at_once() {
    let world = world();
    world.write("in.csv", agents(1, 1));
    world.write(
        "tidegate.toml",
        "regoin = \"x\"\n\n[credential]\nclient_secret = \"demo-secret\"\nnmae = \"a\"\n",
    );
    let parts = [
        "tidegate.toml:1: regoin: is not a known key (did you mean `region`?)",
        "tidegate.toml:4: credential.client_secret: secrets do not belong into this file (set it in the environment, or name a client_secret_file)",
        "tidegate.toml:5: credential.nmae: is not a known key (did you mean `name`?)",
    ];
    refused(&world, "in.csv", "user-skills", 2, &parts);
}

#[test]
fn a_configuration_that_is_no_toml_is_named_with_its_line() {
    let world = world();
    world.write("t.toml", "api = \"http://a\"\nlogin = \n");
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--config", "t.toml"]);
    ran(serve).assert(2, &["t.toml:2: "]);
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check"]).env("TIDEGATE_CONFIG", "none.toml");
    ran(serve).assert(2, &["cannot read none.toml: No such file or directory"]);
}

#[test]
fn unknown_profiles_and_regions_are_told_with_what_there_is() {
    let world = world();
    world.write("in.csv", agents(1, 1));
    let profile = ran(world.bulk_run(&["in.csv", "--recipe", "user-skills", "--profile", "genesis"]));
    profile.assert(
        2,
        &["profile `genesis`: no built-in profile and no file (built in: genesys, genesys-guide, "],
    );
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--region", "mypurecloud.dd"]);
    ran(serve).assert(
        2,
        &["region `mypurecloud.dd` is not one of profile `genesys` (did you mean `mypurecloud.de`?)"],
    );
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--region", "elsewhere"]);
    ran(serve).assert(
        2,
        &["region `elsewhere` is not one of profile `genesys` (`tidegate profile show genesys` lists them)"],
    );
}

#[test]
fn via_and_api_together_are_refused() {
    let world = world();
    world.write("in.csv", agents(1, 1));
    let run = ran(world.bulk_run(&["in.csv", "--recipe", "user-skills", "--via", "http://127.0.0.1:1"]));
    run.assert(2, &["the argument '--via <URL>' cannot be used with '--api <URL>'"]);
}

#[test]
fn a_bad_duration_says_how_to_write_one() {
    let world = world();
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--max-wait", "14"]);
    let how = "`14` is no duration (write a number and ms, s, m, h or d, such as \"5s\")";
    ran(serve).assert(2, &["invalid value '14' for '--max-wait <DURATION>'", how]);
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check"]).env("TIDEGATE_MAX_WAIT", "14");
    ran(serve).assert(2, &[&format!("TIDEGATE_MAX_WAIT: {how}")]);
}

#[test]
fn a_check_tells_at_once_all_that_would_keep_a_gateway_from_starting() {
    let world = world();
    world.write("file", "x");
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--listen", "0.0.0.0:80", "--admin", "192.0.2.1:1"]);
    serve.args(["--state-dir", "file/state", "--region", "elsewhere"]);
    ran(serve).assert(
        2,
        &[
            "the data port 0.0.0.0:80 can be reached by other machines",
            "the admin port 192.0.2.1:1 can be reached",
            "state file file/state: file is no folder (name a folder; it is made if it is not there)",
            "region `elsewhere` is not one of profile `genesys`",
        ],
    );
    let mut same = tidegate(world.folder.path());
    same.args(["serve", "--check", "--listen", "127.0.0.1:9", "--admin", "127.0.0.1:9"]);
    ran(same).assert(2, &["--listen and --admin are both 127.0.0.1:9 (give each its own)"]);
    let mut zero = tidegate(world.folder.path());
    zero.args(["serve", "--check", "--max-wait", "0s"]);
    ran(zero).assert(2, &["'--max-wait <DURATION>': is zero (write a duration above zero, such as \"14s\")"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_check_tells_that_a_state_folder_cannot_be_made() {
    let world = world();
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--state-dir", "/proc/x"]);
    ran(serve).assert(2, &["state file /proc/x: /proc cannot be written: "]);
}

#[test]
fn a_check_makes_no_folder_and_leaves_a_running_gateway_alone() {
    let world = world();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check", "--listen", &taken.local_addr().unwrap().to_string()]);
    serve.args(["--state-dir", "new/state"]);
    ran(serve).assert(0, &["the configuration is good"]);
    assert!(!world.path("new").exists());
}

#[test]
fn bad_values_of_the_environment_are_named_all_at_once() {
    let world = world();
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check"]).env("TIDEGATE_LISTEN", "8787").env("TIDEGATE_MAX_WAIT", "0s");
    ran(serve).assert(
        2,
        &[
            "TIDEGATE_LISTEN: `8787` is not an address (write it like 127.0.0.1:8787)",
            "TIDEGATE_MAX_WAIT: is zero (write a duration above zero, such as \"14s\")",
        ],
    );
    let mut show = tidegate(world.folder.path());
    show.args(["profile", "show"]).env("TIDEGATE_LOG", "===");
    ran(show).assert(2, &["TIDEGATE_LOG: ", "(write a filter such as info or tidegate=debug)"]);
}

#[test]
fn half_a_credential_is_told() {
    let world = world();
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check"]).env("GENESYSCLOUD_OAUTHCLIENT_ID", "id");
    ran(serve).assert(
        2,
        &["credential `default` has a client id but no secret: set GENESYSCLOUD_OAUTHCLIENT_SECRET or"],
    );
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check"]).env("GENESYSCLOUD_OAUTHCLIENT_SECRET", "demo-secret");
    ran(serve).assert(
        2,
        &["credential `default` has a secret but no client id: set GENESYSCLOUD_OAUTHCLIENT_ID or"],
    );
}

#[test]
fn a_good_configuration_is_told_to_be_good_without_a_port_or_an_upstream() {
    let world = world();
    world.write(
        "tidegate.toml",
        "api = \"http://127.0.0.1:1\"\nmax_wait = \"5s\"\n[credential]\nname = \"wfm\"\nclient_id = \"id\"\n[[limit]]\nkey = \"users\"\nmatch = \"/api/v2/users/**\"\nquota = 300\nwindow = \"60s\"\n",
    );
    let mut serve = tidegate(world.folder.path());
    serve.args(["serve", "--check"]).env("GENESYSCLOUD_OAUTHCLIENT_SECRET", "demo-secret");
    ran(serve).assert(0, &["the configuration is good"]);
    let mut serve = tidegate(world.folder.path());
    serve
        .args(["serve", "--check", "--api", "api.example.com"])
        .env("GENESYSCLOUD_OAUTHCLIENT_SECRET", "demo-secret");
    ran(serve).assert(2, &["api: `api.example.com` must begin with http:// or https://"]);
}

#[test]
fn a_taken_port_is_told_with_the_way_out() {
    let world = world();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let told = format!("cannot listen on {addr}: Address already in use");
    for (flag, args) in [
        ("--listen", vec!["serve", "--listen", &addr, "--admin", "127.0.0.1:0"]),
        ("--admin", vec!["serve", "--listen", "127.0.0.1:0", "--admin", &addr]),
        ("--listen", vec!["sim", "--listen", &addr]),
    ] {
        let mut command = tidegate(world.folder.path());
        command.args(args);
        let hint = format!("(another program has it: choose another with {flag}, or port 0 for a free one)");
        ran(command).assert(2, &[&told, &hint]);
    }
}

#[test]
fn a_list_for_the_simulator_that_is_no_json_is_told_with_the_way_out() {
    let world = world();
    let mut sim = tidegate(world.folder.path());
    sim.args(["sim", "--print", "--set", "strangers=[{rate=1}]"]);
    ran(sim)
        .assert(2, &["--set strangers=[{rate=1}]: is no JSON", "goes into a scenario file, --scenario FILE"]);
}

/// `bulk run` of one row against `api`.
fn against(world: &World, api: &str) -> Ran {
    world.write("in.csv", agents(1, 1));
    let mut run = world.command(&["bulk", "run", "in.csv", "--recipe", "user-skills", "--output", "out.csv"]);
    run.args(["--api", api]);
    ran(run)
}

#[test]
fn an_unreachable_upstream_is_told_at_once() {
    let world = world();
    let run = against(&world, "http://127.0.0.1:1");
    run.assert(
        4,
        &[
            "cannot connect to http://127.0.0.1:1: ",
            "Connection refused",
            "; nothing was sent; check --api, --region or --via, and try again",
        ],
    );
    assert!(!world.path("in.csv.journal").exists() && !world.path("out.csv").exists());
    let mut gateway = tidegate(world.folder.path());
    gateway.args(["bulk", "run", "in.csv", "--recipe", "user-skills", "--via", "http://127.0.0.1:1"]);
    ran(gateway).assert(4, &["cannot connect to http://127.0.0.1:1: "]);
}

#[test]
fn a_name_that_does_not_resolve_is_told() {
    let world = world();
    against(&world, "http://nowhere.invalid")
        .assert(4, &["cannot connect to http://nowhere.invalid: dns error"]);
}

#[test]
fn an_upstream_that_speaks_tls_on_a_plain_port_is_recognised() {
    let world = world();
    // What a TLS server says to anything else: a fatal alert, unexpected message.
    let api = raw_server(|_| vec![0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a]);
    against(&world, &api)
        .assert(4, &["no token for credential default", "if it speaks TLS on this port, use https://"]);
}

#[test]
fn https_to_a_plain_port_is_recognised() {
    let world = world();
    let api = world.sim.url().replace("http://", "https://");
    against(&world, &api)
        .assert(4, &["the upstream does not speak TLS on this port; use http:// or another port"]);
}

/// An answer with far more headers than anybody sends.
fn ten_thousand_headers() -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
    for number in 0..10_000 {
        answer.extend_from_slice(format!("X-Filler-{number}: x\r\n").as_bytes());
    }
    answer.extend_from_slice(b"Content-Length: 2\r\n\r\n{}");
    answer
}

#[test]
fn a_login_answered_with_ten_thousand_headers_is_refused() {
    let world = world();
    let api = raw_server(|_| ten_thousand_headers());
    against(&world, &api).assert(4, &["the upstream's answer is not HTTP/1.1 within our bounds"]);
}

#[test]
fn a_write_answered_with_ten_thousand_headers_is_unknown_because_it_may_have_been_done() {
    let world = world();
    let api = raw_server(|first| {
        if first.starts_with("POST /oauth/token") { token_answer() } else { ten_thousand_headers() }
    });
    against(&world, &api).assert(3, &["0 ok, 0 failed, 1 unknown, 0 pending"]);
    let rows = by_status(&std::fs::read_to_string(world.path("out.csv")).unwrap());
    let told = &rows["unknown"][0][5];
    assert!(told.contains("outcome unknown, the upstream may have executed it (after 1 attempt)"), "{told}");
    assert!(told.contains("not HTTP/1.1 within our bounds"), "{told}");
}

#[test]
fn a_body_over_the_replay_cap_is_refused_before_anything_is_sent() {
    let world = world();
    let body = "x".repeat(600_000);
    world.write(
        "in.ndjson",
        format!("{{\"id\":\"big\",\"method\":\"POST\",\"path\":\"/api/v2/users\",\"body\":{{\"name\":\"{body}\"}}}}\n"),
    );
    let parts = ["line 1: the body of `big` has 600011 bytes; above 512000 it could not be resent"];
    refused(&world, "in.ndjson", "requests", 2, &parts);
}

#[test]
fn an_unwritable_journal_is_told_before_anything_is_sent() {
    let world = world();
    world.write("in.csv", agents(1, 1));
    let run = ran(world.bulk_run(&["in.csv", "--recipe", "user-skills", "--journal", "none/j"]));
    run.assert(2, &["journal none/j: cannot be written (its folder does not exist)"]);
    world.write("other", "not a journal");
    let run = ran(world.bulk_run(&["in.csv", "--recipe", "user-skills", "--journal", "other"]));
    run.assert(2, &["journal other: already exists"]);
    let run = ran(world.bulk(&["resume", "--journal", "other"]));
    run.assert(2, &["journal other: is not a Tidegate journal (", "check the path"]);
    let run = ran(world.bulk(&["status", "--journal", "gone"]));
    run.assert(2, &["journal gone: does not exist; start a run with `tidegate bulk run`"]);
    assert_eq!(world.writes(), 0);
}
