//! Settings from everywhere they can stand: flags win over the environment, the environment over `tidegate.toml`,
//! that over defaults. All problems of the file and of the environment are told at once, each with its place.

mod calendar;
mod callers;
mod credential;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod gateway;
mod keys;
mod merging;
mod outbox;
mod push;
mod quota;
mod sources;
mod tenants;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use tidegate_core::cache::FreshRule;
use tidegate_core::calendar::Calendar;
use tidegate_core::merge::MergeRule;
use tidegate_core::pace::LimitSpec;
use tidegate_gateway::{CallerConfig, HookConfig, RouteRule, SinkConfig};

use self::credential::{Configured, OfClasses};
use self::keys::{API, CLIENT_ID, CLIENT_SECRET_FILE, FETCH_LIMITS, Key, LOGIN, PROFILE, REGION, TENANT};
use self::sources::{from_config, from_env};
use self::tenants::TenantTable;
use crate::args::Connection;
use crate::environment::Environment;
use crate::failure::{Failure, together};

pub(crate) use self::keys::{KEY_ENV, wait};
pub(crate) use self::quota::{Stagger, unusable};
pub(crate) use self::upstream::Profiles;

/// What was set, by key.
type Texts = BTreeMap<&'static str, String>;

/// Everything that was set, as text by key, and what has no flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    texts: Texts,
    /// What flags said, where it is not laid over the rest yet: they win over the table of a tenant too.
    flags: Texts,
    limits: Vec<LimitSpec>,
    fresh: Vec<FreshRule>,
    /// Further rules for merging.
    merges: Vec<MergeRule>,
    tenants: Vec<TenantTable>,
    callers: Vec<CallerConfig>,
    hooks: Vec<HookConfig>,
    routes: Vec<RouteRule>,
    sinks: Vec<SinkConfig>,
    /// The credential of a tenant's table.
    credential: Option<Configured>,
    class_credentials: OfClasses,
    /// The file's; the environment's go before them.
    windows: Calendar,
    secret: Option<SecretString>,
    quota_password: Option<SecretString>,
    token_key: Option<SecretString>,
}

impl Settings {
    /// What holds for the one tenant that a command is about: the file and the environment, with the flags over them.
    ///
    /// # Errors
    /// Every problem of both; or it cannot be told which tenant is meant.
    pub(crate) fn load(connection: &Connection, env: &Environment) -> Result<Self, Failure> {
        Self::load_all(connection, env)?.of_one()
    }

    /// Reads the file and the environment. Flags are kept apart until a tenant is chosen.
    ///
    /// # Errors
    /// Every problem of both.
    pub(crate) fn load_all(connection: &Connection, env: &Environment) -> Result<Self, Failure> {
        let (mut settings, environment) = together((from_config(connection, env), from_env(env)))?;
        settings.texts.extend(environment.texts);
        settings.secret = environment.secret;
        settings.quota_password = environment.quota_password;
        settings.token_key = environment.token_key;
        settings.set(&TENANT, connection.tenant.clone());
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
        settings.flags = flags.into_iter().filter_map(|(key, flag)| Some((key.name, flag?))).collect();
        Ok(settings)
    }

    /// Lays the flags over the rest.
    fn lay_flags(&mut self) {
        let flags = std::mem::take(&mut self.flags);
        // A place named by a stronger source replaces the whole place: an API from a flag and a region from a file
        // would otherwise name two organisations.
        if flags.contains_key(REGION.name) && !flags.contains_key(API.name) {
            self.texts.remove(API.name);
            self.texts.remove(LOGIN.name);
        }
        if flags.contains_key(CLIENT_ID.name) {
            self.credential = None;
        }
        self.texts.extend(flags);
    }

    fn set(&mut self, key: &Key, value: Option<String>) {
        if let Some(value) = value {
            self.texts.insert(key.name, value);
        }
    }

    fn get(&self, key: &Key) -> Option<&str> {
        self.texts.get(key.name).map(String::as_str)
    }

    /// A number that was set. Texts were checked when they were read.
    fn number(&self, key: &Key) -> Option<u32> {
        self.get(key).and_then(|text| text.parse().ok())
    }

    /// A duration that was set. Texts were checked when they were read.
    fn duration(&self, key: &Key) -> Option<Duration> {
        self.get(key).and_then(|text| wait(text).ok())
    }
}
