//! A quota that is shared in a DynamoDB table, as a user meets it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the modules serve other tests too"
)]

mod common;
#[path = "../../quota-dynamodb/tests/dynamodb/emulator.rs"]
mod emulator;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command};

use common::{Ran, World, ran};
use emulator::Emulator;

/// `tidegate` with a shared quota, and credentials of nobody, in the environment.
fn command(world: &World, store: &str, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env("TIDEGATE_QUOTA_STORE", store);
    // For a busy machine.
    command.env("TIDEGATE_QUOTA_TIMEOUT", "2s");
    for name in ["AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"] {
        command.env_remove(name);
    }
    command.envs([
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    command
}

fn run(world: &World, store: &str, args: &[&str]) -> Ran {
    let mut command = command(world, store, args);
    if args[0] != "quota" || args[1] != "init" {
        command.args(["--api", &world.sim.url()]);
    }
    ran(command)
}

/// `tidegate quota init` with credentials of AWS's own configuration.
fn init(world: &World, store: &str, config: &str) -> Ran {
    let mut command = command(world, store, &["quota", "init"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    // Nobody's cached log-ins are taken.
    command.env("HOME", world.path("."));
    command.env("AWS_CONFIG_FILE", world.write("aws-config", config));
    command.env("AWS_SHARED_CREDENTIALS_FILE", world.path("no-such-file"));
    ran(command)
}

#[test]
fn credentials_come_from_a_program_that_awss_configuration_names() {
    let world = World::new("");
    let emulator = Emulator::start();
    let said =
        world.write("said.json", r#"{"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "test"}"#);
    let config = format!("[default]\ncredential_process = cat {}\n", said.display());
    let made = init(&world, &emulator.url("quota"), &config);
    assert!(made.assert(0, &[]).out.starts_with("created the table quota"), "{made:#?}");
}

#[test]
fn a_log_in_that_is_over_is_told_as_such() {
    let world = World::new("");
    let emulator = Emulator::start();
    let config = "[default]\nsso_session = acme\nsso_account_id = 123456789012\nsso_role_name = quota\n\
        [sso-session acme]\nsso_region = eu-west-1\nsso_start_url = https://acme.awsapps.com/start\n";
    // Without the feature of AWS's library that reads these log-ins it would name that.
    let told = init(&world, &emulator.url("quota"), config);
    told.assert(2, &["aws sso login"]);
    assert_eq!(emulator.count("CreateTable"), 0);
}

const EXPORT: [&str; 2] = ["export", "/api/v2/routing/skills"];

#[test]
fn a_missing_table_is_told_made_and_used() {
    let world = World::new("");
    let emulator = Emulator::start();
    let url = emulator.url("quota");
    let missing = [
        "dynamodb table quota in eu-west-1",
        "the table does not exist (create it with `tidegate quota init`",
    ];
    run(&world, &url, &EXPORT).assert(2, &missing);
    run(&world, &url, &["serve", "--check"]).assert(2, &missing);
    run(&world, &url, &["quota", "show"]).assert(2, &missing);
    let doctor = run(&world, &url, &["doctor"]);
    assert!(
        doctor.code == Some(1) && doctor.out.contains("BAD   store    dynamodb table quota"),
        "{doctor:#?}"
    );

    let planned = run(&world, &url, &["quota", "init", "--dry-run"]);
    assert!(planned.assert(0, &[]).out.starts_with("would create the table quota"), "{planned:#?}");
    assert_eq!(emulator.count("CreateTable"), 0);
    let made = run(&world, &url, &["quota", "init"]);
    assert!(made.assert(0, &[]).out.starts_with("created the table quota with the key `id`"), "{made:#?}");
    let again = run(&world, &url, &["quota", "init"]);
    assert!(again.assert(0, &[]).out.starts_with("the table quota is there"), "{again:#?}");

    let exported = run(&world, &url, &EXPORT);
    assert_eq!(exported.assert(0, &[]).out.lines().count(), 20);
    assert!(emulator.count("PutItem") > 0, "it was shared");
    let shown = run(&world, &url, &["quota", "show", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.assert(0, &[]).out).unwrap();
    assert!(
        shown["store"].as_str().unwrap().starts_with("dynamodb table quota in eu-west-1 at http://"),
        "{shown}"
    );
    let doctor = run(&world, &url, &["doctor"]);
    assert!(doctor.assert(0, &[]).out.contains("ok    store    dynamodb table quota"), "{}", doctor.out);
}

#[test]
fn who_comes_second_sees_the_first() {
    let world = World::new("");
    let emulator = Emulator::start();
    let url = emulator.url("quota");
    run(&world, &url, &["quota", "init"]).assert(0, &[]);
    // Who has ended is none of the fleet.
    for _ in 0..2 {
        let exported = run(&world, &url, &EXPORT);
        assert!(!exported.assert(0, &[]).err.contains("used this quota of late"), "{}", exported.err);
    }
    let gateway = Gateway::start(&world, &url);
    gateway.until("\"mode\":\"joined\"");
    let mut second = command(&world, &url, &EXPORT);
    second.args(["--api", &world.sim.url()]).env("TIDEGATE_QUOTA_STAGGER", "10ms..20ms");
    ran(second).assert(0, &["1 other used this quota of late: starting in 0.0 s (quota.stagger)"]);
}

#[test]
fn a_table_that_does_not_answer_is_no_reason_not_to_work() {
    let world = World::new("");
    let emulator = Emulator::start();
    let url = emulator.url("quota");
    run(&world, &url, &["quota", "init"]).assert(0, &[]);
    emulator.signal("-STOP");
    let mut export = command(&world, &url, &EXPORT);
    export.args(["--api", &world.sim.url()]).env("TIDEGATE_QUOTA_TIMEOUT", "250ms");
    let exported = ran(export);
    exported.assert(0, &["is away: no answer within 250 ms", "going on without it until it is back"]);
    assert_eq!(exported.out.lines().count(), 20);
}

#[test]
fn what_is_wrong_in_the_address_or_beside_it_is_told() {
    let world = World::new("");
    for (store, told) in [
        ("dynamodb://", "quota.store: dynamodb cannot be used: the address names no table"),
        (
            "dynamodb://quota?regoin=x",
            "`regoin` is not known after the table (region, endpoint and skew are)",
        ),
    ] {
        run(&world, store, &["serve", "--check"]).assert(2, &[told]);
    }
    let mut user = command(&world, "dynamodb://quota", &["serve", "--check", "--api", &world.sim.url()]);
    user.env("TIDEGATE_QUOTA_USER", "tidegate").env("TIDEGATE_QUOTA_PASSWORD", "hunter2");
    let told = ran(user);
    told.assert(2, &["quota.user, TIDEGATE_QUOTA_PASSWORD: leave out for DynamoDB, which takes its credentials from AWS"]);
    assert!(!told.err.contains("hunter2"), "{}", told.err);
    run(&world, "memory", &["quota", "init"]).assert(2, &["set quota.store to share it"]);
    let redis = run(&world, "redis://127.0.0.1:1", &["quota", "init"]);
    assert!(redis.assert(0, &[]).out.contains("needs nothing to be created"), "{redis:#?}");
}

/// `tidegate serve`; killed if the test ends before it.
struct Gateway {
    child: Child,
    data: String,
    admin: String,
    _said: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(world: &World, store: &str) -> Self {
        let mut command =
            command(world, store, &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--api", &world.sim.url(), "--no-fetch-limits", "--state-dir", "state"]);
        let mut child = command.env("TIDEGATE_QUOTA_TIMEOUT", "250ms").spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut address = || {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            line.trim().rsplit('/').next().unwrap().to_owned()
        };
        let (data, admin) = (address(), address());
        Self { child, data, admin, _said: said }
    }

    fn call(&self) -> String {
        get(&self.data, "/api/v2/users/00000000-0000-4000-8000-000000000001")
    }

    /// Calls until `/api/state` says that.
    fn until(&self, state: &str) {
        let begun = std::time::Instant::now();
        loop {
            assert!(self.call().starts_with("HTTP/1.1 200"), "every call is served");
            let found = get(&self.admin, "/api/state");
            if found.contains(state) {
                return;
            }
            assert!(begun.elapsed().as_secs() < 60, "`{state}` never comes: {found}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

mod real_time {
    use super::{Emulator, Gateway, World, run};

    #[test]
    fn a_gateway_whose_table_stops_keeps_to_its_share_and_joins_again() {
        let world = World::new("limit = 1000\nwindow = \"5s\"\nheaders = \"guide\"\n");
        let emulator = Emulator::start();
        let url = emulator.url("quota");
        run(&world, &url, &["quota", "init"]).assert(0, &[]);
        let gateway = Gateway::start(&world, &url);
        gateway.until("\"mode\":\"joined\"");
        emulator.signal("-STOP");
        gateway.until("\"mode\":\"share\"");
        emulator.signal("-CONT");
        gateway.until("\"mode\":\"joined\"");
    }
}
