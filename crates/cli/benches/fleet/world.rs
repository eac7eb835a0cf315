//! A fleet of real processes on the loopback: a simulator, gateways in front of it, and what they share its quota in: a Redis server, or an emulator
//! of DynamoDB.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::emulator::Emulator;
use crate::server::Server;

/// The simulator's only client.
const CLIENT: &str = "demo-client";
const SECRET: &str = "demo-secret";

/// Seals tokens where the fleet has one.
const TOKEN_KEY: &str = "a secret of the fleet, 32 bytes or longer";

/// Where gateways share the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nowhere: each is alone with it.
    Not,
    /// In a server that keeps nothing on disk.
    Redis,
    /// In a server that writes everything to disk before it answers.
    RedisOnDisk,
    /// In a table of the emulator.
    DynamoDb,
}

/// The table's name.
const TABLE: &str = "quota";

/// What AWS's library asks its surroundings for, so that nothing of this machine's is taken. The emulator takes any credentials.
const AWS: [(&str, &str); 6] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_PROFILE", "default"),
];

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) gateways: usize,
    pub(crate) sharing: Sharing,
    /// The gateways' profile.
    pub(crate) profile: &'static str,
    /// The simulator's `rule`.
    pub(crate) rule: &'static str,
    pub(crate) limit: u32,
    pub(crate) window: Duration,
    /// Somebody else's calls per second, and how many come at one instant.
    pub(crate) stranger: Option<(f64, u32)>,
    /// Answers say nothing of the quota, and gateways have it declared.
    pub(crate) silent: bool,
    /// Life of a token, and whether the fleet has one.
    pub(crate) tokens: Option<(Duration, bool)>,
}

impl Setup {
    /// What `genesys` declares, as it behaves: answers say nothing of quota, 300 calls per minute and token, 3000 per minute and
    /// client. The fleet has one token, so both count every call.
    pub(crate) fn genesys() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        let minute = Self::new("fixed", 300, Duration::from_mins(1), Sharing::Redis);
        Self { profile: Self::GENESYS, silent: true, tokens: Some((DAY, true)), ..minute }
    }

    const GENESYS: &str = "genesys";

    /// `limit` per `window` in the guide's headers, 10 to 30 ms away, for 8 gateways.
    pub(crate) fn new(rule: &'static str, limit: u32, window: Duration, sharing: Sharing) -> Self {
        let profile = "genesys-guide";
        Self {
            gateways: 8,
            sharing,
            profile,
            rule,
            limit,
            window,
            stranger: None,
            silent: false,
            tokens: None,
        }
    }

    /// Calls per second that the quota allows.
    pub(crate) fn pace(&self) -> f64 {
        f64::from(self.limit) / self.window.as_secs_f64()
    }

    /// What a gateway is told in its file.
    fn declared(&self) -> String {
        let window = self.window.as_millis();
        format!(
            "[[limit]]\nkey = \"all\"\nmatch = \"/**\"\nquota = {}\nwindow = \"{window}ms\"\n",
            self.limit
        )
    }

    fn server(&self) -> String {
        let mut toml = format!(
            "name = \"fleet\"\n[server]\nrule = \"{}\"\nlimit = {}\nwindow = \"{}ms\"\nheaders = \"{}\"\nlatency = \"10ms..30ms\"\n",
            self.rule,
            self.limit,
            self.window.as_millis(),
            if self.silent { "none" } else { "guide" },
        );
        if let Some((life, _)) = self.tokens {
            writeln!(toml, "oauth.token_ttl = \"{}s\"", life.as_secs()).expect("a String takes all");
        }
        if self.profile == Self::GENESYS {
            toml.push_str("per = [\"token\"]\n[[server.limits]]\nkey = \"org.app.user.rate.per.minute\"\n");
            toml.push_str("quota = 3000\nwindow = \"1m\"\nper = [\"credential\"]\n");
        }
        if let Some((rate, burst)) = self.stranger {
            writeln!(toml, "[[server.strangers]]\nrate = {rate}\nburst = {burst}")
                .expect("a String takes all");
        }
        toml
    }
}

