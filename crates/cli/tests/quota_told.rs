//! What a gateway says of its shared quota: at its start, while it runs, and to those who look at it. Real processes, a real store.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the server's module serves other tests too"
)]

mod common;
#[path = "../../quota-redis/tests/redis/server.rs"]
mod server;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use common::World;
use serde_json::Value;
use server::Server;
use tidegate_core::share::BankKey;

/// `tidegate serve` with the log in a file; killed at once when the test ends.
struct Gateway {
    child: Child,
    data: String,
    admin: String,
    log: PathBuf,
    _said: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(world: &World, name: &str, settings: &str) -> Self {
        let file = world.write(&format!("{name}.toml"), settings);
        let log = file.with_extension("log");
        let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut command = world.command(&args);
        command.args(["--config", file.to_str().unwrap(), "--api", &world.sim.url()]);
        command.env("TIDEGATE_FETCH_LIMITS", "false").stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut address = |before: &str| {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            let address = line.trim().strip_prefix(before).map(str::to_owned);
            address.unwrap_or_else(|| panic!("{line}: {}", std::fs::read_to_string(&log).unwrap()))
        };
        let (data, admin) = (address("listening on http://"), address("admin on http://"));
        Self { child, data, admin, log, _said: said }
    }

    fn call(&self) {
        get(&self.data, "/api/v2/routing/skills?pageSize=1");
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has a line with all of `parts`, making calls meanwhile; then no other line may have the first of them.
    #[track_caller]
    fn tells_once(&self, parts: &[&str]) {
        let patience = Instant::now() + Duration::from_mins(1);
        loop {
            let log = self.told();
            if log.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                assert_eq!(log.matches(parts[0]).count(), 1, "{log}");
                return;
            }
            assert!(Instant::now() < patience, "{parts:?} is not told: {log}");
            self.call();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn tenant(&self) -> Value {
        let body: Value = serde_json::from_str(&get(&self.admin, "/api/state")).unwrap();
        body["tenants"][0].clone()
    }

    fn quota(&self) -> Value {
        self.tenant()["quota"].clone()
    }

    fn gates(&self) -> Vec<Value> {
        self.tenant()["gates"].as_array().unwrap().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // One that has ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Says one command to a server, in the form that people type.
fn say(server: &Server, command: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(stream, "{command}\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with('+'), "{answer}");
}

fn shared(store: &str) -> String {
    format!("[quota]\nstore = \"{store}\"\ntimeout = \"1s\"\n")
}

#[test]
fn a_gateway_that_never_reached_its_store_says_why_and_how_small_its_part_is() {
    let world = World::new("");
    let gateway = Gateway::start(&world, "away", &shared("redis://tidegate@127.0.0.1:1"));
    let told = [
        "quota.store: redis at 127.0.0.1:1 is away: Connection refused",
        "one of quota.max_instances (64)",
        "set that to the number of your processes",
    ];
    let log = gateway.told();
    assert!(told.iter().all(|part| log.contains(part)), "before the first call: {log}");
    gateway.call();
    gateway.tells_once(&told);
    let metrics = get(&gateway.admin, "/metrics");
    assert!(metrics.contains("tidegate_quota_shared{mode=\"share\",tenant=\"default\"} 0.0"), "{metrics}");
}

#[test]
fn a_gateway_whose_state_is_taken_away_says_by_which_key() {
    let world = World::new("");
    let server = Server::start(&[]);
    let gateway = Gateway::start(&world, "taken", &shared(&server.url()));
    gateway.call();
    let quota = gateway.quota();
    assert!(quota["mode"] == "joined" && quota["problem"].is_null(), "{quota}");
    let metrics = get(&gateway.admin, "/metrics");
    assert!(metrics.contains("tidegate_quota_shared{mode=\"joined\",tenant=\"default\"} 1.0"), "{metrics}");
    let key = format!("tidegate:{{{}}}:b", BankKey::of(&world.sim.url(), "default"));
    say(&server, &format!("SET {key} mine"));
    let named = format!("WRONGTYPE: the key {key} is a string");
    gateway.tells_once(&[
        "the shared quota cannot be used as it is: redis at 127.0.0.1:",
        &named,
        "or delete that key",
    ]);
    gateway.tells_once(&["the store of the shared quota is away: this process keeps to its part, one of 1"]);
    let quota = gateway.quota();
    assert_eq!(quota["mode"], "share", "{quota}");
    assert!(quota["problem"].as_str().is_some_and(|problem| problem.contains(&named)), "{quota}");
}

#[test]
fn processes_that_declare_one_limit_differently_are_all_told() {
    let world = World::new("");
    let server = Server::start(&[]);
    let declares = |quota: u32| {
        let limit = format!("[[limit]]\nkey = \"all\"\nmatch = \"/**\"\nquota = {quota}\nwindow = \"5s\"\n");
        format!("{}{limit}", shared(&server.url()))
    };
    let most = Gateway::start(&world, "most", &declares(250));
    most.call();
    let least = Gateway::start(&world, "least", &declares(25));
    least.call();
    let differently = "the processes that share limit all declare it differently";
    most.tells_once(&[differently, "25 per 5 s holds for all, here it is 250 per 5 s"]);
    least.tells_once(&[
        differently,
        "25 per 5 s as declared here holds for all, because it is less than the 250 per 5 s of another process's configuration",
    ]);
    for (gateway, part) in [(&most, "here it is 250 per 5 s"), (&least, "25 per 5 s as declared here")] {
        let gates = gateway.gates();
        let told = gates.iter().filter_map(|gate| gate["shared"]["differs"].as_str());
        assert!(told.clone().any(|told| told.contains(part)), "{gates:?}");
    }
    let file = world.write("show.toml", declares(250));
    let mut show =
        world.command(&["quota", "show", "--config", file.to_str().unwrap(), "--api", &world.sim.url()]);
    let shown = show.output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains(
            "limit all: 25 per 5 s holds for all, another process's configuration says 250 per 5 s"
        ),
        "{text}"
    );
}

#[test]
fn what_is_shared_is_shown_by_a_server_that_takes_no_writes_and_its_refusal_is_named() {
    let world = World::new("");
    let server = Server::start(&[]);
    let settings = shared(&server.url());
    let gateway = Gateway::start(&world, "full", &settings);
    gateway.call();
    let file = world.write("show.toml", &settings);
    let show = || {
        let args = ["quota", "show", "--config", file.to_str().unwrap(), "--api", &world.sim.url()];
        world.command(&args).output().unwrap()
    };
    for command in ["CONFIG SET maxmemory 1", "REPLICAOF 127.0.0.1 1"] {
        say(&server, command);
        let shown = show();
        let text = String::from_utf8(shown.stdout).unwrap();
        let error = String::from_utf8(shown.stderr).unwrap();
        assert!(shown.status.success() && text.contains("org.app.user"), "{command}: {text}{error}");
    }
    gateway.call();
    gateway.tells_once(&["the store of the shared quota is away", "it answers, but takes no writes: "]);
}
