//! Settings from everywhere they can stand: flags win over the environment, the environment over `tidegate.toml`,
//! that over defaults. All problems of the file and of the environment are told at once, each with its place.

mod keys;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::breaker::BreakerConfig;
use tidegate_core::key::{CredentialId, Tenant};
use tidegate_core::pace::{Class, ClassPolicy, LimitKind, LimitSpec};
use tidegate_core::profile::reader::{self, Section};
use tidegate_core::profile::{Timeouts, read_limits};
use tidegate_gateway::{DEFAULT_MAX_WAIT, Doors, KeepKeys, KeepState};

use crate::args::Connection;
use crate::environment::Environment;
use crate::failure::{Failure, together};

pub(crate) use keys::wait;
use keys::{
    ADMIN, API, BREAKER_THRESHOLD, BUDGET, BULK_TIMEOUT, CLASSES, CLIENT_ID, CLIENT_SECRET_FILE, CONFIG_ENV,
    CONNECT_TIMEOUT, COOL_DOWN, CREDENTIAL_NAME, FETCH_LIMITS, HOSTS, KEYS, Key, LISTEN, LOGIN,
    LONGEST_COOL_DOWN, MAX_RETRIES, MAX_WAIT, ORIGINS, OTHER_ENV, PROFILE, READ_TIMEOUT, REGION, RETRIES,
    RETRY_BUDGET, SECRET_ENV, STATE_DIR, STATE_FILE, STATE_UNKNOWN, TENANT, THRESHOLD, WRITE_TIMEOUT,
};

/// The file that is read if it is there.
const DEFAULT_FILE: &str = "tidegate.toml";

/// Everything that was set, as text by key, and what has no flag.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    texts: BTreeMap<&'static str, String>,
    limits: Vec<LimitSpec>,
    secret: Option<SecretString>,
}

impl Settings {
    /// Reads the file and the environment, and lays the flags over them.
    ///
    /// # Errors
    /// Every problem of both.
    pub(crate) fn load(connection: &Connection, env: &Environment) -> Result<Self, Failure> {
        let (mut settings, environment) = together((from_config(connection, env), from_env(env)))?;
        settings.texts.extend(environment.texts);
        settings.secret = environment.secret;
        let flags = [
            (&PROFILE, connection.profile.clone()),
            (&REGION, connection.region.clone()),
            (&API, connection.api.clone()),
            (&LOGIN, connection.login.clone()),
            (&CLIENT_ID, connection.client_id.clone()),
            (&FETCH_LIMITS, connection.no_fetch_limits.then(|| false.to_string())),
            (
                &CLIENT_SECRET_FILE,
                connection.client_secret_file.as_ref().map(|path| path.display().to_string()),
            ),
        ];
        for (key, flag) in flags {
            settings.set(key, flag);
        }
        // A place named by a stronger source replaces the whole place: an API from a flag and a region from a file
        // would otherwise name two organisations.
        if connection.region.is_some() && connection.api.is_none() {
            settings.texts.remove(API.name);
            settings.texts.remove(LOGIN.name);
        }
        Ok(settings)
    }

    fn set(&mut self, key: &Key, value: Option<String>) {
        if let Some(value) = value {
            self.texts.insert(key.name, value);
        }
    }

    fn get(&self, key: &Key) -> Option<&str> {
        self.texts.get(key.name).map(String::as_str)
    }

    /// The profile as it was named.
    pub(crate) fn profile_name(&self) -> &str {
        self.get(&PROFILE).unwrap_or("genesys")
    }