/// One of our processes. It ends with this value.
#[derive(Debug)]
struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `tidegate`.
    fn start(folder: &Path, args: &[&str], set: &[(&str, &str)]) -> std::io::Result<Self> {
        let mut command = tidegate();
        command.current_dir(folder).args(args).envs(set.iter().copied());
        let log = std::fs::File::create(folder.join("log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Self { child, said })
    }

    /// The address in its next line.
    fn address(&mut self, before: &str) -> Result<SocketAddr, Box<dyn std::error::Error + Send + Sync>> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let address = line.trim().strip_prefix(before).ok_or_else(|| format!("it says `{}`", line.trim()))?;
        Ok(address.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A gateway and where it can be reached.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Option<Process>,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: TempDir,
}

impl Gateway {
    /// As a crash does: nothing is drained, nothing is given back.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// What it wrote to its standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The whole fleet.
pub(crate) struct World {
    pub(crate) sim: SocketAddr,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) store: Option<Server>,
    emulator: Option<Emulator>,
    // Ended last: gateways would log its absence.
    _sim: Process,
    _folder: TempDir,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// What does not start.
    pub(crate) fn start(setup: &Setup) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("server.toml"), setup.server())?;
        let args = ["sim", "--listen", "127.0.0.1:0", "--scenario", "server.toml"];
        let mut process = Process::start(folder.path(), &args, &[])?;
        let sim = process.address("listening on http://").map_err(|error| {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            format!("the simulator does not start: {error}: {log}")
        })?;
        let store = match setup.sharing {
            Sharing::Not | Sharing::DynamoDb => None,
            Sharing::Redis => Some(Server::start(&[])),
            Sharing::RedisOnDisk => Some(Server::start(&["--appendonly", "yes", "--appendfsync", "always"])),
        };
        let emulator = (setup.sharing == Sharing::DynamoDb).then(Emulator::start);
        if let Some(emulator) = &emulator {
            create_table(folder.path(), &emulator.url(TABLE))?;
        }
        let mut world = Self { sim, gateways: Vec::new(), store, emulator, _sim: process, _folder: folder };
        for _ in 0..setup.gateways {
            world.gateways.push(world.gateway(setup)?);
        }
        Ok(world)
    }

    fn gateway(&self, setup: &Setup) -> Result<Gateway, Box<dyn std::error::Error + Send + Sync>> {
        let folder = tempfile::tempdir()?;
        // The other profile declares its limits itself.
        if setup.silent && setup.profile != Setup::GENESYS {
            std::fs::write(folder.path().join("tidegate.toml"), setup.declared())?;
        }
        let api = format!("http://{}", self.sim);
        let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--profile", setup.profile];
        let mut args = args.to_vec();
        args.extend(["--api", &api, "--no-fetch-limits", "--state-dir", "state"]);
        let mut set =
            vec![("GENESYSCLOUD_OAUTHCLIENT_ID", CLIENT), ("GENESYSCLOUD_OAUTHCLIENT_SECRET", SECRET)];
        let url = self.store.as_ref().map(Server::url);
        let url = url.or_else(|| self.emulator.as_ref().map(|emulator| emulator.url(TABLE)));
        set.extend(AWS);
        if let Some(url) = &url {
            set.push(("TIDEGATE_QUOTA_STORE", url));
        }
        if let Some((_, true)) = setup.tokens {
            set.push(("TIDEGATE_QUOTA_TOKEN_KEY", TOKEN_KEY));
        }
        let mut process = Process::start(folder.path(), &args, &set)?;
        let addresses = process
            .address("listening on http://")
            .and_then(|data| Ok((data, process.address("admin on http://")?)));
        let (data, admin) = addresses.map_err(|error| {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            format!("a gateway does not start: {error}: {log}")
        })?;
        Ok(Gateway { process: Some(process), data, admin, folder })
    }
}

/// `tidegate` with nothing of this process's settings.
fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["TIDEGATE_", "GENESYSCLOUD_", "AWS_"].iter().any(|ours| text.starts_with(ours)) {
            command.env_remove(&name);
        }
    }
    command
}

/// What an operator does once.
fn create_table(folder: &Path, url: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut command = tidegate();
    let made = command
        .current_dir(folder)
        .args(["quota", "init"])
        .env("TIDEGATE_QUOTA_STORE", url)
        .envs(AWS)
        .output()?;
    if made.status.success() {
        return Ok(());
    }
    Err(format!("the table is not made: {}", String::from_utf8_lossy(&made.stderr)).into())
}
