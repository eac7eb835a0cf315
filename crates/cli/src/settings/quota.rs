//! The table `quota`: where the quota is shared with other processes, and how this one takes part.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tidegate::UpstreamConfig;
use tidegate::share::{ShareConfig, SharedQuota, Store, StoreError, TokenKey, new_holder};
use tidegate_core::pace::{LimitSpec, Partition};
use tidegate_core::profile::reader::Section;
use tidegate_quota_redis::{RedisConfig, RedisStore};

use super::Settings;
use super::keys::{
    INSTANCES, MAX_INSTANCES, ON_STORE_LOSS, QUOTA_CA_FILE, QUOTA_PASSWORD_ENV, QUOTA_PASSWORD_FILE,
    QUOTA_PREFIX, QUOTA_STORE, QUOTA_TEXTS, QUOTA_TIMEOUT, QUOTA_USER, STAGGER, TOKEN_KEY_ENV,
    TOKEN_KEY_FILE, loss, stagger, store_without_password,
};
use super::sources::{last, secret_in};
use crate::failure::{Failure, together};

/// Processes that take part at most, unless something else is said.
const DEFAULT_INSTANCES: u32 = 64;

/// By how much starts are spread, unless something else is said.
const DEFAULT_STAGGER: Stagger = Stagger { least: Duration::from_secs(1), most: Duration::from_secs(5) };

/// The shortest and the longest wait before a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stagger {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

/// Reads the table of the file.
pub(super) fn read(section: &Section<'_>, settings: &mut Settings) {
    for key in QUOTA_TEXTS {
        let check = if key.name == QUOTA_STORE.name { store_without_password } else { key.check };
        let text = section.parsed(last(key.name), |text| check(text).map(|()| text.to_owned()));
        settings.set(key, text);
    }
    let instances = section.integer(last(MAX_INSTANCES.name), &INSTANCES);
    settings.set(&MAX_INSTANCES, instances.map(|number| number.to_string()));
    for (secret, env, file) in [
        ("password", QUOTA_PASSWORD_ENV, QUOTA_PASSWORD_FILE.name),
        ("token_key", TOKEN_KEY_ENV, TOKEN_KEY_FILE.name),
    ] {
        let told = format!("secrets do not belong into this file (set {env}, or name a {file})");
        section.refuse(secret, told);
    }
}

/// What to say where the fleet has one token: what is granted per token is then granted once.
pub(super) fn per_token(config: &UpstreamConfig) -> Option<String> {
    let sharing = config.quota.as_ref()?;
    sharing.token_key.as_ref()?;
    let replaced = |limit: &LimitSpec| config.limits.iter().any(|own| own.key == limit.key);
    let declared = config.profile.limits.iter().filter(|limit| !replaced(limit)).chain(&config.limits);
    let per_token: Vec<String> = declared
        .filter(|limit| limit.per.contains(&Partition::Token))
        .map(|limit| format!("`{}`", limit.key))
        .collect();
    (!per_token.is_empty()).then(|| {
        format!(
            "{} gives the whole fleet one token, so what is granted per token is granted once and not to each instance: {}",
            TOKEN_KEY_FILE.name,
            per_token.join(", ")
        )
    })
}

impl Settings {
    /// Where the quota is shared, and how; `None`: it is this process's alone.
    ///
    /// # Errors
    /// What cannot be used. The store is not asked for anything yet.
    pub(super) fn quota(&self) -> Result<Option<SharedQuota>, Failure> {
        let Some(url) = self.get(&QUOTA_STORE).filter(|_| self.shares()) else {
            if let Some(told) = self.unused_quota() {
                tracing::warn!(target: "tidegate", "{told}");
            }
            return Ok(None);
        };
        let (store, token_key) = together((self.store(url), self.token_key()))?;
        let config = ShareConfig {
            holder: new_holder(),
            on_store_loss: self.get(&ON_STORE_LOSS).and_then(|text| loss(text).ok()).unwrap_or_default(),
            max_instances: self.number(&MAX_INSTANCES).unwrap_or(DEFAULT_INSTANCES),
            tokens_shared: token_key.is_some(),
        };
        Ok(Some(SharedQuota { store, config, token_key }))
    }

