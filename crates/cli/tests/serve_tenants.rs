//! `tidegate serve` with tenants and callers, as processes: what is refused, and that other commands find their tenant.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a panic is how a test fails; real processes take real time; the common module serves other tests too"
)]
#![cfg(unix)]

mod common;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command};

use common::{SECRET, World, agents, ran, tidegate};
use tidegate_sim::{Sim, SimConfig};

const KEY: &str = "tgk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A gateway of two tenants, each with a simulator of its own.
struct Served {
    world: World,
    globex: Sim,
    child: Child,
    addr: String,
    admin: String,
    _stdout: BufReader<ChildStdout>,
}

impl Served {
    fn new(more: &str) -> Self {
        let world = World::new("limit = 0\n");
        let globex = world.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tidegate_sim::serve(listener, SimConfig::from_toml("limit = 0\n").unwrap()).await.unwrap()
        });
        let mut config = "fetch_limits = false\n".to_owned();
        for (name, url) in [("acme", world.sim.url()), ("globex", globex.url())] {
            write!(
                config,
                "[[tenant]]\nname = \"{name}\"\napi = \"{url}\"\n[tenant.credential]\nclient_id = \"demo-client\"\nclient_secret_env = \"ACME_SECRET\"\n"
            )
            .unwrap();
        }
        config.push_str(more);
        world.write("tidegate.toml", config);
        let mut command =
            Self::command_in(&world, &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--state").arg(world.path("keys.db"));
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line.trim().rsplit_once("http://").expect("an address").1.to_owned()
        };
        let (addr, admin) = (line(), line());
        Self { world, globex, child, addr, admin, _stdout: stdout }
    }

    fn command_in(world: &World, args: &[&str]) -> Command {
        let mut command = tidegate(world.folder.path());
        command.args(args).env("ACME_SECRET", SECRET);
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        Self::command_in(&self.world, args)
    }

    /// The whole answer to a GET, or to a POST with a body.
    fn call(&self, target: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let length = body.len();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Whether an answer is the gateway's refusal with this status and mark.
#[track_caller]
fn assert_refused(answer: &str, status: u16, reason: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("Tidegate-Refused: {reason}\r\n")), "{answer}");
    assert!(answer.contains("\"contextId\":"), "in the upstream's shape: {answer}");
}

fn hash(key: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(key).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[test]
fn an_unknown_tenant_is_a_404_and_no_tenant_a_400() {
    let served = Served::new("");
    assert_refused(&served.call("/t/initech/api/v2/users", "", ""), 404, "unknown-tenant");
    assert_refused(&served.call("/api/v2/users", "Tidegate-Tenant: initech\r\n", ""), 404, "unknown-tenant");
    assert_refused(&served.call("/api/v2/users", "", ""), 400, "unknown-tenant");
    assert!(served.call("/t/globex/api/v2/users", "", "").starts_with("HTTP/1.1 200 "));
    assert_eq!((served.world.sim.stats().accepted, served.globex.stats().accepted), (0, 1));
}

#[test]
fn a_key_of_another_tenant_is_a_403_and_none_a_401() {
    let served = Served::new(&format!(
        "[[caller]]\nname = \"wfm\"\nkey_sha256 = \"{}\"\ntenant = \"acme\"\n",
        hash(KEY)
    ));
    let key = format!("Tidegate-Key: {KEY}\r\n");
    assert_refused(&served.call("/t/globex/api/v2/users", &key, ""), 403, "wrong-tenant");
    assert_refused(&served.call("/t/acme/api/v2/users", "", ""), 401, "no-key");
    assert_refused(&served.call("/t/acme/api/v2/users", "Tidegate-Key: tgk_x\r\n", ""), 401, "unknown-key");
    assert!(served.call("/api/v2/users", &key, "").starts_with("HTTP/1.1 200 "));
    assert_eq!((served.world.sim.stats().accepted, served.globex.stats().accepted), (1, 0));
}

#[test]
fn each_tenant_keeps_its_keys_in_a_file_of_its_own_and_doctor_finds_it() {
    let served = Served::new("");
    let user = r#"{"name":"Ann","email":"ann@example.com"}"#;
    for tenant in ["acme", "globex", "acme"] {
        let answer =
            served.call(&format!("/t/{tenant}/api/v2/users"), "Idempotency-Key: \"import-7\"\r\n", user);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let writes = |sim: &Sim| sim.stats().writes.values().sum::<u64>();
    assert_eq!((writes(&served.world.sim), writes(&served.globex)), (1, 1), "the third was answered again");
    assert!(served.world.path("keys.acme.db").exists() && served.world.path("keys.globex.db").exists());
    let mut doctor = served.command(&["doctor", "--tenant", "globex"]);
    doctor.env("TIDEGATE_STATE_FILE", served.world.path("keys.db"));
    let doctor = ran(doctor);
    assert!(doctor.out.contains("keys.globex.db: sound") && doctor.out.contains("1 keys"), "{doctor:?}");
}

#[test]
fn a_run_goes_to_its_tenant_straight_and_through_a_gateway_and_so_does_its_resume() {
    let key = format!("[[caller]]\nname = \"wfm\"\nkey_sha256 = \"{}\"\ntenant = \"globex\"\n", hash(KEY));
    let served = Served::new(&key);
    let writes = |sim: &Sim| sim.stats().writes.values().sum::<u64>();
    served.world.write("in.csv", agents(5, 1));
    let run = ["bulk", "run", "in.csv", "--recipe", "user-skills", "--tenant", "acme", "--journal"];
    ran(served.command(&[run.as_slice(), &["straight.journal"]].concat())).assert(0, &[]);
    assert_eq!((writes(&served.world.sim), writes(&served.globex)), (5, 0));
    // Through the gateway: for the tenant that is named, with the key of this program.
    let via = format!("http://{}", served.addr);
    let run = [
        "bulk",
        "run",
        "in.csv",
        "--recipe",
        "user-skills",
        "--via",
        &via,
        "--tenant",
        "globex",
        "--journal",
    ];
    let through = |with_key: bool, journal: &str| {
        let mut command = served.command(&[run.as_slice(), &[journal]].concat());
        if with_key {
            command.env("TIDEGATE_KEY", KEY);
        }
        ran(command)
    };
    let told = through(true, "via.journal");
    told.assert(0, &[]);
    assert!(!told.err.contains(KEY) && !told.out.contains(KEY));
    assert_eq!((writes(&served.world.sim), writes(&served.globex)), (5, 5));
    let refused = through(false, "none.journal");
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(writes(&served.globex), 5, "nothing of it was applied");
    // A resume needs no saying; there is nothing left to do for either.
    ran(served.command(&["bulk", "resume", "--journal", "straight.journal"])).assert(0, &[]);
    let mut resume = served.command(&["bulk", "resume", "--journal", "via.journal"]);
    resume.env("TIDEGATE_KEY", KEY);
    ran(resume).assert(0, &[]);
}
