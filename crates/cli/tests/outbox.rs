//! A gateway that is killed while it owes hundreds of writes that were accepted to be sent later: each is executed once, or listed
//! as unknown. Its callers read what became of them, and its operator sends dead letters again.

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

use common::{World, ran};
use serde_json::Value;

const USERS: &str = "POST /api/v2/users";

/// Longer than everything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// `tidegate serve` in front of a world's simulator; killed if the test ends before it.
struct Gateway {
    child: Child,
    addr: String,
    _stdout: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(world: &World, profile: &str, fault: Option<&str>) -> Self {
        let mut command = world.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--profile", profile, "--api", &world.sim.url(), "--no-fetch-limits"]);
        command.args(["--max-wait", "2s", "--state", "off"]);
        command.env("TIDEGATE_OUTBOX_PATH", world.path("outbox.db"));
        if let Some(fault) = fault {
            command.env("TIDEGATE_FAULT_POINT", fault);
        }
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

    /// Waits until its fault point has ended it.
    fn wait_for_its_end(&mut self) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "the fault point was not passed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Option<Answer> {
        ask(&self.addr, method, target, fields, body)
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

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }
}

/// `None` if the connection broke or was never there.
fn ask(addr: &str, method: &str, target: &str, fields: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

const LATER: &str = "Prefer: respond-async\r\n";

fn user(name: &str) -> String {
    format!("{{\"name\":\"{name}\",\"email\":\"{name}@example.com\"}}")
}

/// Gives the gateway a write to send later, each in an order of its own. Returns its status URL.
fn put(gateway: &Gateway, name: &str) -> Option<String> {
    let fields = format!("{LATER}Idempotency-Key: {name}\r\nTidegate-Order-Key: {name}\r\n");
    let answer = gateway.ask("POST", "/api/v2/users", &fields, &user(name))?;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.field("preference-applied"), Some("respond-async"));
    Some(answer.field("location").unwrap().to_owned())
}

