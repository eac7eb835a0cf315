//! A simulator in this process, and the real binary beside it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_core::profile::Profile;
use tidegate_sim::{Sim, SimConfig, Stats, Witness};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "demo-secret";

/// How long anything may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(100);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn assert(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is missing in:\n{}", self.err);
        }
        assert!(!self.err.contains(SECRET) && !self.out.contains(SECRET), "the secret was told: {self:#?}");
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

/// `tidegate`, with nothing of this process's settings, in `folder`.
pub(crate) fn tidegate(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("TIDEGATE_") || text.starts_with("GENESYSCLOUD_");
        if ours || ["XDG_RUNTIME_DIR", "STATE_DIRECTORY"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn ran(mut command: Command) -> Ran {
    Running::new(command.spawn().unwrap()).end()
}

/// A command that is running; killed if the test ends before it.
pub(crate) struct Running {
    child: Child,
    out: Option<std::thread::JoinHandle<String>>,
    err: Option<std::thread::JoinHandle<String>>,
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    pub(crate) fn new(mut child: Child) -> Self {
        let out = child.stdout.take().map(drain);
        let err = child.stderr.take().map(drain);
        Self { child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn end(mut self) -> Ran {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "the command does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |thread: Option<std::thread::JoinHandle<String>>| {
            thread.map_or_else(String::new, |thread| thread.join().unwrap())
        };
        Ran { code: status.code(), out: text(self.out.take()), err: text(self.err.take()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// A simulator, a folder, and commands that know both.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) sim: Sim,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) fn new(toml: &str) -> Self {
        Self::start(toml, None)
    }

    /// A world in which every call is seen by `witness`.
    pub(crate) fn watched(toml: &str, witness: Arc<dyn Witness>) -> Self {
        Self::start(toml, Some(witness))
    }

    fn start(toml: &str, witness: Option<Arc<dyn Witness>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = SimConfig::from_toml(toml).unwrap();
        let sim = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            match witness {
                None => tidegate_sim::serve(listener, config).await,
                Some(witness) => tidegate_sim::serve_before(listener, config, witness).await,
            }
        });
        Self { runtime, sim: sim.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command with the simulator's credential.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tidegate(self.folder.path());
        command
            .args(args)
            .env("GENESYSCLOUD_OAUTHCLIENT_ID", "demo-client")
            .env("GENESYSCLOUD_OAUTHCLIENT_SECRET", SECRET);
        command
    }

    /// `tidegate bulk run INPUT ...` against the simulator.
    pub(crate) fn bulk_run(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["bulk", "run"]);
        command.args(args).args(["--api", &self.sim.url()]);
        command
    }

    pub(crate) fn bulk(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["bulk"]);
        command.args(args);
        command
    }

    pub(crate) fn stats(&self) -> Stats {
        self.sim.stats_with_users()
    }

    pub(crate) fn writes(&self) -> u64 {
        self.sim.stats().writes.values().sum()
    }

    /// Waits until the simulator has executed so many writes.
    pub(crate) fn await_writes(&self, writes: u64) {
        let begun = Instant::now();
        while self.writes() < writes {
            assert!(begun.elapsed() < PATIENCE, "{} writes instead of {writes}", self.writes());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A built-in profile with waits that a test can afford, as a file.
    pub(crate) fn quick_profile(&self, name: &str) -> String {
        let text = Profile::builtin_text(name).unwrap();
        let mut quick = String::new();
        for line in text.lines().filter(|line| !line.starts_with("connect_above_backoff")) {
            let line = match line {
                "base = \"1s\"" => "base = \"20ms\"",
                "cap = \"60s\"" => "cap = \"200ms\"",
                line if line.starts_with("connect = ") => "connect = \"150ms\"",
                line => line,
            };
            quick.push_str(line);
            quick.push('\n');
        }
        assert_ne!(quick, text);
        let file = format!("{name}-quick.toml");
        self.write(&file, quick);
        file
    }
}

/// `user_id,skill_id,proficiency` for agents with `skills` skills each.
pub(crate) fn agents(count: usize, skills: usize) -> String {
    let mut text = String::from("user_id,skill_id,proficiency\n");
    for agent in 1..=count {
        for skill in 1..=skills {
            writeln!(
                text,
                "00000000-0000-4000-8000-{agent:012x},10000000-0000-4000-8000-{skill:012x},{}",
                (agent + skill) % 6
            )
            .unwrap();
        }
    }
    text
}

/// What the simulator must hold after a file was applied: skills by user. Rows name skills by id or by name.
pub(crate) fn expected(csv: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
    use tidegate_sim::model::org::skills;
    let mut rows = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let at = |name: &str| header.iter().position(|column| *column == name);
    let mut users: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for row in rows {
        let skill = if let Some(column) = at("skill_id") {
            row[column].to_owned()
        } else {
            let name = row[at("skill").unwrap()];
            skills::id(skills::NAMES.iter().position(|known| *known == name).unwrap())
        };
        let proficiency = row[at("proficiency").unwrap()].parse().unwrap();
        users.entry(row[at("user_id").unwrap()].to_owned()).or_default().insert(skill, proficiency);
    }
    users
}

/// The simulator's users that have skills.
pub(crate) fn skilled(stats: &Stats) -> BTreeMap<String, BTreeMap<String, f64>> {
    let users = stats.users.clone().unwrap();
    users.into_iter().filter(|(_, skills)| !skills.is_empty()).collect()
}

/// The result file by status.
pub(crate) fn by_status(csv: &str) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("id,status,http_status,attempts,key,error,lines"));
    let mut statuses: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for line in lines {
        let (line, lines) = line.rsplit_once(',').unwrap();
        let fields: Vec<String> = line.splitn(6, ',').chain([lines]).map(str::to_owned).collect();
        statuses.entry(fields[1].clone()).or_default().push(fields);
    }
    statuses
}

/// A way to the simulator that can be cut and mended; its address stays the same.
pub(crate) struct Cable {
    port: u16,
    to: std::net::SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Cable {
    pub(crate) fn new(world: &World) -> Self {
        let mut cable = Self { port: 0, to: world.sim.local_addr(), task: None };
        cable.mend(world);
        cable
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn mend(&mut self, world: &World) {
        let to = self.to;
        let listener = world.runtime.block_on(TcpListener::bind(("127.0.0.1", self.port))).unwrap();
        self.port = listener.local_addr().unwrap().port();
        self.task = Some(world.runtime.spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                ways.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(to).await {
                        drop(tokio::io::copy_bidirectional(&mut from, &mut there).await);
                    }
                });
            }
        }));
    }

    pub(crate) fn cut(&mut self, world: &World) {
        if let Some(task) = self.task.take() {
            task.abort();
            drop(world.runtime.block_on(task));
        }
    }
}

/// A server that answers every request with what `answer` makes of its first line, then closes.
pub(crate) fn raw_server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap_or_default();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or_default() <= 2 {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.take(length).read_to_end(&mut Vec::new()).unwrap_or_default();
            drop(stream.write_all(&answer(&first)));
        }
    });
    url
}

/// An answer of a token endpoint.
pub(crate) fn token_answer() -> Vec<u8> {
    let body = r#"{"access_token":"t","token_type":"bearer","expires_in":3600}"#;
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
