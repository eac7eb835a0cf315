//! What can be wrong with a shared quota, each told with what to do about it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the server's module serves other tests too"
)]

mod common;
#[path = "../../quota-redis/tests/redis/server.rs"]
mod server;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use common::{Ran, World, ran};
use server::Server;
use tidegate_core::share::BankKey;

/// `tidegate` with a shared quota in the environment.
fn run(world: &World, args: &[&str], set: &[(&str, &str)]) -> Ran {
    let mut command = world.command(args);
    command.args(["--api", &world.sim.url()]).envs(set.iter().copied());
    ran(command)
}

fn export(world: &World, set: &[(&str, &str)]) -> Ran {
    run(world, &["export", "/api/v2/routing/skills"], set)
}

/// Says one command to a server, in the form that people type.
fn say(server: &Server, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(stream, "{command}\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The key in which a bank's protocol stands.
fn bank_key(world: &World) -> String {
    format!("tidegate:{{{}}}:b", BankKey::of(&world.sim.url(), "default"))
}

#[test]
fn all_that_is_wrong_in_the_file_is_told_at_once() {
    let world = World::new("");
    let file = world.write(
        "wrong.toml",
        "[quota]\nstore = \"redis://tidegate:hunter2@localhost\"\nprefix = \"a b\"\non_store_loss = \"panic\"\n\
         max_instances = 0\ntimeout = \"1m\"\nstagger = \"5s..1s\"\npassword = \"hunter2\"\ntoken_key = \"hunter2\"\nstores = 1\n",
    );
    let ran = run(&world, &["serve", "--check", "--config", file.to_str().unwrap()], &[]);
    ran.assert(
        2,
        &[
            "wrong.toml:2: quota.store: carries a password, which does not belong into this file (set TIDEGATE_QUOTA_PASSWORD",
            "wrong.toml:3: quota.prefix: `a b` is no prefix (write letters, digits and -_./: only",
            "wrong.toml:4: quota.on_store_loss: `panic` is none of share, closed and open",
            "wrong.toml:5: quota.max_instances:",
            "wrong.toml:6: quota.timeout: 1m is longer than 2s",
            "wrong.toml:7: quota.stagger: `5s..1s` ends before it begins",
            "wrong.toml:8: quota.password: secrets do not belong into this file (set TIDEGATE_QUOTA_PASSWORD, or name a quota.password_file)",
            "wrong.toml:9: quota.token_key: secrets do not belong into this file (set TIDEGATE_QUOTA_TOKEN_KEY, or name a quota.token_key_file)",
            "wrong.toml:10: quota.stores: is not a known key (did you mean `store`?)",
        ],
    );
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn a_store_that_is_none_is_told_with_those_there_are() {
    let world = World::new("");
    for (store, told) in [
        (
            "memcached://localhost",
            "TIDEGATE_QUOTA_STORE: `memcached://` is not a store (write redis://HOST:PORT,",
        ),
        ("localhost:6379", "TIDEGATE_QUOTA_STORE: is no address of a store (write redis://HOST:PORT,"),
        ("redis://", "quota.store: redis cannot be used: the address has no host"),
        ("redis://a,b", "quota.store: redis cannot be used: several hosts are a cluster"),
    ] {
        run(&world, &["serve", "--check"], &[("TIDEGATE_QUOTA_STORE", store)]).assert(2, &[told]);
    }
}

#[test]
fn secrets_that_cannot_be_used_are_told_with_their_source() {
    let world = World::new("");
    let empty = world.write("empty", "\n");
    let store = ("TIDEGATE_QUOTA_STORE", "redis://127.0.0.1:1");
    for (set, told) in [
        (
            ("TIDEGATE_QUOTA_TOKEN_KEY", "0123456789"),
            "TIDEGATE_QUOTA_TOKEN_KEY: the secret has 10 bytes, at least 32 are needed (openssl rand -base64 32)",
        ),
        (("TIDEGATE_QUOTA_TOKEN_KEY_FILE", empty.to_str().unwrap()), "is empty (write the secret into it)"),
        (("TIDEGATE_QUOTA_PASSWORD_FILE", "nowhere"), "cannot read nowhere"),
        (("TIDEGATE_QUOTA_CA_FILE", "nowhere.pem"), "quota.ca_file: cannot read nowhere.pem"),
    ] {
        run(&world, &["serve", "--check"], &[store, set]).assert(2, &[told]);
    }
}

#[test]
fn one_token_for_all_is_told_where_limits_are_per_token() {
    let world = World::new("");
    let key = "0123456789abcdef0123456789abcdef";
    let store = ("TIDEGATE_QUOTA_STORE", "redis://127.0.0.1:1");
    let set = [store, ("TIDEGATE_QUOTA_TOKEN_KEY", key)];
    let told = run(&world, &["serve", "--check", "--profile", "genesys"], &set);
    told.assert(0, &["gives the whole fleet one token, so what is granted per token is granted once"]);
    assert!(!told.err.contains(key), "{}", told.err);
    let alone = run(&world, &["serve", "--check", "--profile", "genesys"], &[store]);
    assert!(!alone.assert(0, &[]).err.contains("one token"), "{}", alone.err);
}

#[test]
fn a_store_that_is_away_is_no_reason_not_to_work() {
    let world = World::new("");
    let away = [("TIDEGATE_QUOTA_STORE", "redis://127.0.0.1:1")];
    run(&world, &["serve", "--check"], &away).assert(0, &["the configuration is good"]);
    let exported = export(&world, &away);
    exported.assert(0, &["redis at 127.0.0.1:1 is away", "going on without it until it is back"]);
    assert_eq!(exported.out.lines().count(), 20);
    let doctor = run(&world, &["doctor"], &away);
    assert_eq!(doctor.code, Some(1), "{doctor:#?}");
    assert!(doctor.out.contains("BAD   store    redis at 127.0.0.1:1 is away"), "{}", doctor.out);
    run(&world, &["quota", "show"], &away).assert(4, &["redis at 127.0.0.1:1 is away"]);
    run(&world, &["quota", "show"], &[]).assert(2, &["set quota.store to share it"]);
}

/// What a server refuses for good ends every command before its first call, and says what to do.
#[track_caller]
fn refused(world: &World, set: &[(&str, &str)], parts: &[&str]) {
    for args in [["serve", "--check"].as_slice(), &["export", "/api/v2/routing/skills"]] {
        run(world, args, set).assert(2, parts);
    }
    let doctor = run(world, &["doctor"], set);
    assert!(doctor.code == Some(1) && doctor.out.contains("BAD   store"), "{doctor:#?}");
}

#[test]
fn a_wrong_password_is_told_and_never_repeated() {
    let world = World::new("");
    let server = Server::start(&["--requirepass", "right"]);
    let url = server.url();
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str()), ("TIDEGATE_QUOTA_PASSWORD", "wrong-one")];
    refused(
        &world,
        &set,
        &[
            "Password authentication failed",
            "check quota.user and quota.password_file, or TIDEGATE_QUOTA_PASSWORD",
        ],
    );
    assert!(!export(&world, &set).err.contains("wrong-one"));
    refused(&world, &set[..1], &["NOAUTH", "set quota.password_file, or TIDEGATE_QUOTA_PASSWORD"]);
    let right = [set[0], ("TIDEGATE_QUOTA_PASSWORD", "right")];
    export(&world, &right).assert(0, &[]);
}

#[test]
fn a_server_without_scripts_is_told() {
    let world = World::new("");
    let server = Server::start(&["--rename-command", "EVALSHA", "", "--rename-command", "EVAL", ""]);
    let url = server.url();
    export(&world, &[("TIDEGATE_QUOTA_STORE", &url)]).assert(2, &["scripts are needed: Redis 6.2 or newer"]);
}

#[test]
fn another_programs_key_is_named() {
    let world = World::new("");
    let server = Server::start(&[]);
    let (url, key) = (server.url(), bank_key(&world));
    assert!(say(&server, &format!("SET {key} mine")).starts_with("+OK"));
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str())];
    export(&world, &set).assert(2, &["WRONGTYPE", &key, "choose another prefix, or delete that key"]);
    let elsewhere = [set[0], ("TIDEGATE_QUOTA_PREFIX", "other")];
    export(&world, &elsewhere).assert(0, &[]);
}

