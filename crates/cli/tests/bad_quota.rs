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

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use common::{Ran, Running, World, ran};
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

/// A gateway on the same quota that has passed a call on.
fn gateway_with_a_call(world: &World, set: &[(&str, &str)]) -> Running {
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--api", &world.sim.url()]).envs(set.iter().copied());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("listening on http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /api/v2/routing/skills?pageSize=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    Running::new(child)
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

/// The program of the ordinary tests is built without; `dynamodb.rs` tries the other one.
#[cfg(not(feature = "dynamodb"))]
#[test]
fn a_table_in_a_program_without_dynamodb_is_told_how_to_get_one_with_it() {
    let world = World::new("");
    for args in [["serve", "--check"], ["quota", "show"], ["quota", "init"]] {
        let mut command = world.command(&args);
        command.env("TIDEGATE_QUOTA_STORE", "dynamodb://quota");
        ran(command).assert(
            2,
            &[
                "TIDEGATE_QUOTA_STORE: `dynamodb://` needs a tidegate that is built with DynamoDB, and this one is not",
                "cargo install --path crates/cli --features dynamodb",
            ],
        );
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
        (("TIDEGATE_QUOTA_PASSWORD_FILE", "nowhere"), "quota.password_file: cannot read nowhere"),
        (("TIDEGATE_QUOTA_TOKEN_KEY_FILE", "nowhere"), "quota.token_key_file: cannot read nowhere"),
        (
            ("TIDEGATE_QUOTA_CA_FILE", empty.to_str().unwrap()),
            "the file of trusted authorities has no certificate (quota.ca_file is in PEM form",
        ),
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
    let told =
        ["quota.store: redis at 127.0.0.1:1 is away: Connection refused", "one of quota.max_instances (64)"];
    let checked = run(&world, &["serve", "--check"], &away);
    checked.assert(0, &["the configuration is good"]).assert(0, &told);
    for (on_store_loss, told) in
        [("closed", "until it answers, nothing leaves"), ("open", "as if there were no others")]
    {
        let set = [away[0], ("TIDEGATE_QUOTA_ON_STORE_LOSS", on_store_loss)];
        run(&world, &["serve", "--check"], &set).assert(0, &[told]);
    }
    let exported = export(&world, &away);
    exported.assert(0, &["redis at 127.0.0.1:1 is away", "going on without it until it is back"]);
    assert_eq!(exported.out.lines().count(), 20);
    let doctor = run(&world, &["doctor"], &away);
    assert_eq!(doctor.code, Some(1), "{doctor:#?}");
    assert!(doctor.out.contains("BAD   store    redis at 127.0.0.1:1 is away"), "{}", doctor.out);
    run(&world, &["quota", "show"], &away).assert(4, &["redis at 127.0.0.1:1 is away"]);
    run(&world, &["quota", "show"], &[]).assert(2, &["set quota.store to share it"]);
}

#[test]
fn what_listens_there_and_is_no_store_is_told_in_one_line_with_what_to_try() {
    let world = World::new("");
    let server = Server::start(&[]);
    let web = world.sim.url().replace("http://", "redis://");
    let tls = server.url().replace("redis://", "rediss://");
    for (store, told) in [(&web, "is it a Redis server that listens there?"), (&tls, "does it speak TLS?")] {
        let ran = run(&world, &["serve", "--check"], &[("TIDEGATE_QUOTA_STORE", store)]);
        ran.assert(0, &["is away", told, "until it answers, this process keeps to its part"]);
        let line = ran.err.lines().find(|line| line.contains("is away")).unwrap();
        assert!(line.contains(told) && line.contains("until it answers"), "in one line: {}", ran.err);
    }
}

/// What a server refuses for good ends every command before its first call, and says what to do.
#[track_caller]
fn refused(world: &World, set: &[(&str, &str)], parts: &[&str]) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    for args in [["serve", "--check"].as_slice(), &serve, &["export", "/api/v2/routing/skills"]] {
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
        &["WRONGPASS", "check quota.user and quota.password_file, or TIDEGATE_QUOTA_PASSWORD"],
    );
    assert!(!export(&world, &set).err.contains("wrong-one"));
    refused(&world, &set[..1], &["NOAUTH", "set quota.password_file, or TIDEGATE_QUOTA_PASSWORD"]);
    let right = [set[0], ("TIDEGATE_QUOTA_PASSWORD", "right")];
    export(&world, &right).assert(0, &[]);
    let open = Server::start(&[]);
    let url = open.url();
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str()), ("TIDEGATE_QUOTA_PASSWORD", "needless")];
    refused(&world, &set, &["the server has no password: leave out quota.password_file"]);
}

#[test]
fn a_user_that_may_not_run_scripts_is_told_and_where_it_stands_what_it_needs() {
    let world = World::new("");
    let server = Server::start(&[]);
    let url = server.url();
    let page = include_str!("../../../docs/fleet.md");
    let acl = page.lines().find(|line| line.starts_with("ACL SETUSER tidegate ")).unwrap();
    let with = |acl: &str| {
        assert!(say(&server, &acl.replace("PASSWORD", "s3cret")).starts_with("+OK"));
        let user = ("TIDEGATE_QUOTA_USER", "tidegate");
        [("TIDEGATE_QUOTA_STORE", url.as_str()), user, ("TIDEGATE_QUOTA_PASSWORD", "s3cret")]
    };
    let whole = with(acl);
    export(&world, &whole).assert(0, &[]);
    let less = with(&format!("{acl} -eval -evalsha"));
    let told = "give the ACL user what docs/fleet.md lists";
    refused(&world, &less, &["the user may not run EVALSHA, EVAL", told]);
    let less = with(&format!("{acl} -zadd -hdel"));
    refused(&world, &less, &["the user may not run HDEL, ZADD", told]);
    let elsewhere = with(&acl.replace("~tidegate:*", "~others:*"));
    refused(&world, &elsewhere, &["the user may not use the key tidegate:{", told]);
}