    /// Whether the quota is shared at all.
    pub(crate) fn shares(&self) -> bool {
        self.get(&QUOTA_STORE).is_some_and(|url| url != "memory")
    }

    /// What to say where keys of the table are set that have no effect without a store.
    fn unused_quota(&self) -> Option<String> {
        let keys = QUOTA_TEXTS.into_iter().chain([&MAX_INSTANCES]).filter(|key| key.name != QUOTA_STORE.name);
        let mut unused: Vec<&str> = keys.filter(|key| self.get(key).is_some()).map(|key| key.name).collect();
        unused.extend(self.quota_password.is_some().then_some(QUOTA_PASSWORD_ENV));
        unused.extend(self.token_key.is_some().then_some(TOKEN_KEY_ENV));
        (!unused.is_empty()).then(|| {
            format!(
                "{} is `memory`, so the quota is this process's alone and of no effect are: {}",
                QUOTA_STORE.name,
                unused.join(", ")
            )
        })
    }

    /// By how much starts of runs and exports are spread where the quota is shared; `None`: they are not.
    pub(crate) fn stagger(&self) -> Option<Stagger> {
        match self.get(&STAGGER).and_then(|text| stagger(text).ok()) {
            Some(range) => range.map(|(least, most)| Stagger { least, most }),
            None => Some(DEFAULT_STAGGER),
        }
    }

    fn store(&self, url: &str) -> Result<Arc<dyn Store>, Failure> {
        #[cfg(feature = "dynamodb")]
        if super::dynamodb::is_meant(url) {
            return Ok(Arc::new(self.dynamodb(url)?));
        }
        self.redis(url)
    }

    fn redis(&self, url: &str) -> Result<Arc<dyn Store>, Failure> {
        let mut config = RedisConfig::new(url);
        config.user = self.get(&QUOTA_USER).map(str::to_owned);
        let ca = self.get(&QUOTA_CA_FILE).map(|path| {
            std::fs::read(path).map_err(|error| {
                Failure::usage(format!("{}: cannot read {path}: {error}", QUOTA_CA_FILE.name))
            })
        });
        let password = match (&self.quota_password, self.get(&QUOTA_PASSWORD_FILE)) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(path)) => secret_in(path, QUOTA_PASSWORD_FILE.name).map(Some),
            (None, None) => Ok(None),
        };
        (config.ca, config.password) = together((ca.transpose(), password))?;
        if let Some(prefix) = self.get(&QUOTA_PREFIX) {
            prefix.clone_into(&mut config.prefix);
        }
        config.timeout = self.duration(&QUOTA_TIMEOUT).unwrap_or(config.timeout);
        let store = RedisStore::new(config).map_err(|error| unusable(&error))?;
        Ok(Arc::new(store))
    }

    /// What seals tokens.
    fn token_key(&self) -> Result<Option<TokenKey>, Failure> {
        let (secret, from) = match (&self.token_key, self.get(&TOKEN_KEY_FILE)) {
            (Some(secret), _) => (secret.clone(), TOKEN_KEY_ENV),
            (None, Some(path)) => (secret_in(path, TOKEN_KEY_FILE.name)?, TOKEN_KEY_FILE.name),
            (None, None) => return Ok(None),
        };
        let key = TokenKey::from_secret(secret.expose_secret().as_bytes());
        key.map(Some).map_err(|problem| Failure::usage(format!("{from}: the secret {problem}")))
    }
}

/// A store that cannot be used as it is set up.
pub(crate) fn unusable(error: &StoreError) -> Failure {
    Failure::usage(format!("{}: {error}", QUOTA_STORE.name))
}