    /// The profile with the time-outs of the configuration.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        let mut profile = self.named_profile()?;
        let (own, cap) = (profile.timeouts.connect, profile.backoff.cap());
        self.lay_over_timeouts(&mut profile.timeouts);
        let connect = profile.timeouts.connect;
        // What a profile is refused for. One that says that it means it may be given another such time.
        if connect > cap && own <= cap {
            return Err(Failure::usage(format!(
                "{}: {connect:?} is above the backoff cap of {cap:?} of profile `{}`: it only delays the discovery that a host is away (lower it)",
                CONNECT_TIMEOUT.name, profile.name
            )));
        }
        Ok(profile)
    }

    /// The profile as it stands: a built-in one by name, or a file.
    fn named_profile(&self) -> Result<Profile, Failure> {
        let name = self.profile_name();
        if let Some(profile) = Profile::builtin(name) {
            return Ok(profile);
        }
        let path = Path::new(name);
        if !path.exists() {
            let known = Profile::builtin_names().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!(
                "profile `{name}`: no built-in profile and no file (built in: {known})"
            )));
        }
        let text = read(path)?;
        Profile::parse(&text, name).map_err(Failure::usage)
    }

    /// The organisation.
    pub(crate) fn tenant(&self) -> Tenant {
        Tenant::new(self.get(&TENANT).unwrap_or("default"))
    }

    /// Where the upstream is and who calls it.
    pub(crate) fn upstream(&self) -> Result<UpstreamConfig, Failure> {
        let place = self.profile().and_then(|profile| self.hosts(&profile).map(|hosts| (profile, hosts)));
        let who = together((self.credential(), self.breaker()));
        let ((profile, (api, login)), (credential, breaker)) = together((place, who))?;
        let mut config = UpstreamConfig::new(Arc::new(profile), api, login);
        config.tenant = self.tenant();
        config.limits.clone_from(&self.limits);
        config.breaker = breaker;
        config.max_retries = self.number(&MAX_RETRIES).unwrap_or(config.max_retries);
        config.budget.capacity = self.number(&RETRY_BUDGET).unwrap_or(config.budget.capacity);
        for (policy, keys) in config.policies.iter_mut().zip(CLASSES) {
            self.lay_over(policy, keys);
        }
        for told in self.cut_reserves(&config) {
            tracing::warn!(target: "tidegate", "{told}");
        }
        config.credential = credential;
        config.assume_spent = self.get(&STATE_UNKNOWN) == Some("spent");
        config.fetch_limits = self.get(&FETCH_LIMITS) != Some("false");
        Ok(config)
    }

    /// A number that was set. Texts were checked when they were read.
    fn number(&self, key: &Key) -> Option<u32> {
        self.get(key).and_then(|text| text.parse().ok())
    }

    /// A duration that was set. Texts were checked when they were read.
    fn duration(&self, key: &Key) -> Option<Duration> {
        self.get(key).and_then(|text| wait(text).ok())
    }

    /// The profile's time-outs with those of the configuration.
    fn lay_over_timeouts(&self, timeouts: &mut Timeouts) {
        let set = |timeout: &mut Duration, key| *timeout = self.duration(key).unwrap_or(*timeout);
        set(&mut timeouts.connect, &CONNECT_TIMEOUT);
        set(&mut timeouts.read, &READ_TIMEOUT);
        set(&mut timeouts.write, &WRITE_TIMEOUT);
        set(&mut timeouts.bulk, &BULK_TIMEOUT);
    }

    /// When calls to a family that keeps failing are refused.
    fn breaker(&self) -> Result<BreakerConfig, Failure> {
        let default = BreakerConfig::default();
        let cool_down = self.duration(&COOL_DOWN).unwrap_or(default.cool_down);
        let longest = self.duration(&LONGEST_COOL_DOWN);
        if let Some(longest) = longest.filter(|longest| *longest < cool_down) {
            return Err(Failure::usage(format!(
                "{}: {longest:?} is shorter than the first cool-down of {cool_down:?} (raise it, or lower {})",
                LONGEST_COOL_DOWN.name, COOL_DOWN.name
            )));
        }
        Ok(BreakerConfig {
            threshold: self.number(&BREAKER_THRESHOLD).unwrap_or(default.threshold),
            cool_down,
            longest_cool_down: longest.unwrap_or(default.longest_cool_down.max(cool_down)),
        })
    }

    /// What was set of a class's policy. Texts were checked when they were read.
    fn lay_over(&self, policy: &mut ClassPolicy, (taking, reserve): (&Key, &Key)) {
        if let Some(taking) = self.get(taking).and_then(|text| text.parse().ok()) {
            policy.taking = taking;
        }
        if let Some(reserve) = self.get(reserve).and_then(|text| text.parse().ok()) {
            policy.reserve = reserve;
        }
    }

    /// What to say about each reserve that was set and is more than declared quotas can give.
    fn cut_reserves(&self, config: &UpstreamConfig) -> Vec<String> {
        let replaced = |limit: &LimitSpec| config.limits.iter().any(|own| own.key == limit.key);
        let declared = config.profile.limits.iter().filter(|limit| !replaced(limit)).chain(&config.limits);
        let quotas: Vec<(&str, u64)> = declared
            .filter_map(|limit| match limit.kind {
                LimitKind::Rate { quota, .. } => Some((limit.key.as_str(), quota)),
                LimitKind::Concurrent { .. } => None,
            })
            .collect();
        let mut told = Vec::new();
        for (policy, (_, key)) in config.policies.iter().zip(CLASSES) {
            // Whoever has not set it meant nothing by it.
            if self.get(key).is_none() {
                continue;
            }
            let cut = quotas.iter().filter(|(_, quota)| policy.reserve.saturating_mul(2) > *quota);
            let cut: Vec<String> =
                cut.map(|(limit, quota)| format!("{} of {quota} (limit `{limit}`)", quota / 2)).collect();
            if !cut.is_empty() {
                told.push(format!(
                    "{} = {} is more than half of a quota, where only half is left: {}",
                    key.name,
                    policy.reserve,
                    cut.join(", ")
                ));
            }
        }
        told
    }

    fn hosts(&self, profile: &Profile) -> Result<(String, String), Failure> {
        let of_region = match (self.get(&REGION), profile.regions.as_ref().and_then(|r| r.default.as_deref()))
        {
            (Some(region), _) => Some(profile.hosts(region).ok_or_else(|| unknown_region(profile, region))?),
            (None, Some(default)) => profile.hosts(default),
            (None, None) => None,
        };
        let (region_api, region_login) = of_region.unzip();
        let url = |host: String| format!("https://{host}");
        let api = self.get(&API).map(str::to_owned).or_else(|| region_api.map(url));
        // An API that was named without its login host serves both, as the simulator and a gateway do.
        let login = self.get(&LOGIN).map(str::to_owned).or_else(|| match self.get(&API) {
            Some(api) => Some(api.to_owned()),
            None => region_login.map(url),
        });
        match (api, login) {
            (Some(api), Some(login)) => Ok((api, login)),
            _ => Err(Failure::usage(format!(
                "profile `{}` does not say where its upstream is: give --api, and --login if it is elsewhere",
                profile.name
            ))),
        }
    }

    fn credential(&self) -> Result<Option<(CredentialId, ClientCredentials)>, Failure> {
        let name = CredentialId::new(self.get(&CREDENTIAL_NAME).unwrap_or("default"));
        let secret = match (&self.secret, self.get(&CLIENT_SECRET_FILE)) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(path)) => {
                let text = read(Path::new(path))?;
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() {
                    return Err(Failure::usage(format!(
                        "credential `{name}`: {path} is empty (write the secret into it)"
                    )));
                }
                Some(SecretString::from(text))
            }
            (None, None) => None,
        };
        match (self.get(&CLIENT_ID), secret) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) => Ok(Some((name, ClientCredentials::new(id, &secret)))),
            (Some(_), None) => Err(Failure::usage(format!(
                "credential `{name}` has a client id but no secret: set {} or --client-secret-file",
                SECRET_ENV[1]
            ))),
            (None, Some(_)) => Err(Failure::usage(format!(
                "credential `{name}` has a secret but no client id: set {} or --client-id",
                CLIENT_ID.env[1]
            ))),
        }
    }

    /// Who may talk to the gateway.
    pub(crate) fn doors(&self) -> Doors {
        let list = |key| {
            let listed = self.get(key).unwrap_or_default().split(',').map(str::trim);
            listed.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        };
        Doors { hosts: list(&HOSTS), origins: list(&ORIGINS) }
    }

    /// Where the gateway listens: its data port and its admin port.
    pub(crate) fn listen(
        &self,
        data: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> Result<(SocketAddr, SocketAddr), Failure> {
        let addr = |flag: Option<SocketAddr>, key: &Key, default: &str| {
            let text = self.get(key).unwrap_or(default);
            flag.map_or_else(|| text.parse(), Ok)
                .map_err(|_| Failure::usage(format!("{}: `{text}` is not an address", key.name)))
        };
        Ok((addr(data, &LISTEN, "127.0.0.1:8787")?, addr(admin, &ADMIN, "127.0.0.1:8788")?))
    }

    /// Where the gateway's pacing is kept over restarts: where somebody said, else where the service manager or the session
    /// keeps what lasts no longer than the machine runs.
    pub(crate) fn keep_state(&self, flag: Option<PathBuf>, environment: &Environment) -> KeepState {
        if let Some(dir) = flag.or_else(|| self.get(&STATE_DIR).map(PathBuf::from)) {
            return if dir.as_os_str() == "off" { KeepState::Nowhere } else { KeepState::In(dir) };
        }
        // Of a service manager's folders the first is the unit's own.
        let managed = environment.get("STATE_DIRECTORY").ok().flatten();
        let managed = managed.as_deref().and_then(|dirs| dirs.split(':').next()).map(PathBuf::from);
        let session = environment.get("XDG_RUNTIME_DIR").ok().flatten();
        let session = session.map(|dir| PathBuf::from(dir).join("tidegate"));
        managed.or(session).map_or(KeepState::Nowhere, KeepState::InIfFree)
    }

    /// Where the gateway on `port` keeps what was written under `Idempotency-Key`s: where somebody said, else beside where
    /// it was started, once there is something to keep.
    pub(crate) fn keep_keys(&self, flag: Option<PathBuf>, environment: &Environment, port: u16) -> KeepKeys {
        if let Some(file) = flag.or_else(|| self.get(&STATE_FILE).map(PathBuf::from)) {
            return if file.as_os_str() == "off" { KeepKeys::InMemory } else { KeepKeys::In(file) };
        }
        let managed = environment.get("STATE_DIRECTORY").ok().flatten();
        let managed = managed.as_deref().and_then(|dirs| dirs.split(':').next()).map(PathBuf::from);
        KeepKeys::InOnceNeeded(managed.unwrap_or_default().join(format!("tidegate-{port}.db")))
    }

    /// The longest wait of a call through the gateway.
    pub(crate) fn max_wait(&self, flag: Option<Duration>) -> Result<Duration, Failure> {
        match (flag, self.get(&MAX_WAIT)) {
            (Some(max_wait), _) => Ok(max_wait),
            (None, None) => Ok(DEFAULT_MAX_WAIT),
            (None, Some(text)) => {
                wait(text).map_err(|why| Failure::usage(format!("{}: {why}", MAX_WAIT.name)))
            }
        }
    }
}

