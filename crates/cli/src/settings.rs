//! Settings from everywhere they can stand: flags win over the environment, the environment over `tidegate.toml`,
//! that over defaults. All problems of the file and of the environment are told at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::key::{CredentialId, Tenant};
use tidegate_core::pace::LimitSpec;
use tidegate_core::profile::reader::{self, Section};
use tidegate_core::profile::{parse_duration, read_limits};
use tidegate_gateway::{DEFAULT_MAX_WAIT, Doors};

use crate::args::Connection;
use crate::failure::Failure;

/// The file that is read if it is there.
const DEFAULT_FILE: &str = "tidegate.toml";

/// One key of the configuration that has a flag or an environment form.
struct Key {
    /// As in the file; a dot separates the table.
    name: &'static str,
    /// Environment variables, first wins. The first is the key's own form, the others are Genesys'.
    env: &'static [&'static str],
}

const PROFILE: Key = Key { name: "profile", env: &["TIDEGATE_PROFILE"] };
const REGION: Key = Key { name: "region", env: &["TIDEGATE_REGION", "GENESYSCLOUD_REGION"] };
const API: Key = Key { name: "api", env: &["TIDEGATE_API"] };
const LOGIN: Key = Key { name: "login", env: &["TIDEGATE_LOGIN"] };
const TENANT: Key = Key { name: "tenant", env: &["TIDEGATE_TENANT"] };
const LISTEN: Key = Key { name: "listen", env: &["TIDEGATE_LISTEN"] };
const ADMIN: Key = Key { name: "admin", env: &["TIDEGATE_ADMIN"] };
const MAX_WAIT: Key = Key { name: "max_wait", env: &["TIDEGATE_MAX_WAIT"] };
const CREDENTIAL_NAME: Key = Key { name: "credential.name", env: &["TIDEGATE_CREDENTIAL_NAME"] };
const CLIENT_ID: Key = Key {
    name: "credential.client_id",
    env: &["TIDEGATE_CREDENTIAL_CLIENT_ID", "GENESYSCLOUD_OAUTHCLIENT_ID"],
};
const CLIENT_SECRET_FILE: Key =
    Key { name: "credential.client_secret_file", env: &["TIDEGATE_CREDENTIAL_CLIENT_SECRET_FILE"] };
const HOSTS: Key = Key { name: "gateway.hosts", env: &["TIDEGATE_GATEWAY_HOSTS"] };
const ORIGINS: Key = Key { name: "gateway.origins", env: &["TIDEGATE_GATEWAY_ORIGINS"] };

/// All keys with an environment form, in the order they are documented.
const KEYS: [&Key; 13] = [
    &PROFILE,
    &REGION,
    &API,
    &LOGIN,
    &TENANT,
    &LISTEN,
    &ADMIN,
    &MAX_WAIT,
    &CREDENTIAL_NAME,
    &CLIENT_ID,
    &CLIENT_SECRET_FILE,
    &HOSTS,
    &ORIGINS,
];

/// The client secret has no key in the file: a file with a secret in it ends up in a repository.
const SECRET_ENV: [&str; 2] = ["TIDEGATE_CREDENTIAL_CLIENT_SECRET", "GENESYSCLOUD_OAUTHCLIENT_SECRET"];

/// Everything that was set, as text by key, and what has no flag.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    texts: BTreeMap<&'static str, String>,
    limits: Vec<LimitSpec>,
    secret: Option<SecretString>,
}