/// What a status URL says when its entry is over.
fn end_of(gateway: &Gateway, url: &str) -> Value {
    let begun = Instant::now();
    loop {
        let answer = gateway.ask("GET", url, "", "").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        match body["state"].as_str().unwrap() {
            "done" | "dead" => return body,
            _ => assert!(begun.elapsed() < PATIENCE, "{body}"),
        }
        assert!(answer.field("retry-after").is_some());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listed(world: &World, state: &str) -> Vec<Value> {
    let mut command = world.command(&["outbox", "list", "--format", "json", "--state", state]);
    command.arg("--file").arg(world.path("outbox.db"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
}

const WRITES: usize = 500;
const KILLS: u64 = 5;

/// Gives a gateway five hundred writes and kills it at random moments. Returns what became of each, and how many the upstream has
/// executed.
fn killed_while_it_owes(world: &World, profile: &str, seed: u64) -> (Vec<Value>, u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut gateway = Gateway::start(world, profile, None);
    let kill = |gateway: &mut Gateway, chance: &mut fastrand::Rng| {
        std::thread::sleep(Duration::from_millis(chance.u64(0..40)));
        let next = Gateway::start_after(gateway, world, profile);
        *gateway = next;
    };
    let mut urls = Vec::new();
    let mut kills = 0;
    for number in 0..WRITES {
        let name = format!("w{number}");
        urls.push(put(&gateway, &name).unwrap());
        if number % (WRITES / 2) == WRITES / 4 {
            kill(&mut gateway, &mut chance);
            kills += 1;
            // Who does not know whether its write was accepted asks again, and is told of the one that was.
            assert_eq!(put(&gateway, &name).as_ref(), urls.last());
        }
    }
    while kills < KILLS {
        let done = world.sim.stats().writes.get(USERS).copied().unwrap_or_default();
        let more = done + (WRITES as u64 - done) / 4;
        let begun = Instant::now();
        while world.sim.stats().writes.get(USERS).copied().unwrap_or_default() < more {
            assert!(begun.elapsed() < PATIENCE, "no progress before kill {kills}");
            std::thread::sleep(Duration::from_millis(2));
        }
        kill(&mut gateway, &mut chance);
        kills += 1;
    }
    let ends = urls.iter().map(|url| end_of(&gateway, url)).collect();
    (ends, world.sim.stats().writes[USERS])
}

impl Gateway {
    /// Kills one, and starts the next on what it leaves.
    fn start_after(killed: &mut Self, world: &World, profile: &str) -> Self {
        killed.child.kill().unwrap();
        killed.child.wait().unwrap();
        Self::start(world, profile, None)
    }
}

#[test]
fn a_killed_gateway_does_each_accepted_write_once_where_the_upstream_recognises_keys() {
    let world =
        World::new("limit = 0\nlatency = \"5ms..40ms\"\ndedup = \"24h\"\n[faults]\ndrop_after = 0.02\n");
    let (ends, executed) = killed_while_it_owes(&world, "genesys-guide", 1);
    let done = ends.iter().filter(|end| end["state"] == "done" && end["answer"]["status"] == 200).count();
    let stats = world.sim.stats();
    assert_eq!((done, executed), (WRITES, WRITES as u64), "{:?}", listed(&world, "dead"));
    assert_eq!((stats.duplicates, stats.duplicate_emails, stats.lost), (0, 0, 0));
}

#[test]
fn a_killed_gateway_does_none_twice_where_nobody_recognises_keys_and_lists_what_it_cannot_tell() {
    let world = World::new(&format!(
        "limit = 0\nlatency = \"5ms..40ms\"\n[faults]\nmatch = \"{USERS}\"\ndrop_after = 0.02\n"
    ));
    let (ends, executed) = killed_while_it_owes(&world, "genesys", 2);
    let of = |state: &str| ends.iter().filter(|end| end["state"] == state).count();
    let stats = world.sim.stats();
    assert_eq!((stats.duplicates, stats.duplicate_emails), (0, 0));
    assert_eq!(of("done") + of("dead"), WRITES);
    assert!(of("done") as u64 <= executed && executed <= WRITES as u64, "{executed}");
    let dead = listed(&world, "dead");
    assert_eq!(dead.len(), of("dead"));
    assert!(dead.iter().all(|letter| letter["why"] == "outcome-unknown"), "{dead:?}");
    // What is under way at a kill is in doubt, and a read finds most of it.
    assert!(of("dead") as u64 <= KILLS * 32, "{}", of("dead"));
}

#[test]
fn a_gateway_that_ends_at_any_step_loses_nothing_and_repeats_nothing() {
    for point in [
        "outbox.accept.before",
        "outbox.accept.after",
        "outbox.intend.before",
        "outbox.intend.after",
        "outbox.settle.before",
        "outbox.settle.after",
    ] {
        let world = World::new("limit = 0\ndedup = \"24h\"\n");
        let mut gateway = Gateway::start(&world, "genesys-guide", Some(point));
        let first = put(&gateway, "a");
        gateway.wait_for_its_end();
        let gateway = Gateway::start(&world, "genesys-guide", None);
        let url = put(&gateway, "a").unwrap();
        assert!(first.is_none_or(|first| first == url), "{point}");
        assert_eq!(end_of(&gateway, &url)["state"], "done", "{point}");
        assert_eq!(world.sim.stats().writes[USERS], 1, "{point}");
    }
}

#[test]
fn a_write_is_answered_now_if_it_is_done_while_its_caller_waits() {
    let world = World::new("limit = 0\n");
    let gateway = Gateway::start(&world, "genesys", None);
    let fields = "Prefer: respond-async, wait=30\r\n";
    let answer = gateway.ask("POST", "/api/v2/users", fields, &user("a")).unwrap();
    assert_eq!((answer.status, answer.field("preference-applied")), (200, Some("wait=30")), "{answer:?}");
    assert_eq!(answer.json()["name"], "a");
}

#[test]
fn a_preference_that_cannot_be_honoured_is_ignored() {
    let world = World::new("limit = 0\n");
    let gateway = Gateway::start(&world, "genesys", None);
    let own = format!("{LATER}Authorization: Bearer nobody\r\n");
    let answer = gateway.ask("POST", "/api/v2/users", &own, &user("a")).unwrap();
    assert_eq!((answer.status, answer.field("preference-applied")), (401, None));
    let cookie = format!("{LATER}Cookie: a=b\r\n");
    let answer = gateway.ask("POST", "/api/v2/users", &cookie, &user("a")).unwrap();
    assert_eq!((answer.status, answer.field("preference-applied")), (200, None));
    assert!(listed(&world, "done").is_empty());
}

#[test]
fn a_status_url_is_its_callers_alone_and_ends_when_its_entry_does() {
    // Nothing leaves: the upstream is closed for everybody.
    let world = World::new("limit = 0\n");
    world
        .write("tidegate.toml", "[[limit]]\nkey = \"k\"\nmatch = \"POST /**\"\nquota = 1\nwindow = \"1h\"\n");
    let gateway = Gateway::start(&world, "genesys", None);
    let first = gateway.ask("POST", "/api/v2/users", "", &user("x")).unwrap();
    assert_eq!(first.status, 200);
    let fields = format!("{LATER}Tidegate-Caller: bot\r\n");
    let answer = gateway.ask("POST", "/api/v2/users", &fields, &user("a")).unwrap();
    let url = answer.field("location").unwrap();
    assert_eq!(answer.field("tidegate-status"), Some(url));
    let mine = "Tidegate-Caller: bot\r\n";
    for others in ["", "Tidegate-Caller: other\r\n"] {
        for method in ["GET", "DELETE"] {
            assert_eq!(gateway.ask(method, url, others, "").unwrap().status, 404, "{method} {others}");
        }
    }
    assert_eq!(gateway.ask("GET", url, mine, "").unwrap().status, 200);
    assert_eq!(gateway.ask("PUT", url, mine, "").unwrap().status, 405);
    let begun = Instant::now();
    // While it is being tried it cannot be called off.
    while gateway.ask("DELETE", url, mine, "").unwrap().status != 204 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gateway.ask("GET", url, mine, "").unwrap().status, 410);
    assert_eq!(gateway.ask("GET", url, "", "").unwrap().status, 404, "not even that it was there");
    assert_eq!(gateway.ask("GET", "/tidegate/outbox/zz", mine, "").unwrap().status, 404);
    let stored = std::fs::read(world.path("outbox.db")).unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("demo-client"));
}

#[test]
fn a_key_names_one_write_whichever_way_it_is_sent() {
    let world = World::new("limit = 0\n");
    let gateway = Gateway::start(&world, "genesys", None);
    let url = put(&gateway, "a").unwrap();
    assert_eq!(put(&gateway, "a").as_ref(), Some(&url));
    let keyed = "Idempotency-Key: a\r\n";
    let now = gateway.ask("POST", "/api/v2/users", keyed, &user("a")).unwrap();
    assert_eq!((now.status, now.field("tidegate-replayed")), (200, Some("true")), "{now:?}");
    let other = gateway.ask("POST", "/api/v2/users", &format!("{LATER}{keyed}"), &user("b")).unwrap();
    assert_eq!(other.status, 422);
    // And the other way round: what was sent at once is not sent again later.
    let first = gateway.ask("POST", "/api/v2/users", "Idempotency-Key: c\r\n", &user("c")).unwrap();
    let again = format!("{LATER}Idempotency-Key: c\r\n");
    let again = gateway.ask("POST", "/api/v2/users", &again, &user("c")).unwrap();
    assert_eq!((first.status, again.status, again.field("tidegate-replayed")), (200, 200, Some("true")));
    assert_eq!(world.sim.stats().writes[USERS], 2);
}

#[test]
fn later_writes_to_a_target_stay_behind_it_and_dead_letters_are_sent_again() {
    let world = World::new("limit = 0\nusers = 2\n");
    world.write(
        "tidegate.toml",
        "[[limit]]\nkey = \"k\"\nmatch = \"POST /**\"\nquota = 1\nwindow = \"1h\"\n[outbox]\nmax_entries = 2\n",
    );
    let gateway = Gateway::start(&world, "genesys", None);
    assert_eq!(gateway.ask("POST", "/api/v2/users", "", &user("x")).unwrap().status, 200);
    let late = format!("{LATER}Tidegate-Deadline: 4\r\n");
    let url = gateway.ask("POST", "/api/v2/users", &late, &user("a")).unwrap();
    let url = url.field("location").unwrap().to_owned();
    let dead = end_of(&gateway, &url);
    assert_eq!((dead["state"].as_str(), dead["why"].as_str()), (Some("dead"), Some("deadline-over")));

    // One more fits, and then none: nothing that is owed goes for it.
    let fields = format!("{LATER}Tidegate-Order-Key: z\r\n");
    assert_eq!(gateway.ask("POST", "/api/v2/users", &fields, &user("z")).unwrap().status, 202);
    let behind = gateway.ask("POST", "/api/v2/users", "", &user("y")).unwrap();
    assert_eq!((behind.status, behind.field("tidegate-refused")), (429, Some("behind-outbox")));
    let full = gateway.ask("POST", "/api/v2/users", LATER, &user("f")).unwrap();
    assert_eq!((full.status, full.field("tidegate-refused")), (503, Some("outbox-full")));

    let id = url.rsplit('/').next().unwrap();
    let act = |action: &str, id: &str| {
        let mut command = world.command(&["outbox", action, id]);
        command.arg("--file").arg(world.path("outbox.db"));
        ran(command)
    };
    act("replay", id).assert(0, &["1 to be sent again"]);
    let state = gateway.ask("GET", &url, "", "").unwrap().json()["state"].clone();
    assert!(state == "waiting" || state == "sending", "{state}");
    act("replay", id).assert(2, &["is no dead letter"]);
    gateway.kill();
    assert_eq!(listed(&world, "waiting").len(), 2);
    act("drop", id).assert(0, &["1 dropped"]);
    assert_eq!(listed(&world, "waiting").len(), 1);
}