fn unknown_region(profile: &Profile, region: &str) -> Failure {
    let regions = profile.regions.as_ref();
    let near = regions.and_then(|regions| regions.nearest(region));
    let hint = near.map_or_else(
        || format!(" (`tidegate profile show {}` lists them)", profile.name),
        |near| format!(" (did you mean `{near}`?)"),
    );
    Failure::usage(format!("region `{region}` is not one of profile `{}`{hint}", profile.name))
}

/// Every variable that the program, or a tool of its own, reads.
fn known_variables() -> impl Iterator<Item = &'static str> + Clone {
    let of_keys = KEYS.into_iter().flat_map(|key| key.env).copied();
    of_keys.chain(SECRET_ENV).chain(OTHER_ENV)
}

fn from_env(env: &Environment) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    let mut problems = env.unknown(&known_variables());
    for key in KEYS {
        match env.first(key.env) {
            Err(problem) => problems.push(problem),
            Ok(None) => {}
            Ok(Some((name, text))) => match (key.check)(&text) {
                Ok(()) => settings.set(key, Some(text)),
                Err(what) => problems.push(format!("{name}: {what}")),
            },
        }
    }
    match env.first(&SECRET_ENV) {
        Err(problem) => problems.push(problem),
        Ok(secret) => settings.secret = secret.map(|(_, secret)| SecretString::from(secret)),
    }
    if problems.is_empty() { Ok(settings) } else { Err(Failure::usage(problems.join("\n"))) }
}

