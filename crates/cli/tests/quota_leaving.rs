//! Who ends gives back what it holds of a shared quota: real processes, a real store.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the server's module serves other tests too"
)]
#![cfg(unix)]

mod common;
#[path = "../../quota-redis/tests/redis/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use common::{Ran, World, agents, ran};
use serde_json::Value;
use server::Server;

const LIMIT: &str = "[[limit]]\nkey = \"all\"\nmatch = \"/**\"\nquota = 300\nwindow = \"60s\"\n";

/// A simulator, a store, and a file that names both.
struct Place {
    world: World,
    server: Server,
    file: String,
}

impl Place {
    fn new() -> Self {
        let (world, server) = (World::new(""), Server::start(&[]));
        let file = world.write(
            "fleet.toml",
            format!("[quota]\nstore = \"{}\"\ntimeout = \"1s\"\nstagger = \"off\"\n{LIMIT}", server.url()),
        );
        let file = file.to_str().unwrap().to_owned();
        Self { world, server, file }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.world.command(args);
        command.args(["--config", &self.file, "--api", &self.world.sim.url()]);
        // A call that is cut at the end stays counted; this one nobody waits for.
        command.env("TIDEGATE_FETCH_LIMITS", "false");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    /// What the store knows of the limit: what is out, and for how long yet at most.
    fn shown(&self) -> (u64, u64) {
        let ran = self.run(&["quota", "show", "--format", "json"]);
        let body: Value = serde_json::from_str(&ran.assert(0, &[]).out).unwrap();
        let limits = body["limits"].as_array().unwrap();
        let all = limits.iter().find(|limit| limit["limit"] == "all").expect("it was used");
        assert!(all["generation"].is_u64() && all["instances"].is_u64(), "{all}");
        (all["out"].as_u64().unwrap(), all["held_for_ms"].as_u64().unwrap())
    }
}

/// `tidegate serve`; killed at once if the test ends before it.
struct Gateway {
    child: Child,
    data: String,
    admin: String,
    _said: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(place: &Place) -> Self {
        let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut address = |before: &str| {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            line.trim().strip_prefix(before).expect(&line).to_owned()
        };
        let (data, admin) = (address("listening on http://"), address("admin on http://"));
        Self { child, data, admin, _said: said }
    }

    fn get(address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    /// What it holds of the limit, by its own state.
    fn shared(&self) -> Value {
        let body: Value = serde_json::from_str(&Self::get(&self.admin, "/api/state")).unwrap();
        let gates = body["tenants"][0]["gates"].as_array().unwrap().clone();
        gates
            .into_iter()
            .find(|gate| gate["name"] == "all")
            .map_or(Value::Null, |gate| gate["shared"].clone())
    }

    /// Calls until it has permits for later.
    fn hold_permits(&self) -> Value {
        let patience = Instant::now() + Duration::from_mins(1);
        loop {
            Self::get(&self.data, "/api/v2/routing/skills?pageSize=1");
            let shared = self.shared();
            if shared["permits"].as_u64().is_some_and(|permits| permits > 0) {
                return shared;
            }
            assert!(Instant::now() < patience, "{shared}");
        }
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // One that has ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_gateway_that_is_told_to_end_gives_back_its_permits_and_one_that_is_killed_does_not() {
    let place = Place::new();
    let gateway = Gateway::start(&place);
    let shared = gateway.hold_permits();
    assert!(shared["lease_for_ms"].as_u64().is_some_and(|ms| ms > 0 && ms <= 5_000), "{shared}");
    assert!(shared["generation"].is_u64() && shared["epoch"].is_u64(), "{shared}");
    let metrics = Gateway::get(&gateway.admin, "/metrics");
    assert!(
        metrics.contains("tidegate_quota_instances{mode=\"joined\",tenant=\"default\"} 1.0"),
        "{metrics}"
    );
    assert!(gateway.terminate().success());
    assert_eq!(place.shown().0, 0, "it gave back what it held");

    let killed = Gateway::start(&place);
    killed.hold_permits();
    drop(killed);
    let (out, held) = place.shown();
    assert!(out > 0 && held > 0, "{out} are held for a dead one, for {held} ms");
}

#[test]
fn runs_and_exports_give_back_what_they_hold_at_their_end() {
    let place = Place::new();
    place.run(&["export", "/api/v2/routing/skills"]).assert(0, &[]);
    assert_eq!(place.shown().0, 0, "the export");
    place.world.write("agents.csv", agents(20, 2));
    let run = ["bulk", "run", "agents.csv", "--recipe", "user-skills", "--quiet"];
    place.run(&run).assert(0, &[" ok, 0 failed"]);
    assert_eq!(place.shown().0, 0, "the run");
}

#[test]
fn a_store_that_does_not_answer_keeps_no_gateway_from_ending() {
    let place = Place::new();
    let gateway = Gateway::start(&place);
    gateway.hold_permits();
    place.server.signal("-STOP");
    let ended = gateway.terminate();
    place.server.signal("-CONT");
    assert!(ended.success(), "{ended}");
}
