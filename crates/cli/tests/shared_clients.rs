//! A gateway and a bulk run that meet in a store: what they share depends on the client they log in as, not on what their
//! configurations call it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the server's module serves other tests too"
)]

mod common;
#[path = "../../quota-redis/tests/redis/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Ran, Running, SECRET, World, agents, ran};
use server::Server;

/// What the upstream allows each client, and what both programs declare. Nothing is told by headers.
const SIM: &str = "rule = \"sliding-log\"\nlimit = 40\nwindow = \"2s\"\nheaders = \"none\"\nlatency = \"10ms..30ms\"\n\
    [oauth]\nclients = [{ id = \"one\", secret = \"demo-secret\" }, { id = \"other\", secret = \"demo-secret\" }]\n";
const DECLARED: &str = "[[limit]]\nkey = \"all\"\nmatch = \"/**\"\nquota = 40\nwindow = \"2s\"\n";

const ROWS: usize = 120;

/// A program that logs in as `client` and calls it `name`.
fn program(world: &World, store: &str, (name, client): (&str, &str), args: &[&str]) -> Command {
    let mut command = common::tidegate(world.folder.path());
    command.args(args).args(["--api", &world.sim.url()]).envs([
        ("TIDEGATE_QUOTA_STORE", store),
        ("TIDEGATE_QUOTA_STAGGER", "off"),
        ("TIDEGATE_CREDENTIAL_NAME", name),
        ("GENESYSCLOUD_OAUTHCLIENT_ID", client),
        ("GENESYSCLOUD_OAUTHCLIENT_SECRET", SECRET),
    ]);
    command
}

/// A call with the gateway's own credential.
fn call(gateway: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let head = "GET /api/v2/routing/skills HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1)?.parse().ok()
}

/// What came of a gateway under load with a bulk run beside it.
struct Both {
    run: Ran,
    calls: BTreeMap<Option<u16>, u64>,
    throttled: u64,
    /// Names of the limits that were shared.
    limits: Vec<String>,
}

fn run_both(gateway: (&str, &str), bulk: (&str, &str)) -> Both {
    let world = World::new(SIM);
    world.write("tidegate.toml", DECLARED);
    world.write("a.csv", agents(ROWS, 1));
    let server = Server::start(&[]);
    let store = server.url();
    let profile = ["--profile", "genesys-guide"];
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--state-dir",
        "off",
        "--no-fetch-limits",
    ];
    let mut child = program(&world, &store, gateway, &[&serve[..], &profile].concat()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let _gateway = Running::new(child);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").expect(&line).to_owned();
    let done = AtomicBool::new(false);
    let (run, calls) = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut calls = BTreeMap::<_, u64>::new();
                    while !done.load(Ordering::Relaxed) {
                        *calls.entry(call(&address)).or_default() += 1;
                    }
                    calls
                })
            })
            .collect();
        let args =
            ["bulk", "run", "a.csv", "--recipe", "user-skills", "--concurrency", "8", "--no-fetch-limits"];
        let run = ran(program(&world, &store, bulk, &[&args[..], &profile].concat()));
        done.store(true, Ordering::Relaxed);
        let mut calls = BTreeMap::new();
        for caller in callers {
            for (status, count) in caller.join().unwrap() {
                *calls.entry(status).or_default() += count;
            }
        }
        (run, calls)
    });
    let shown = ran(program(&world, &store, gateway, &["quota", "show", "--format", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    let name = |limit: &serde_json::Value| limit["limit"].as_str().unwrap().to_owned();
    let limits = shown["limits"].as_array().unwrap().iter().map(name).collect();
    Both { run, calls, throttled: world.sim.stats().throttled, limits }
}

impl Both {
    /// Counts of the declared limit in the store.
    fn counts(&self) -> usize {
        self.limits.iter().filter(|limit| *limit == "all").count()
    }

    fn assert_served(&self) {
        self.run.assert(0, &["120 ok, 0 failed, 0 unknown, 0 pending"]);
        assert_eq!(self.calls.keys().collect::<Vec<_>>(), [&Some(200)]);
        assert_eq!(self.throttled, 0, "{}", self.run.err);
    }
}

#[test]
fn a_gateway_and_a_bulk_run_of_one_client_keep_to_one_quota_under_two_names() {
    let both = run_both(("gateway", "one"), ("default", "one"));
    both.assert_served();
    assert_eq!(both.counts(), 1, "{:?}", both.limits);
}

#[test]
fn two_clients_have_a_quota_each_though_both_are_called_default() {
    let both = run_both(("default", "one"), ("default", "other"));
    both.assert_served();
    assert_eq!(both.counts(), 2, "{:?}", both.limits);
}