fn from_config(connection: &Connection, env: &Environment) -> Result<Settings, Failure> {
    let named = match &connection.config {
        Some(path) => Some(path.clone()),
        None => env.get(CONFIG_ENV).map_err(Failure::usage)?.map(PathBuf::from),
    };
    let path = match named {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(Settings::default()),
    };
    reader::read(&read(&path)?, &path.display().to_string(), from_file).map_err(Failure::usage)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

fn from_file(file: &Section<'_>) -> Settings {
    let mut settings = Settings::default();
    let text = |section: &Section<'_>, key: &Key| {
        section.parsed(last(key.name), |text| (key.check)(text).map(|()| text.to_owned()))
    };
    for key in [&PROFILE, &REGION, &API, &LOGIN, &TENANT, &LISTEN, &ADMIN, &MAX_WAIT] {
        settings.set(key, text(file, key));
    }
    settings.set(&FETCH_LIMITS, file.boolean(FETCH_LIMITS.name).map(|fetch| fetch.to_string()));
    if let Some(credential) = file.section("credential") {
        for key in [&CREDENTIAL_NAME, &CLIENT_ID, &CLIENT_SECRET_FILE] {
            settings.set(key, text(&credential, key));
        }
        if credential.has("client_secret") {
            credential.problem(
                "client_secret",
                "secrets do not belong into this file (set it in the environment, or name a client_secret_file)",
            );
        }
    }
    if let Some(gateway) = file.section("gateway") {
        for key in [&HOSTS, &ORIGINS] {
            let listed = gateway.each(last(key.name), |text| Ok::<_, String>(text.to_owned()));
            settings.set(key, listed.map(|listed| listed.join(",")));
        }
    }
    if let Some(classes) = file.section("class") {
        for (class, (policy, reserve)) in Class::ALL.into_iter().zip(CLASSES) {
            let Some(section) = classes.section(class.name()) else { continue };
            settings.set(policy, text(&section, policy));
            let permits = section.integer(last(reserve.name), &(0..=u64::MAX));
            settings.set(reserve, permits.map(|permits| permits.to_string()));
        }
    }
    if let Some(timeouts) = file.section("timeouts") {
        for key in [&CONNECT_TIMEOUT, &READ_TIMEOUT, &WRITE_TIMEOUT, &BULK_TIMEOUT] {
            settings.set(key, text(&timeouts, key));
        }
    }
    let number = |section: &Section<'_>, key: &Key, range| {
        section.integer(last(key.name), range).map(|number: u64| number.to_string())
    };
    if let Some(retries) = file.section("retries") {
        settings.set(&MAX_RETRIES, number(&retries, &MAX_RETRIES, &RETRIES));
        settings.set(&RETRY_BUDGET, number(&retries, &RETRY_BUDGET, &BUDGET));
    }
    if let Some(breaker) = file.section("breaker") {
        settings.set(&BREAKER_THRESHOLD, number(&breaker, &BREAKER_THRESHOLD, &THRESHOLD));
        for key in [&COOL_DOWN, &LONGEST_COOL_DOWN] {
            settings.set(key, text(&breaker, key));
        }
    }
    if let Some(state) = file.section("state") {
        for key in [&STATE_DIR, &STATE_UNKNOWN, &STATE_FILE] {
            settings.set(key, text(&state, key));
        }
    }
    settings.limits = read_limits(file);
    settings
}

