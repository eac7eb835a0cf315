//! The keys that a setting can have, with their environment forms and what their text has to be.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_core::pace::{Class, Taking};
use tidegate_core::profile::parse_duration;

/// Names the configuration file where no flag does.
pub(super) const CONFIG_ENV: &str = "TIDEGATE_CONFIG";

/// One key of the configuration that has an environment form.
pub(super) struct Key {
    /// As in the file; a dot separates the table.
    pub(super) name: &'static str,
    /// Environment variables, first wins. The first is the key's own form, the others are Genesys'.
    pub(super) env: &'static [&'static str],
    /// What its text has to be, wherever it stands: what is wrong with it, and in parentheses what to write.
    pub(super) check: fn(&str) -> Result<(), String>,
}

pub(super) const PROFILE: Key = Key { name: "profile", env: &["TIDEGATE_PROFILE"], check: some };
pub(super) const REGION: Key =
    Key { name: "region", env: &["TIDEGATE_REGION", "GENESYSCLOUD_REGION"], check: some };
pub(super) const API: Key = Key { name: "api", env: &["TIDEGATE_API"], check: some };
pub(super) const LOGIN: Key = Key { name: "login", env: &["TIDEGATE_LOGIN"], check: some };
pub(super) const TENANT: Key = Key { name: "tenant", env: &["TIDEGATE_TENANT"], check: some };
pub(super) const LISTEN: Key = Key { name: "listen", env: &["TIDEGATE_LISTEN"], check: address };
pub(super) const ADMIN: Key = Key { name: "admin", env: &["TIDEGATE_ADMIN"], check: address };
pub(super) const MAX_WAIT: Key = Key { name: "max_wait", env: &["TIDEGATE_MAX_WAIT"], check: some_wait };
pub(super) const FETCH_LIMITS: Key =
    Key { name: "fetch_limits", env: &["TIDEGATE_FETCH_LIMITS"], check: on_or_off };
pub(super) const CREDENTIAL_NAME: Key =
    Key { name: "credential.name", env: &["TIDEGATE_CREDENTIAL_NAME"], check: some };
pub(super) const CLIENT_ID: Key = Key {
    name: "credential.client_id",
    env: &["TIDEGATE_CREDENTIAL_CLIENT_ID", "GENESYSCLOUD_OAUTHCLIENT_ID"],
    check: some,
};
pub(super) const CLIENT_SECRET_FILE: Key = Key {
    name: "credential.client_secret_file",
    env: &["TIDEGATE_CREDENTIAL_CLIENT_SECRET_FILE"],
    check: some,
};
pub(super) const HOSTS: Key = Key { name: "gateway.hosts", env: &["TIDEGATE_GATEWAY_HOSTS"], check: some };
pub(super) const ORIGINS: Key =
    Key { name: "gateway.origins", env: &["TIDEGATE_GATEWAY_ORIGINS"], check: some };
pub(super) const INTERACTIVE_POLICY: Key =
    Key { name: "class.interactive.policy", env: &["TIDEGATE_CLASS_INTERACTIVE_POLICY"], check: policy };
pub(super) const INTERACTIVE_RESERVE: Key =
    Key { name: "class.interactive.reserve", env: &["TIDEGATE_CLASS_INTERACTIVE_RESERVE"], check: permits };
pub(super) const SYNC_POLICY: Key =
    Key { name: "class.sync.policy", env: &["TIDEGATE_CLASS_SYNC_POLICY"], check: policy };
pub(super) const SYNC_RESERVE: Key =
    Key { name: "class.sync.reserve", env: &["TIDEGATE_CLASS_SYNC_RESERVE"], check: permits };
pub(super) const BULK_POLICY: Key =
    Key { name: "class.bulk.policy", env: &["TIDEGATE_CLASS_BULK_POLICY"], check: policy };
pub(super) const BULK_RESERVE: Key =
    Key { name: "class.bulk.reserve", env: &["TIDEGATE_CLASS_BULK_RESERVE"], check: permits };
