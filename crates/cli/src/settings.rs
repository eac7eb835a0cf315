//! Settings from everywhere they can stand: flags win over the environment, the environment over `tidegate.toml`,
//! that over defaults. All problems of the file and of the environment are told at once, each with its place.

#[cfg(feature = "dynamodb")]
mod dynamodb;
mod gateway;
mod keys;
mod quota;
mod sources;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use tidegate_core::pace::LimitSpec;

use self::keys::{API, CLIENT_ID, CLIENT_SECRET_FILE, FETCH_LIMITS, Key, LOGIN, PROFILE, REGION};
use self::sources::{from_config, from_env};
use crate::args::Connection;
use crate::environment::Environment;
use crate::failure::{Failure, together};

pub(crate) use self::keys::wait;
pub(crate) use self::quota::{Stagger, unusable};

/// Everything that was set, as text by key, and what has no flag.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    texts: BTreeMap<&'static str, String>,
    limits: Vec<LimitSpec>,
    secret: Option<SecretString>,
    quota_password: Option<SecretString>,
    token_key: Option<SecretString>,
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
        settings.quota_password = environment.quota_password;
        settings.token_key = environment.token_key;
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

    /// A number that was set. Texts were checked when they were read.
    fn number(&self, key: &Key) -> Option<u32> {
        self.get(key).and_then(|text| text.parse().ok())
    }

    /// A duration that was set. Texts were checked when they were read.
    fn duration(&self, key: &Key) -> Option<Duration> {
        self.get(key).and_then(|text| wait(text).ok())
    }
}