fn last(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use tidegate_core::pace::Taking;

    use super::*;

    fn connection() -> Connection {
        Connection {
            config: None,
            profile: None,
            region: None,
            api: None,
            login: None,
            client_id: None,
            client_secret_file: None,
            no_fetch_limits: false,
        }
    }

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        (folder, Connection { config: Some(path), ..connection() })
    }

    fn api(connection: &Connection, pairs: &[(&str, &str)]) -> String {
        Settings::load(connection, &env(pairs)).unwrap().upstream().unwrap().api
    }

    #[test]
    fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
        let (_folder, in_file) = file("region = \"mypurecloud.ie\"\n");
        let flagged = Connection { region: Some("mypurecloud.jp".to_owned()), ..in_file.clone() };
        let set = [("TIDEGATE_REGION", "mypurecloud.de"), ("GENESYSCLOUD_REGION", "mypurecloud.com.au")];
        assert_eq!(api(&flagged, &set), "https://api.mypurecloud.jp");
        assert_eq!(api(&in_file, &set), "https://api.mypurecloud.de", "the key's own form goes first");
        assert_eq!(api(&in_file, &set[1..]), "https://api.mypurecloud.com.au");
        assert_eq!(api(&in_file, &[]), "https://api.mypurecloud.ie");
        assert_eq!(api(&connection(), &[]), "https://api.mypurecloud.com");
        assert_eq!(
            api(&in_file, &[("TIDEGATE_REGION", "")]),
            "https://api.mypurecloud.ie",
            "empty is not set"
        );
    }

    #[test]
    fn limits_are_fetched_unless_a_flag_a_variable_or_the_file_says_no() {
        let fetches = |connection: &Connection, pairs: &[(&str, &str)]| {
            Settings::load(connection, &env(pairs)).unwrap().upstream().unwrap().fetch_limits
        };
        let (_folder, off) = file("fetch_limits = false\n");
        assert!(fetches(&connection(), &[]));
        assert!(!fetches(&off, &[]));
        assert!(fetches(&off, &[("TIDEGATE_FETCH_LIMITS", "true")]));
        assert!(!fetches(&Connection { no_fetch_limits: true, ..connection() }, &[]));
        let told =
            Settings::load(&connection(), &env(&[("TIDEGATE_FETCH_LIMITS", "no")])).unwrap_err().message;
        assert_eq!(told, "TIDEGATE_FETCH_LIMITS: `no` is neither true nor false");
    }

    #[test]
    fn time_outs_retries_and_breaker_come_from_file_and_environment() {
        let (_folder, in_file) = file(
            "[timeouts]\nread = \"3s\"\n[retries]\nmax = 2\nbudget = 50\n[breaker]\nthreshold = 7\ncool_down = \"10m\"\n",
        );
        let set = [
            ("TIDEGATE_TIMEOUTS_READ", "4s"),
            ("TIDEGATE_TIMEOUTS_BULK", "2m"),
            ("TIDEGATE_RETRIES_MAX", "0"),
        ];
        let config = Settings::load(&in_file, &env(&set)).unwrap().upstream().unwrap();
        let timeouts = config.profile.timeouts;
        assert_eq!((timeouts.read, timeouts.bulk), (Duration::from_secs(4), Duration::from_mins(2)));
        assert_eq!((timeouts.connect, timeouts.write), (Duration::from_secs(5), Duration::from_secs(30)));
        assert_eq!((config.max_retries, config.budget.capacity, config.budget.light), (0, 50, 5));
        let ten = Duration::from_mins(10);
        let expected = BreakerConfig { threshold: 7, cool_down: ten, longest_cool_down: ten };
        assert_eq!(config.breaker, expected, "the longest is not shorter than the first");
    }

    #[test]
    fn a_connection_is_not_waited_for_longer_than_an_attempt_is_put_off() {
        let told = |pairs: &[(&str, &str)]| Settings::load(&connection(), &env(pairs)).unwrap().upstream();
        let refused = told(&[("TIDEGATE_TIMEOUTS_CONNECT", "90s")]).map(drop).unwrap_err().message;
        assert!(refused.starts_with("timeouts.connect: 90s is above the backoff cap of 60s"), "{refused}");
        assert!(told(&[("TIDEGATE_TIMEOUTS_CONNECT", "60s")]).is_ok());
    }

    #[test]
    fn numbers_out_of_range_are_told_with_their_place() {
        let (_folder, in_file) =
            file("[breaker]\nthreshold = 0\ncool_down = \"soon\"\n[retries]\nmax = 101\n");
        let set = [("TIDEGATE_BREAKER_THRESHOLD", "many")];
        let told = Settings::load(&in_file, &env(&set)).unwrap_err().message;
        for part in [
            "tidegate.toml:2: breaker.threshold: ",
            "tidegate.toml:3: breaker.cool_down: `soon` is no duration",
            "tidegate.toml:5: retries.max: ",
            "TIDEGATE_BREAKER_THRESHOLD: `many` is no whole number from 1 to 100",
        ] {
            assert!(told.contains(part), "{part} is missing in:\n{told}");
        }
        let (_folder, in_file) = file("[breaker]\nlongest_cool_down = \"10s\"\n");
        let told = Settings::load(&in_file, &env(&[])).unwrap().upstream().unwrap_err().message;
        assert!(
            told.contains("breaker.longest_cool_down: 10s is shorter than the first cool-down of 30s"),
            "{told}"
        );
    }

    #[test]
    fn a_region_by_flag_is_not_overridden_by_an_address_of_the_file() {
        let (_folder, in_file) = file("api = \"https://api.example.com\"\n");
        let flagged = Connection { region: Some("eu-central-1".to_owned()), ..in_file };
        assert_eq!(api(&flagged, &[]), "https://api.mypurecloud.de");
    }

    #[test]
    fn an_api_without_a_login_host_serves_both() {
        let (_folder, in_file) = file("api = \"http://127.0.0.1:8790\"\n");
        let upstream = Settings::load(&in_file, &env(&[])).unwrap().upstream().unwrap();
        assert_eq!(upstream.login, "http://127.0.0.1:8790");
    }

    #[test]
    fn all_problems_of_file_and_environment_are_told_at_once() {
        let (_folder, in_file) = file(
            "regoin = \"x\"\nmax_wait = \"14\"\nlisten = \"here\"\n[credential]\nclient_secret = \"hunter2\"\n[[limit]]\nkey = \"users\"\n",
        );
        let set = [("TIDEGATE_ADMIN", "8788"), ("TIDEGATE_MAX_WAIT", "0s")];
        let told = Settings::load(&in_file, &env(&set)).unwrap_err().message;
        for part in [
            "tidegate.toml:1: regoin: is not a known key (did you mean `region`?)",
            "tidegate.toml:2: max_wait: `14` is no duration (write a number and ms, s, m, h or d, such as \"5s\")",
            "tidegate.toml:3: listen: `here` is not an address (write it like 127.0.0.1:8787)",
            "tidegate.toml:5: credential.client_secret: secrets do not belong into this file",
            "has neither a quota nor `concurrent`",
            "TIDEGATE_ADMIN: `8788` is not an address",
            "TIDEGATE_MAX_WAIT: is zero",
        ] {
            assert!(told.contains(part), "{part} is missing in:\n{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn policies_of_classes_come_from_file_and_environment() {
        let (_folder, in_file) =
            file("[class.bulk]\npolicy = \"greedy\"\nreserve = 80\n[class.poll]\nreserve = 0\n");
        let set = [("TIDEGATE_CLASS_BULK_RESERVE", "40")];
        let policies = Settings::load(&in_file, &env(&set)).unwrap().upstream().unwrap().policies;
        let [interactive, sync, bulk, poll] = policies;
        assert_eq!((interactive, sync), (ClassPolicy::GREEDY, ClassPolicy::GREEDY));
        assert_eq!(bulk, ClassPolicy { taking: Taking::Greedy, reserve: 40 });
        assert_eq!(poll, ClassPolicy { taking: Taking::Fair, reserve: 0 }, "what is not set stays");
    }

    #[test]
    fn wrong_policies_are_told_with_their_place() {
        let (_folder, in_file) =
            file("[class.bulk]\npolicy = \"polite\"\nreserve = -1\n[class.blk]\nreserve = 1\n");
        let set = [("TIDEGATE_CLASS_POLL_RESERVE", "ten")];
        let told = Settings::load(&in_file, &env(&set)).unwrap_err().message;
        for part in [
            "tidegate.toml:2: class.bulk.policy: `polite` is not a policy (write greedy or fair)",
            "tidegate.toml:3: class.bulk.reserve:",
            "tidegate.toml:4: class.blk: is not a known key (did you mean `bulk`?)",
            "TIDEGATE_CLASS_POLL_RESERVE: `ten` is no number of permits",
        ] {
            assert!(told.contains(part), "{part} is missing in:\n{told}");
        }
    }

    #[test]
    fn a_reserve_is_no_policy_but_a_key_of_its_own() {
        let (_folder, in_file) = file("[class.bulk]\npolicy = \"reserve\"\n");
        let told = Settings::load(&in_file, &env(&[])).unwrap_err().message;
        assert!(told.contains("(write greedy or fair; `reserve` is a key of its own, such as"), "{told}");
    }

    #[test]
    fn a_reserve_above_half_of_a_declared_quota_is_told_once_for_its_class() {
        let told = |text: &str| {
            let (_folder, in_file) = file(text);
            let settings = Settings::load(&in_file, &env(&[])).unwrap();
            settings.cut_reserves(&settings.upstream().unwrap())
        };
        let limit = "[[limit]]\nkey = \"users\"\nquota = 60\nwindow = \"60s\"\n";
        let generic = "profile = \"generic\"\napi = \"http://127.0.0.1:1\"\n";
        assert_eq!(
            told(&format!("{generic}[class.bulk]\nreserve = 80\n{limit}")),
            [
                "class.bulk.reserve = 80 is more than half of a quota, where only half is left: 30 of 60 (limit `users`)"
            ]
        );
        assert!(told(&format!("{generic}[class.bulk]\nreserve = 30\n{limit}")).is_empty(), "half is left");
        let small = limit.replace("60\n", "10\n");
        assert!(told(&format!("{generic}{small}")).is_empty(), "nobody set the ten of `poll`");
    }

    #[test]
    fn unknown_variables_are_told_with_all_other_problems() {
        let set = [
            ("TIDEGATE_CLAS_BULK_POLICY", "fair"),
            ("TIDEGATE_ADMIN", "8788"),
            ("TIDEGATE_HTTP2", "on"),
            ("TIDEGATE_REGOIN", ""),
        ];
        let told = Settings::load(&connection(), &env(&set)).unwrap_err().message;
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert_eq!(
            lines[0],
            "TIDEGATE_CLAS_BULK_POLICY: is not a known variable (did you mean `TIDEGATE_CLASS_BULK_POLICY`?)"
        );
        assert!(lines[1].starts_with("TIDEGATE_HTTP2: is not a known variable (remove it;"), "{told}");
        assert!(lines[2].starts_with("TIDEGATE_ADMIN: "), "{told}");
        let known = known_variables().map(|name| (name, "")).collect::<Vec<_>>();
        assert!(Settings::load(&connection(), &env(&known)).is_ok());
        let others = [("TIDEGATE_LOG", "debug"), ("TIDEGATE_TEST_BINARY", "/bin/tidegate")];
        assert!(Settings::load(&connection(), &env(&others)).is_ok());
    }

    #[test]
    fn place_and_credential_are_told_together() {
        let wrong = Connection {
            region: Some("mypurecloud.dd".to_owned()),
            client_id: Some("id".to_owned()),
            ..connection()
        };
        let told = Settings::load(&wrong, &env(&[])).unwrap().upstream().unwrap_err().message;
        assert_eq!(
            told,
            "region `mypurecloud.dd` is not one of profile `genesys` (did you mean `mypurecloud.de`?)\n\
             credential `default` has a client id but no secret: set GENESYSCLOUD_OAUTHCLIENT_SECRET or --client-secret-file"
        );
    }

    #[test]
    fn every_key_of_the_environment_has_a_form_of_its_own() {
        for key in KEYS {
            let form = format!("TIDEGATE_{}", key.name.replace('.', "_").to_uppercase());
            assert_eq!(key.env[0], form);
        }
    }

    #[test]
    fn state_is_kept_where_somebody_said_else_as_long_as_the_machine_runs() {
        let keep = |flag: Option<&str>, set: &[(&str, &str)]| {
            let settings = Settings::load(&connection(), &env(set)).unwrap();
            settings.keep_state(flag.map(PathBuf::from), &env(set))
        };
        let session = ("XDG_RUNTIME_DIR", "/run/user/1000");
        let managed = ("STATE_DIRECTORY", "/var/lib/tidegate:/var/lib/other");
        let usual = |dir: &str| KeepState::InIfFree(PathBuf::from(dir));
        assert_eq!(keep(None, &[]), KeepState::Nowhere);
        assert_eq!(keep(None, &[session]), usual("/run/user/1000/tidegate"));
        assert_eq!(keep(None, &[session, managed]), usual("/var/lib/tidegate"));
        assert_eq!(keep(Some("here"), &[managed]), KeepState::In(PathBuf::from("here")));
        assert_eq!(keep(Some("off"), &[managed]), KeepState::Nowhere);
        let set = [managed, ("TIDEGATE_STATE_DIR", "off"), ("TIDEGATE_STATE_UNKNOWN", "spent")];
        assert_eq!(keep(None, &set), KeepState::Nowhere);
        assert!(Settings::load(&connection(), &env(&set)).unwrap().upstream().unwrap().assume_spent);
        let told = Settings::load(&connection(), &env(&[("TIDEGATE_STATE_UNKNOWN", "none")])).unwrap_err();
        assert!(told.message.contains("neither fresh nor spent"), "{}", told.message);
    }

    #[test]
    fn keys_are_kept_where_somebody_said_else_where_the_gateway_was_started() {
        let keep = |flag: Option<&str>, set: &[(&str, &str)]| {
            let settings = Settings::load(&connection(), &env(set)).unwrap();
            settings.keep_keys(flag.map(PathBuf::from), &env(set), 8787)
        };
        let once_needed = |file: &str| KeepKeys::InOnceNeeded(PathBuf::from(file));
        let (managed, named) =
            (("STATE_DIRECTORY", "/var/lib/tidegate:/x"), ("TIDEGATE_STATE_FILE", "keys.db"));
        assert_eq!(keep(None, &[]), once_needed("tidegate-8787.db"));
        assert_eq!(keep(None, &[managed]), once_needed("/var/lib/tidegate/tidegate-8787.db"));
        assert_eq!(keep(None, &[managed, named]), KeepKeys::In(PathBuf::from("keys.db")));
        assert_eq!(keep(Some("here.db"), &[named]), KeepKeys::In(PathBuf::from("here.db")));
        assert_eq!(keep(Some("off"), &[named]), KeepKeys::InMemory);
    }

    #[test]
    fn every_key_and_variable_is_documented() {
        let text = include_str!("../../../docs/configuration.md");
        for key in KEYS {
            assert!(text.contains(&format!("`{}`", key.name)), "{}", key.name);
            key.env.iter().for_each(|name| assert!(text.contains(&format!("`{name}`")), "{name}"));
        }
        for name in SECRET_ENV.iter().chain(&OTHER_ENV) {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_secret_file_ends_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\r\n").unwrap();
        let with_file = Connection { client_secret_file: Some(path.clone()), ..connection() };
        let settings = Settings::load(&with_file, &env(&[("GENESYSCLOUD_OAUTHCLIENT_ID", "id")])).unwrap();
        assert_eq!(settings.upstream().unwrap().credential.unwrap().1.client_id(), "id");
        std::fs::write(&path, "\n").unwrap();
        let told = settings.upstream().unwrap_err().message;
        assert!(told.contains("is empty (write the secret into it)"), "{told}");
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_named() {
        use std::os::unix::ffi::OsStringExt as _;
        let read =
            [("TIDEGATE_TENANT".into(), std::ffi::OsString::from_vec(vec![0xff]))].into_iter().collect();
        assert_eq!(
            Settings::load(&connection(), &read).unwrap_err().message,
            "TIDEGATE_TENANT: is not UTF-8"
        );
    }
}