pub(super) const POLL_POLICY: Key =
    Key { name: "class.poll.policy", env: &["TIDEGATE_CLASS_POLL_POLICY"], check: policy };
pub(super) const POLL_RESERVE: Key =
    Key { name: "class.poll.reserve", env: &["TIDEGATE_CLASS_POLL_RESERVE"], check: permits };

/// The policy of each class, and what it always leaves, by [`Class::ALL`].
pub(super) const CLASSES: [(&Key, &Key); Class::COUNT] = [
    (&INTERACTIVE_POLICY, &INTERACTIVE_RESERVE),
    (&SYNC_POLICY, &SYNC_RESERVE),
    (&BULK_POLICY, &BULK_RESERVE),
    (&POLL_POLICY, &POLL_RESERVE),
];

pub(super) const STATE_DIR: Key = Key { name: "state.dir", env: &["TIDEGATE_STATE_DIR"], check: some };
pub(super) const STATE_UNKNOWN: Key =
    Key { name: "state.unknown", env: &["TIDEGATE_STATE_UNKNOWN"], check: fresh_or_spent };

/// All keys with an environment form, in the order they are documented.
pub(super) const KEYS: [&Key; 24] = [
    &PROFILE,
    &REGION,
    &API,
    &LOGIN,
    &TENANT,
    &LISTEN,
    &ADMIN,
    &MAX_WAIT,
    &FETCH_LIMITS,
    &CREDENTIAL_NAME,
    &CLIENT_ID,
    &CLIENT_SECRET_FILE,
    &HOSTS,
    &ORIGINS,
    &INTERACTIVE_POLICY,
    &INTERACTIVE_RESERVE,
    &SYNC_POLICY,
    &SYNC_RESERVE,
    &BULK_POLICY,
    &BULK_RESERVE,
    &POLL_POLICY,
    &POLL_RESERVE,
    &STATE_DIR,
    &STATE_UNKNOWN,
];

/// The client secret has no key in the file: a file with a secret in it ends up in a repository.
pub(super) const SECRET_ENV: [&str; 2] =
    ["TIDEGATE_CREDENTIAL_CLIENT_SECRET", "GENESYSCLOUD_OAUTHCLIENT_SECRET"];

/// Variables that are no key: where the file is, what is logged, and which program the tools of the project drive.
pub(super) const OTHER_ENV: [&str; 3] = [CONFIG_ENV, "TIDEGATE_LOG", "TIDEGATE_TEST_BINARY"];

pub(super) fn some(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("is empty (write a value, or leave the key out)".to_owned())
    } else {
        Ok(())
    }
}

pub(super) fn address(text: &str) -> Result<(), String> {
    let parsed: Result<SocketAddr, _> = text.parse();
    parsed.map(drop).map_err(|_| format!("`{text}` is not an address (write it like 127.0.0.1:8787)"))
}

/// The longest wait of a call, wherever it is set.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("is zero (write a duration above zero, such as \"14s\")".to_owned()),
        wait => Ok(wait),
    }
}

pub(super) fn some_wait(text: &str) -> Result<(), String> {
    wait(text).map(drop)
}

pub(super) fn policy(text: &str) -> Result<(), String> {
    if text == "reserve" {
        return Err(
            "`reserve` is not a policy (write greedy or fair; `reserve` is a key of its own, such as reserve = 80)"
                .to_owned(),
        );
    }
    text.parse().map(|_: Taking| ()).map_err(|what| format!("`{text}` {what}"))
}

pub(super) fn permits(text: &str) -> Result<(), String> {
    let parsed: Result<u64, _> = text.parse();
    parsed
        .map(drop)
        .map_err(|_| format!("`{text}` is no number of permits (write a whole number, such as 80)"))
}

pub(super) fn fresh_or_spent(text: &str) -> Result<(), String> {
    match text {
        "fresh" | "spent" => Ok(()),
        _ => Err(format!("`{text}` is neither fresh nor spent")),
    }
}

pub(super) fn on_or_off(text: &str) -> Result<(), String> {
    match text {
        "true" | "false" => Ok(()),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}
