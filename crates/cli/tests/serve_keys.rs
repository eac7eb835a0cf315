//! A gateway that is killed while its callers write under `Idempotency-Key`s and resend: each write is done once.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real processes take real time"
)]
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use common::World;
use parking_lot::Mutex;

const USERS: &str = "POST /api/v2/users";
const CALLERS: u64 = 40;
const WRITES: u64 = 8;
const KILLS: u64 = 5;

/// Writes that a gateway has under way at once, where its configuration says so.
const AT_ONCE: u64 = 8;

/// Longer than everything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// `tidegate serve` in front of a world's simulator; killed if the test ends before it.
struct Gateway {
    child: Child,
    addr: String,
    _stdout: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(world: &World, profile: &str) -> Self {
        let mut command = world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args([
            "--profile",
            profile,
            "--api",
            &world.sim.url(),
            "--no-fetch-limits",
            "--max-wait",
            "2s",
        ]);
        command.arg("--state").arg(world.path("keys.db"));
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on http://").expect(&line).to_owned();
        Self { child, addr, _stdout: stdout }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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

/// The status of a keyed write; `None` if the connection broke or was never there.
fn post(addr: &str, key: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "POST /api/v2/users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIdempotency-Key: \"{key}\"\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_whitespace().nth(1)?.parse().ok()
}

fn body(key: &str) -> String {
    format!("{{\"name\":\"{key}\",\"email\":\"{key}@example.com\"}}")
}

/// Sends one write until it has an outcome, as a program that trusts its key does. Whether it was confirmed.
fn insist(addr: &Mutex<String>, key: &str, until_done: bool) -> bool {
    let body = body(key);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "{key} has no outcome");
        let here = addr.lock().clone();
        match post(&here, key, &body) {
            Some(200) => return true,
            Some(424) if !until_done => return false,
            Some(424 | 409 | 429 | 502 | 503) | None => std::thread::sleep(Duration::from_millis(20)),
            Some(other) => panic!("{key} was answered {other}"),
        }
    }
}

/// Forty callers write while the gateway is killed five times. Returns which writes were confirmed, and the last gateway.
fn killed_while_forty_write(world: &World, profile: &str, until_done: bool) -> (Vec<String>, Gateway) {
    let mut gateway = Gateway::start(world, profile);
    let addr = Mutex::new(gateway.addr.clone());
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let addr = &addr;
                let keys = (0..WRITES).map(move |write| format!("k{caller}-{write}"));
                scope.spawn(move || keys.filter(|key| insist(addr, key, until_done)).collect::<Vec<_>>())
            })
            .collect();
        for kill in 1..=KILLS {
            let progress = CALLERS * WRITES * kill / (KILLS + 2);
            let begun = Instant::now();
            while world.sim.stats().writes.get(USERS).is_none_or(|writes| *writes < progress) {
                assert!(begun.elapsed() < PATIENCE, "no progress before kill {kill}");
                std::thread::sleep(Duration::from_millis(2));
            }
            gateway.kill();
            gateway = Gateway::start(world, profile);
            gateway.addr.clone_into(&mut addr.lock());
        }
        (callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect(), gateway)
    })
}

#[test]
fn a_killed_gateway_does_each_keyed_write_once_where_the_upstream_recognises_keys() {
    let world =
        World::new("limit = 0\nlatency = \"5ms..40ms\"\ndedup = \"24h\"\n[faults]\ndrop_after = 0.02\n");
    let (confirmed, _gateway) = killed_while_forty_write(&world, "genesys-guide", true);
    let stats = world.sim.stats();
    assert_eq!(confirmed.len() as u64, CALLERS * WRITES);
    assert_eq!(stats.writes[USERS], CALLERS * WRITES);
    assert_eq!((stats.duplicates, stats.duplicate_emails, stats.lost), (0, 0, 0));
}

#[test]
fn a_killed_gateway_does_none_twice_where_only_its_ledger_can_tell() {
    // The upstream executes what it is sent, whatever the key; a lost answer is found by a read.
    let world = World::new(&format!(
        "limit = 0\nlatency = \"5ms..40ms\"\n[faults]\nmatch = \"{USERS}\"\ndrop_after = 0.02\n"
    ));
    world.write(
        "tidegate.toml",
        format!("[[limit]]\nkey = \"users.create\"\nmatch = \"{USERS}\"\nconcurrent = {AT_ONCE}\n"),
    );
    let (confirmed, gateway) = killed_while_forty_write(&world, "genesys", false);
    let stats = world.sim.stats();
    let executed = stats.writes[USERS];
    assert_eq!((stats.duplicates, stats.duplicate_emails), (0, 0));
    assert!(confirmed.len() as u64 <= executed && executed <= CALLERS * WRITES, "{executed}");
    // A write is noted when it leaves and not before. So a kill leaves in doubt what is under way, and a read finds of
    // that what was executed: unknown is at most what the upstream had begun and not done.
    assert!(confirmed.len() as u64 >= CALLERS * WRITES - KILLS * AT_ONCE, "{}", confirmed.len());
    // All that was confirmed is asked for once more, of a gateway that has not sent it.
    gateway.kill();
    let gateway = Gateway::start(&world, "genesys");
    for key in &confirmed {
        assert_eq!(post(&gateway.addr, key, &body(key)), Some(200), "{key}");
    }
    assert_eq!(world.sim.stats().writes[USERS], executed, "nothing is sent for it");
}