impl Settings {
    /// Reads the file and the environment, and lays the flags over them.
    pub(crate) fn load(
        connection: &Connection,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let mut settings = match config_file(connection)? {
            None => Self::default(),
            Some((path, text)) => {
                reader::read(&text, &path.display().to_string(), from_file).map_err(Failure::usage)?
            }
        };
        for key in KEYS {
            if let Some(value) = key.env.iter().find_map(|name| env(name)) {
                settings.texts.insert(key.name, value);
            }
        }
        settings.secret = SECRET_ENV.iter().find_map(|name| env(name)).map(SecretString::from);
        let flags = [
            (&PROFILE, &connection.profile),
            (&REGION, &connection.region),
            (&API, &connection.api),
            (&LOGIN, &connection.login),
            (&CLIENT_ID, &connection.client_id),
        ];
        for (key, flag) in flags {
            settings.set(key, flag.clone());
        }
        let secret_file = connection.client_secret_file.as_ref().map(|path| path.display().to_string());
        settings.set(&CLIENT_SECRET_FILE, secret_file);
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

    /// The profile: a built-in one by name, or a file.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        let name = self.get(&PROFILE).unwrap_or("genesys");
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

    /// Where the upstream is and who calls it.
    pub(crate) fn upstream(&self) -> Result<UpstreamConfig, Failure> {
        let profile = self.profile()?;
        let (api, login) = self.hosts(&profile)?;
        let mut config = UpstreamConfig::new(Arc::new(profile), api, login);
        if let Some(tenant) = self.get(&TENANT) {
            config.tenant = Tenant::new(tenant);
        }
        config.limits.clone_from(&self.limits);
        config.credential = self.credential()?;
        Ok(config)
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
        let file_secret = match self.get(&CLIENT_SECRET_FILE) {
            Some(path) => {
                Some(SecretString::from(read(Path::new(path))?.trim_end_matches(['\r', '\n']).to_owned()))
            }
            None => None,
        };
        let secret = self.secret.clone().or(file_secret);
        let name = CredentialId::new(self.get(&CREDENTIAL_NAME).unwrap_or("default"));
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
            flag.map_or_else(|| text.parse(), Ok).map_err(|_| {
                Failure::usage(format!("{}: `{text}` is not an address (write it like {default})", key.name))
            })
        };
        Ok((addr(data, &LISTEN, "127.0.0.1:8787")?, addr(admin, &ADMIN, "127.0.0.1:8788")?))
    }

    /// The longest wait of a call through the gateway.
    pub(crate) fn max_wait(&self, flag: Option<Duration>) -> Result<Duration, Failure> {
        match (flag, self.get(&MAX_WAIT)) {
            (Some(max_wait), _) => Ok(max_wait),
            (None, None) => Ok(DEFAULT_MAX_WAIT),
            (None, Some(text)) => parse_duration(text)
                .map_err(|why| Failure::usage(format!("{}: `{text}` {why}", MAX_WAIT.name))),
        }
    }
}

fn unknown_region(profile: &Profile, region: &str) -> Failure {
    let regions = profile.regions.as_ref();
    let near = regions.and_then(|regions| regions.nearest(region));
    let hint = near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
    Failure::usage(format!("region `{region}` is not one of profile `{}`{hint}", profile.name))
}

fn config_file(connection: &Connection) -> Result<Option<(PathBuf, String)>, Failure> {
    let path = match &connection.config {
        Some(path) => path.clone(),
        None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(None),
    };
    let text = read(&path)?;
    Ok(Some((path, text)))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

fn from_file(file: &Section<'_>) -> Settings {
    let mut settings = Settings::default();
    for key in [&PROFILE, &REGION, &API, &LOGIN, &TENANT] {
        settings.set(key, file.string(key.name));
    }
    for key in [&LISTEN, &ADMIN] {
        let addr: Option<SocketAddr> = file
            .parsed(key.name, |text| text.parse().map_err(|_| "is not an address (write 127.0.0.1:8787)"));
        settings.set(key, addr.map(|addr| addr.to_string()));
    }
    let max_wait = file.duration_above_zero(MAX_WAIT.name);
    settings.set(&MAX_WAIT, max_wait.map(|wait| format!("{}ms", wait.as_millis())));
    if let Some(credential) = file.section("credential") {
        for key in [&CREDENTIAL_NAME, &CLIENT_ID, &CLIENT_SECRET_FILE] {
            settings.set(key, credential.string(last(key.name)));
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
    settings.limits = read_limits(file);
    settings
}

fn last(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}
