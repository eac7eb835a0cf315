//! A gateway that is killed and started again goes on where it stopped.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use common::World;

const USER: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

/// `tidegate serve` in front of a world's simulator; killed at once if the test ends before it.
struct Gateway {
    child: Child,
    addr: String,
    _stdout: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(world: &World, state: &Path) -> Self {
        let mut command = world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command
            .args(["--max-wait", "1s", "--api", &world.sim.url(), "--no-fetch-limits", "--state-dir"])
            .arg(state);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on http://").expect(&line).to_owned();
        Self { child, addr, _stdout: stdout }
    }

    /// The head of the answer to a GET.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase()
    }

    /// As a crash does: nothing is drained, nothing is written.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stored(state: &Path) -> String {
    let files = std::fs::read_dir(state).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.next().map_or_else(String::new, |path| std::fs::read_to_string(path).unwrap())
}

#[test]
fn a_gateway_killed_in_a_closed_gates_wait_stays_closed_until_the_hint_has_passed() {
    let world = World::new("limit = 3\nwindow = \"8s\"\nheaders = \"none\"\n");
    let state = world.path("state");
    let first = Gateway::start(&world, &state);
    until("the quota is never used up", || first.get(USER).starts_with("http/1.1 429"));
    until("the closing is never stored", || stored(&state).contains("\"opens\":"));
    first.kill();
    let before = world.sim.stats();
    assert_eq!(before.throttled, 1);
    let second = Gateway::start(&world, &state);
    let refused = second.get(USER);
    assert!(refused.starts_with("http/1.1 429") && refused.contains("\r\ntidegate-refused: "), "{refused}");
    let after = world.sim.stats();
    assert_eq!((after.accepted, after.throttled), (before.accepted, 1), "nothing was sent");
    until("it never opens again", || second.get(USER).starts_with("http/1.1 200"));
    assert_eq!(world.sim.stats().throttled, 1, "the first attempt was not early");
}

#[test]
fn a_gateway_that_is_stopped_stores_what_is_spent_and_two_do_not_share_a_file() {
    let world = World::new("limit = 300\n");
    world.write("tidegate.toml", "[[limit]]\nkey = \"few\"\nquota = 2\nwindow = \"1h\"\npin = true\n");
    let state = world.path("state");
    let first = Gateway::start(&world, &state);
    let status = |answer: String| answer.split(' ').nth(1).map(str::to_owned);
    assert_eq!(status(first.get(USER)).as_deref(), Some("200"));
    assert_eq!(status(first.get(USER)).as_deref(), Some("200"));
    let mut rival = world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    rival.args(["--api", &world.sim.url(), "--state-dir"]).arg(&state);
    common::ran(rival).assert(2, &["another process keeps its state there"]);
    first.interrupt();
    assert!(stored(&state).contains("\"last\":true"));
    let second = Gateway::start(&world, &state);
    assert_eq!(status(second.get(USER)).as_deref(), Some("429"), "an hour has not passed");
}

#[test]
fn a_damaged_state_is_a_warning_and_a_pessimistic_start() {
    let world = World::new("limit = 300\n");
    world.write("tidegate.toml", "[[limit]]\nkey = \"few\"\nquota = 200\nwindow = \"60s\"\npin = true\n");
    let state = world.path("state");
    Gateway::start(&world, &state).interrupt();
    for entry in std::fs::read_dir(&state).unwrap() {
        std::fs::write(entry.unwrap().path(), "{\"version\":1,\"at_").unwrap();
    }
    let mut gateway = Gateway::start(&world, &state);
    assert!(gateway.get(USER).starts_with("http/1.1 429"), "everything counts as spent");
    let mut log = gateway.child.stderr.take().unwrap();
    gateway.interrupt();
    let mut told = String::new();
    log.read_to_string(&mut told).unwrap();
    assert!(told.contains("is not a state of this program") && told.contains("WARN"), "{told}");
}

#[test]
fn a_gateway_killed_in_the_middle_of_a_burst_does_not_exceed_a_declared_quota() {
    let world = World::new("limit = 40\nwindow = \"5m\"\nheaders = \"none\"\n");
    world.write("tidegate.toml", "[[limit]]\nkey = \"all\"\nquota = 40\nwindow = \"5m\"\npin = true\n");
    let state = world.path("state");
    let mut gateway = Gateway::start(&world, &state);
    for _ in 0..3 {
        for _ in 0..12 {
            gateway.get(USER);
        }
        gateway.kill();
        gateway = Gateway::start(&world, &state);
    }
    until("the quota is never used up", || gateway.get(USER).starts_with("http/1.1 429"));
    let counted = world.sim.stats();
    assert_eq!(counted.throttled, 0, "each of them counted what those before it had sent");
    // The crashes cost a lease of eight each at most, and what was in flight.
    assert!((12..=40).contains(&counted.accepted), "{}", counted.accepted);
}