#[test]
fn a_server_without_scripts_is_told() {
    let world = World::new("");
    let server = Server::start(&["--rename-command", "EVALSHA", "", "--rename-command", "EVAL", ""]);
    let url = server.url();
    refused(&world, &[("TIDEGATE_QUOTA_STORE", &url)], &["scripts are needed: Redis 6.2 or newer"]);
}

#[test]
fn another_programs_key_is_named() {
    let world = World::new("");
    let server = Server::start(&[]);
    let (url, bank) = (server.url(), bank_key(&world));
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str())];
    // Any key of the bank: that of the bank itself, and the one in which answers are kept.
    for key in [bank.clone(), bank.replace(":b", ":r")] {
        assert!(say(&server, &format!("SET {key} mine")).starts_with("+OK"));
        let named = format!("WRONGTYPE: the key {key} is a string");
        refused(&world, &set, &[&named, "choose another prefix, or delete that key"]);
        let doctor = run(&world, &["doctor"], &set);
        assert!(doctor.out.contains(&named), "{}", doctor.out);
        assert!(say(&server, &format!("DEL {key}")).starts_with(":1"));
    }
    assert!(say(&server, &format!("SET {bank} mine")).starts_with("+OK"));
    let elsewhere = [set[0], ("TIDEGATE_QUOTA_PREFIX", "other")];
    export(&world, &elsewhere).assert(0, &[]);
}

#[test]
fn another_version_of_the_state_is_refused_with_both_named() {
    let world = World::new("");
    let server = Server::start(&[]);
    let (url, key) = (server.url(), bank_key(&world));
    assert!(say(&server, &format!("HSET {key} protocol 77 incarnation 0000000000000001")).starts_with(':'));
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str())];
    let told = "the shared state has protocol 77, this program speaks 3 (upgrade the older Tidegate";
    refused(&world, &set, &[told]);
    assert!(run(&world, &["doctor"], &set).out.contains(told));
    run(&world, &["quota", "show"], &set).assert(2, &["protocol 77, this program speaks 3"]);
    let elsewhere = [set[0], ("TIDEGATE_QUOTA_PREFIX", "next")];
    export(&world, &elsewhere).assert(0, &[]);
}

#[test]
fn who_comes_second_waits_for_a_start_of_its_own_and_all_see_who_shares() {
    let world = World::new("");
    let server = Server::start(&[]);
    let url = server.url();
    let set = [("TIDEGATE_QUOTA_STORE", url.as_str()), ("TIDEGATE_QUOTA_STAGGER", "10ms..20ms")];
    for _ in 0..2 {
        // Who has ended is none of the fleet.
        let first = export(&world, &set);
        first.assert(0, &[]);
        assert!(!first.err.contains("used this quota of late"), "{}", first.err);
    }
    let _gateway = gateway_with_a_call(&world, &set);
    let second = export(&world, &set);
    second.assert(0, &["1 other used this quota of late: starting in 0.0 s (quota.stagger)"]);
    assert_eq!(second.out.lines().count(), 20);
    let off = [set[0], ("TIDEGATE_QUOTA_STAGGER", "off")];
    let third = export(&world, &off);
    assert!(!third.assert(0, &[]).err.contains("starting in"), "{}", third.err);
    world.write("agents.csv", common::agents(2, 1));
    let bulk = ["bulk", "run", "agents.csv", "--recipe", "user-skills", "--quiet"];
    run(&world, &bulk, &set)
        .assert(0, &["1 other used this quota of late: starting in 0.0 s (quota.stagger)", "2 ok, 0 failed"]);
    let shown = run(&world, &["quota", "show", "--format", "json"], &set);
    let shown: serde_json::Value = serde_json::from_str(&shown.assert(0, &[]).out).unwrap();
    assert!(shown["store"].as_str().unwrap().starts_with("redis "), "{shown}");
    let doctor = run(&world, &["doctor"], &set);
    assert!(doctor.assert(0, &[]).out.contains("ok    store    redis "), "{}", doctor.out);
}

#[test]
fn keys_that_have_no_effect_without_a_store_are_named() {
    let world = World::new("");
    let file = world.write(
        "alone.toml",
        "[quota]\nprefix = \"acme\"\non_store_loss = \"closed\"\nmax_instances = 3\ntoken_key_file = \"missing\"\n",
    );
    let check = ["serve", "--check", "--config", file.to_str().unwrap()];
    let told = [
        "quota.store is `memory`, so the quota is this process's alone and of no effect are: ",
        "quota.prefix",
        "quota.on_store_loss",
        "quota.max_instances",
        "quota.token_key_file",
    ];
    run(&world, &check, &[]).assert(0, &told);
    run(&world, &check, &[("TIDEGATE_QUOTA_STORE", "memory"), ("TIDEGATE_QUOTA_PASSWORD", "hunter2")])
        .assert(0, &["quota.token_key_file", "TIDEGATE_QUOTA_PASSWORD"]);
    let ran = run(&world, &["serve", "--check"], &[("TIDEGATE_QUOTA_STORE", "memory")]);
    ran.assert(0, &[]);
    assert!(!ran.err.contains("of no effect"), "{}", ran.err);
}
