//! A table of DynamoDB as the place where a quota is shared.

use tidegate_quota_dynamodb::{DynamoConfig, DynamoStore};

use super::Settings;
use super::keys::{
    DYNAMODB, Key, QUOTA_CA_FILE, QUOTA_PASSWORD_ENV, QUOTA_PASSWORD_FILE, QUOTA_PREFIX, QUOTA_STORE,
    QUOTA_TIMEOUT, QUOTA_USER,
};
use super::quota::unusable;
use crate::failure::Failure;

/// Whether an address is one of a table.
pub(super) fn is_meant(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme == DYNAMODB)
}

impl Settings {
    /// The table that `quota.store` names; `None`: it names something else.
    ///
    /// # Errors
    /// What cannot be used. Nothing is asked of DynamoDB yet.
    pub(crate) fn table(&self) -> Result<Option<DynamoStore>, Failure> {
        self.get(&QUOTA_STORE).filter(|url| is_meant(url)).map(|url| self.dynamodb(url)).transpose()
    }

    pub(super) fn dynamodb(&self, url: &str) -> Result<DynamoStore, Failure> {
        let no_key_of_its = |key: &&Key| self.get(key).is_some();
        let mut strange: Vec<&str> = [&QUOTA_USER, &QUOTA_PASSWORD_FILE, &QUOTA_CA_FILE]
            .into_iter()
            .filter(no_key_of_its)
            .map(|key| key.name)
            .collect();
        if self.quota_password.is_some() {
            strange.push(QUOTA_PASSWORD_ENV);
        }
        if !strange.is_empty() {
            return Err(Failure::usage(format!(
                "{}: leave out for DynamoDB, which takes its credentials from AWS's own configuration",
                strange.join(", ")
            )));
        }
        let mut config = DynamoConfig::parse(url).map_err(|error| unusable(&error))?;
        if let Some(prefix) = self.get(&QUOTA_PREFIX) {
            prefix.clone_into(&mut config.prefix);
        }
        config.timeout = self.duration(&QUOTA_TIMEOUT).unwrap_or(config.timeout);
        DynamoStore::new(config).map_err(|error| unusable(&error))
    }
}