#[test]
fn another_version_of_the_state_is_refused_with_both_named() {
    let world = World::new("");
    let server = Server::start(&[]);
    let (url, key) = (server.url(), bank_key(&world));
    assert!(say(&server, &format!("HSET {key} protocol 77 incarnation 0000000000000001")).starts_with(':'));
    export(&world, &[("TIDEGATE_QUOTA_STORE", &url)])
        .assert(2, &["the shared state has protocol 77, this program speaks 1"]);
}

#[test]
fn who_comes_second_waits_for_a_start_of_its_own_and_all_see_who_shares() {
    let world = World::new("");
    let server = Server::start(&[]);
    let url = server.url();
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str()), ("TIDEGATE_QUOTA_STAGGER", "10ms..20ms")];
    let first = export(&world, &set);
    first.assert(0, &[]);
    assert!(!first.err.contains("the quota is shared with"), "{}", first.err);
    let second = export(&world, &set);
    second.assert(0, &["the quota is shared with 1 other: starting in 0.0 s (quota.stagger)"]);
    assert_eq!(second.out.lines().count(), 20);
    let off = [set[0], ("TIDEGATE_QUOTA_STAGGER", "off")];
    let third = export(&world, &off);
    assert!(!third.assert(0, &[]).err.contains("starting in"), "{}", third.err);
    world.write("agents.csv", common::agents(2, 1));
    let bulk = ["bulk", "run", "agents.csv", "--recipe", "user-skills", "--quiet"];
    run(&world, &bulk, &set).assert(0, &["others: starting in 0.0 s (quota.stagger)", "2 ok, 0 failed"]);
    let shown = run(&world, &["quota", "show", "--format", "json"], &set);
    let shown: serde_json::Value = serde_json::from_str(&shown.assert(0, &[]).out).unwrap();
    assert!(shown["store"].as_str().unwrap().starts_with("redis "), "{shown}");
    let doctor = run(&world, &["doctor"], &set);
    assert!(doctor.assert(0, &[]).out.contains("ok    store    redis "), "{}", doctor.out);
}
